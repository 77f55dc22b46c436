//! Memory for records that are not durable yet.
//!
//! Room for a body is taken before the first byte of it is read, and given back when all its records are
//! answered. While there is none, the connection is not read: its client waits. A stripe may take only a
//! part of the whole, so that one whose puts do not end does not hold up the others.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use crate::limits::{MEMORY_UNIT, STRIPES_THAT_FILL_MEMORY};

/// The memory of a daemon.
#[derive(Debug)]
pub(crate) struct Memory {
    room: Arc<Semaphore>,
    units: usize,
    /// Units that one stripe may take.
    share: AtomicUsize,
    starved: AtomicUsize,
}

/// Room that is taken, given back when it is dropped.
#[derive(Debug)]
pub(crate) struct Room {
    _permit: Option<OwnedSemaphorePermit>,
    units: usize,
    stripe: Option<Arc<AtomicUsize>>,
}

impl Memory {
    /// So many bytes, for a daemon of which it is not known yet how many stripes it has.
    #[must_use]
    pub(crate) fn new(bytes: usize) -> Self {
        let units = bytes / MEMORY_UNIT;
        Self {
            room: Arc::new(Semaphore::new(units)),
            units,
            share: AtomicUsize::new(share(units, STRIPES_THAT_FILL_MEMORY)),
            starved: AtomicUsize::new(0),
        }
    }

    /// The daemon has this number of stripes now.
    pub(crate) fn share_among(&self, stripes: usize) {
        self.share
            .store(share(self.units, stripes), Ordering::Release);
    }

    /// Waits for room for a body; who came first gets it first.
    pub(crate) async fn take(&self, body_len: usize) -> Option<Room> {
        let units = body_len / MEMORY_UNIT + 1;
        let many = u32::try_from(units).unwrap_or(u32::MAX);
        let permit = match Arc::clone(&self.room).try_acquire_many_owned(many) {
            Ok(permit) => permit,
            Err(_) => {
                let _starved = Starved::new(&self.starved);
                // Never closed.
                Arc::clone(&self.room).acquire_many_owned(many).await.ok()?
            }
        };
        Some(Room {
            _permit: Some(permit),
            units,
            stripe: None,
        })
    }

    /// Room for nothing.
    #[must_use]
    pub(crate) fn none(&self) -> Room {
        Room {
            _permit: None,
            units: 0,
            stripe: None,
        }
    }

    /// Whether a connection waits for room.
    #[must_use]
    pub(crate) fn is_full(&self) -> bool {
        self.starved.load(Ordering::Acquire) > 0
    }

    /// Counts room among what a stripe has taken, unless that is its share already.
    #[must_use]
    pub(crate) fn charge(&self, room: &mut Room, stripe: &Arc<AtomicUsize>) -> bool {
        let taken = stripe.fetch_add(room.units, Ordering::AcqRel);
        room.stripe = Some(Arc::clone(stripe));
        taken < self.share.load(Ordering::Acquire)
    }
}

fn share(units: usize, stripes: usize) -> usize {
    units / stripes.clamp(1, STRIPES_THAT_FILL_MEMORY)
}

impl Drop for Room {
    fn drop(&mut self) {
        if let Some(stripe) = self.stripe.take() {
            stripe.fetch_sub(self.units, Ordering::AcqRel);
        }
    }
}

/// Counts one that waits, also if it is given up while it does.
struct Starved<'a>(&'a AtomicUsize);

impl<'a> Starved<'a> {
    fn new(count: &'a AtomicUsize) -> Self {
        count.fetch_add(1, Ordering::AcqRel);
        Self(count)
    }
}

impl Drop for Starved<'_> {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::AcqRel);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_stripe_takes_its_share_and_no_more() {
        let memory = Memory::new(8 * MEMORY_UNIT);
        memory.share_among(100);
        let (one, other) = (Arc::default(), Arc::default());
        let mut rooms = Vec::new();
        for (stripe, granted) in [(&one, true), (&one, true), (&one, false), (&other, true)] {
            let mut room = memory.take(MEMORY_UNIT - 1).await.expect("room");
            assert_eq!(memory.charge(&mut room, stripe), granted);
            if granted {
                rooms.push(room);
            }
        }
        assert_eq!(one.load(Ordering::Acquire), 2);
        rooms.clear();
        let mut room = memory.take(0).await.expect("room");
        assert!(memory.charge(&mut room, &one));
    }

    #[tokio::test]
    async fn a_single_stripe_may_take_all() {
        let memory = Memory::new(4 * MEMORY_UNIT);
        memory.share_among(1);
        let stripe = Arc::default();
        let mut room = memory.take(3 * MEMORY_UNIT - 1).await.expect("room");
        assert!(memory.charge(&mut room, &stripe));
        let mut last = memory.take(0).await.expect("room");
        assert!(memory.charge(&mut last, &stripe));
        assert!(!memory.is_full());
        // One that gives up while it waits waits no more.
        let waits = memory.take(0);
        assert!(
            tokio::time::timeout(std::time::Duration::from_millis(10), waits)
                .await
                .is_err()
        );
        assert!(!memory.is_full());
    }
}
