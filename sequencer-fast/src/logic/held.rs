//! Replies that wait until the reservation covers them (S-2).

use std::collections::{HashMap, VecDeque};

use wire::datagram::place::{self, Answer, Ask, Entry};
use wire::datagram::{HEADER_BYTES, MAX_DATAGRAM_BYTES, MAX_ENTRIES};
use wire::{ClientId, Lane, Position, RequestId};

use super::memory::Seeded;

/// A bounded queue of reply datagrams, in the order in which their tokens were granted.
///
/// A datagram is held and released as a whole (S-9): when the last of its tokens is covered.
#[derive(Debug)]
pub(crate) struct Held<P> {
    datagrams: VecDeque<Datagram<P>>,
    entries: VecDeque<Entry>,
    /// Which held datagram will answer the request of a lane.
    numbers: HashMap<(ClientId, Lane), (RequestId, u64), Seeded>,
    /// Number of the first datagram that is still held.
    first: u64,
    /// Number of the first entry that is still held.
    first_entry: u64,
    bound: usize,
    /// A datagram in one piece.
    released: Vec<u8>,
}

#[derive(Debug)]
struct Datagram<P> {
    peer: P,
    client: ClientId,
    header: [u8; HEADER_BYTES],
    end: Position,
    first_entry: u64,
    count: usize,
}

impl<P: Copy> Held<P> {
    /// A queue of at most `bound` replies.
    pub(crate) fn new(bound: usize, seed: u64) -> Self {
        Self {
            datagrams: VecDeque::new(),
            entries: VecDeque::with_capacity(bound),
            numbers: HashMap::with_hasher(Seeded(seed)),
            first: 0,
            first_entry: 0,
            bound,
            released: Vec::with_capacity(MAX_DATAGRAM_BYTES),
        }
    }

    /// Replies that are held.
    pub(crate) fn len(&self) -> usize {
        self.entries.len()
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }

    /// Whether so many replies may be held.
    pub(crate) fn fits(&self, count: usize) -> bool {
        count <= self.bound
    }

    /// Holds a reply datagram to `client` until `end` is covered; false if there is no room.
    pub(crate) fn push(&mut self, peer: P, client: ClientId, reply: &[u8], end: Position) -> bool {
        let entries = place::entries(reply);
        let Some(header) = reply
            .first_chunk()
            .filter(|_| self.fits(self.len() + entries.len()))
        else {
            return false;
        };
        let number = self.first + self.datagrams.len() as u64;
        self.datagrams.push_back(Datagram {
            peer,
            client,
            header: *header,
            end,
            first_entry: self.first_entry + self.entries.len() as u64,
            count: entries.len(),
        });
        self.entries.extend(entries);
        for ask in entries.iter().map(Ask::read) {
            let held = (ask.request, number);
            self.numbers.insert((client, ask.lane), held);
        }
        true
    }

    /// Lets repeated requests be answered where and as they were sent last, if a held datagram has exactly
    /// these replies. A client that repeats itself while it waits thus takes no room.
    pub(crate) fn redirect(&mut self, peer: P, client: ClientId, reply: &[u8]) -> bool {
        let entries = place::entries(reply);
        let first = entries.first().map(Ask::read);
        let number = first.and_then(|ask| {
            let (request, number) = *self.numbers.get(&(client, ask.lane))?;
            (request == ask.request).then_some(number)
        });
        let index = number.and_then(|number| number.checked_sub(self.first));
        let index = index.and_then(|index| usize::try_from(index).ok());
        let Some(datagram) = index.and_then(|index| self.datagrams.get_mut(index)) else {
            return false;
        };
        let start = usize::try_from(datagram.first_entry - self.first_entry);
        let held = self.entries.iter().skip(start.unwrap_or(usize::MAX));
        let same = |(one, other): (&Entry, &Entry)| tells_the_same(one, other);
        if datagram.count != entries.len() || !held.zip(entries).all(same) {
            return false;
        }
        if let Some(header) = reply.first_chunk() {
            datagram.header = *header;
            datagram.peer = peer;
        }
        true
    }

    /// Hands out, in order, what the reservation covers.
    pub(crate) fn release(&mut self, reservation: Position, mut send: impl FnMut(P, &mut [u8])) {
        // [S-2]
        let covered = |held: &Datagram<P>| held.end <= reservation;
        while self.datagrams.front().is_some_and(covered) {
            let Some(datagram) = self.datagrams.pop_front() else {
                return;
            };
            let count = datagram.count.min(self.entries.len());
            self.released.clear();
            self.released.extend(datagram.header);
            for entry in self.entries.drain(..count) {
                let key = (datagram.client, Ask::read(&entry).lane);
                if self
                    .numbers
                    .get(&key)
                    .is_some_and(|(_, number)| *number == self.first)
                {
                    self.numbers.remove(&key);
                }
                self.released.extend(entry);
            }
            self.first += 1;
            self.first_entry += count as u64;
            send(datagram.peer, &mut self.released);
        }
    }
}

/// Whether two replies say the same of the same request. The tails that a refusal tells beside may differ.
fn tells_the_same(one: &Entry, other: &Entry) -> bool {
    let asked = |entry: &Entry| {
        let ask = Ask::read(entry);
        (ask.request, ask.lane)
    };
    asked(one) == asked(other)
        && Answer::granted(one) == Answer::granted(other)
        && Answer::status(one) == Answer::status(other)
}

// Every datagram fits into an empty queue.
const _: () = assert!(HEADER_BYTES + MAX_ENTRIES * size_of::<Entry>() <= MAX_DATAGRAM_BYTES);
