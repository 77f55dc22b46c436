//! What became of the records of one append call.

use wire::Position;

/// Counts what is known of the records of one call. Each record is waiting, under way (sent and not
/// answered) or committed.
#[derive(Debug)]
pub struct Outcome {
    positions: Vec<Option<Position>>,
    records: usize,
    missing: usize,
    under_way: usize,
}

impl Outcome {
    pub fn new(records: usize) -> Self {
        Self {
            positions: vec![None; records],
            records,
            missing: records,
            under_way: 0,
        }
    }

    /// `count` records go out to a server that has not got them before.
    pub fn sent(&mut self, count: usize) {
        self.under_way = self.under_way.saturating_add(count);
    }

    /// `count` records that went out are answered.
    pub fn answered(&mut self, count: usize) {
        self.under_way = self.under_way.saturating_sub(count);
    }

    /// A record is durable at a position. The first answer counts.
    pub fn commit(&mut self, record: usize, position: Position) {
        if let Some(place @ None) = self.positions.get_mut(record) {
            *place = Some(position);
            self.missing -= 1;
        }
    }

    /// Whether certainly no record is in the log, now or later, as long as nothing is sent any more.
    pub fn nothing_written(&self) -> bool {
        self.under_way == 0 && self.missing == self.records
    }

    /// All positions, once every record has one.
    pub fn complete(&mut self) -> Option<Vec<Position>> {
        if self.missing > 0 {
            return None;
        }
        std::mem::take(&mut self.positions).into_iter().collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn is_complete_when_every_record_has_a_position() {
        let mut outcome = Outcome::new(2);
        outcome.commit(1, Position(8));
        outcome.commit(1, Position(9));
        assert_eq!(outcome.complete(), None);
        outcome.commit(0, Position(7));
        assert_eq!(outcome.complete(), Some(vec![Position(7), Position(8)]));
        assert!(!outcome.nothing_written());
    }

    #[test]
    fn is_definite_only_while_nothing_is_out_or_in() {
        let mut outcome = Outcome::new(2);
        assert!(outcome.nothing_written());
        outcome.sent(2);
        assert!(!outcome.nothing_written());
        outcome.answered(2);
        assert!(outcome.nothing_written());
        outcome.commit(0, Position(1));
        assert!(!outcome.nothing_written());
    }
}
