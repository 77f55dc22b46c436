//! A shard without sockets, clocks and threads.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use sequencer_fast::logic::{
    Counter, Limits, Outbox, Packet, Packets, Reign, Shard, ShardCounters,
};
use wire::datagram::{Datagram, Grant, Header, Kind, Reply, Status};
use wire::{ClientId, Epoch, Fixed, Position};

use super::{Chain, LOG, encode};

/// A counter that counts how often it is added to.
#[derive(Debug, Default)]
pub(crate) struct Counting {
    tail: AtomicU64,
    takes: AtomicU64,
    others: AtomicU64,
}

impl Counting {
    pub(crate) fn takes(&self) -> u64 {
        self.takes.load(Ordering::Relaxed)
    }

    /// From now on another shard takes so many positions right before each addition: after the tail has
    /// been looked at.
    pub(crate) fn let_others_take(&self, count: u64) {
        self.others.store(count, Ordering::Relaxed);
    }
}

impl Counter for Counting {
    fn tail(&self) -> u64 {
        self.tail.tail()
    }

    fn take(&self, count: u64) -> u64 {
        self.takes.fetch_add(1, Ordering::Relaxed);
        self.tail.take(self.others.load(Ordering::Relaxed));
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
    pub(crate) bytes: Vec<u8>,
}

/// A peer is its number, and so is its address.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Peer(pub(crate) u16);

impl sequencer_fast::logic::Peer for Peer {
    fn address(&self) -> u128 {
        u128::from(self.0)
    }
}

#[derive(Debug, Default)]
pub(crate) struct Out(pub(crate) Vec<Sent>);

impl Outbox<Peer> for Out {
    fn send(&mut self, Peer(peer): Peer, bytes: &[u8]) {
        let datagram = Datagram::parse(bytes, LOG).expect("a reply is well formed");
        assert!(datagram.header.is_reply());
        self.0.push(Sent {
            peer,
            header: datagram.header,
            bytes: bytes.to_vec(),
            replies: datagram
                .entries()
                .map(|reply| reply.expect("valid"))
                .collect(),
        });
    }
}

/// Packets that were received and not served yet: peer, bytes, size of a datagram.
#[derive(Debug, Default)]
pub(crate) struct Inbox(Vec<(u16, Vec<u8>, usize)>);

impl Packets<Peer> for Inbox {
    fn count(&self) -> usize {
        self.0.len()
    }

    fn packet(&mut self, index: usize) -> Option<Packet<'_, Peer>> {
        let (peer, bytes, segment) = self.0.get_mut(index)?;
        Some(Packet {
            peer: Peer(*peer),
            bytes,
            segment: *segment,
        })
    }

    fn keep(&mut self, index: usize, len: usize) {
        self.0[index].1.truncate(len);
    }
}

impl Inbox {
    /// Adds a datagram to the last packet if it may stand there, else in a packet of its own.
    pub(crate) fn put(&mut self, peer: u16, datagram: &[u8]) {
        match self.0.last_mut() {
            Some((last, bytes, segment))
                if *last == peer
                    && *segment > 0
                    && bytes.len().is_multiple_of(*segment)
                    && (1..=*segment).contains(&datagram.len()) =>
            {
                bytes.extend(datagram);
            }
            _ => self.0.push((peer, datagram.to_vec(), datagram.len())),
        }
    }

    /// Has everything served, and what is left of it sent back.
    pub(crate) fn serve<C: Counter>(
        &mut self,
        shard: &mut Shard<Peer, C>,
        now_ns: u64,
    ) -> Vec<Sent> {
        self.serve_with(shard, || now_ns)
    }

    /// The same with a clock.
    pub(crate) fn serve_with<C: Counter>(
        &mut self,
        shard: &mut Shard<Peer, C>,
        now_ns: impl FnOnce() -> u64,
    ) -> Vec<Sent> {
        let mut out = Out::default();
        shard.serve_with(self, now_ns, &mut out);
        for (peer, bytes, segment) in self.0.drain(..) {
            for datagram in bytes.chunks(segment.max(1)) {
                out.send(Peer(peer), datagram);
            }
        }
        out.0
    }
}

/// Shards of one reign.
pub(crate) struct Desk {
    pub(crate) reign: Arc<Reign<Counting>>,
    pub(crate) shards: Vec<Shard<Peer, Counting>>,
    pub(crate) inboxes: Vec<Inbox>,
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
                limits.clone(),
            )
        };
        Self {
            shards: (0..shards).map(shard).collect(),
            inboxes: (0..shards).map(|_| Inbox::default()).collect(),
            reign,
            now_ns: 0,
        }
    }

    /// One shard with ample bounds.
    pub(crate) fn simple(reservation: u64) -> Self {
        Self::new(reservation, u64::MAX, 1, limits(1 << 10, 1 << 10))
    }

    pub(crate) fn receive(&mut self, peer: u16, bytes: &[u8]) {
        self.inboxes[0].put(peer, bytes);
    }

    /// Puts a request of client 1 into the batch.
    pub(crate) fn put<T: Fixed>(&mut self, peer: u16, tag: u64, kind: Kind, entries: &[T]) {
        self.receive(peer, &request(1, tag, kind, entries));
    }

    pub(crate) fn settle(&mut self) -> Vec<Sent> {
        self.settle_shard(0)
    }

    pub(crate) fn settle_shard(&mut self, index: usize) -> Vec<Sent> {
        self.inboxes[index].serve(&mut self.shards[index], self.now_ns)
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
        rate: None,
        key: None,
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
