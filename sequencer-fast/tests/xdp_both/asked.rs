//! Datagrams of a client, made by chance.

use wire::datagram::{Grant, Header, Kind};
use wire::limits::MAX_GRANT;
use wire::{ClientId, Lane, Position, RequestId};

use super::common::random::Random;
use super::common::{LOG, encode};
use super::world::World;

/// Lanes of a block of the retry memory.
const BLOCK: u32 = 32;

/// Groups of lanes that a client uses.
const GROUPS: u32 = 3;

/// Most requests of a datagram.
const MOST: u32 = 29;

/// A datagram that was made.
#[derive(Debug)]
pub(crate) struct Asked {
    pub(crate) kind: Kind,
    pub(crate) client: ClientId,
    pub(crate) number: u64,
    pub(crate) entries: Vec<Grant>,
    pub(crate) bytes: Vec<u8>,
    /// What was told before it was sent for the first time.
    pub(crate) floor: u64,
    /// The silence in which it was.
    pub(crate) silence: u64,
}

impl Asked {
    /// A new datagram. All of its requests have its number, so that the numbers of each lane rise.
    pub(crate) fn make(random: &mut Random, number: u64, client: u64, world: &World) -> Self {
        let (client, floor) = (ClientId(client), world.floor());
        let (kind, entries) = match random.below(16) {
            _ if world.is_calm() => {
                let (kind, count) = match random.once_in(16) {
                    true => (Kind::Tail, 0),
                    false => (Kind::Grant, 1),
                };
                let lane = Lane(random.below32(BLOCK));
                (kind, vec![Grant::new(lane, RequestId(number), count)])
            }
            0 => (Kind::Tail, vec![Grant::new(Lane(0), RequestId(number), 0)]),
            1 | 2 => (Kind::GrantAt, conditional(random, number, floor)),
            _ => (Kind::Grant, grants(random, number)),
        };
        Asked {
            bytes: datagram(kind, client, number, &entries),
            kind,
            client,
            number,
            entries,
            floor,
            silence: world.silence(),
        }
    }
}

fn grants(random: &mut Random, number: u64) -> Vec<Grant> {
    let few = random.once_in(2);
    let count = if few { 1 } else { 1 + random.below32(MOST) };
    let lanes = GROUPS * BLOCK;
    let (base, stride) = match random.below(8) {
        // Anywhere, over the ends of blocks or not.
        0 => (random.below32(lanes), 1),
        // No neighbours.
        1 => (random.below32(lanes), *random.of(&[5, 7, 11])),
        // In one block.
        _ => {
            let base = random.below32(BLOCK - count + 1);
            (base + BLOCK * random.below32(GROUPS), 1)
        }
    };
    let mut entries: Vec<_> = (0..count)
        .map(|entry| {
            let lane = Lane((base + entry * stride) % lanes);
            Grant::new(lane, RequestId(number), positions(random))
        })
        .collect();
    if random.once_in(32) {
        let bad = *random.of(&[0, MAX_GRANT + 1, u32::MAX]);
        entries[0].count = bad;
    }
    entries
}

fn conditional(random: &mut Random, number: u64, floor: u64) -> Vec<Grant> {
    let lanes = GROUPS * BLOCK;
    let (base, mut expected) = (random.below32(lanes), Position(floor));
    (0..1 + random.below32(3))
        .map(|entry| {
            let (lane, count) = (Lane((base + entry) % lanes), positions(random));
            let grant = Grant::at(lane, RequestId(number), count, expected);
            expected = expected.plus(u64::from(count));
            grant
        })
        .collect()
}

/// Mostly few, sometimes more than what is left of the reservation.
fn positions(random: &mut Random) -> u32 {
    match random.once_in(1024) {
        true => 1 + random.below32(2000),
        false => 1 + random.below32(8),
    }
}

pub(crate) fn datagram(kind: Kind, client: ClientId, number: u64, entries: &[Grant]) -> Vec<u8> {
    let mut header = Header::request(kind, LOG, client, entries.len());
    header.tag = number;
    encode(header, entries)
}
