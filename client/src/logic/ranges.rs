//! Which offsets of a frame are answered.

use std::ops::Range;

/// A set of offsets, kept as ranges that neither touch nor overlap.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Ranges {
    ranges: Vec<Range<u32>>,
}

impl Ranges {
    /// Adds a range and returns the parts of it that were not in the set before.
    pub fn insert(&mut self, range: Range<u32>) -> Vec<Range<u32>> {
        let mut fresh = Vec::new();
        let mut at = range.start;
        let mut joined = range.clone();
        let mut kept = Vec::with_capacity(self.ranges.len() + 1);
        for old in self.ranges.drain(..) {
            if old.end < range.start || old.start > range.end {
                kept.push(old);
                continue;
            }
            if at < old.start {
                fresh.push(at..old.start);
            }
            at = at.max(old.end);
            joined = joined.start.min(old.start)..joined.end.max(old.end);
        }
        if at < range.end {
            fresh.push(at..range.end);
        }
        if joined.start < joined.end {
            kept.push(joined);
        }
        kept.sort_unstable_by_key(|r| r.start);
        self.ranges = kept;
        fresh
    }

    /// Whether `0..count` is in the set.
    pub fn covers(&self, count: u32) -> bool {
        matches!(self.ranges.as_slice(), [one] if one.start == 0 && one.end >= count)
    }

    /// Whether nothing is in the set.
    pub fn is_empty(&self) -> bool {
        self.ranges.is_empty()
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn agrees_with_a_plain_set(inserts in prop::collection::vec((0_u32..60, 0_u32..20), 1..30)) {
            let mut ranges = Ranges::default();
            let mut oracle = BTreeSet::new();
            for (start, len) in inserts {
                let range = start..start + len;
                let fresh: Vec<u32> = ranges.insert(range.clone()).into_iter().flatten().collect();
                let expected: Vec<u32> = range.filter(|o| oracle.insert(*o)).collect();
                prop_assert_eq!(fresh, expected);
                let all: Vec<u32> = ranges.ranges.iter().cloned().flatten().collect();
                prop_assert_eq!(all, oracle.iter().copied().collect::<Vec<_>>());
                let prefix = (0..).find(|o| !oracle.contains(o)).unwrap_or(0);
                prop_assert_eq!(ranges.covers(prefix.max(1)), prefix >= 1 && ranges.ranges.len() == 1);
                prop_assert!(!ranges.covers(prefix + 1));
            }
        }
    }
}
