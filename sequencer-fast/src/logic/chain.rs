//! The control entries that a reign writes.

use wire::control::ControlEntry;
use wire::limits::MAX_POSITION;
use wire::{Epoch, Position, WriterId};

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

/// Whether the reign of this entry starts where the log does, so that there is nothing to seal (H-4).
#[must_use]
pub fn nothing_to_seal(entry: &ControlEntry) -> bool {
    let start = entry.segments.first().map(|segment| segment.start);
    start.is_some_and(|start| entry.epoch_start <= start)
}

fn capped(start: Position, window: u64) -> Position {
    start.plus(window).min(Position(MAX_POSITION))
}
