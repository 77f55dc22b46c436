//! The control entries that a reign writes.

use wire::control::ControlEntry;
use wire::limits::MAX_POSITION;
use wire::{Epoch, Layout, Position, Segment, SegmentId, WriterId};

/// The entry that begins a reign behind `last`: the next epoch, from the old reservation on, which is the
/// exact tail after a clean stop (S-4), with `window` positions reserved.
#[must_use]
pub fn begin(last: &ControlEntry, owner: WriterId, window: u64) -> ControlEntry {
    // [S-1] [S-4] Nothing but the chain says where a reign starts. The old sequencer may have granted
    // everything below its reservation.
    let start = last.reservation;
    ControlEntry {
        number: last.number.saturating_add(1),
        epoch: Epoch(last.epoch.0.saturating_add(1)),
        owner,
        epoch_start: start,
        reservation: capped(start, window),
        clean: false,
        ..last.clone()
    }
}

/// The entry that extends the reservation of the reign of `last` to `reservation`, never below what it was.
#[must_use]
pub fn extend(last: &ControlEntry, reservation: Position) -> ControlEntry {
    ControlEntry {
        number: last.number.saturating_add(1),
        reservation: reservation
            .max(last.reservation)
            .min(Position(MAX_POSITION)),
        ..last.clone()
    }
}

/// The entry that ends the reign of `last` at its exact issued tail, so that no position is wasted. Only
/// after the counter has been closed.
#[must_use]
pub fn clean(last: &ControlEntry, tail: Position) -> ControlEntry {
    ControlEntry {
        number: last.number.saturating_add(1),
        reservation: tail.max(last.epoch_start).min(Position(MAX_POSITION)),
        clean: true,
        ..last.clone()
    }
}

/// The entry that ends the reign of `last` at its exact issued tail and begins the next one there, in a segment of its own
/// with another layout (H-5): one create, so that no other reign comes in between. Only after the counter has been
/// closed, by a reign that has granted: everything before the segment of `last` is sealed then.
///
/// A segment has at least one position. Where none was granted in the newest, one is wasted.
#[must_use]
pub fn restripe(last: &ControlEntry, tail: Position, layout: Layout, window: u64) -> ControlEntry {
    let newest = last.segments.last();
    let least = newest.map_or(Position(0), |segment| segment.start.plus(1));
    let start = tail.max(last.epoch_start).max(least);
    let epoch = Epoch(last.epoch.0.saturating_add(1));
    let mut segments = last.segments.clone();
    segments.push(Segment {
        id: SegmentId(newest.map_or(0, |segment| segment.id.0.saturating_add(1))),
        epoch,
        start,
        layout,
    });
    ControlEntry {
        number: last.number.saturating_add(1),
        epoch,
        epoch_start: start,
        reservation: capped(start, window),
        clean: false,
        segments,
        ..last.clone()
    }
}

/// Whether the reign of this entry starts where the log does, so that there is nothing to seal (H-4).
#[must_use]
pub fn nothing_to_seal(entry: &ControlEntry) -> bool {
    let start = entry.segments.first().map(|segment| segment.start);
    start.is_some_and(|start| entry.epoch_start <= start)
}

fn capped(start: Position, window: u64) -> Position {
    start.plus(window).min(Position(MAX_POSITION))
}
