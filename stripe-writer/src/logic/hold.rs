//! Holes of a stripe whose appends were put off are not filled at once (H-1).

use std::time::Duration;

/// When a stripe put appends off, and whether it had something to do since.
///
/// What was put off comes again, and fills the holes that it left. The stripe waits for it as long as it has
/// objects to put, since nothing is lost by that, and then for one time-out more: clients come back sooner. If
/// they do not, the hole itself is what blocks the stripe, and it is filled although others are put off still.
#[derive(Debug)]
pub struct Hold {
    timeout: Duration,
    since: Option<Duration>,
}

impl Hold {
    /// A hold that ends after this time.
    #[must_use]
    pub fn new(timeout: Duration) -> Self {
        Self {
            timeout,
            since: None,
        }
    }

    /// Whether holes wait: appends were `put_off` last at this time, and the stripe `works` or does not.
    pub fn holds(&mut self, put_off: Option<Duration>, works: bool, now: Duration) -> bool {
        let recent = |at: Duration| now.saturating_sub(at) < self.timeout;
        if works && put_off.is_some_and(recent) {
            self.since = Some(now);
        }
        self.since.is_some_and(recent)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    #[test]
    fn h1_holes_of_what_was_put_off_wait_while_the_stripe_works() {
        let mut hold = Hold::new(SECOND * 2);
        assert!(!hold.holds(None, true, SECOND), "nothing was put off");
        for second in 1..10 {
            assert!(hold.holds(Some(SECOND * second), true, SECOND * second));
        }
        assert!(hold.holds(Some(SECOND * 9), true, SECOND * 10));
        assert!(
            !hold.holds(Some(SECOND * 9), true, SECOND * 12),
            "nobody came back"
        );
    }

    #[test]
    fn h1_a_hole_that_blocks_the_stripe_is_filled_whoever_is_put_off() {
        let mut hold = Hold::new(SECOND * 2);
        assert!(hold.holds(Some(SECOND), true, SECOND));
        assert!(
            hold.holds(Some(SECOND * 2), false, SECOND * 2),
            "it may come yet"
        );
        assert!(!hold.holds(Some(SECOND * 3), false, SECOND * 3));
        assert!(!hold.holds(Some(SECOND * 4), false, SECOND * 4));
    }
}
