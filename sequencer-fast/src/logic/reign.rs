//! What all threads of a sequencer share: the state of its reign.

use std::fmt;
use std::sync::atomic::{AtomicU8, AtomicU64, Ordering};

use wire::control::ControlEntry;
use wire::{Epoch, LogId, Position, SegmentId, WireError};

use super::counter::{CLOSED, Counter};
use super::frontiers::Frontiers;
use super::tail::Tail;
use super::wish::Wish;

/// One reign of one sequencer, from its first control entry on.
///
/// Shards read it and take from the counter; only the checkpoint thread moves the reservation, the
/// deadline and the phase. Every field only grows.
pub struct Reign<C = Tail> {
    log: LogId,
    epoch: Epoch,
    segment: SegmentId,
    phase: AtomicU8,
    deadline_ns: AtomicU64,
    reservation: AtomicU64,
    low_water: AtomicU64,
    frontiers: Frontiers,
    wish: Wish,
    counter: OwnLine<C>,
}

/// Keeps the contended counter off the cache lines of what is only read.
#[repr(align(128))]
struct OwnLine<C>(C);

/// What is told to those who ask.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Tails {
    /// First position that is not granted.
    pub issued: Position,
    /// First position that is not durable, once all stripes have reported in this reign.
    pub durable: Option<Position>,
}

const WAITING: u8 = 0;
const GRANTING: u8 = 1;
const ENDED: u8 = 2;

impl Reign<Tail> {
    /// The reign that `entry` begins. It grants nothing before [`Self::grant`].
    ///
    /// # Errors
    /// [`WireError::Malformed`] if the entry has no segment.
    pub fn new(entry: &ControlEntry) -> Result<Self, WireError> {
        Self::with_counter(entry, Tail::own(entry.epoch_start.0))
    }
}

impl<C: Counter> Reign<C> {
    /// The reign that `entry` begins, over a counter that stands at the entry's `epoch_start`.
    ///
    /// # Errors
    /// [`WireError::Malformed`] if the entry has no segment.
    pub fn with_counter(entry: &ControlEntry, counter: C) -> Result<Self, WireError> {
        let segment = entry.last_segment()?;
        Ok(Self {
            log: entry.log,
            epoch: entry.epoch,
            segment: segment.id,
            phase: AtomicU8::new(WAITING),
            deadline_ns: AtomicU64::new(0),
            reservation: AtomicU64::new(entry.reservation.0),
            low_water: AtomicU64::new(u64::MAX),
            frontiers: Frontiers::new(segment.layout.stripes()),
            wish: Wish::new(entry, u32::MAX),
            counter: OwnLine(counter),
        })
    }

    /// The same, where so many stripes have an owner: no layout may have more.
    #[must_use]
    pub fn with_stripes(mut self, entry: &ControlEntry, stripes: u32) -> Self {
        self.wish = Wish::new(entry, stripes);
        self
    }

    /// What whoever asks may wish for.
    #[must_use]
    pub fn wish(&self) -> &Wish {
        &self.wish
    }

    /// The log.
    #[must_use]
    pub fn log(&self) -> LogId {
        self.log
    }

    /// Number of this reign.
    #[must_use]
    pub fn epoch(&self) -> Epoch {
        self.epoch
    }

    /// The newest segment, the only one that is reported on.
    #[must_use]
    pub fn segment(&self) -> SegmentId {
        self.segment
    }

    /// The issued tail as it is counted.
    #[must_use]
    pub fn counter(&self) -> &C {
        &self.counter.0
    }

    /// Frontiers of the newest segment.
    #[must_use]
    pub fn frontiers(&self) -> &Frontiers {
        &self.frontiers
    }

    /// Opens the reign, unless it has ended already. To be called when every stripe is sealed (H-4).
    pub fn grant(&self) {
        let _ = self
            .phase
            .compare_exchange(WAITING, GRANTING, Ordering::AcqRel, Ordering::Acquire);
        self.allow();
    }

    /// Lets whoever else takes from the counter go as far as this reign does.
    fn allow(&self) {
        if self.phase.load(Ordering::Acquire) == GRANTING {
            let (limit, deadline_ns) = (self.reservation().0, self.deadline_ns());
            self.counter.0.allow(limit, deadline_ns);
        }
    }

    /// Ends the reign for ever and returns the exact issued tail, unless it had ended before.
    ///
    /// Closing the counter is what ends it: a shard that has passed all checks and takes positions after
    /// this moment gets none (S-1), however long it was asleep in between.
    pub fn end(&self) -> Option<Position> {
        self.phase.store(ENDED, Ordering::Release);
        self.counter.0.close().map(Position)
    }

    /// Whether the reign has ended.
    #[must_use]
    pub fn has_ended(&self) -> bool {
        self.phase.load(Ordering::Acquire) == ENDED
    }

    /// Moves the deadline of the reign; an earlier one than before changes nothing.
    pub fn renew(&self, deadline_ns: u64) {
        self.deadline_ns.fetch_max(deadline_ns, Ordering::AcqRel);
        self.allow();
    }

    /// When the reign runs out if it is not renewed.
    #[must_use]
    pub fn deadline_ns(&self) -> u64 {
        self.deadline_ns.load(Ordering::Acquire)
    }

    /// Whether anything may be granted or told at this moment.
    #[must_use]
    pub fn reigns(&self, now_ns: u64) -> bool {
        // [S-5] The own clock decides, whatever became of the thread that renews.
        self.phase.load(Ordering::Acquire) == GRANTING && now_ns < self.deadline_ns()
    }

    /// Whether the reign stands and waits for stripes to be sealed (H-4).
    #[must_use]
    pub fn seals(&self, now_ns: u64) -> bool {
        self.phase.load(Ordering::Acquire) == WAITING && now_ns < self.deadline_ns()
    }

    /// Publishes a reservation that is durable; a lower one than before changes nothing.
    pub fn reserve(&self, reservation: Position) {
        // Together with the flag of `Sleeper` this is a store and a load that must not pass each other.
        self.reservation.fetch_max(reservation.0, Ordering::SeqCst);
        self.allow();
    }

    /// Position below which replies may leave (S-2).
    #[must_use]
    pub fn reservation(&self) -> Position {
        Position(self.reservation.load(Ordering::SeqCst))
    }

    /// Sets the issued tail at which the next extension is due.
    pub fn set_low_water(&self, tail: Position) {
        self.low_water.store(tail.0, Ordering::SeqCst);
        self.counter.0.hand_over_at(tail.0);
    }

    /// Whether an extension is due; true only once for each [`Self::set_low_water`].
    pub fn claim_low_water(&self) -> bool {
        let low_water = self.low_water.load(Ordering::SeqCst);
        let tail = self.counter.0.tail();
        tail >= low_water
            && tail < CLOSED
            && self.low_water.swap(u64::MAX, Ordering::AcqRel) != u64::MAX
    }

    /// Positions that can be granted and answered at once (S-10).
    #[must_use]
    pub fn headroom(&self) -> u64 {
        let tail = self.counter.0.tail();
        self.reservation().0.saturating_sub(tail)
    }

    /// The tails as they may be told, or nothing if the counter is closed.
    ///
    /// Positions above the reservation are taken but not granted: their replies are held, and after a
    /// crash the next reign starts below them. Telling them would let the issued tail go back (S-7).
    #[must_use]
    pub fn tails(&self) -> Option<Tails> {
        let tail = self.counter.0.tail();
        if tail >= CLOSED {
            return None;
        }
        let issued = Position(tail).min(self.reservation());
        // [S-7] Never above the issued tail of the same answer.
        let durable = self.frontiers.floor().map(|floor| floor.min(issued));
        Some(Tails { issued, durable })
    }
}

impl<C: Counter> fmt::Debug for Reign<C> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Reign")
            .field("log", &self.log)
            .field("epoch", &self.epoch)
            .field("tail", &self.counter.0.tail())
            .field("reservation", &self.reservation())
            .finish_non_exhaustive()
    }
}
