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
    let start = Instant::now();
    let mut seen = Seen::new(counter());
    while !shared.stop.load(Ordering::Acquire) {
        std::thread::sleep(LOOK_EVERY);
        let pause = seen.look(counter(), start.elapsed()).as_micros();
        let pause = u64::try_from(pause).unwrap_or(u64::MAX);
        shared.longest.fetch_max(pause, Ordering::AcqRel);
    }
}

/// The count at the last look that found it grown, and when that was.
#[derive(Debug)]
struct Seen {
    count: u64,
    since: Duration,
}

impl Seen {
    fn new(count: u64) -> Self {
        let since = Duration::ZERO;
        Self { count, since }
    }

    /// Looks at the count. Returns for how long it had not grown until now.
    fn look(&mut self, count: u64, now: Duration) -> Duration {
        let pause = now.saturating_sub(self.since);
        if count != self.count {
            *self = Self { count, since: now };
        }
        pause
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_pause_lasts_from_the_look_that_saw_the_count_grow_to_the_next_one_that_does() {
        let mut seen = Seen::new(7);
        let mut pause_ms = |count, now_ms| {
            let pause = seen.look(count, Duration::from_millis(now_ms));
            pause.as_millis()
        };
        assert_eq!(pause_ms(7, 3), 3);
        assert_eq!(pause_ms(8, 5), 5);
        assert_eq!(pause_ms(8, 6), 1);
        assert_eq!(pause_ms(9, 305), 300);
        assert_eq!(pause_ms(10, 306), 1);
        assert_eq!(pause_ms(12, 308), 2);
    }

    #[test]
    #[allow(clippy::disallowed_methods, reason = "measures real time")]
    fn a_pause_is_told_while_it_lasts_and_not_again_once_it_is_over() {
        let held = Arc::new(AtomicBool::new(true));
        let (of, count) = (Arc::clone(&held), AtomicU64::new(0));
        let grows =
            move || count.fetch_add(u64::from(!of.load(Ordering::Acquire)), Ordering::AcqRel);
        let pauses = Pauses::watch(grows).expect("a thread");
        let until = |told: fn(f64) -> bool| {
            let tries = (0..1000).find(|_| {
                std::thread::sleep(Duration::from_millis(10));
                told(pauses.take())
            });
            tries.expect("told in time");
        };
        until(|pause_ms| pause_ms >= 100.0);
        held.store(false, Ordering::Release);
        until(|pause_ms| pause_ms < 100.0);
    }
}
