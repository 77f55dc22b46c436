//! How far the reservation reaches beyond the issued tail.
//!
//! A window has to last while the next one is being made durable. Its size follows the rate of grants and
//! the latency of the store, within limits: too small a window makes requests wait, too large a one wastes
//! positions when the sequencer dies. Those become junk, a few bytes a stripe however many they are, out of
//! 2^62: so a window is sized for a store that answers much later than it did so far.

use wire::Position;
use wire::limits::MAX_POSITION;

/// Store latencies that a window lasts at the current rate.
const LATENCIES_PER_WINDOW: u64 = 8;

/// Store latencies before a window is used up at which the next one is asked for.
const LATENCIES_AHEAD: u64 = 2;

/// The latency for which a window is sized at least: an extension is two requests to the store, and neither
/// makes anybody wait as long as it is answered within a second. With a quarter in reserve.
const PATIENCE_NS: u64 = 2 * NS_PER_S + NS_PER_S / 2;

/// Windows of [`PATIENCE_NS`] that a window lasts at the least.
const PATIENCES_PER_WINDOW: u64 = 2;

/// How many times the last window the next one is at least where requests had to wait: the rate that was
/// seen is then that of the waiting, not that which is asked for.
const GROWTH: u64 = 64;

/// Weight of a new latency in its moving average is one in this many.
const SMOOTHING: u64 = 4;

/// Time in which a rate that is not seen any more falls to a third.
const FORGET_NS: u64 = 8 * NS_PER_S;

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
    /// Least size of the next window, after requests had to wait.
    grown: u64,
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
            grown: 0,
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
        // Up at once, down over seconds: a burst that is underestimated makes its own requests wait, and so
        // does one that is forgotten while it waits.
        let forgotten = scale(self.rate_per_s, took_ns.min(FORGET_NS), FORGET_NS);
        self.rate_per_s = sample.max(self.rate_per_s - forgotten);
        self.seen = Some((now_ns, tail));
    }

    /// Takes a sample of the time that an extension took.
    pub fn stored(&mut self, took_ns: u64) {
        self.latency_ns = took_ns.max(average(self.latency_ns, took_ns));
    }

    /// Positions in a window now.
    #[must_use]
    pub fn size(&self) -> u64 {
        let usual = self.used_in(LATENCIES_PER_WINDOW);
        let patient = self
            .used_during(PATIENCE_NS)
            .saturating_mul(PATIENCES_PER_WINDOW);
        usual.max(patient).max(self.grown).clamp(self.min, self.max)
    }

    /// Where the reservation should reach, if it should reach further than it does.
    #[must_use]
    pub fn extension(&mut self, tail: Position, reservation: Position) -> Option<Position> {
        if tail > reservation {
            self.grown = self.size().saturating_mul(GROWTH);
        }
        let wanted = tail.plus(self.size()).min(Position(MAX_POSITION));
        let due = tail >= self.low_water(reservation) && wanted > reservation;
        if due && tail <= reservation {
            self.grown = 0;
        }
        due.then_some(wanted)
    }

    /// Issued tail from which on an extension is due.
    #[must_use]
    pub fn low_water(&self, reservation: Position) -> Position {
        let usual = self.used_in(LATENCIES_AHEAD);
        let ahead = usual
            .max(self.used_during(PATIENCE_NS))
            .max(self.size() / 4);
        // Half of the largest window may be ahead of the mark, or extensions would never pause.
        Position(
            reservation
                .0
                .saturating_sub(ahead.min((self.max / 2).max(self.size() / 4))),
        )
    }

    /// Positions that are granted during so many store latencies.
    fn used_in(&self, latencies: u64) -> u64 {
        self.used_during(self.latency_ns).saturating_mul(latencies)
    }

    fn used_during(&self, time_ns: u64) -> u64 {
        scale(self.rate_per_s, time_ns, NS_PER_S)
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
            (1_000_000, 30, 5_000_000),
            (1_000_000, 1000, 8_000_000),
            (1_000_000_000, 30, 5_000_000_000),
            (40_000_000, 60_000, 1 << 33),
        ] {
            let mut window = Window::new(65_536, 1 << 33);
            window.observe(0, Position(0));
            window.observe(1000 * MS, Position(rate));
            window.stored(latency_ms * MS);
            assert_eq!(window.size(), size, "rate={rate} latency_ms={latency_ms}");
        }
    }

    #[test]
    fn idle_reservation_is_not_extended() {
        let mut window = Window::new(1000, 10_000);
        assert_eq!(window.extension(Position(0), Position(1000)), None);
        assert_eq!(window.extension(Position(749), Position(1000)), None);
        let next = window.extension(Position(750), Position(1000));
        assert_eq!(next, Some(Position(1750)));
    }

    /// At any steady rate, a store that answers each of its two requests within a second never makes a
    /// request wait, although it always answered at once before.
    #[test]
    fn s10_a_store_that_turns_slow_stalls_nothing() {
        for rate in [1_000, 1_000_000, 1_000_000_000_u64] {
            let mut window = Window::new(1, 1 << 40);
            window.observe(0, Position(0));
            window.observe(NS_PER_S, Position(rate));
            window.stored(MS);
            // At the moment at which the extension is asked for.
            let reservation = Position(rate * 100);
            let tail = window.low_water(reservation);
            let next = window.extension(tail, reservation).expect("due");
            let later = tail.plus(2 * rate);
            assert!(later < reservation, "rate={rate}");
            assert!(
                later < window.low_water(next),
                "not asked for at once again"
            );
        }
    }

    #[test]
    fn a_window_grows_fast_where_requests_wait_and_only_then() {
        let mut window = Window::new(100, 1 << 40);
        let first = window.extension(Position(150), Position(100)).expect("due");
        assert_eq!(first, Position(150 + 6400));
        let second = window.extension(Position(7000), first).expect("due");
        assert_eq!(second, Position(7000 + 6400 * GROWTH));
        let third = window.extension(second, second).expect("due");
        assert_eq!(third, second.plus(6400 * GROWTH));
        let fourth = window.extension(third, third).expect("due");
        assert_eq!(fourth, third.plus(100));
    }

    #[test]
    fn rate_falls_slowly() {
        let mut window = Window::new(1, u64::MAX);
        let rate = |window: &Window| window.size() / LATENCIES_PER_WINDOW;
        window.stored(1000 * MS);
        window.observe(0, Position(0));
        window.observe(1000 * MS, Position(1_024_000));
        window.observe(2000 * MS, Position(1_024_000));
        assert_eq!(rate(&window), 896_000);
        // However often it is looked at.
        for step in 1..=1000 {
            window.observe((2000 + step) * MS, Position(1_024_000));
        }
        assert!((780_000..800_000).contains(&rate(&window)));
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
