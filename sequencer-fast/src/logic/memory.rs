//! The retry memory: which token a request got (S-6).
//!
//! Bounded: at the bound the lane that was remembered first is forgotten. Its owner may then get a second
//! token for the same request, and one of the two stays a hole.

use std::collections::HashMap;
use std::hash::{BuildHasher, Hasher};

use wire::datagram::{Grant, Header};
use wire::{ClientId, Lane, Position, RequestId};

/// Whose requests are counted together: of one lane, one request is under way at a time.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) struct Asker {
    pub(crate) client: ClientId,
    pub(crate) lane: Lane,
}

/// The right to write `count` positions from `first` on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Token {
    pub(crate) first: Position,
    pub(crate) count: u32,
}

impl Asker {
    /// Who asks in an entry of a datagram.
    pub(crate) fn of(header: &Header, grant: &Grant) -> Self {
        let (client, lane) = (header.client, grant.lane);
        Self { client, lane }
    }
}

impl Token {
    pub(crate) fn new(first: u64, count: u32) -> Self {
        let first = Position(first);
        Self { first, count }
    }

    /// The token whose `first` counts from the start of the batch, once the batch starts at `base`.
    pub(crate) fn starting_at(self, base: Position) -> Self {
        let first = base.plus(self.first.0);
        Self { first, ..self }
    }

    /// First position behind the token.
    pub(crate) fn end(self) -> Position {
        self.first.plus(u64::from(self.count))
    }
}

/// What is known of a request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Recall {
    /// Not seen before.
    New,
    /// Token of the same request.
    Token(Token),
    /// Repeats a request of this batch, whose token starts that far into the batch.
    Batch(Token),
    /// The lane has gone on to a later request.
    Stale,
}

/// Where something is remembered. Valid until the asker is forgotten or goes on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Place(usize);

/// Bounded map from lanes to their last request.
#[derive(Debug)]
pub(crate) struct Memory {
    places: HashMap<Asker, usize, Seeded>,
    slots: Vec<Slot>,
    oldest: usize,
    bound: usize,
}

#[derive(Debug, Clone, Copy)]
struct Slot {
    asker: Asker,
    request: RequestId,
    state: State,
    /// Number of the held datagram that will answer.
    held: Option<u64>,
}

#[derive(Debug, Clone, Copy)]
enum State {
    Granted(Token),
    /// `first` counts from the start of the batch, which has not taken its positions yet.
    Batch(Token),
    /// The batch got no positions.
    Nothing,
}

impl Memory {
    /// A memory of `bound` lanes, all allocated now. `seed` keeps outsiders from choosing collisions.
    pub(crate) fn new(bound: usize, seed: u64) -> Self {
        let bound = bound.max(1);
        Self {
            places: HashMap::with_capacity_and_hasher(bound, Seeded(seed)),
            slots: Vec::with_capacity(bound),
            oldest: 0,
            bound,
        }
    }

    /// Looks a request up.
    pub(crate) fn recall(&self, asker: Asker, request: RequestId) -> Recall {
        let Some(slot) = self.slot(asker) else {
            return Recall::New;
        };
        match slot.state {
            _ if request < slot.request => Recall::Stale,
            _ if request > slot.request => Recall::New,
            State::Granted(token) => Recall::Token(token),
            State::Batch(token) => Recall::Batch(token),
            State::Nothing => Recall::New,
        }
    }

    /// Remembers a token.
    pub(crate) fn granted(&mut self, asker: Asker, request: RequestId, token: Token) -> Place {
        self.put(asker, request, State::Granted(token))
    }

    /// Remembers a token whose `first` counts from the start of the batch.
    pub(crate) fn batched(&mut self, asker: Asker, request: RequestId, token: Token) -> Place {
        self.put(asker, request, State::Batch(token))
    }

    /// Turns what is remembered of a batch into a token from `base` on, or into nothing. What the memory
    /// has forgotten again within the batch is left alone.
    pub(crate) fn settle(&mut self, place: Place, base: Option<Position>) {
        let Some(slot) = self.slots.get_mut(place.0) else {
            return;
        };
        if let State::Batch(token) = slot.state {
            slot.state = base.map_or(State::Nothing, |base| {
                State::Granted(token.starting_at(base))
            });
        }
    }

    /// Number of the held datagram that will answer this request.
    pub(crate) fn held(&self, asker: Asker, request: RequestId) -> Option<u64> {
        let slot = self.slot(asker)?;
        slot.held.filter(|_| slot.request == request)
    }

    /// Notes which held datagram will answer this request.
    pub(crate) fn hold(&mut self, asker: Asker, request: RequestId, number: u64) {
        let place = self.places.get(&asker);
        let slot = place.and_then(|place| self.slots.get_mut(*place));
        if let Some(slot) = slot.filter(|slot| slot.request == request) {
            slot.held = Some(number);
        }
    }

    fn slot(&self, asker: Asker) -> Option<&Slot> {
        self.slots.get(*self.places.get(&asker)?)
    }

    fn put(&mut self, asker: Asker, request: RequestId, state: State) -> Place {
        let slot = Slot {
            asker,
            request,
            state,
            held: None,
        };
        let place = match self.places.get(&asker) {
            Some(place) => *place,
            None => self.room(),
        };
        self.places.insert(asker, place);
        match self.slots.get_mut(place) {
            Some(old) => *old = slot,
            None => self.slots.push(slot),
        }
        Place(place)
    }

    /// A free place: a new one below the bound, else that of the lane that came first.
    fn room(&mut self) -> usize {
        if self.slots.len() < self.bound {
            return self.slots.len();
        }
        let place = self.oldest;
        self.oldest = (self.oldest + 1) % self.bound;
        if let Some(old) = self.slots.get(place) {
            self.places.remove(&old.asker);
        }
        place
    }
}

/// A few multiplications with a secret seed: lookups are the dearest part of a grant, and the map is
/// bounded, so that collisions cost time, never memory.
#[derive(Debug, Clone, Copy)]
struct Seeded(u64);

/// 2^64 divided by the golden ratio, odd.
const GOLDEN: u64 = 0x9e37_79b9_7f4a_7c15;

impl BuildHasher for Seeded {
    type Hasher = Mixer;

    fn build_hasher(&self) -> Mixer {
        Mixer(self.0)
    }
}

struct Mixer(u64);

impl Hasher for Mixer {
    fn finish(&self) -> u64 {
        let mixed = (self.0 ^ self.0 >> 32).wrapping_mul(GOLDEN);
        mixed ^ mixed >> 29
    }

    fn write(&mut self, bytes: &[u8]) {
        for byte in bytes {
            self.write_u64(u64::from(*byte));
        }
    }

    fn write_u32(&mut self, value: u32) {
        self.write_u64(u64::from(value));
    }

    fn write_u64(&mut self, value: u64) {
        let mixed = (self.0 ^ value).wrapping_mul(GOLDEN);
        self.0 = mixed ^ mixed >> 31;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn asker(client: u64) -> Asker {
        let (client, lane) = (ClientId(client), Lane(0));
        Asker { client, lane }
    }

    fn token(first: u64) -> Token {
        Token::new(first, 1)
    }

    #[test]
    fn s6_memory_is_bounded_and_forgets_the_oldest() {
        let mut memory = Memory::new(3, 7);
        for client in 0..10 {
            memory.granted(asker(client), RequestId(1), token(client));
            // Going on does not make a lane younger.
            memory.granted(asker(client), RequestId(2), token(100 + client));
        }
        assert_eq!((memory.slots.len(), memory.places.len()), (3, 3));
        for client in 0..10 {
            let recall = memory.recall(asker(client), RequestId(2));
            match recall {
                Recall::Token(found) => assert_eq!(found, token(100 + client)),
                _ => assert_eq!(recall, Recall::New),
            }
            assert_eq!(recall == Recall::New, client < 7, "client={client}");
        }
    }

    #[test]
    fn lower_request_is_stale_and_higher_is_new() {
        let mut memory = Memory::new(3, 7);
        memory.granted(asker(1), RequestId(5), token(0));
        for (request, stale) in [(4, true), (6, false)] {
            let recall = memory.recall(asker(1), RequestId(request));
            assert_eq!(recall, if stale { Recall::Stale } else { Recall::New });
        }
    }

    #[test]
    fn settling_leaves_alone_what_was_forgotten_within_the_batch() {
        let mut memory = Memory::new(1, 7);
        let first = memory.batched(asker(1), RequestId(1), token(0));
        memory.granted(asker(2), RequestId(1), token(500));
        memory.settle(first, Some(Position(40)));
        let recall = memory.recall(asker(2), RequestId(1));
        assert_eq!(recall, Recall::Token(token(500)));
    }
}
