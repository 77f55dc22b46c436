//! The start of a reign.

use std::time::Duration;

use catalog::{CatalogError, ErrorKind};
use wire::WriterId;
use wire::control::ControlEntry;

use super::control::Control;
use crate::clock;
use crate::logic;

/// A reign that is in the control chain.
#[derive(Debug)]
pub(crate) struct Begun {
    pub(crate) entry: ControlEntry,
    /// When the create that was the last to tell began.
    pub(crate) since_ns: u64,
    /// How long it took.
    pub(crate) took_ns: u64,
}

/// Begins a reign behind whatever the chain ends with (S-4).
///
/// # Errors
/// Whatever is not cured by trying again. Kind `Fenced`: another sequencer began a reign at the same time.
pub(crate) async fn begin<C: Control>(
    control: &C,
    owner: WriterId,
    window: u64,
) -> Result<Begun, CatalogError> {
    let last = retried("read the control chain", || control.last()).await?;
    begin_behind(control, &last, owner, window).await
}

/// Begins a reign behind an entry that was the chain's last when it was read.
///
/// # Errors
/// As [`begin`]. Kind `Fenced`: the chain has gone on.
pub(crate) async fn begin_behind<C: Control>(
    control: &C,
    last: &ControlEntry,
    owner: WriterId,
    window: u64,
) -> Result<Begun, CatalogError> {
    let entry = logic::begin(last, owner, window);
    let since_ns = clock::now_ns();
    append(control, &entry).await?;
    let took_ns = clock::now_ns().saturating_sub(since_ns);
    Ok(Begun {
        entry,
        since_ns,
        took_ns,
    })
}

/// Appends an entry, however often it takes to know that it is there.
pub(crate) async fn append<C: Control>(
    control: &C,
    entry: &ControlEntry,
) -> Result<(), CatalogError> {
    // [S-3] After a doubtful answer only the same entry may follow.
    retried("append to the control chain", || control.append(entry)).await
}

/// Repeats a call while it fails with `Retry`.
pub(crate) async fn retried<T, F>(
    what: &'static str,
    mut call: impl FnMut() -> F,
) -> Result<T, CatalogError>
where
    F: Future<Output = Result<T, CatalogError>>,
{
    let mut pause = Backoff::default();
    loop {
        match call().await {
            Err(error) if error.kind() == ErrorKind::Retry => {
                tracing::warn!(%error, attempts = pause.attempts(), "cannot {what}: trying again");
                pause.wait().await;
            }
            outcome => return outcome,
        }
    }
}

/// Pauses that double, within limits.
#[derive(Debug, Default)]
pub(crate) struct Backoff {
    attempts: u32,
}

const FIRST_PAUSE_MS: u64 = 50;
const LONGEST_PAUSE_MS: u64 = 2_000;

impl Backoff {
    /// Attempts so far, with the one that has just failed.
    pub(crate) fn attempts(&self) -> u32 {
        self.attempts.saturating_add(1)
    }

    /// The pause before the next attempt.
    pub(crate) fn next_pause(&mut self) -> Duration {
        let pause_ms = FIRST_PAUSE_MS << self.attempts.min(10);
        self.attempts = self.attempts();
        Duration::from_millis(pause_ms.min(LONGEST_PAUSE_MS))
    }

    pub(crate) async fn wait(&mut self) {
        tokio::time::sleep(self.next_pause()).await;
    }
}
