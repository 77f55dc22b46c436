//! How far the reservation reaches beyond the issued tail.
//!
//! A window has to last while the next one is being made durable. Its size follows the rate of grants and
//! the latency of the store, within limits: too small a window makes requests wait, too large a one wastes
//! positions when the sequencer dies (they become junk, a few bytes a stripe however many they are).

use wire::Position;
use wire::limits::MAX_POSITION;

/// Store latencies that a window lasts at the current rate.
const LATENCIES_PER_WINDOW: u64 = 8;

/// Store latencies before a window is used up at which the next one is asked for.
const LATENCIES_AHEAD: u64 = 2;

/// Weight of a new sample in the moving averages is one in this many.
const SMOOTHING: u64 = 4;

/// Shortest time over which a rate is taken.
const MIN_SAMPLE_NS: u64 = 1_000_000;

const NS_PER_S: u64 = 1_000_000_000;

/// Sizes the reservation by what was observed.
#[derive(Debug, Clone)]
pub struct Window {
    min: u64,
    max: u64,
    rate_per_s: u64,
    latency_ns: u64,
    seen: Option<(u64, Position)>,
}

impl Window {
    /// A window of `min` to `max` positions.
    #[must_use]
    pub fn new(min: u64, max: u64) -> Self {
        let min = min.max(1);
        Self {
            min,
            max: max.max(min),
            rate_per_s: 0,
            latency_ns: 0,
            seen: None,
        }
    }

    /// Takes a sample of the issued tail.
    pub fn observe(&mut self, now_ns: u64, tail: Position) {
        let Some((then_ns, before)) = self.seen else {
            self.seen = Some((now_ns, tail));
            return;
        };
        let took_ns = now_ns.saturating_sub(then_ns);
        if took_ns < MIN_SAMPLE_NS {
            return;
        }
        let tokens = tail.0.saturating_sub(before.0);
        let sample = scale(tokens, NS_PER_S, took_ns);
        // Up at once, down slowly: a burst that is underestimated makes its own requests wait.
        self.rate_per_s = sample.max(average(self.rate_per_s, sample));
        self.seen = Some((now_ns, tail));
    }

    /// Takes a sample of the time that an extension took.
    pub fn stored(&mut self, took_ns: u64) {
        self.latency_ns = took_ns.max(average(self.latency_ns, took_ns));
    }

    /// Positions in a window now.
    #[must_use]
    pub fn size(&self) -> u64 {
        self.used_in(LATENCIES_PER_WINDOW).clamp(self.min, self.max)
    }

    /// Where the reservation should reach, if it should reach further than it does.
    #[must_use]
    pub fn extension(&self, tail: Position, reservation: Position) -> Option<Position> {
        let wanted = tail.plus(self.size()).min(Position(MAX_POSITION));
        (tail >= self.low_water(reservation) && wanted > reservation).then_some(wanted)
    }

    /// Issued tail from which on an extension is due.
    #[must_use]
    pub fn low_water(&self, reservation: Position) -> Position {
        let ahead = self.used_in(LATENCIES_AHEAD).max(self.size() / 4);
        Position(reservation.0.saturating_sub(ahead))
    }

    /// Positions that are granted during so many store latencies.
    fn used_in(&self, latencies: u64) -> u64 {
        scale(self.rate_per_s, self.latency_ns, NS_PER_S).saturating_mul(latencies)
    }
}

/// `value * by / of`, saturating, without overflow in between.
fn scale(value: u64, by: u64, of: u64) -> u64 {
    let scaled = u128::from(value) * u128::from(by) / u128::from(of.max(1));
    u64::try_from(scaled).unwrap_or(u64::MAX)
}

fn average(old: u64, sample: u64) -> u64 {
    old - old / SMOOTHING + sample / SMOOTHING
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const MS: u64 = 1_000_000;

    /// (tokens a second, store latency in ms) to the size of the window.
    #[test]
    fn size_follows_rate_and_latency_within_limits() {
        for (rate, latency_ms, size) in [
            (0, 0, 65_536),
            (1_000, 30, 65_536),
            (1_000_000, 30, 240_000),
            (1_000_000, 100, 800_000),
            (40_000_000, 30, 9_600_000),
            (40_000_000, 60_000, 1 << 32),
        ] {
            let mut window = Window::new(65_536, 1 << 32);
            window.observe(0, Position(0));
            window.observe(1000 * MS, Position(rate));
            window.stored(latency_ms * MS);
            assert_eq!(window.size(), size, "rate={rate} latency_ms={latency_ms}");
        }
    }

    #[test]
    fn idle_reservation_is_not_extended() {
        let window = Window::new(1000, 10_000);
        assert_eq!(window.extension(Position(0), Position(1000)), None);
        assert_eq!(window.extension(Position(749), Position(1000)), None);
        let next = window.extension(Position(750), Position(1000));
        assert_eq!(next, Some(Position(1750)));
    }

    #[test]
    fn rate_falls_slowly() {
        let mut window = Window::new(1, u64::MAX);
        window.stored(1000 * MS);
        window.observe(0, Position(0));
        window.observe(1000 * MS, Position(1024));
        window.observe(2000 * MS, Position(1024));
        assert_eq!(window.size(), 768 * LATENCIES_PER_WINDOW);
    }

    proptest! {
        #[test]
        fn held_replies_are_always_covered_by_the_next_extension(
            tail in 0..MAX_POSITION, beyond in 0_u64..1 << 40, rate in 0_u64..1 << 40, latency in 0_u64..1 << 40,
        ) {
            let mut window = Window::new(1, u64::MAX);
            window.observe(0, Position(0));
            window.observe(NS_PER_S, Position(rate));
            window.stored(latency);
            let reservation = Position(tail.saturating_sub(beyond));
            let next = window.extension(Position(tail), reservation);
            prop_assert!(next.is_some_and(|next| next.0 > tail || next.0 == MAX_POSITION));
        }
    }
}
