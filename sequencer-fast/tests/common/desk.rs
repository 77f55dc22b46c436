//! A shard without sockets, clocks and threads.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use sequencer_fast::logic::{Counter, Limits, Outbox, Reign, Shard, ShardCounters};
use wire::datagram::{Grant, Header, Kind, Reply, Status};
use wire::{ClientId, Epoch, Fixed, Position};

use super::{Chain, LOG, encode};

/// A counter that counts how often it is added to.
#[derive(Debug, Default)]
pub(crate) struct Counting {
    tail: AtomicU64,
    takes: AtomicU64,
}

impl Counting {
    pub(crate) fn takes(&self) -> u64 {
        self.takes.load(Ordering::Relaxed)
    }
}

impl Counter for Counting {
    fn tail(&self) -> u64 {
        self.tail.tail()
    }

    fn take(&self, count: u64) -> u64 {
        self.takes.fetch_add(1, Ordering::Relaxed);
        self.tail.take(count)
    }

    fn take_at(&self, expected: u64, count: u64) -> Result<(), u64> {
        self.tail.take_at(expected, count)
    }

    fn close(&self) -> Option<u64> {
        self.tail.close()
    }
}

/// What was sent: to whom, and what.
#[derive(Debug, Clone)]
pub(crate) struct Sent {
    pub(crate) peer: u16,
    pub(crate) header: Header,
    pub(crate) replies: Vec<Reply>,
}

#[derive(Debug, Default)]
pub(crate) struct Out(pub(crate) Vec<Sent>);

impl Outbox<u16> for Out {
    fn send(&mut self, peer: u16, header: Header, replies: &[Reply]) {
        let replies = replies.to_vec();
        self.0.push(Sent {
            peer,
            header,
            replies,
        });
    }
}

/// Shards of one reign.
pub(crate) struct Desk {
    pub(crate) reign: Arc<Reign<Counting>>,
    pub(crate) shards: Vec<Shard<u16, Counting>>,
    pub(crate) now_ns: u64,
}

impl Desk {
    /// A reign that grants from 0 until `deadline_ns`, with that many positions reserved.
    pub(crate) fn new(reservation: u64, deadline_ns: u64, shards: u64, limits: Limits) -> Self {
        let mut entry = Chain::new().newest();
        entry.epoch = Epoch(5);
        entry.reservation = Position(reservation);
        let reign = Reign::with_counter(&entry, Counting::default()).expect("has a segment");
        let reign = Arc::new(reign);
        reign.grant();
        reign.renew(deadline_ns);
        let shard = |_| {
            Shard::new(
                Arc::clone(&reign),
                Arc::new(ShardCounters::default()),
                limits,
            )
        };
        Self {
            shards: (0..shards).map(shard).collect(),
            reign,
            now_ns: 0,
        }
    }

    /// One shard with ample bounds.
    pub(crate) fn simple(reservation: u64) -> Self {
        Self::new(reservation, u64::MAX, 1, limits(1 << 10, 1 << 10))
    }

    pub(crate) fn receive(&mut self, peer: u16, bytes: &[u8]) {
        self.shards[0].receive(peer, bytes);
    }

    /// Puts a request of client 1 into the batch.
    pub(crate) fn put<T: Fixed>(&mut self, peer: u16, tag: u64, kind: Kind, entries: &[T]) {
        self.receive(peer, &request(1, tag, kind, entries));
    }

    pub(crate) fn settle(&mut self) -> Vec<Sent> {
        let mut out = Out::default();
        self.shards[0].settle(self.now_ns, &mut out);
        out.0
    }

    /// One request of client 1, and what comes at once.
    pub(crate) fn ask(&mut self, kind: Kind, entry: Grant) -> Option<Reply> {
        self.put(1, 0, kind, &[entry]);
        self.settle().first().map(|sent| sent.replies[0])
    }

    pub(crate) fn counters(&self) -> &ShardCounters {
        self.shards[0].counters()
    }

    pub(crate) fn tail(&self) -> u64 {
        self.reign.counter().tail()
    }
}

pub(crate) fn limits(retry_memory: usize, held_replies: usize) -> Limits {
    Limits {
        retry_memory,
        held_replies,
        seed: 11,
    }
}

pub(crate) fn request<T: Fixed>(client: u64, tag: u64, kind: Kind, entries: &[T]) -> Vec<u8> {
    let mut header = Header::request(kind, LOG, ClientId(client), entries.len());
    header.tag = tag;
    encode(header, entries)
}

pub(crate) fn status(reply: &Reply) -> Status {
    reply.status().expect("a known status")
}
