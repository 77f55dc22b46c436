//! What is known of a batch while it is decided.

use wire::Position;

use super::counter::Counter;
use super::packets::Peer;
use super::shard::{SETTLED, Shard};

/// A batch of requests that is decided at one moment.
#[derive(Debug)]
pub(super) struct Batch {
    /// When it is decided.
    pub(super) now_ns: u64,
    /// Number of this batch.
    pub(super) number: u32,
    /// Whether anything may be granted or told.
    pub(super) reigns: bool,
    /// First position of the batch: the issued tail at the start, until positions were taken.
    pub(super) base: u64,
    /// Positions that the batch wants.
    pub(super) sum: u64,
    /// Requests that want them.
    pub(super) fresh: u64,
    /// Reservation at the start.
    pub(super) reservation: Position,
    /// Replies that are held, or will be.
    pub(super) holds: usize,
    /// Whether a reply is not complete after the first pass.
    pub(super) incomplete: bool,
}

impl Batch {
    pub(super) fn begin<P: Peer, C: Counter>(shard: &mut Shard<P, C>, now_ns: u64) -> Self {
        shard.number = shard.number.wrapping_add(1);
        if shard.number == SETTLED {
            shard.number += 1;
        }
        Self {
            now_ns,
            number: shard.number,
            // [S-5] One reading of the clock decides for a batch.
            reigns: shard.reign.reigns(now_ns),
            base: shard.reign.counter().tail(),
            sum: 0,
            fresh: 0,
            reservation: shard.reign.reservation(),
            holds: shard.held.len(),
            incomplete: false,
        }
    }

    /// First position behind the batch.
    pub(super) fn end(&self) -> u64 {
        self.base.saturating_add(self.sum)
    }

    /// Whether some reply is not complete, or has to wait. Where the reservation covers the end of the
    /// batch it covers every token that was granted before as well.
    pub(super) fn needs_second_pass(&self, reservation: Position) -> bool {
        self.incomplete || !self.reigns || self.end() > reservation.0
    }
}
