//! A token, split over segments, stripes and frames.

use std::collections::HashMap;
use std::ops::Range;

use wire::control::ControlEntry;
use wire::limits::{MAX_POSITION, MAX_RUN_RECORDS};
use wire::{Epoch, Position, Segment, Slot, StripeId, WireError};

/// The right to write `count` positions from `first` on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Token {
    pub epoch: Epoch,
    pub first: Position,
    pub count: u64,
}

impl Token {
    pub fn end(&self) -> Position {
        self.first.plus(self.count)
    }
}

/// The positions of a token on one stripe: their slots follow one another.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Part {
    pub segment: Segment,
    pub stripe: StripeId,
    pub first: Slot,
    /// Indexes of the token's records, in the order of their slots.
    pub records: Vec<Range<usize>>,
}

/// Splits a token at the borders of segments, and each piece by stripe. Parts come in the order of
/// their first positions.
///
/// # Errors
/// If a position lies outside every segment, or above the last position there is.
pub fn split(entry: &ControlEntry, token: Token) -> Result<Vec<Part>, WireError> {
    if token.count > MAX_POSITION || token.end().0 > MAX_POSITION {
        return Err(WireError::Bound {
            what: "token",
            got: token.end().0,
            limit: MAX_POSITION,
        });
    }
    let mut parts = Vec::new();
    let mut position = token.first;
    while position < token.end() {
        let what = "position outside all segments";
        let segment = entry
            .segment_of(position)
            .ok_or(WireError::Malformed { what })?;
        let behind = entry.segment_end(segment).unwrap_or(token.end());
        let end = behind.min(token.end());
        split_segment(*segment, token.first, position..end, &mut parts)?;
        position = end;
    }
    Ok(parts)
}

fn split_segment(
    segment: Segment,
    token_first: Position,
    range: Range<Position>,
    parts: &mut Vec<Part>,
) -> Result<(), WireError> {
    let layout = segment.layout;
    let mut of_stripe: HashMap<StripeId, usize> = HashMap::new();
    let mut position = range.start;
    while position < range.end {
        let stripe = layout.stripe(position);
        let count = layout.unit_rest(position).min(range.end.0 - position.0);
        let what = "token longer than memory";
        let index =
            |p: u64| usize::try_from(p - token_first.0).map_err(|_| WireError::Malformed { what });
        let records = index(position.0)?..index(position.0 + count)?;
        let place = *of_stripe.entry(stripe).or_insert(parts.len());
        match parts.get_mut(place) {
            Some(part) => match part.records.last_mut() {
                Some(last) if last.end == records.start => last.end = records.end,
                _ => part.records.push(records),
            },
            None => parts.push(Part {
                segment,
                stripe,
                first: layout.slot(position),
                records: vec![records],
            }),
        }
        position = position.plus(count);
    }
    Ok(())
}

/// Cuts records of these sizes into frames and returns how many each takes: at most
/// [`MAX_RUN_RECORDS`], and at most `max_bytes` with their table of lengths, but always at least one.
pub fn cut(sizes: impl Iterator<Item = usize>, max_bytes: usize) -> Vec<usize> {
    let mut frames = Vec::new();
    let (mut count, mut bytes) = (0, 0_usize);
    for size in sizes {
        let size = size.saturating_add(size_of::<u32>());
        if count == MAX_RUN_RECORDS || (count > 0 && bytes.saturating_add(size) > max_bytes) {
            frames.push(count);
            (count, bytes) = (0, 0);
        }
        count += 1;
        bytes = bytes.saturating_add(size);
    }
    if count > 0 {
        frames.push(count);
    }
    frames
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use wire::{Layout, LogId, SegmentId, WriterId};

    use super::*;

    fn entry(segments: &[(u64, u32, u32)]) -> ControlEntry {
        let segments = segments
            .iter()
            .zip(0_u32..)
            .map(|((start, k, u), id)| Segment {
                id: SegmentId(id),
                epoch: Epoch(u64::from(id)),
                start: Position(*start),
                layout: Layout::new(*k, *u).expect("valid"),
            });
        ControlEntry {
            log: LogId([1; 16]),
            number: 0,
            epoch: Epoch(1),
            owner: WriterId([0; 16]),
            epoch_start: Position(0),
            reservation: Position(0),
            clean: false,
            trim: Position(0),
            segments: segments.collect(),
        }
    }

    #[test]
    fn refuses_positions_that_do_not_exist() {
        let token = |first| Token {
            epoch: Epoch(1),
            first: Position(first),
            count: 2,
        };
        assert!(split(&entry(&[(0, 4, 4)]), token(MAX_POSITION - 1)).is_err());
        assert!(split(&entry(&[(5, 4, 4)]), token(4)).is_err());
        assert!(split(&entry(&[(0, 4, 4)]), token(u64::MAX)).is_err());
    }

    #[test]
    fn frames_keep_their_bounds() {
        assert_eq!(cut([10, 10, 10].into_iter(), 28), [2, 1]);
        assert_eq!(cut([100, 1].into_iter(), 28), [1, 1]);
        assert_eq!(
            cut(vec![0; MAX_RUN_RECORDS + 1].into_iter(), 1 << 20),
            [MAX_RUN_RECORDS, 1]
        );
        assert!(cut([].into_iter(), 1).is_empty());
    }

    proptest! {
        /// Every index appears once, at the stripe and slot that the layout of its own segment gives.
        #[test]
        fn each_record_lands_where_the_layout_says(
            first in 0_u64..100, count in 1_u64..200, border in 1_u64..300,
            k1 in 1_u32..9, u1 in 1_u32..9, k2 in 1_u32..9, u2 in 1_u32..9,
        ) {
            let entry = entry(&[(0, k1, u1), (border, k2, u2)]);
            let token = Token { epoch: Epoch(1), first: Position(first), count };
            let mut seen = vec![false; usize::try_from(count).expect("small")];
            for part in split(&entry, token).expect("valid") {
                let mut slot = part.first;
                for index in part.records.into_iter().flatten() {
                    let position = Position(first + index as u64);
                    let segment = entry.segment_of(position).expect("covered");
                    prop_assert_eq!(segment, &part.segment);
                    prop_assert_eq!(segment.layout.stripe(position), part.stripe);
                    prop_assert_eq!(segment.layout.slot(position), slot);
                    prop_assert!(!std::mem::replace(&mut seen[index], true));
                    slot = slot.plus(1);
                }
            }
            prop_assert!(seen.into_iter().all(|s| s));
        }
    }
}
