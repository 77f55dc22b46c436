//! When a hole may be filled (H-1).

use std::time::Duration;

use wire::Position;

/// Remembers which issued tail was told when, so that only positions that were granted `timeout` ago are
/// given up.
///
/// Two values are enough: the tail that is ripening and the newest one. A hole is thus filled between one
/// and two time-outs after it was heard of.
#[derive(Debug)]
pub struct HoleClock {
    timeout: Duration,
    ripening: Option<(Position, Duration)>,
    newest: Position,
    ripe: Position,
}

impl HoleClock {
    /// A clock that gives a granted position up after `timeout`.
    #[must_use]
    pub fn new(timeout: Duration) -> Self {
        Self {
            timeout,
            ripening: None,
            newest: Position(0),
            ripe: Position(0),
        }
    }

    /// The sequencer told the issued tail.
    pub fn told(&mut self, tail: Position, now: Duration) {
        self.newest = self.newest.max(tail);
        if self.ripening.is_none() && self.newest > self.ripe {
            self.ripening = Some((self.newest, now));
        }
    }

    /// Records cannot come in at the moment, because memory is full of others that are being stored:
    /// positions must not be given up meanwhile, and the time-out begins anew.
    pub fn held_up(&mut self, now: Duration) {
        if let Some((_, since)) = &mut self.ripening {
            *since = now;
        }
    }

    /// Below which position holes may be filled now. Never falls.
    pub fn ripe(&mut self, now: Duration) -> Position {
        if let Some((tail, since)) = self.ripening
            && now.saturating_sub(since) >= self.timeout
        {
            self.ripe = self.ripe.max(tail);
            self.ripening = (self.newest > self.ripe).then_some((self.newest, now));
        }
        self.ripe
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    #[test]
    fn h1_nothing_is_filled_before_the_timeout() {
        let mut clock = HoleClock::new(SECOND * 2);
        clock.told(Position(10), SECOND);
        clock.told(Position(20), SECOND * 2);
        assert_eq!(clock.ripe(SECOND * 2), Position(0));
        assert_eq!(clock.ripe(SECOND * 3), Position(10));
        assert_eq!(
            clock.ripe(SECOND * 4),
            Position(10),
            "20 began to ripen at 3"
        );
        assert_eq!(clock.ripe(SECOND * 5), Position(20));
    }

    #[test]
    fn h1_nothing_is_filled_that_was_not_told() {
        let mut clock = HoleClock::new(SECOND);
        assert_eq!(clock.ripe(SECOND * 100), Position(0));
        clock.told(Position(5), SECOND * 100);
        assert_eq!(clock.ripe(SECOND * 200), Position(5));
    }

    #[test]
    fn h1_backpressure_stops_the_clock() {
        let mut clock = HoleClock::new(SECOND * 2);
        clock.told(Position(10), SECOND);
        clock.held_up(SECOND * 2);
        assert_eq!(clock.ripe(SECOND * 3), Position(0));
        assert_eq!(clock.ripe(SECOND * 4), Position(10));
    }

    #[test]
    fn s7_a_lower_tail_changes_nothing() {
        let mut clock = HoleClock::new(SECOND);
        clock.told(Position(10), SECOND);
        clock.told(Position(3), SECOND);
        assert_eq!(clock.ripe(SECOND * 2), Position(10));
        clock.told(Position(20), SECOND * 2);
        clock.told(Position(30), SECOND * 2);
        clock.told(Position(15), SECOND * 2);
        assert_eq!(clock.ripe(SECOND * 3), Position(20));
        assert_eq!(clock.ripe(SECOND * 4), Position(30));
    }
}
