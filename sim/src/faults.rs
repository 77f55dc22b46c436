//! How hostile a world is.

use crate::env::MS;
use crate::event::ProcId;
use crate::rng::Rng;

/// What goes wrong between a process and the store, in percent of the requests.
#[derive(Debug, Clone, Copy, Default)]
pub struct StoreFaults {
    /// The request does not arrive.
    pub lost: u64,
    /// It is applied, and the answer does not arrive, or says 500.
    pub answer_lost: u64,
    /// It is applied seconds later.
    pub late: u64,
    /// It is applied twice.
    pub doubled: u64,
    /// 409, and nothing is there.
    pub conflict: u64,
    /// A read fails.
    pub failed_reads: u64,
}

/// How many sequencers, in percent, begin a reign at once.
const HASTY: u64 = 15;

/// What goes wrong, mostly in percent.
#[derive(Debug, Clone, Default)]
pub struct Faults {
    /// Nothing goes wrong any more.
    pub calm: bool,
    /// Datagrams that are lost.
    pub lost: u64,
    /// Datagrams that come twice.
    pub doubled: u64,
    /// Messages that are slow.
    pub slow: u64,
    /// Frames in a thousand with which a connection breaks.
    pub severed: u64,
    /// Longest time of a message, in microseconds.
    pub latency: u64,
    /// The same of a slow one.
    pub latency_slow: u64,
    /// Longest time of a request to the store.
    pub store_latency: u64,
    /// Between processes and the store.
    pub store: StoreFaults,
    /// Sequencers that begin at once, as if nobody stood by.
    pub hasty: u64,
    /// Mean time between two troubles.
    pub trouble_every: u64,
    cuts: Vec<(ProcId, Option<ProcId>, u64)>,
    outage_until: u64,
}

impl Faults {
    /// What this seed has in store.
    pub fn draw(rng: &mut Rng) -> Self {
        let hostile = rng.below(4);
        let upto = |rng: &mut Rng, most: u64| {
            if hostile == 0 {
                0
            } else {
                rng.below(most * hostile / 3 + 1)
            }
        };
        Self {
            calm: false,
            lost: upto(rng, 10),
            doubled: upto(rng, 10),
            slow: upto(rng, 10),
            severed: upto(rng, 15),
            latency: rng.between(200, 2 * MS),
            latency_slow: rng.between(5, 800) * MS,
            store_latency: rng.between(2, 60) * MS,
            store: StoreFaults {
                lost: upto(rng, 5),
                answer_lost: upto(rng, 15),
                late: upto(rng, 10),
                doubled: upto(rng, 15),
                conflict: upto(rng, 10),
                failed_reads: upto(rng, 10),
            },
            hasty: HASTY,
            trouble_every: rng.between(250, 1500) * MS,
            ..Self::default()
        }
    }

    /// A world in which nothing goes wrong by itself.
    #[must_use]
    pub fn quiet() -> Self {
        Self {
            calm: false,
            latency: 2 * MS,
            store_latency: 20 * MS,
            ..Self::none()
        }
    }

    /// A world in which nothing goes wrong.
    #[must_use]
    pub fn none() -> Self {
        Self {
            calm: true,
            latency: 500,
            latency_slow: 500,
            store_latency: 5 * MS,
            trouble_every: 1000 * MS,
            ..Self::default()
        }
    }

    /// Cuts a process off from another, or, without one, from the store.
    pub fn cut(&mut self, from: ProcId, to: Option<ProcId>, until: u64) {
        self.cuts.push((from, to, until));
    }

    /// The store answers nobody until then.
    pub fn outage(&mut self, until: u64) {
        self.outage_until = until;
    }

    /// Whether nothing passes from one process to another.
    #[must_use]
    pub fn is_cut(&self, from: ProcId, to: ProcId, now: u64) -> bool {
        let cut = |(one, other, until): &(ProcId, Option<ProcId>, u64)| {
            *one == from && *other == Some(to) && now < *until
        };
        !self.calm && self.cuts.iter().any(cut)
    }

    /// Whether the store does not answer a process.
    #[must_use]
    pub fn is_out(&self, from: ProcId, now: u64) -> bool {
        let cut = |(one, other, until): &(ProcId, Option<ProcId>, u64)| {
            *one == from && other.is_none() && now < *until
        };
        !self.calm && (now < self.outage_until || self.cuts.iter().any(cut))
    }
}
