//! Since when the store has taken nothing.

use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

/// Told by every put that ends.
#[derive(Debug, Default)]
pub(crate) struct StoreHealth {
    failing: Mutex<Option<Failing>>,
}

#[derive(Debug)]
struct Failing {
    /// When the first put failed since one succeeded.
    since: Duration,
    /// Why the last one did.
    reason: String,
}

impl StoreHealth {
    /// A put failed.
    pub(crate) fn failed(&self, now: Duration, reason: String) {
        let mut failing = self.failing();
        let since = failing.as_ref().map_or(now, |failing| failing.since);
        *failing = Some(Failing { since, reason });
    }

    /// A put was answered: the object, or another, is in the store.
    pub(crate) fn answered(&self) {
        *self.failing() = None;
    }

    /// What is wrong, if nothing has been taken for as long as `patience`.
    pub(crate) fn trouble(&self, now: Duration, patience: Duration) -> Option<String> {
        let failing = self.failing();
        let failing = failing.as_ref()?;
        let seconds = now.saturating_sub(failing.since);
        (seconds >= patience).then(|| {
            let (seconds, reason) = (seconds.as_secs(), &failing.reason);
            format!("the store has taken nothing for {seconds} s: {reason}")
        })
    }

    fn failing(&self) -> MutexGuard<'_, Option<Failing>> {
        self.failing.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const PATIENCE: Duration = Duration::from_secs(10);

    fn at(seconds: u64) -> Duration {
        Duration::from_secs(seconds)
    }

    #[test]
    fn a_store_that_takes_nothing_for_long_is_told_with_the_last_reason() {
        let health = StoreHealth::default();
        assert_eq!(health.trouble(at(100), PATIENCE), None);
        health.failed(at(100), "slow down".to_owned());
        health.failed(at(108), "no space".to_owned());
        assert_eq!(health.trouble(at(109), PATIENCE), None);
        let told = "the store has taken nothing for 10 s: no space";
        assert_eq!(health.trouble(at(110), PATIENCE).as_deref(), Some(told));
        health.answered();
        assert_eq!(health.trouble(at(200), PATIENCE), None);
        health.failed(at(201), "again".to_owned());
        assert_eq!(health.trouble(at(210), PATIENCE), None, "counted anew");
    }
}
