//! What every mechanism does with what it received.

use std::net::{SocketAddr, UdpSocket};
use std::sync::Arc;

use crate::clock;
use crate::demand::Demand;
use crate::logic::{Outbox, Shard, TRUNCATED, UNANSWERABLE};
use crate::sys::mmsg::Received;

use super::sleeper::Sleeper;

/// Bytes of a receive buffer: the most that the kernel merges into one.
pub(crate) const BUFFER_BYTES: usize = 65_536;

/// A shard with its socket, owned by its thread.
#[derive(Debug)]
pub(crate) struct Worker {
    pub(crate) socket: UdpSocket,
    pub(crate) shard: Shard<SocketAddr>,
    pub(crate) sleeper: Arc<Sleeper>,
    pub(crate) demand: Arc<Demand>,
}

impl Worker {
    /// Takes what was received into one buffer. May settle in between where the batch is full.
    pub(crate) fn receive(&mut self, received: &Received<'_>, out: &mut impl Outbox<SocketAddr>) {
        let bytes = received.bytes;
        let Some(peer) = received.peer.filter(|_| !received.truncated) else {
            let reason = if received.truncated {
                TRUNCATED
            } else {
                UNANSWERABLE
            };
            let counters = self.shard.counters();
            counters.received.add(1);
            return counters.dropped.count(reason);
        };
        if bytes.is_empty() {
            return self.shard.receive(peer, bytes);
        }
        for datagram in bytes.chunks(received.segment.unwrap_or(bytes.len())) {
            if self.shard.is_full() {
                self.settle(out);
            }
            self.shard.receive(peer, datagram);
        }
    }

    /// Decides what was received and sends what may be sent.
    pub(crate) fn settle(&mut self, out: &mut impl Outbox<SocketAddr>) {
        // [S-5] One reading of the clock decides for a batch.
        self.shard.settle(clock::now_ns(), out);
        if self.shard.reign().claim_low_water() {
            self.demand.raise(clock::now_ns());
        }
    }

    /// To be called before the shard sleeps: sends what was covered at the last moment, and makes sure
    /// that a reservation that moves later wakes it.
    pub(crate) fn before_sleep(&mut self, out: &mut impl Outbox<SocketAddr>) {
        self.shard.counters().wakeups.add(1);
        self.sleeper.set_waits(self.shard.holds());
        if self.shard.holds() {
            self.shard.release(out);
        }
    }
}
