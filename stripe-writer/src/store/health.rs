//! Since when the store has refused an object: puts are repeated for ever, and somebody should know.

use std::collections::BTreeMap;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

/// Of all puts that have failed and go on; there are no more than may be under way.
#[derive(Debug, Default)]
pub(crate) struct StoreHealth {
    failing: Mutex<Failing>,
}

#[derive(Debug, Default)]
struct Failing {
    next: u64,
    puts: BTreeMap<u64, (Duration, String)>,
}

/// One put. It is forgotten with this.
#[derive(Debug)]
pub(crate) struct Attempts<'a> {
    of: &'a StoreHealth,
    number: u64,
}

impl StoreHealth {
    /// A put begins.
    pub(crate) fn begin(&self) -> Attempts<'_> {
        let mut failing = self.failing();
        failing.next += 1;
        let number = failing.next;
        Attempts { of: self, number }
    }

    /// What is wrong, if an object has been refused for as long as `patience`: of the oldest one.
    pub(crate) fn trouble(&self, now: Duration, patience: Duration) -> Option<String> {
        let failing = self.failing();
        let (since, reason) = failing.puts.values().min_by_key(|(since, _)| *since)?;
        let time = now.saturating_sub(*since);
        (time >= patience).then(|| {
            let (seconds, objects) = (time.as_secs(), failing.puts.len());
            format!(
                "the store does not take objects: seconds={seconds} objects={objects}: {reason}"
            )
        })
    }

    fn failing(&self) -> MutexGuard<'_, Failing> {
        self.failing.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Attempts<'_> {
    /// It failed, and goes on.
    pub(crate) fn failed(&self, now: Duration, reason: String) {
        let mut failing = self.of.failing();
        let (_, last) = failing
            .puts
            .entry(self.number)
            .or_insert((now, String::new()));
        *last = reason;
    }
}

impl Drop for Attempts<'_> {
    fn drop(&mut self) {
        self.of.failing().puts.remove(&self.number);
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
    fn an_object_that_is_refused_for_long_is_told_with_the_last_reason() {
        let health = StoreHealth::default();
        assert_eq!(health.trouble(at(100), PATIENCE), None);
        let (first, second) = (health.begin(), health.begin());
        first.failed(at(100), "slow down".to_owned());
        second.failed(at(105), "time-out".to_owned());
        first.failed(at(108), "no space".to_owned());
        assert_eq!(health.trouble(at(109), PATIENCE), None);
        let told = "the store does not take objects: seconds=10 objects=2: no space";
        assert_eq!(health.trouble(at(110), PATIENCE).as_deref(), Some(told));
        drop(first);
        assert_eq!(
            health.trouble(at(114), PATIENCE),
            None,
            "the other is younger"
        );
        assert!(health.trouble(at(115), PATIENCE).is_some());
        drop(second);
        assert_eq!(health.trouble(at(200), PATIENCE), None);
    }
}
