//! How long nothing is acknowledged.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use anyhow::{Context, Result};

/// Time between two looks: what a pause is measured to.
const LOOK_EVERY: Duration = Duration::from_millis(1);

/// Watches a counter that grows while all is well, in a thread of its own.
#[derive(Debug)]
pub(crate) struct Pauses {
    shared: Arc<Shared>,
    thread: Option<JoinHandle<()>>,
}

#[derive(Debug, Default)]
struct Shared {
    stop: AtomicBool,
    /// Longest time without growth since the last [`Pauses::take`], in microseconds.
    longest: AtomicU64,
}

impl Pauses {
    /// Begins to watch.
    ///
    /// # Errors
    /// If there is no thread.
    pub(crate) fn watch(counter: impl Fn() -> u64 + Send + 'static) -> Result<Self> {
        let shared = Arc::new(Shared::default());
        let of = Arc::clone(&shared);
        let thread = std::thread::Builder::new().name("pauses".to_owned());
        let thread = thread
            .spawn(move || look(&of, counter))
            .context("no thread")?;
        let thread = Some(thread);
        Ok(Self { shared, thread })
    }

    /// The longest time without growth since the last call, in milliseconds; a pause that lasts is counted as far
    /// as it has come, and as a whole in the next call.
    pub(crate) fn take(&self) -> f64 {
        let longest = self.shared.longest.swap(0, Ordering::AcqRel);
        Duration::from_micros(longest).as_secs_f64() * 1000.0
    }
}

impl Drop for Pauses {
    fn drop(&mut self) {
        self.shared.stop.store(true, Ordering::Release);
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

#[allow(clippy::disallowed_methods, reason = "measures real time")]
fn look(shared: &Shared, counter: impl Fn() -> u64) {
    let (mut known, mut since) = (counter(), Instant::now());
    while !shared.stop.load(Ordering::Acquire) {
        std::thread::sleep(LOOK_EVERY);
        let (count, now) = (counter(), Instant::now());
        let pause = now.duration_since(since).as_micros();
        let pause = u64::try_from(pause).unwrap_or(u64::MAX);
        shared.longest.fetch_max(pause, Ordering::AcqRel);
        if count != known {
            (known, since) = (count, now);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    #[allow(clippy::disallowed_methods, reason = "measures real time")]
    fn the_longest_pause_is_told_once() {
        let count = Arc::new(AtomicU64::new(0));
        let of = Arc::clone(&count);
        let pauses = Pauses::watch(move || of.load(Ordering::Acquire)).expect("a thread");
        let grow = |times: u64, pause_ms| {
            for _ in 0..times {
                count.fetch_add(1, Ordering::AcqRel);
                std::thread::sleep(Duration::from_millis(pause_ms));
            }
        };
        grow(2, 300);
        grow(20, 1);
        assert!(pauses.take() >= 300.0);
        grow(20, 1);
        assert!(pauses.take() < 300.0);
    }
}
