//! What the readers of one scan may hold together, and how much they ask for at once.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use tokio::sync::{Notify, OwnedSemaphorePermit, Semaphore};

use crate::limits::{CHUNK_BYTES, PROBE_BYTES, READ_AHEAD_UNIT, SCAN_READS};

/// What the readers of one scan share.
#[derive(Debug, Clone)]
pub(crate) struct Budget {
    /// Bytes that were asked for and are not handed out yet.
    bytes: Arc<Semaphore>,
    units: u32,
    /// Requests under way.
    reads: Arc<Semaphore>,
    /// Bytes of one load, about.
    chunk_bytes: usize,
    /// Objects up to this size are read whole.
    whole: usize,
    /// Whether there is a cache.
    cached: bool,
    /// Size of the object that was found last: the next one is likely to be as large.
    size: Arc<AtomicU64>,
    /// Told when an object was found: there is more to ask for.
    opened: Arc<Notify>,
}

impl Budget {
    /// So many bytes, for so many stripes, with a cache or without.
    pub(crate) fn new(bytes: usize, stripes: usize, cached: bool) -> Self {
        let (least, most) = CHUNK_BYTES;
        let share = bytes / stripes.max(1);
        let budget = Self {
            bytes: Arc::new(Semaphore::new(0)),
            units: units(bytes),
            reads: Arc::new(Semaphore::new(SCAN_READS)),
            // In each stripe one is handed out in part: as much again, and more, is to be ahead of them.
            chunk_bytes: (share / 4).clamp(least, most),
            whole: share.min(most),
            cached,
            size: Arc::default(),
            opened: Arc::default(),
        };
        budget.bytes.add_permits(budget.units as usize);
        budget
    }

    /// Bytes of one load, about.
    pub(crate) fn chunk_bytes(&self) -> usize {
        self.chunk_bytes
    }

    /// The place of a request; there are [`SCAN_READS`].
    pub(crate) fn reads(&self) -> Arc<Semaphore> {
        Arc::clone(&self.reads)
    }

    /// Told when an object was found.
    pub(crate) fn opened(&self) -> Arc<Notify> {
        Arc::clone(&self.opened)
    }

    /// An object of this size was found.
    pub(crate) fn found(&self, size: u64) {
        self.size.store(size, Ordering::Relaxed);
    }

    /// Bytes to read of an object whose size is not known: all of it, if it is as small as the last one. What is
    /// read beyond its index is needed anyway, unless the scan is a short one that has found nothing yet.
    pub(crate) fn probe(&self) -> usize {
        match self.size.load(Ordering::Relaxed) {
            0 => PROBE_BYTES,
            size if size <= self.whole as u64 => self.whole.max(PROBE_BYTES),
            // What comes with an index is in no entry of a cache.
            _ if self.cached => PROBE_BYTES,
            _ => self.chunk_bytes,
        }
    }

    /// Room for so many bytes, or for all that there may be; `None` if they are taken.
    pub(crate) fn take(&self, bytes: usize) -> Option<OwnedSemaphorePermit> {
        let units = units(bytes).min(self.units);
        Arc::clone(&self.bytes).try_acquire_many_owned(units).ok()
    }

    /// Gives back what `room` has beyond so many bytes, or takes what they are more, as far as that is there.
    pub(crate) fn resize(&self, room: &mut OwnedSemaphorePermit, bytes: usize) {
        let (has, needs) = (room.num_permits(), units(bytes).min(self.units) as usize);
        if has > needs {
            drop(room.split(has - needs));
        } else if needs > has
            && let Some(more) = self.take((needs - has) * READ_AHEAD_UNIT)
        {
            room.merge(more);
        }
    }
}

fn units(bytes: usize) -> u32 {
    u32::try_from(bytes.div_ceil(READ_AHEAD_UNIT))
        .unwrap_or(u32::MAX)
        .max(1)
}

#[cfg(test)]
mod tests {
    use super::*;

    const MIB: usize = 1 << 20;

    #[test]
    fn small_objects_are_read_whole_and_large_ones_in_parts() {
        let budget = Budget::new(128 * MIB, 64, false);
        assert_eq!(budget.probe(), PROBE_BYTES, "nothing was found yet");
        assert_eq!(budget.chunk_bytes(), MIB / 2);
        budget.found(2 << 20);
        assert_eq!(budget.probe(), 2 * MIB);
        budget.found((2 << 20) + 1);
        assert_eq!(budget.probe(), MIB / 2, "it is read in parts");
        let budget = Budget::new(128 * MIB, 64, true);
        budget.found((2 << 20) + 1);
        assert_eq!(budget.probe(), PROBE_BYTES);
        let budget = Budget::new(MIB, 1024, false);
        budget.found(100);
        assert_eq!(budget.probe(), PROBE_BYTES);
    }

    #[test]
    fn room_is_bounded_and_given_back() {
        let budget = Budget::new(MIB, 4, false);
        let mut room = budget.take(MIB / 2).expect("free");
        assert!(budget.take(MIB).is_none());
        budget.resize(&mut room, MIB / 4);
        let rest = budget.take(3 * MIB / 4).expect("given back");
        budget.resize(&mut room, MIB / 2);
        assert_eq!(
            room.num_permits() * READ_AHEAD_UNIT,
            MIB / 4,
            "no more is there"
        );
        drop(rest);
        budget.resize(&mut room, MIB / 2);
        assert!(budget.take(MIB / 2 + 1).is_none() && budget.take(MIB / 2).is_some());
        drop(room);
        assert!(budget.take(100 * MIB).is_some(), "all that there may be");
        assert!(budget.take(MIB).is_some());
    }
}
