//! A shard: requests in, replies out, one addition to the shared counter a batch.
//!
//! Owned by one thread. What was received in one go is a batch, decided at one moment of time and answered
//! in place: a first pass reads every request once and writes its reply, as if the positions that the batch
//! wants began at the issued tail that was seen at its start. Then they are taken, in one step. Where other
//! shards took some in between, the tokens are moved; where replies have to wait for the reservation, or
//! need the tails as they are after the step, a second pass sees to that. Mostly there is none.

use std::sync::Arc;

use wire::datagram::MAX_ENTRIES;
use wire::mac::{Key, Signer};
use wire::{ClientId, Lane};

use super::batch::Batch;
use super::beside::Beside;
use super::counter::Counter;
use super::counters::ShardCounters;
use super::held::Held;
use super::limit::{Limiter, Rate};
use super::memory::Memory;
use super::packets::{Outbox, Packets, Peer, retain};
use super::reign::Reign;
use super::table::Table;
use super::tail::Tail;

/// Bounds of a shard.
#[derive(Debug, Clone)]
pub struct Limits {
    /// Blocks of 32 lanes whose last requests are remembered.
    pub retry_memory: usize,
    /// Replies that may wait for the reservation.
    pub held_replies: usize,
    /// Requests of one address; none: no limit.
    pub rate: Option<Rate>,
    /// Key that datagrams are authenticated with; none: they are not.
    pub key: Option<Key>,
    /// Secret of the hashes.
    pub seed: u64,
}

/// State machine of a shard. `P` tells where a reply goes.
#[derive(Debug)]
pub struct Shard<P, C: Counter = Tail> {
    pub(super) reign: Arc<Reign<C>>,
    pub(super) counters: Arc<ShardCounters>,
    pub(super) memory: Memory,
    pub(super) held: Held<P>,
    pub(super) limiter: Option<Limiter>,
    pub(super) signer: Option<Signer>,
    /// Number of the batch; never that of a lane that was settled.
    pub(super) number: u32,
    /// Lanes that the batch may have given tokens whose datagrams are dropped.
    pub(super) orphans: Vec<(ClientId, Lane)>,
    /// Only where a program grants as well.
    pub(super) beside: Option<Beside>,
}

impl<P: Peer, C: Counter> Shard<P, C> {
    /// A shard of `reign`.
    #[must_use]
    pub fn new(reign: Arc<Reign<C>>, counters: Arc<ShardCounters>, limits: Limits) -> Self {
        // Any datagram finds room in the empty queue.
        let held_replies = limits.held_replies.max(MAX_ENTRIES);
        Self {
            reign,
            counters,
            memory: Memory::new(limits.retry_memory, limits.seed),
            held: Held::new(held_replies, limits.seed),
            limiter: limits.rate.map(|rate| Limiter::new(rate, limits.seed)),
            signer: limits.key.as_ref().map(Key::signer),
            number: SETTLED,
            orphans: Vec::new(),
            beside: None,
        }
    }

    /// The same beside a program that grants from the same counter, and remembers in `table`.
    #[must_use]
    pub fn with_table(mut self, table: Option<Arc<Table>>) -> Self {
        self.beside = table.map(Beside::new);
        self
    }

    /// The counters of this shard.
    #[must_use]
    pub fn counters(&self) -> &ShardCounters {
        &self.counters
    }

    /// The reign that this shard serves.
    #[must_use]
    pub fn reign(&self) -> &Reign<C> {
        &self.reign
    }

    /// Whether replies wait for the reservation.
    #[must_use]
    pub fn holds(&self) -> bool {
        !self.held.is_empty()
    }

    /// Decides a batch and answers it in place; what was held before and is covered by now is sent first.
    pub fn serve(&mut self, packets: &mut impl Packets<P>, now_ns: u64, out: &mut impl Outbox<P>) {
        self.serve_with(packets, || now_ns, out);
    }

    /// The same, and asks for the time when it has waited for all that there may be to wait for (S-5).
    pub fn serve_with(
        &mut self,
        packets: &mut impl Packets<P>,
        now_ns: impl FnOnce() -> u64,
        out: &mut impl Outbox<P>,
    ) {
        self.release(out);
        if packets.count() == 0 {
            return;
        }
        self.counters.batches.add(1);
        self.orphans.clear();
        self.enter(packets);
        let mut batch = Batch::begin(self, now_ns());
        self.decide(&mut batch, packets);
        self.take(&mut batch, packets);
        if batch.needs_second_pass(self.reign.reservation()) {
            self.finish(&mut batch, packets);
            self.counters.held.set(self.held.len() as u64);
        }
        self.leave();
        if self.signer.is_some() {
            self.sign(packets);
        }
    }

    fn sign(&mut self, packets: &mut impl Packets<P>) {
        for index in 0..packets.count() {
            if let (Some(signer), Some(packet)) = (&mut self.signer, packets.packet(index)) {
                retain(packet, |_, datagram| {
                    signer.sign(datagram);
                    true
                });
            }
        }
    }

    /// Sends the held replies that the reservation covers by now.
    pub fn release(&mut self, out: &mut impl Outbox<P>) {
        if self.held.is_empty() {
            return;
        }
        let (reservation, signer) = (self.reign.reservation(), &mut self.signer);
        self.held.release(reservation, |peer, datagram| {
            if let Some(signer) = signer {
                signer.sign(datagram);
            }
            out.send(peer, datagram);
        });
        self.counters.held.set(self.held.len() as u64);
    }
}

/// Batch number of what has been settled.
pub(super) const SETTLED: u32 = 0;
