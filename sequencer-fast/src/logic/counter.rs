//! The one number that all shards share: the issued tail.

use std::sync::atomic::{AtomicU64, Ordering};

use wire::limits::MAX_POSITION;

/// Values from here on are no positions: the counter has been closed and grants nothing any more. It is
/// so far above every position, and so far below overflow, that shards which have not noticed yet may
/// go on adding.
pub const CLOSED: u64 = 1 << 63;

const _: () = assert!(MAX_POSITION < CLOSED / 2 + 1);

/// The issued tail. It only grows (S-7).
pub trait Counter {
    /// The tail, or a value from [`CLOSED`] on.
    fn tail(&self) -> u64;

    /// Takes `count` positions in one step and returns the first; from [`CLOSED`] on, none was taken.
    fn take(&self, count: u64) -> u64;

    /// Takes `count` positions if the tail is `expected` (S-8).
    ///
    /// # Errors
    /// The tail that was found instead.
    fn take_at(&self, expected: u64, count: u64) -> Result<(), u64>;

    /// Ends all taking and returns the exact tail, or nothing if it was closed before.
    fn close(&self) -> Option<u64>;

    /// Tells whoever else takes from the counter how far and until when that may be. Both only grow.
    fn allow(&self, _limit: u64, _deadline_ns: u64) {}

    /// Tells whoever else takes from the counter at which tail to hand the next request over, once.
    fn hand_over_at(&self, _tail: u64) {}
}

// Sequentially consistent for the low-water mark alone: a shard takes and then looks at the mark, the
// checkpoint thread sets the mark and then looks at the counter, and one of the two sees the other.
impl Counter for AtomicU64 {
    fn tail(&self) -> u64 {
        self.load(Ordering::SeqCst)
    }

    fn take(&self, count: u64) -> u64 {
        self.fetch_add(count, Ordering::SeqCst)
    }

    fn take_at(&self, expected: u64, count: u64) -> Result<(), u64> {
        if expected >= CLOSED {
            return Err(self.tail());
        }
        self.compare_exchange(
            expected,
            expected.saturating_add(count),
            Ordering::SeqCst,
            Ordering::SeqCst,
        )
        .map(|_| ())
    }

    fn close(&self) -> Option<u64> {
        let tail = self.swap(CLOSED, Ordering::SeqCst);
        (tail < CLOSED).then_some(tail)
    }
}
