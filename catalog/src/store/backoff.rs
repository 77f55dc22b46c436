//! Waits between tries: exponential, with full jitter.

use std::time::Duration;

use rand::Rng;

/// Longest first wait.
const FIRST: Duration = Duration::from_millis(20);

/// Longest wait of all.
const LONGEST: Duration = Duration::from_secs(2);

/// Source: "Exponential Backoff and Jitter", AWS Architecture Blog, 2015: a wait drawn evenly from zero
/// to a bound that doubles spreads contenders best.
#[derive(Debug)]
pub struct Backoff {
    bound: Duration,
    longest: Duration,
}

impl Backoff {
    pub(crate) fn new() -> Self {
        Self::within((FIRST, LONGEST))
    }

    /// Waits that are drawn from zero to a bound, which doubles from the first of these to the second.
    #[must_use]
    pub fn within((first, longest): (Duration, Duration)) -> Self {
        let bound = first;
        Self { bound, longest }
    }

    /// Waits once.
    pub async fn wait(&mut self) {
        let share = rand::rng().random_range(0.0..1.0);
        tokio::time::sleep(self.bound.mul_f64(share)).await;
        self.bound = (self.bound * 2).min(self.longest);
    }
}
