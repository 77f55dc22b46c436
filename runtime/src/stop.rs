//! The signal to stop.

use std::io;

use tokio::signal::unix::{Signal, SignalKind, signal as listen};

/// Resolves to the signal's name at the first SIGTERM or SIGINT after this call, however late it is
/// polled. From this call on neither of them ends the process by itself. Call it within a runtime.
///
/// # Errors
/// What the system says if it does not let the process handle them.
pub fn signal() -> io::Result<impl Future<Output = &'static str> + Send + 'static> {
    let terminate = listen(SignalKind::terminate())?;
    let interrupt = listen(SignalKind::interrupt())?;
    Ok(first(terminate, interrupt))
}

async fn first(mut terminate: Signal, mut interrupt: Signal) -> &'static str {
    tokio::select! {
        _ = terminate.recv() => "SIGTERM",
        _ = interrupt.recv() => "SIGINT",
    }
}

#[cfg(test)]
mod tests {
    use std::process::Command;

    use super::*;

    #[tokio::test]
    async fn sigterm_before_the_first_poll_counts() {
        let stop = signal().expect("may handle signals");
        let pid = std::process::id().to_string();
        let sent = Command::new("kill").args(["-TERM", &pid]).status();
        assert!(sent.expect("kill is there").success());
        assert_eq!(stop.await, "SIGTERM");
    }
}
