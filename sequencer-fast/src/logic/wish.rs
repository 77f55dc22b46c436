//! The wish for another layout, from whoever asks a shard to the checkpoint thread (H-5).

use std::sync::atomic::{AtomicU64, Ordering};

use wire::control::ControlEntry;
use wire::datagram::Status;
use wire::limits::{MAX_POSITION, MAX_SEGMENTS};
use wire::{Layout, Position, SegmentId};

/// What a reign may be asked for once: a segment behind its own.
#[derive(Debug)]
pub struct Wish {
    segment: SegmentId,
    layout: Option<Layout>,
    /// Stripes that a layout may have.
    stripes: u32,
    /// Whether the log may have one more segment.
    room: bool,
    /// Stripes in the upper half and unit in the lower one; 0 as long as nobody has asked.
    wanted: AtomicU64,
}

impl Wish {
    /// Nobody has asked the reign that `entry` begins. There are owners for so many stripes.
    #[must_use]
    pub fn new(entry: &ControlEntry, stripes: u32) -> Self {
        let newest = entry.segments.last();
        Self {
            segment: newest.map_or(SegmentId(0), |newest| newest.id),
            layout: newest.map(|newest| newest.layout),
            stripes,
            room: entry.segments.len() < MAX_SEGMENTS,
            wanted: AtomicU64::new(0),
        }
    }

    /// Somebody wants a segment with this layout behind `behind`. Asked again for the same, it says the same.
    ///
    /// Ok: the reign ends at its tail and the next one begins the segment. Busy: for another one. TailMoved: it is not the
    /// newest segment. Invalid: there is no such layout, it is that of the newest segment, there are not so many stripes
    /// with an owner, or not so many segments.
    pub fn ask(&self, behind: SegmentId, stripes: u32, unit: u32, issued: Position) -> Status {
        if behind != self.segment {
            return Status::TailMoved;
        }
        let layout = Layout::new(stripes, unit).ok();
        let fits = self.room && stripes <= self.stripes && issued.0 < MAX_POSITION;
        if layout.is_none() || layout == self.layout || !fits {
            return Status::Invalid;
        }
        let wish = u64::from(stripes) << 32 | u64::from(unit);
        let before = self
            .wanted
            .compare_exchange(0, wish, Ordering::AcqRel, Ordering::Acquire);
        match before {
            Ok(_) => Status::Ok,
            Err(other) if other == wish => Status::Ok,
            Err(_) => Status::Busy,
        }
    }

    /// The layout that is wanted, once somebody has asked.
    #[must_use]
    pub fn wanted(&self) -> Option<Layout> {
        let wish = self.wanted.load(Ordering::Acquire);
        let [stripes, unit] = [wish >> 32, wish & u64::from(u32::MAX)];
        let half = |half| u32::try_from(half).ok();
        Layout::new(half(stripes)?, half(unit)?).ok()
    }
}

#[cfg(test)]
mod tests {
    use wire::limits::{MAX_STRIPES, MAX_UNIT};
    use wire::{Epoch, LogId, Segment, WriterId};

    use super::*;

    fn entry(segments: usize) -> ControlEntry {
        let segment = |id| Segment {
            id: SegmentId(id),
            epoch: Epoch(1),
            start: Position(u64::from(id)),
            layout: Layout::new(32, 1024).expect("valid"),
        };
        ControlEntry {
            log: LogId([1; 16]),
            number: 9,
            epoch: Epoch(5),
            owner: WriterId::default(),
            epoch_start: Position(9000),
            reservation: Position(10_000),
            clean: false,
            trim: Position(0),
            segments: (0..).take(segments).map(segment).collect(),
        }
    }

    #[test]
    fn h5_one_wish_is_taken_and_others_are_told_why_not() {
        let wish = Wish::new(&entry(4), 64);
        let ask = |behind, stripes, unit| wish.ask(SegmentId(behind), stripes, unit, Position(9));
        assert_eq!(wish.wanted(), None);
        assert_eq!(ask(2, 64, 8), Status::TailMoved, "an older segment");
        assert_eq!(ask(3, 32, 1024), Status::Invalid, "the same layout");
        assert_eq!(ask(3, 65, 8), Status::Invalid, "stripes without an owner");
        for (stripes, unit) in [(0, 8), (64, 0), (64, MAX_UNIT + 1)] {
            assert_eq!(ask(3, stripes, unit), Status::Invalid, "{stripes} {unit}");
        }
        assert_eq!(wish.wanted(), None, "nothing of that");
        assert_eq!(ask(3, 64, 8), Status::Ok);
        assert_eq!(ask(3, 64, 8), Status::Ok, "the same again");
        assert_eq!(ask(3, 16, 8), Status::Busy);
        assert_eq!(wish.wanted(), Layout::new(64, 8).ok());
    }

    #[test]
    fn h5_the_largest_layout_is_kept_as_it_is() {
        let wish = Wish::new(&entry(1), u32::MAX);
        let status = wish.ask(SegmentId(0), MAX_STRIPES, MAX_UNIT, Position(9));
        assert_eq!(status, Status::Ok);
        assert_eq!(wish.wanted(), Layout::new(MAX_STRIPES, MAX_UNIT).ok());
    }

    #[test]
    fn a_log_has_no_more_segments_than_an_entry_holds() {
        let wish = Wish::new(&entry(MAX_SEGMENTS), 64);
        let status = wish.ask(SegmentId(4095), 64, 8, Position(9));
        assert_eq!(status, Status::Invalid);
    }
}
