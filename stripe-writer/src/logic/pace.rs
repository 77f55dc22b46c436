//! How long puts take, and from when on one is late.

use std::time::Duration;

/// Puts that the pace is taken from.
const REMEMBERED: usize = 32;

/// A put is late when it has taken so many times as long as most do.
const LATE_FACTOR: u32 = 3;

/// Bounds of the time after which a put is late. The upper one also holds before any put has ended.
const LATE: (Duration, Duration) = (Duration::from_millis(20), Duration::from_secs(2));

/// The durations of the newest puts. Their median is not moved by the few that go to a slow place, and
/// follows the store as a whole.
#[derive(Debug, Default)]
pub struct Pace {
    newest: Vec<Duration>,
    next: usize,
    late_after: Option<Duration>,
}

impl Pace {
    /// A put ended after this time.
    pub fn record(&mut self, took: Duration) {
        match self.newest.get_mut(self.next) {
            Some(place) => *place = took,
            None => self.newest.push(took),
        }
        self.next = (self.next + 1) % REMEMBERED;
        let mut sorted = self.newest.clone();
        sorted.sort_unstable();
        let median = sorted.get(sorted.len() / 2);
        self.late_after = median.map(|median| (*median * LATE_FACTOR).clamp(LATE.0, LATE.1));
    }

    /// The time after which a put is late.
    #[must_use]
    pub fn late_after(&self) -> Duration {
        self.late_after.unwrap_or(LATE.1)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MS: Duration = Duration::from_millis(1);

    #[test]
    fn a_few_slow_puts_do_not_move_the_pace_and_many_do() {
        let mut pace = Pace::default();
        assert_eq!(pace.late_after(), LATE.1);
        for put in 0..100 {
            pace.record(if put % 4 == 0 { 400 * MS } else { 20 * MS });
        }
        assert_eq!(pace.late_after(), 60 * MS);
        for _ in 0..REMEMBERED {
            pace.record(400 * MS);
        }
        assert_eq!(pace.late_after(), 1200 * MS);
    }

    #[test]
    fn the_pace_has_bounds() {
        let mut pace = Pace::default();
        pace.record(Duration::ZERO);
        assert_eq!(pace.late_after(), LATE.0);
        for _ in 0..REMEMBERED {
            pace.record(Duration::from_secs(60));
        }
        assert_eq!(pace.late_after(), LATE.1);
    }
}
