//! One measurement: a load against a server, for a stretch of time.

use std::thread;
use std::time::Duration;

use anyhow::{Result, bail};
use serde::Serialize;

use crate::host;
use crate::logic::tally::{Latency, Tally};
use crate::net::generator::{self, Load, Stretch};

/// Below this share of its core a server could do more.
const BUSY_SHARE: f64 = 0.9;

/// Below this share of idle time a generator could not do more.
const IDLE_SHARE: f64 = 0.1;

/// Whether there is one more round after these. What misses its bar after the `least` is measured until the
/// `most`, whatever is seen on the way: to stop as soon as it holds would favour the good rounds.
#[must_use]
pub(crate) fn more(rounds: usize, least: usize, most: usize, misses: bool) -> bool {
    rounds < least || (rounds < most && (rounds > least || misses))
}

/// What a load saw, and what it cost the server.
#[derive(Debug)]
pub(crate) struct Measured {
    /// What the load saw.
    pub(crate) tally: Tally,
    /// Measured time.
    pub(crate) seconds: f64,
    /// CPU time that the server's threads spent, if its process is known.
    pub(crate) server_ns: Option<u64>,
}

/// The figures of one measurement.
#[derive(Debug, Clone, Serialize)]
pub(crate) struct Figures {
    pub(crate) requests_per_second: f64,
    pub(crate) tokens_per_second: f64,
    pub(crate) server_cpu_ns_per_request: Option<f64>,
    pub(crate) server_core_share: Option<f64>,
    pub(crate) generator_idle_share: f64,
    #[serde(flatten)]
    pub(crate) latency: Latency,
    pub(crate) requests: u64,
    pub(crate) retries: u64,
    pub(crate) busy: u64,
    pub(crate) wrong: u64,
    pub(crate) unanswered: u64,
    pub(crate) unsent: u64,
    pub(crate) granted_twice: Option<u64>,
    pub(crate) limited_by: &'static str,
}

impl Measured {
    /// Requests a second.
    #[must_use]
    pub(crate) fn rate(&self) -> f64 {
        self.tally.requests as f64 / self.seconds
    }

    /// Share of the measured time that the server's threads spent on a core.
    #[must_use]
    pub(crate) fn server_share(&self) -> Option<f64> {
        Some(self.server_ns? as f64 / 1e9 / self.seconds)
    }

    /// Everything as figures. A server that spins is always on its core, so its share says nothing.
    #[must_use]
    pub(crate) fn figures(&self, server_spins: bool) -> Figures {
        let per_request = |ns: u64| ns as f64 / self.tally.requests.max(1) as f64;
        let idle = self.tally.idle_share();
        let limited_by = match self.server_share() {
            _ if idle >= IDLE_SHARE => "server",
            None => "unknown",
            Some(_) if server_spins => "unknown",
            Some(share) if share >= BUSY_SHARE => "both",
            Some(_) => "generator",
        };
        Figures {
            requests_per_second: self.rate().round(),
            tokens_per_second: (self.tally.tokens as f64 / self.seconds).round(),
            server_cpu_ns_per_request: self.server_ns.map(per_request).map(round),
            server_core_share: self.server_share().map(round),
            generator_idle_share: round(idle),
            latency: Latency::of(&self.tally.latency),
            requests: self.tally.requests,
            retries: self.tally.retries,
            busy: self.tally.busy,
            wrong: self.tally.wrong,
            unanswered: self.tally.unanswered,
            unsent: self.tally.unsent,
            granted_twice: self.tally.ranges.as_ref().map(|ranges| ranges.twice()),
            limited_by,
        }
    }
}

/// Runs a load against the server with this process number.
///
/// # Errors
/// If the load cannot send or receive, or the server is gone.
pub(crate) fn measure(load: &Load, process: Option<u32>) -> Result<Measured> {
    let stretch = Stretch::new(load.warm_up, load.time);
    thread::scope(|scope| {
        let threads: Vec<_> = (0..load.places.len())
            .map(|number| scope.spawn(move || generate(load, number, stretch)))
            .collect();
        stretch.wait_begin();
        let before = process.map(host::cpu_ns).transpose()?;
        stretch.wait_end();
        let after = process.map(host::cpu_ns).transpose()?;
        let mut tally = Tally::new(load.keep_ranges)?;
        for thread in threads {
            match thread.join() {
                Ok(one) => tally.add(&one?),
                Err(_) => bail!("a thread of the load has panicked"),
            }
        }
        let server_ns = after.zip(before).map(|(a, b)| a.saturating_sub(b));
        Ok(Measured {
            seconds: tally.thread_ns as f64 / 1e9 / load.places.len().max(1) as f64,
            tally,
            server_ns,
        })
    })
}

fn generate(load: &Load, number: usize, stretch: Stretch) -> Result<Tally> {
    if let Some(place) = load.places.get(number) {
        place.enter()?;
    }
    generator::run(load, number, stretch)
}

/// The middle of several values, the lower one of two.
#[must_use]
pub(crate) fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    let middle = values.len().saturating_sub(1) / 2;
    values.get(middle).copied().unwrap_or(0.0)
}

/// A whole number near a value; 0 for what is negative or no number.
#[must_use]
#[allow(clippy::cast_possible_truncation, reason = "casts of floats saturate")]
pub(crate) fn whole(value: f64) -> usize {
    value.round() as usize
}

/// Three decimals, for people.
#[must_use]
pub(crate) fn round(value: f64) -> f64 {
    (value * 1000.0).round() / 1000.0
}

/// Time before each measurement, in which caches and neighbours warm up.
pub(crate) const WARM_UP: Duration = Duration::from_millis(150);
