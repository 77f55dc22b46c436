//! The frontiers of all stripes, and their minimum.

use std::sync::atomic::{AtomicU64, Ordering};

use wire::{Position, StripeId};

/// What the owners of the stripes reported in this reign. Shared between shards: every cell only grows,
/// so that reports may arrive in any order, twice, and through any shard.
#[derive(Debug)]
pub struct Frontiers {
    /// One cell a stripe: the frontier plus one, 0 before the first report.
    stripes: Box<[AtomicU64]>,
    /// Minimum over all stripes plus one, 0 until all have reported.
    floor: AtomicU64,
}

impl Frontiers {
    /// A table of `stripes` stripes that have not reported yet.
    #[must_use]
    pub fn new(stripes: u32) -> Self {
        Self {
            stripes: (0..stripes).map(|_| AtomicU64::new(0)).collect(),
            floor: AtomicU64::new(0),
        }
    }

    /// Number of stripes.
    #[must_use]
    pub fn stripes(&self) -> usize {
        self.stripes.len()
    }

    /// Takes a report; false if there is no such stripe.
    pub fn report(&self, stripe: StripeId, frontier: Position) -> bool {
        let Some(cell) = self.stripes.get(usize::from(stripe.0)) else {
            return false;
        };
        cell.fetch_max(frontier.0.saturating_add(1), Ordering::AcqRel);
        true
    }

    /// Raises the floor to the minimum of what was reported.
    pub fn advance(&self) {
        let least = self.stripes.iter().map(|cell| cell.load(Ordering::Acquire));
        // [S-7] The floor only grows, also where another shard has computed a newer one meanwhile.
        self.floor
            .fetch_max(least.min().unwrap_or(0), Ordering::AcqRel);
    }

    /// First position that some stripe does not cover, once all stripes have reported. It may lie above
    /// the issued tail: behind the last unit that was granted each stripe has its next one.
    #[must_use]
    pub fn floor(&self) -> Option<Position> {
        self.floor
            .load(Ordering::Acquire)
            .checked_sub(1)
            .map(Position)
    }
}
