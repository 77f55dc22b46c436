//! The news that the user wants an end: what was made for a run is taken away again.

use std::sync::atomic::{AtomicBool, Ordering};

use anyhow::{Result, ensure};

static RAISED: AtomicBool = AtomicBool::new(false);

/// Exit code after a second signal, as of a shell.
const INTERRUPTED: i32 = 130;

/// Listens for SIGINT and SIGTERM from now on. A second one ends the program at once.
///
/// # Errors
/// What the system says.
pub(crate) fn watch() -> Result<()> {
    use tokio::signal::unix::{SignalKind, signal};
    let mut interrupt = signal(SignalKind::interrupt())?;
    let mut terminate = signal(SignalKind::terminate())?;
    tokio::spawn(async move {
        for turn in 0.. {
            tokio::select! {
                _ = interrupt.recv() => {}
                _ = terminate.recv() => {}
            }
            if turn > 0 {
                std::process::exit(INTERRUPTED);
            }
            RAISED.store(true, Ordering::Release);
            eprintln!("bench: stopping");
        }
    });
    Ok(())
}

/// Whether a signal has come.
#[must_use]
pub(crate) fn raised() -> bool {
    RAISED.load(Ordering::Acquire)
}

/// Ends what is under way once a signal has come.
///
/// # Errors
/// Then.
pub(crate) fn check() -> Result<()> {
    ensure!(!raised(), "interrupted");
    Ok(())
}
