//! How long an append waits: as long as there are signs that what it waits for gets on.
//!
//! A store that is slower than the load makes appends wait for others, for as long as those take. That is no
//! failure, and nothing tells it from one but signs of progress: answers, and the word of a stripe-writer that
//! is full and gets on. Times are counted from the opening of the log.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use crate::limits::{PATIENCE, TURN, TURNS};

/// When something was last seen to get on.
#[derive(Debug, Default)]
pub(crate) struct Sign(AtomicU64);

impl Sign {
    pub(crate) fn seen(&self, now: Duration) {
        let now = u64::try_from(now.as_millis()).unwrap_or(u64::MAX);
        self.0.fetch_max(now, Ordering::Relaxed);
    }

    pub(crate) fn last(&self) -> Duration {
        Duration::from_millis(self.0.load(Ordering::Relaxed))
    }
}

/// When one who heard of its own records at `own`, and of others that it waits for at `others`, has waited long
/// enough.
pub(crate) fn end(own: Duration, others: Duration, timeout: Duration) -> Duration {
    let signs = own.max(others).saturating_add(timeout);
    signs.min(own.saturating_add(timeout.saturating_mul(PATIENCE)))
}

/// One who waits until an end that signs put off.
///
/// A process that stood still has signs that wait for it, and it must not take its own standstill for silence of
/// others: who has waited long enough lets everything else have a turn, as long as it woke late, and looks again.
#[derive(Debug)]
pub(crate) struct Waiter {
    until: Duration,
    turns: u32,
}

impl Waiter {
    pub(crate) fn new(end: Duration) -> Self {
        Self {
            until: end,
            turns: 0,
        }
    }

    /// When it is to look again.
    pub(crate) fn until(&self) -> Duration {
        self.until
    }

    /// Looks again at `now`, with the end as the signs have it. Returns whether it has waited long enough.
    pub(crate) fn is_over(&mut self, now: Duration, end: Duration) -> bool {
        if now < end {
            *self = Self::new(end);
            return false;
        }
        let late = now.saturating_sub(self.until);
        // Only a turn that was in time is one that everything else had.
        let had_turn = self.turns > 0 && late < TURN.0;
        if had_turn || self.turns == TURNS {
            return true;
        }
        self.until = now + late.clamp(TURN.0, TURN.1);
        self.turns += 1;
        false
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MS: Duration = Duration::from_millis(1);

    #[test]
    fn who_wakes_in_time_gives_up_after_one_turn() {
        let mut waiter = Waiter::new(300 * MS);
        assert_eq!(waiter.until(), 300 * MS);
        assert!(!waiter.is_over(301 * MS, 300 * MS));
        assert_eq!(waiter.until(), 301 * MS + TURN.0);
        assert!(waiter.is_over(312 * MS, 300 * MS));
    }

    #[test]
    fn who_stood_still_looks_again_as_long_as_it_was_late() {
        let mut waiter = Waiter::new(300 * MS);
        assert!(!waiter.is_over(700 * MS, 300 * MS));
        assert_eq!(waiter.until(), 1100 * MS);
        // A sign that had waited is as good as one that came in time.
        assert!(!waiter.is_over(1100 * MS, 1450 * MS));
        assert_eq!(waiter.until(), 1450 * MS);
        assert!(!waiter.is_over(1450 * MS, 1450 * MS), "a turn anew");
        assert!(waiter.is_over(1460 * MS, 1450 * MS));
    }

    #[test]
    fn who_stands_still_again_and_again_gives_up_at_a_bound() {
        let mut waiter = Waiter::new(300 * MS);
        for _ in 0..TURNS {
            let now = waiter.until() + 60_000 * MS;
            assert!(!waiter.is_over(now, 300 * MS));
            assert_eq!(waiter.until(), now + TURN.1);
        }
        let now = waiter.until() + 60_000 * MS;
        assert!(waiter.is_over(now, 300 * MS));
    }

    #[test]
    fn signs_of_others_are_believed_for_so_long() {
        let s = Duration::from_secs;
        assert_eq!(end(s(5), s(0), s(30)), s(35));
        assert_eq!(end(s(5), s(20), s(30)), s(50));
        assert_eq!(end(s(5), s(10_000), s(30)), s(305));
        let sign = Sign::default();
        sign.seen(s(7));
        sign.seen(s(3));
        assert_eq!(sign.last(), s(7));
    }
}
