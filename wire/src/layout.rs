//! How positions map to stripes.

use rkyv::{Archive, Deserialize, Serialize};

use crate::limits::{MAX_POSITION, MAX_STRIPES, MAX_UNIT};
use crate::{Epoch, Position, SegmentId, Slot, StripeId, WireError};

/// K stripes with units of U positions: `stripe = (position / U) % K`.
///
/// Within its stripe a position has the slot `(position / (U K)) U + position % U`. Positions of one
/// stripe and their slots are in the same order, and a run of positions that follow one another in the
/// log has, in each stripe, slots that follow one another.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Archive, Serialize, Deserialize)]
#[rkyv(derive(Debug))]
pub struct Layout {
    stripes: u32,
    unit: u32,
}

impl Layout {
    /// A layout of `stripes` stripes with units of `unit` positions.
    ///
    /// # Errors
    /// [`WireError::Bound`] unless both are at least 1 and at most [`MAX_STRIPES`] and [`MAX_UNIT`].
    pub fn new(stripes: u32, unit: u32) -> Result<Self, WireError> {
        let layout = Self { stripes, unit };
        layout.check()?;
        Ok(layout)
    }

    /// Checks a layout that came from outside.
    pub(crate) fn check(self) -> Result<(), WireError> {
        for (what, got, limit) in [
            ("stripes", self.stripes, MAX_STRIPES),
            ("unit", self.unit, MAX_UNIT),
        ] {
            if got == 0 || got > limit {
                let (got, limit) = (u64::from(got), u64::from(limit));
                return Err(WireError::Bound { what, got, limit });
            }
        }
        Ok(())
    }

    /// Number of stripes, K.
    #[must_use]
    pub fn stripes(self) -> u32 {
        self.stripes
    }

    /// Positions that stay on one stripe before the next one takes over, U.
    #[must_use]
    pub fn unit(self) -> u32 {
        self.unit
    }

    /// All stripes in order.
    pub fn all(self) -> impl Iterator<Item = StripeId> {
        (0..self.stripes).filter_map(|stripe| u16::try_from(stripe).ok().map(StripeId))
    }

    /// The stripe of a position.
    #[must_use]
    pub fn stripe(self, position: Position) -> StripeId {
        let stripe = (position.0 / u64::from(self.unit)) % u64::from(self.stripes);
        StripeId(u16::try_from(stripe).unwrap_or(u16::MAX))
    }

    /// The slot of a position within its stripe.
    #[must_use]
    pub fn slot(self, position: Position) -> Slot {
        let (unit, round) = (u64::from(self.unit), self.round());
        Slot(position.0 / round * unit + position.0 % unit)
    }

    /// The position of a stripe's slot.
    #[must_use]
    pub fn position(self, stripe: StripeId, slot: Slot) -> Position {
        let unit = u64::from(self.unit);
        let (round, rest) = (slot.0 / unit, slot.0 % unit);
        let base = round.saturating_mul(self.round());
        Position(base.saturating_add(u64::from(stripe.0) * unit + rest))
    }

    /// The first slot of a stripe at or behind a position that need not be its own: the number of the
    /// stripe's positions below it.
    #[must_use]
    pub fn slot_at_or_after(self, stripe: StripeId, position: Position) -> Slot {
        let (unit, round) = (u64::from(self.unit), self.round());
        let (rounds, rest) = (position.0 / round, position.0 % round);
        let inside = rest.saturating_sub(u64::from(stripe.0) * unit).min(unit);
        Slot(rounds * unit + inside)
    }

    /// How many positions from `position` on stay on the same stripe without leaving the unit.
    #[must_use]
    pub fn unit_rest(self, position: Position) -> u64 {
        u64::from(self.unit) - position.0 % u64::from(self.unit)
    }

    fn round(self) -> u64 {
        u64::from(self.unit) * u64::from(self.stripes)
    }
}

/// A stretch of the log from `start` to the start of the next segment.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Archive, Serialize, Deserialize)]
#[rkyv(derive(Debug))]
pub struct Segment {
    /// Number of the segment, rising.
    pub id: SegmentId,
    /// Epoch that opened it.
    pub epoch: Epoch,
    /// First position.
    pub start: Position,
    /// How its positions map to stripes.
    pub layout: Layout,
}

impl Segment {
    /// First slot of a stripe in this segment.
    #[must_use]
    pub fn first_slot(&self, stripe: StripeId) -> Slot {
        self.layout.slot_at_or_after(stripe, self.start)
    }

    pub(crate) fn check(&self) -> Result<(), WireError> {
        self.layout.check()?;
        if self.start.0 > MAX_POSITION {
            let (got, limit) = (self.start.0, MAX_POSITION);
            return Err(WireError::Bound {
                what: "segment start",
                got,
                limit,
            });
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn plain_modulo_with_unit_one() {
        let layout = Layout::new(4, 1).expect("valid");
        assert_eq!(layout.stripe(Position(6)), StripeId(2));
        assert_eq!(layout.slot(Position(6)), Slot(1));
        assert_eq!(layout.position(StripeId(2), Slot(1)), Position(6));
    }

    #[test]
    fn refuses_what_has_no_stripes_or_too_many() {
        for (stripes, unit) in [(0, 1), (1, 0), (MAX_STRIPES + 1, 1), (1, MAX_UNIT + 1)] {
            assert!(Layout::new(stripes, unit).is_err(), "K={stripes} U={unit}");
        }
    }

    proptest! {
        #[test]
        fn slot_and_position_are_inverse(k in 1_u32..70, u in 1_u32..3000, p in 0..MAX_POSITION) {
            let layout = Layout::new(k, u).expect("valid");
            let (stripe, slot) = (layout.stripe(Position(p)), layout.slot(Position(p)));
            prop_assert_eq!(layout.position(stripe, slot), Position(p));
        }

        #[test]
        fn slots_follow_one_another(k in 1_u32..9, u in 1_u32..9, start in 0_u64..500, n in 1_u64..200) {
            let layout = Layout::new(k, u).expect("valid");
            for stripe in layout.all() {
                let mine: Vec<_> = (start..start + n)
                    .map(Position)
                    .filter(|p| layout.stripe(*p) == stripe)
                    .map(|p| layout.slot(p))
                    .collect();
                let first = layout.slot_at_or_after(stripe, Position(start));
                let end = layout.slot_at_or_after(stripe, Position(start + n));
                let expected: Vec<_> = (first.0..end.0).map(Slot).collect();
                prop_assert_eq!(mine, expected);
            }
        }
    }
}
