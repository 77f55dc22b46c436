//! The retry memory: which token a request got (S-6).
//!
//! Kept in blocks of neighbouring lanes of one client, as a datagram with many requests comes from many
//! lanes: one look-up serves all of them. Bounded: at the bound the block that was remembered first is
//! forgotten. Its owner may then get a second token for the same request, and one of the two stays a hole.

use std::cmp::Ordering;
use std::collections::HashMap;
use std::hash::{BuildHasher, Hasher};

use wire::{ClientId, Lane, Position, RequestId};

/// Lanes of a block.
pub(crate) const BLOCK_LANES: usize = 32;

/// The last request of a lane that was given a token.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Known {
    pub(crate) request: RequestId,
    pub(crate) first: Position,
    /// Positions of the token; 0 if there is none.
    pub(crate) count: u32,
    /// Batch that gave the token, until that batch has taken its positions.
    pub(crate) batch: u32,
}

/// What is known of a request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Recall {
    /// Not seen before.
    New,
    /// First position and length of its token.
    Token(Position, u32),
    /// The lane has gone on to a later request.
    Stale,
}

impl Known {
    /// Looks a request of the lane up.
    #[inline]
    pub(crate) fn recall(&self, request: RequestId) -> Recall {
        match request.cmp(&self.request) {
            Ordering::Less => Recall::Stale,
            Ordering::Equal if self.count > 0 => Recall::Token(self.first, self.count),
            Ordering::Equal | Ordering::Greater => Recall::New,
        }
    }
}

/// Neighbouring lanes that are remembered together.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) struct Group(u32);

impl Group {
    /// The group of a lane, and the index of the lane in it.
    #[inline]
    pub(crate) fn of(lane: Lane) -> (Self, usize) {
        const LANES: u32 = 32;
        const _: () = assert!(LANES as usize == BLOCK_LANES);
        let index = usize::try_from(lane.0 % LANES).unwrap_or_default();
        (Self(lane.0 / LANES), index)
    }
}

/// What is known of the lanes of a group.
pub(crate) type Lanes = [Known; BLOCK_LANES];

/// Whose lanes a block has.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
struct Owner {
    client: ClientId,
    group: Group,
}

/// No lane is in this group: it is above those that lanes divide into.
const NOBODY: Owner = Owner {
    client: ClientId(0),
    group: Group(u32::MAX),
};

#[derive(Debug, Clone)]
struct Block {
    owner: Owner,
    lanes: Lanes,
}

/// Bounded map from lanes to their last request.
#[derive(Debug)]
pub(crate) struct Memory {
    places: HashMap<Owner, usize, Seeded>,
    blocks: Vec<Block>,
    oldest: usize,
    bound: usize,
    /// The block that was looked up last; at first one that is not there.
    last: (Owner, usize),
}

impl Memory {
    /// A memory of `bound` blocks. `seed` keeps outsiders from choosing collisions.
    pub(crate) fn new(bound: usize, seed: u64) -> Self {
        let bound = bound.max(1);
        Self {
            places: HashMap::with_capacity_and_hasher(bound, Seeded(seed)),
            blocks: Vec::with_capacity(bound),
            oldest: 0,
            bound,
            last: (NOBODY, usize::MAX),
        }
    }

    /// What is known of a lane.
    pub(crate) fn get(&mut self, client: ClientId, lane: Lane) -> Option<&mut Known> {
        let (group, index) = Group::of(lane);
        let owner = Owner { client, group };
        let place = match self.last {
            (last, place) if last == owner => place,
            _ => *self.places.get(&owner)?,
        };
        self.blocks.get_mut(place)?.lanes.get_mut(index)
    }

    /// What is known of a lane, with room for it made if there was none.
    pub(crate) fn room(&mut self, client: ClientId, lane: Lane) -> Option<&mut Known> {
        let (group, index) = Group::of(lane);
        self.block(client, group)?.get_mut(index)
    }

    /// What is known of the lanes of a group, with room for them made if there was none.
    #[inline]
    pub(crate) fn block(&mut self, client: ClientId, group: Group) -> Option<&mut Lanes> {
        let owner = Owner { client, group };
        if self.last.0 != owner {
            self.turn_to(owner);
        }
        let block = self.blocks.get_mut(self.last.1)?;
        Some(&mut block.lanes)
    }

    #[inline]
    fn turn_to(&mut self, owner: Owner) {
        match self.places.get(&owner) {
            Some(place) => self.last = (owner, *place),
            None => self.add(owner),
        }
    }

    /// Adds an empty block, in the place of the oldest one at the bound.
    fn add(&mut self, owner: Owner) {
        let lanes = [Known::default(); BLOCK_LANES];
        let block = Block { owner, lanes };
        let place = if self.blocks.len() < self.bound {
            self.blocks.push(block);
            self.blocks.len() - 1
        } else {
            let place = self.oldest;
            self.oldest = (self.oldest + 1) % self.bound;
            if let Some(old) = self.blocks.get_mut(place) {
                self.places.remove(&old.owner);
                *old = block;
            }
            place
        };
        self.places.insert(owner, place);
        self.last = (owner, place);
    }
}

/// A few multiplications with a secret seed: the map is bounded, so that collisions cost time, never
/// memory.
#[derive(Debug, Clone, Copy)]
pub(super) struct Seeded(pub(super) u64);

/// 2^64 divided by the golden ratio, odd.
const GOLDEN: u64 = 0x9e37_79b9_7f4a_7c15;

impl BuildHasher for Seeded {
    type Hasher = Mixer;

    fn build_hasher(&self) -> Mixer {
        Mixer(self.0)
    }
}

pub(super) struct Mixer(u64);

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

    fn known(request: u64) -> Known {
        Known {
            request: RequestId(request),
            first: Position(request * 10),
            count: 1,
            batch: 0,
        }
    }

    #[test]
    fn s6_memory_is_bounded_and_forgets_the_oldest() {
        let mut memory = Memory::new(3, 7);
        for client in 0..10 {
            *memory.room(ClientId(client), Lane(5)).expect("room") = known(client);
            // Going on does not make a block younger.
            *memory.room(ClientId(client), Lane(6)).expect("room") = known(100 + client);
        }
        assert_eq!((memory.blocks.len(), memory.places.len()), (3, 3));
        for client in 0..10 {
            let found = memory.get(ClientId(client), Lane(6)).copied();
            assert_eq!(found.is_some(), client >= 7, "client={client}");
            assert!(found.is_none_or(|found| found == known(100 + client)));
        }
        // What is remembered in the place of another has nothing of it.
        let fresh = memory.room(ClientId(50), Lane(5)).copied();
        assert_eq!(fresh, Some(Known::default()));
    }

    #[test]
    fn lower_request_is_stale_and_higher_is_new() {
        for (request, expected) in [
            (4, Recall::Stale),
            (5, Recall::Token(Position(50), 1)),
            (6, Recall::New),
        ] {
            assert_eq!(known(5).recall(RequestId(request)), expected);
        }
        assert_eq!(Known::default().recall(RequestId(0)), Recall::New);
    }

    #[test]
    fn lanes_and_clients_are_told_apart() {
        let mut memory = Memory::new(1000, 7);
        let lanes = [0, 1, 31, 32, 33, 63, 64, u32::MAX];
        for client in 0..3 {
            for (number, lane) in lanes.into_iter().enumerate() {
                let number = 100 * client + number as u64;
                *memory.room(ClientId(client), Lane(lane)).expect("room") = known(number);
            }
        }
        for client in 0..3 {
            for (number, lane) in lanes.into_iter().enumerate() {
                let number = 100 * client + number as u64;
                let found = memory.get(ClientId(client), Lane(lane)).copied();
                assert_eq!(found, Some(known(number)), "client={client} lane={lane}");
            }
        }
        assert_eq!(memory.get(ClientId(3), Lane(0)), None);
    }
}
