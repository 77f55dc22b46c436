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
pub(crate) struct Backoff {
    bound: Duration,
}

impl Backoff {
    pub(crate) fn new() -> Self {
        Self { bound: FIRST }
    }

    pub(crate) async fn wait(&mut self) {
        let share = rand::rng().random_range(0.0..1.0);
        tokio::time::sleep(self.bound.mul_f64(share)).await;
        self.bound = (self.bound * 2).min(LONGEST);
    }
}
