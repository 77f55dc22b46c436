//! What a load has seen.

use hdrhistogram::{CreationError, Histogram};
use serde::Serialize;

use super::ranges::Ranges;

/// Longest latency that is told apart, in nanoseconds.
const LONGEST_NS: u64 = 60_000_000_000;

/// Significant digits of latencies.
const DIGITS: u8 = 3;

/// Counts and latencies of one thread, or of several together.
#[derive(Debug, Clone)]
pub(crate) struct Tally {
    /// Requests that were answered within the measured time.
    pub(crate) requests: u64,
    /// Positions that were granted to them.
    pub(crate) tokens: u64,
    /// Datagrams that had to be sent once more.
    pub(crate) retries: u64,
    /// Datagrams that were refused for now.
    pub(crate) busy: u64,
    /// Answers to what was answered already.
    pub(crate) stale: u64,
    /// Datagrams that were no answers to anything.
    pub(crate) wrong: u64,
    /// Datagrams without an answer at the end.
    pub(crate) unanswered: u64,
    /// Datagrams of an open loop that were due and never sent, because too much was under way.
    pub(crate) unsent: u64,
    /// Time in which the threads found nothing to do, in nanoseconds.
    pub(crate) idle_ns: u64,
    /// Measured time of all threads together, in nanoseconds.
    pub(crate) thread_ns: u64,
    /// Latency of requests in nanoseconds, from when they were meant to be sent.
    pub(crate) latency: Histogram<u64>,
    /// What was granted, if it was kept.
    pub(crate) ranges: Option<Ranges>,
}

/// Latencies in microseconds.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub(crate) struct Latency {
    /// Half of the requests were faster.
    pub(crate) p50_us: f64,
    /// 99 of 100 were faster.
    pub(crate) p99_us: f64,
    /// 999 of 1,000 were faster.
    pub(crate) p999_us: f64,
    /// The slowest one.
    pub(crate) max_us: f64,
}

impl Tally {
    /// Nothing seen yet.
    ///
    /// # Errors
    /// None: the bounds of the histogram are constants that make sense.
    pub(crate) fn new(keep_ranges: bool) -> Result<Self, CreationError> {
        Ok(Self {
            requests: 0,
            tokens: 0,
            retries: 0,
            busy: 0,
            stale: 0,
            wrong: 0,
            unanswered: 0,
            unsent: 0,
            idle_ns: 0,
            thread_ns: 0,
            latency: histogram()?,
            ranges: keep_ranges.then(Ranges::default),
        })
    }

    /// Forgets what was counted before the measured time. Ranges stay, and so does what was wrong.
    pub(crate) fn restart(&mut self) {
        self.latency.reset();
        for count in [
            &mut self.requests,
            &mut self.tokens,
            &mut self.retries,
            &mut self.busy,
            &mut self.stale,
            &mut self.idle_ns,
        ] {
            *count = 0;
        }
    }

    /// Adds what another thread has seen.
    pub(crate) fn add(&mut self, other: &Self) {
        self.requests += other.requests;
        self.tokens += other.tokens;
        self.retries += other.retries;
        self.busy += other.busy;
        self.stale += other.stale;
        self.wrong += other.wrong;
        self.unanswered += other.unanswered;
        self.unsent += other.unsent;
        self.idle_ns += other.idle_ns;
        self.thread_ns += other.thread_ns;
        // Both have the same bounds: it fits.
        let _ = self.latency.add(&other.latency);
        if let (Some(mine), Some(others)) = (&mut self.ranges, &other.ranges) {
            mine.append(others);
        }
    }

    /// Share of the time in which the threads found nothing to do.
    #[must_use]
    pub(crate) fn idle_share(&self) -> f64 {
        self.idle_ns as f64 / self.thread_ns.max(1) as f64
    }
}

impl Latency {
    /// The usual percentiles.
    #[must_use]
    pub(crate) fn of(latency: &Histogram<u64>) -> Self {
        let at = |quantile| us(latency.value_at_quantile(quantile));
        Self {
            p50_us: at(0.5),
            p99_us: at(0.99),
            p999_us: at(0.999),
            max_us: us(latency.max()),
        }
    }
}

/// A histogram of latencies in nanoseconds.
///
/// # Errors
/// None: its bounds are constants that make sense.
pub(crate) fn histogram() -> Result<Histogram<u64>, CreationError> {
    Histogram::new_with_bounds(1, LONGEST_NS, DIGITS)
}

/// Nanoseconds as microseconds, with two decimals.
#[must_use]
pub(crate) fn us(ns: u64) -> f64 {
    (ns as f64 / 10.0).round() / 100.0
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn threads_add_up_and_a_restart_keeps_ranges() {
        let mut all = Tally::new(true).expect("valid");
        for first in [0, 10] {
            let mut one = Tally::new(true).expect("valid");
            one.requests = 3;
            one.latency.saturating_record_n(1_500, 3);
            if let Some(ranges) = &mut one.ranges {
                ranges.add(first, 10);
            }
            all.add(&one);
        }
        let latency = Latency::of(&all.latency);
        assert_eq!((all.requests, latency.p50_us), (6, 1.5));
        all.restart();
        assert_eq!((all.requests, all.latency.len()), (0, 0));
        assert_eq!(all.ranges.map(|ranges| ranges.positions()), Some(20));
    }
}
