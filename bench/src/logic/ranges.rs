//! Granted ranges, and what is wrong with them.

/// Ranges of positions, in the order in which they came. Neighbours become one.
#[derive(Debug, Clone, Default)]
pub(crate) struct Ranges {
    ranges: Vec<(u64, u64)>,
}

impl Ranges {
    /// Adds `count` positions from `first` on.
    pub(crate) fn add(&mut self, first: u64, count: u32) {
        let behind = first.saturating_add(u64::from(count));
        match self.ranges.last_mut() {
            Some((_, end)) if *end == first => *end = behind,
            _ => self.ranges.push((first, behind)),
        }
    }

    /// Adds all ranges of another.
    pub(crate) fn append(&mut self, other: &Self) {
        self.ranges.extend_from_slice(&other.ranges);
    }

    /// Positions that are in more than one range, each counted once less than it is there.
    #[must_use]
    pub(crate) fn twice(&self) -> u64 {
        let (mut end, mut twice) = (0, 0);
        for (first, behind) in self.sorted() {
            twice += end.min(behind).saturating_sub(first);
            end = end.max(behind);
        }
        twice
    }

    /// What of `0..tail` is in none, in order.
    #[must_use]
    pub(crate) fn holes(&self, tail: u64) -> Self {
        let (mut end, mut holes) = (0, Vec::new());
        for (first, behind) in self.sorted() {
            if first.min(tail) > end {
                holes.push((end, first.min(tail)));
            }
            end = end.max(behind);
        }
        if end < tail {
            holes.push((end, tail));
        }
        Self { ranges: holes }
    }

    /// Positions of this that are in none of the other.
    #[must_use]
    pub(crate) fn outside(&self, other: &Self) -> u64 {
        let tail = self.ranges.iter().map(|range| range.1).max();
        let gaps = other.holes(tail.unwrap_or(0)).ranges;
        let mut outside = 0;
        let mut gaps = gaps.iter().peekable();
        for (first, behind) in self.sorted() {
            while let Some((start, end)) = gaps.peek() {
                if *start >= behind {
                    break;
                }
                outside += end.min(&behind).saturating_sub(*start.max(&first));
                if *end > behind {
                    break;
                }
                gaps.next();
            }
        }
        outside
    }

    /// Positions in all ranges together.
    #[must_use]
    pub(crate) fn positions(&self) -> u64 {
        self.ranges
            .iter()
            .map(|(first, behind)| behind - first)
            .sum()
    }

    /// First position behind all ranges.
    #[must_use]
    pub(crate) fn tail(&self) -> u64 {
        self.ranges.iter().map(|range| range.1).max().unwrap_or(0)
    }

    fn sorted(&self) -> Vec<(u64, u64)> {
        let mut ranges = self.ranges.clone();
        ranges.sort_unstable();
        ranges
    }
}

/// First positions and ends.
impl FromIterator<(u64, u64)> for Ranges {
    fn from_iter<T: IntoIterator<Item = (u64, u64)>>(ranges: T) -> Self {
        let ranges = ranges.into_iter().collect();
        Self { ranges }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ranges(list: &[(u64, u32)]) -> Ranges {
        let mut ranges = Ranges::default();
        list.iter()
            .for_each(|(first, count)| ranges.add(*first, *count));
        ranges
    }

    #[test]
    fn neighbours_become_one_and_doubles_are_counted() {
        let sound = ranges(&[(10, 5), (15, 5), (0, 10)]);
        assert_eq!(sound.ranges.len(), 2);
        assert_eq!(
            (sound.twice(), sound.positions(), sound.tail()),
            (0, 20, 20)
        );
        assert_eq!(ranges(&[(0, 10), (8, 3)]).twice(), 2);
        assert_eq!(ranges(&[(0, 10), (2, 3), (4, 2)]).twice(), 5);
    }

    #[test]
    fn holes_are_what_is_in_no_range() {
        let holes = ranges(&[(5, 5), (20, 1)]).holes(30);
        assert_eq!(holes.ranges, [(0, 5), (10, 20), (21, 30)]);
        assert_eq!(ranges(&[(0, 30)]).holes(30).positions(), 0);
        assert_eq!(ranges(&[(0, 40)]).holes(30).positions(), 0);
        assert_eq!(ranges(&[(35, 5)]).holes(30).ranges, [(0, 30)]);
    }

    #[test]
    fn outside_counts_what_the_other_does_not_cover() {
        let holes = ranges(&[(0, 5), (10, 10), (21, 9)]);
        assert_eq!(holes.outside(&holes), 0);
        assert_eq!(holes.outside(&ranges(&[(0, 100)])), 0);
        assert_eq!(holes.outside(&ranges(&[(3, 10), (15, 10)])), 3 + 2 + 5);
        assert_eq!(holes.outside(&Ranges::default()), 24);
        // One gap of the other over several ranges.
        assert_eq!(holes.outside(&ranges(&[(0, 1), (29, 1)])), 4 + 10 + 8);
    }
}
