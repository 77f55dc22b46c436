//! The retry memory that is shared with a program in the kernel (S-6).
//!
//! Blocks of 32 lanes, each client's groups of lanes at a place that a hash chooses: whoever comes later takes the
//! place over, and what stood there is forgotten, which costs a hole and never a double grant. A block is locked from
//! the look at it to the answer, by the program alone or by batches of user space, of which several may be in it at
//! once, as shards have memories of their own. The program does not wait: who finds user space in a block passes up.

use std::hint;
use std::sync::atomic::{AtomicU64, Ordering, fence};
use std::sync::{Arc, Mutex, PoisonError};

use wire::{ClientId, Lane, Position, RequestId};

use super::memory::{BLOCK_LANES, Known};
use super::shard::SETTLED;
use super::tail::Words;

/// Words of a block: `struct block` of `bpf/grant.h`.
pub const BLOCK_WORDS: usize = 104;

const LOCK: usize = 0;
const CLIENT: usize = 1;

/// The group, and above it a bit for each lane that something is known of.
const GROUP: usize = 2;
const LANES: usize = 3;
const LANE_WORDS: usize = 3;

const _: () = assert!(LANES + BLOCK_LANES * LANE_WORDS <= BLOCK_WORDS);

/// The program is in the block. Below are the batches that are.
const PROGRAM: u64 = 1 << 63;

/// Looks of a batch at blocks that the program is in. It stays for less than a microsecond unless its core stands still.
pub(super) const ENTER_TRIES: u32 = 1 << 16;

/// A table of blocks.
#[derive(Debug)]
pub struct Table {
    memory: Arc<dyn Words>,
    seed: u64,
    blocks: u32,
    /// One batch at a time reads or writes what is in blocks.
    contents: Mutex<()>,
}

/// A block that a batch may be in.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Place(usize);

impl Table {
    /// A table of `blocks` blocks, a power of two. `seed` keeps outsiders from choosing places.
    #[must_use]
    pub fn new(memory: Arc<dyn Words>, seed: u64, blocks: u32) -> Self {
        Self {
            memory,
            seed,
            blocks,
            contents: Mutex::new(()),
        }
    }

    /// The place of a lane, the same as in `bpf/grant.bpf.c`.
    pub(crate) fn place(&self, client: ClientId, lane: Lane) -> Place {
        let (group, _) = split(lane);
        let hash = (client.0 ^ self.seed).wrapping_mul(0x9e37_79b9_7f4a_7c15);
        let hash = (hash ^ hash >> 32 ^ u64::from(group)).wrapping_mul(0xff51_afd7_ed55_8ccd);
        let place = hash >> 32 & u64::from(self.blocks.saturating_sub(1));
        Place(usize::try_from(place).unwrap_or_default())
    }

    /// Keeps the program out of a block; false if it stays in there for so many looks after the first, which are used up.
    pub(super) fn enter(&self, place: Place, tries: &mut u32) -> bool {
        let Some(lock) = self.block(place).and_then(|block| block.get(LOCK)) else {
            return false;
        };
        loop {
            let found = lock.load(Ordering::Relaxed);
            if found & PROGRAM == 0 {
                let entered =
                    lock.compare_exchange(found, found + 1, Ordering::Acquire, Ordering::Relaxed);
                if entered.is_ok() {
                    return true;
                }
            }
            let Some(left) = tries.checked_sub(1) else {
                return false;
            };
            *tries = left;
            hint::spin_loop();
        }
    }

    /// Undoes one [`Self::enter`] that returned true.
    pub(crate) fn leave(&self, place: Place) {
        if let Some(lock) = self.block(place).and_then(|block| block.get(LOCK)) {
            fence(Ordering::Release);
            lock.fetch_sub(1, Ordering::Release);
        }
    }

    /// What is known of a lane, if anything. Only for who is in its block.
    pub(crate) fn get(&self, client: ClientId, lane: Lane) -> Option<Known> {
        let block = self.block(self.place(client, lane))?;
        let _alone = self.contents.lock().unwrap_or_else(PoisonError::into_inner);
        let (group, index) = split(lane);
        if !owned(block, client, group) || valid(block) & 1 << index == 0 {
            return None;
        }
        let [request, first, count] = lane_words(block, index)?;
        Some(Known {
            request: RequestId(request.load(Ordering::Relaxed)),
            first: Position(first.load(Ordering::Relaxed)),
            count: u32::try_from(count.load(Ordering::Relaxed)).ok()?,
            batch: SETTLED,
        })
    }

    /// Remembers the token of a lane's request, unless a later one is known. Only for who is in its block.
    pub(crate) fn set(&self, client: ClientId, lane: Lane, known: &Known) {
        let Some(block) = self.block(self.place(client, lane)) else {
            return;
        };
        let _alone = self.contents.lock().unwrap_or_else(PoisonError::into_inner);
        let (group, index) = split(lane);
        let mut lanes = 0;
        if owned(block, client, group) {
            lanes = valid(block);
        }
        let Some([request, first, count]) = lane_words(block, index) else {
            return;
        };
        if lanes & 1 << index != 0 && request.load(Ordering::Relaxed) > known.request.0 {
            return;
        }
        request.store(known.request.0, Ordering::Relaxed);
        first.store(known.first.0, Ordering::Relaxed);
        count.store(u64::from(known.count), Ordering::Relaxed);
        let lanes = u64::from(lanes | 1 << index);
        for (word, value) in [
            (CLIENT, client.0),
            (GROUP, lanes << u32::BITS | u64::from(group)),
        ] {
            if let Some(word) = block.get(word) {
                word.store(value, Ordering::Relaxed);
            }
        }
    }

    fn block(&self, Place(place): Place) -> Option<&[AtomicU64]> {
        let start = place.checked_mul(BLOCK_WORDS)?;
        self.memory.words().get(start..start + BLOCK_WORDS)
    }
}

/// The group of a lane, and its index in there.
fn split(Lane(lane): Lane) -> (u32, usize) {
    const WIDE: u32 = 32;
    const _: () = assert!(WIDE as usize == BLOCK_LANES);
    (
        lane / WIDE,
        usize::try_from(lane % WIDE).unwrap_or_default(),
    )
}

fn owned(block: &[AtomicU64], client: ClientId, group: u32) -> bool {
    let word = |number: usize| block.get(number).map(|word| word.load(Ordering::Relaxed));
    word(CLIENT) == Some(client.0)
        && word(GROUP).is_some_and(|word| word & u64::from(u32::MAX) == u64::from(group))
}

/// The lanes of a block that something is known of.
fn valid(block: &[AtomicU64]) -> u32 {
    let word = block.get(GROUP).map(|word| word.load(Ordering::Relaxed));
    u32::try_from(word.unwrap_or_default() >> u32::BITS).unwrap_or_default()
}

fn lane_words(block: &[AtomicU64], index: usize) -> Option<&[AtomicU64; LANE_WORDS]> {
    block.get(LANES + index * LANE_WORDS..)?.first_chunk()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn table(blocks: u32) -> Table {
        let words = BLOCK_WORDS * usize::try_from(blocks).expect("small");
        let memory: Vec<AtomicU64> = (0..words).map(|_| AtomicU64::new(0)).collect();
        Table::new(Arc::new(memory), 7, blocks)
    }

    fn known(request: u64) -> Known {
        Known {
            request: RequestId(request),
            first: Position(request * 10),
            count: 3,
            batch: SETTLED,
        }
    }

    #[test]
    fn s6_what_is_set_is_found_and_the_latest_stays() {
        let table = table(64);
        let lanes = [Lane(0), Lane(31), Lane(32), Lane(u32::MAX)];
        for (number, lane) in (0..).zip(lanes) {
            assert_eq!(table.get(ClientId(1), lane), None);
            table.set(ClientId(1), lane, &known(5 + number));
        }
        table.set(ClientId(1), Lane(31), &known(2));
        for (number, lane) in (0..).zip(lanes) {
            assert_eq!(table.get(ClientId(1), lane), Some(known(5 + number)));
        }
        assert_eq!(table.get(ClientId(1), Lane(1)), None);
        assert_eq!(table.get(ClientId(2), Lane(0)), None);
    }

    #[test]
    fn s6_who_takes_a_place_over_finds_nothing_of_who_was_there() {
        let table = table(1);
        for lane in 0..32 {
            table.set(ClientId(1), Lane(lane), &known(9));
        }
        table.set(ClientId(2), Lane(4), &known(1));
        assert_eq!(table.get(ClientId(2), Lane(4)), Some(known(1)));
        assert_eq!(table.get(ClientId(2), Lane(5)), None);
        assert_eq!(table.get(ClientId(1), Lane(5)), None);
        table.set(ClientId(2), Lane(4 + 32), &known(1));
        assert_eq!(table.get(ClientId(2), Lane(4)), None, "another group");
    }

    #[test]
    fn a_program_and_batches_keep_each_other_out() {
        let table = table(1);
        let place = table.place(ClientId(1), Lane(0));
        let lock = &table.memory.words()[LOCK];
        let mut tries = 10;
        assert!(table.enter(place, &mut tries));
        assert!(table.enter(place, &mut tries), "batches do not");
        assert_eq!(tries, 10);
        assert_eq!(lock.load(Ordering::Relaxed), 2, "what the program finds");
        table.leave(place);
        table.leave(place);
        lock.store(PROGRAM, Ordering::Relaxed);
        assert!(!table.enter(place, &mut tries));
        assert_eq!((lock.load(Ordering::Relaxed), tries), (PROGRAM, 0));
        lock.store(0, Ordering::Relaxed);
        assert!(table.enter(place, &mut tries), "one look is for nothing");
    }

    #[test]
    fn places_are_spread() {
        let table = table(1 << 10);
        let mut used = [false; 1 << 10];
        for client in 0..1 << 10 {
            for lane in [0, 32] {
                used[table.place(ClientId(client), Lane(lane)).0] = true;
            }
        }
        // Of 2,048 balls in 1,024 urns some 885 urns get one.
        let count = used.into_iter().filter(|used| *used).count();
        assert!((800..970).contains(&count), "count={count}");
    }
}
