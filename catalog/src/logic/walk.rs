//! Which of the objects under a prefix are the chain.
//!
//! The object whose name is the chain's end is the chain's next object, whoever created it; an object
//! whose start lies inside another's range is an orphan (C-3). An object that starts behind the chain's
//! end belongs to the chain only if the chain comes to end exactly there: until then it is afloat, the
//! put of an owner that died before an earlier one of its puts arrived.

use std::collections::BTreeMap;

use wire::object::Header;
use wire::{Position, Slot};

/// A chain as far as it goes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Walk {
    /// Headers of the chain's objects, in order, without gap or overlap.
    pub headers: Vec<Header>,
    /// First slot that the chain does not cover.
    pub end: Slot,
    /// First positions of objects that lie inside the range of another: ignored for ever.
    pub orphans: Vec<Position>,
    /// First positions of objects behind the end of the chain.
    pub afloat: Vec<Position>,
}

/// Follows a chain from the slot `from`, where an object of the chain starts (or will).
#[must_use]
pub fn resolve(from: Slot, found: &BTreeMap<Slot, Header>) -> Walk {
    let mut headers = Vec::new();
    let mut end = from;
    while let Some(header) = found.get(&end) {
        headers.push(*header);
        end = header.end;
    }
    let position = |header: &Header| header.chain.position(header.start);
    let outside = found.range(from..).filter(|(start, header)| {
        **start >= end
            || headers
                .binary_search_by_key(&header.start, |h| h.start)
                .is_err()
    });
    let (mut orphans, mut afloat) = (Vec::new(), Vec::new());
    for (start, header) in outside {
        if *start < end {
            orphans.push(position(header));
        } else {
            afloat.push(position(header));
        }
    }
    Walk {
        headers,
        end,
        orphans,
        afloat,
    }
}

#[cfg(test)]
mod tests {
    use wire::object::{Author, ChainId, Object};
    use wire::{Epoch, Layout, LogId, OwnerNumber, Run, SegmentId, StripeId, WriterId};

    use super::*;

    fn found(ranges: &[(u64, u64)]) -> BTreeMap<Slot, Header> {
        let chain = ChainId {
            log: LogId([1; 16]),
            segment: SegmentId(0),
            stripe: StripeId(0),
            layout: Layout::new(1, 1).expect("valid"),
        };
        let author = Author {
            epoch: Epoch(1),
            owner: OwnerNumber(1),
            writer: WriterId([2; 16]),
        };
        let header = |(start, end): &(u64, u64)| {
            let run = Run::junk(Slot(*start), end - start);
            let object = Object::build(chain, author, &[run]).expect("valid");
            (Slot(*start), object.index.header)
        };
        ranges.iter().map(header).collect()
    }

    fn starts(walk: &Walk) -> Vec<u64> {
        walk.headers.iter().map(|h| h.start.0).collect()
    }

    #[test]
    fn c3_the_name_at_the_end_is_next_and_the_inside_is_orphaned() {
        let walk = resolve(Slot(0), &found(&[(0, 4), (2, 9), (4, 6), (6, 7)]));
        assert_eq!(starts(&walk), [0, 4, 6]);
        assert_eq!(walk.end, Slot(7));
        assert_eq!(walk.orphans, [Position(2)]);
        assert!(walk.afloat.is_empty());
    }

    #[test]
    fn c3_an_object_behind_the_end_is_not_in_the_chain() {
        let walk = resolve(Slot(0), &found(&[(0, 4), (5, 6)]));
        assert_eq!(walk.end, Slot(4));
        assert_eq!(walk.afloat, [Position(5)]);
    }

    #[test]
    fn an_empty_chain_ends_where_it_starts() {
        assert_eq!(resolve(Slot(7), &found(&[])).end, Slot(7));
    }
}
