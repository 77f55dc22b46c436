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

#[cfg(test)]
mod tests {
    use std::thread;

    use super::*;

    fn report(table: &Frontiers, stripe: u16, frontier: u64) -> Option<u64> {
        assert!(table.report(StripeId(stripe), Position(frontier)));
        table.advance();
        table.floor().map(|floor| floor.0)
    }

    /// A report that was overtaken on its way does not hide the newer one.
    #[test]
    fn s7_reports_may_come_in_any_order() {
        let table = Frontiers::new(2);
        assert_eq!(report(&table, 0, 50), None);
        assert_eq!(report(&table, 0, 10), None);
        assert_eq!(report(&table, 1, 90), Some(50));
        assert!(!table.report(StripeId(2), Position(0)));
    }

    /// Shards that compute the floor at the same time do not take it back.
    #[test]
    fn s7_the_floor_never_falls_while_shards_race() {
        // With many stripes it takes long to find the least, so that shards overtake one another.
        let table = Frontiers::new(500);
        for stripe in 1..500 {
            table.report(StripeId(stripe), Position(1 << 40));
        }
        thread::scope(|scope| {
            for step in [1, 2, 3] {
                let table = &table;
                scope.spawn(move || {
                    for frontier in (1..15_000).map(|n| n * step) {
                        let mut floor = report(table, 0, frontier);
                        for _ in 0..100 {
                            assert!(floor >= Some(frontier), "{floor:?} {frontier}");
                            floor = table.floor().map(|floor| floor.0);
                        }
                    }
                });
            }
        });
    }
}
