//! A digest of records at positions that does not ask for an order: two sets are the same if theirs are.

use std::hash::{DefaultHasher, Hash, Hasher};

use stripelog::Position;

/// The digest so far, and how many records are in it.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Digest {
    pub(crate) records: u64,
    sum: u64,
    mixed: u64,
}

impl Digest {
    /// Adds a record at its position.
    pub(crate) fn add(&mut self, position: Position, record: &[u8]) {
        let mut hasher = DefaultHasher::new();
        position.0.hash(&mut hasher);
        record.hash(&mut hasher);
        let hash = hasher.finish();
        self.records += 1;
        self.sum = self.sum.wrapping_add(hash);
        self.mixed ^= hash.rotate_left(17).wrapping_mul(0x9e37_79b9_7f4a_7c15);
    }

    /// Adds all of another.
    pub(crate) fn join(&mut self, other: Self) {
        self.records += other.records;
        self.sum = self.sum.wrapping_add(other.sum);
        self.mixed ^= other.mixed;
    }

    /// As text.
    #[must_use]
    pub(crate) fn text(&self) -> String {
        format!("{:016x}{:016x}", self.sum, self.mixed)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn digest(records: &[(u64, &str)]) -> Digest {
        let mut digest = Digest::default();
        for (position, record) in records {
            digest.add(Position(*position), record.as_bytes());
        }
        digest
    }

    #[test]
    fn order_does_not_matter_and_everything_else_does() {
        let whole = digest(&[(1, "a"), (2, "b")]);
        assert_eq!(digest(&[(2, "b"), (1, "a")]), whole);
        let mut joined = digest(&[(2, "b")]);
        joined.join(digest(&[(1, "a")]));
        assert_eq!(joined, whole);
        for other in [
            &[(1, "b"), (2, "a")][..],
            &[(1, "a")],
            &[(1, "a"), (2, "b"), (2, "b")],
            &[(1, "a"), (3, "b")],
        ] {
            assert_ne!(digest(other), whole);
        }
    }
}
