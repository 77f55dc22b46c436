//! A shard: requests in, replies out, one addition to the shared counter a batch.
//!
//! Owned by one thread. Datagrams are [received](Shard::receive) into a batch, then the batch is
//! [settled](Shard::settle): all decisions are made at that one moment of time.

use std::sync::Arc;
use std::sync::atomic::AtomicU64;

use wire::datagram::{Header, MAX_ENTRIES, Reply};

use super::counter::Counter;
use super::counters::ShardCounters;
use super::grant::Core;
use super::reign::Reign;
use super::staged::Batch;

/// Most requests that are settled together.
const MAX_BATCH: usize = 4096;

/// Where replies go.
pub trait Outbox<P> {
    /// Sends one reply datagram to `peer`.
    fn send(&mut self, peer: P, header: Header, replies: &[Reply]);
}

/// Bounds of a shard.
#[derive(Debug, Clone, Copy)]
pub struct Limits {
    /// Lanes whose last request is remembered.
    pub retry_memory: usize,
    /// Replies that may wait for the reservation.
    pub held_replies: usize,
    /// Secret of the retry memory's hash.
    pub seed: u64,
}

/// State machine of a shard. `P` tells where a reply goes.
#[derive(Debug)]
pub struct Shard<P, C: Counter = AtomicU64> {
    batch: Batch<P>,
    core: Core<P, C>,
    batch_max: usize,
}

impl<P: Copy, C: Counter> Shard<P, C> {
    /// A shard of `reign`.
    #[must_use]
    pub fn new(reign: Arc<Reign<C>>, counters: Arc<ShardCounters>, limits: Limits) -> Self {
        // Whatever a batch grants must find room among the held replies.
        let held_replies = limits.held_replies.max(MAX_ENTRIES);
        let limits = Limits {
            held_replies,
            ..limits
        };
        let batch = MAX_BATCH.min(held_replies);
        Self {
            batch: Batch::new(batch),
            core: Core::new(reign, counters, limits, batch),
            batch_max: batch,
        }
    }

    /// The counters of this shard.
    #[must_use]
    pub fn counters(&self) -> &ShardCounters {
        &self.core.counters
    }

    /// The counters of this shard, to keep.
    #[must_use]
    pub fn shared_counters(&self) -> Arc<ShardCounters> {
        Arc::clone(&self.core.counters)
    }

    /// The reign that this shard serves.
    #[must_use]
    pub fn reign(&self) -> &Reign<C> {
        &self.core.reign
    }

    /// Takes a datagram into the batch. One that fails validation is counted and forgotten (S-9).
    pub fn receive(&mut self, peer: P, bytes: &[u8]) {
        let counters = &self.core.counters;
        counters.received.add(1);
        if let Err(error) = self.batch.stage(peer, bytes, self.core.reign.log()) {
            counters.dropped.count(error.reason());
        }
    }

    /// Whether the batch has to be settled before more is received.
    #[must_use]
    pub fn is_full(&self) -> bool {
        self.batch.len() + MAX_ENTRIES > self.batch_max
    }

    /// Whether replies wait for the reservation.
    #[must_use]
    pub fn holds(&self) -> bool {
        !self.core.held.is_empty()
    }

    /// Decides the batch and sends what may be sent.
    pub fn settle(&mut self, now_ns: u64, out: &mut impl Outbox<P>) {
        let Self { batch, core, .. } = self;
        core.release(out);
        if batch.datagrams() == 0 {
            return;
        }
        core.counters.batches.add(1);
        core.hear(batch);
        let tails = core.grant(batch, now_ns);
        core.answer(batch, tails, out);
        core.counters.held.set(core.held.len() as u64);
        batch.clear();
    }

    /// Sends the held replies that the reservation covers by now.
    pub fn release(&mut self, out: &mut impl Outbox<P>) {
        self.core.release(out);
    }
}
