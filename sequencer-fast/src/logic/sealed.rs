//! Which stripes a new reign still waits for (H-4).

use std::collections::BTreeSet;

use wire::control::ControlEntry;
use wire::frame::{Seal, SealedStripe};

use super::chain::nothing_to_seal;

/// The stripes that are not known to be sealed for a reign. They only become fewer.
///
/// That a stripe is sealed is a fact of its chain: every slot below the start of the reign is decided in the store. It
/// stays true whoever owns the stripe later, so that the word of any one owner is enough, and one that does not
/// answer is no obstacle once others own its stripes.
#[derive(Debug)]
pub struct Sealing {
    seal: Seal,
    open: BTreeSet<SealedStripe>,
}

impl Sealing {
    /// What the reign that `entry` begins waits for: every stripe of every open segment, unless there is nothing to seal.
    /// What lies before is complete: the reign that opened a segment had everything before the former one sealed (H-5).
    #[must_use]
    pub fn new(entry: &ControlEntry) -> Self {
        let seal = Seal {
            epoch: entry.epoch,
            position: entry.epoch_start,
        };
        let mut open = BTreeSet::new();
        if !nothing_to_seal(entry) {
            for segment in entry.open_segments() {
                let name = |stripe| SealedStripe {
                    segment: segment.id,
                    stripe,
                };
                open.extend(segment.layout.all().map(name));
            }
        }
        Self { seal, open }
    }

    /// What owners are asked for.
    #[must_use]
    pub fn seal(&self) -> Seal {
        self.seal
    }

    /// An owner says that these are sealed. The word about another seal is none (H-3).
    pub fn sealed(&mut self, seal: Seal, stripes: &[SealedStripe]) {
        if seal == self.seal {
            for stripe in stripes {
                self.open.remove(stripe);
            }
        }
    }

    /// Stripes that are waited for.
    #[must_use]
    pub fn missing(&self) -> usize {
        self.open.len()
    }

    /// The first of them.
    #[must_use]
    pub fn first_missing(&self) -> Option<SealedStripe> {
        self.open.first().copied()
    }

    /// Whether the reign may grant.
    #[must_use]
    pub fn is_complete(&self) -> bool {
        self.open.is_empty()
    }
}

#[cfg(test)]
mod tests {
    use wire::{Epoch, Layout, LogId, Position, Segment, SegmentId, StripeId, WriterId};

    use super::*;

    fn entry(epoch_start: u64) -> ControlEntry {
        let segment = |id, start, stripes| Segment {
            id: SegmentId(id),
            epoch: Epoch(u64::from(id)),
            start: Position(start),
            layout: Layout::new(stripes, 4).expect("valid"),
        };
        ControlEntry {
            log: LogId([1; 16]),
            number: 9,
            epoch: Epoch(5),
            owner: WriterId::default(),
            epoch_start: Position(epoch_start),
            reservation: Position(900),
            clean: false,
            trim: Position(0),
            segments: vec![segment(1, 0, 2), segment(3, 500, 3)],
        }
    }

    fn names(stripes: &[(u32, u16)]) -> Vec<SealedStripe> {
        let name = |(segment, stripe): &(u32, u16)| SealedStripe {
            segment: SegmentId(*segment),
            stripe: StripeId(*stripe),
        };
        stripes.iter().map(name).collect()
    }

    #[test]
    fn h4_every_stripe_of_every_segment_is_waited_for() {
        let mut sealing = Sealing::new(&entry(800));
        let seal = sealing.seal();
        assert_eq!((seal.epoch, seal.position), (Epoch(5), Position(800)));
        assert_eq!(sealing.missing(), 5);
        sealing.sealed(seal, &names(&[(3, 0), (3, 2)]));
        sealing.sealed(seal, &names(&[(1, 0), (1, 1), (3, 0)]));
        assert_eq!(
            sealing.first_missing(),
            names(&[(3, 1)]).first().copied(),
            "and twice is once"
        );
        assert!(!sealing.is_complete());
        sealing.sealed(seal, &[]);
        sealing.sealed(seal, &names(&[(3, 3), (2, 1)]));
        assert_eq!(sealing.missing(), 1, "no such stripes");
        sealing.sealed(seal, &names(&[(3, 1)]));
        assert!(sealing.is_complete());
    }

    #[test]
    fn h4_a_stripe_that_is_sealed_for_another_reign_is_not() {
        let mut sealing = Sealing::new(&entry(800));
        let seal = sealing.seal();
        let all = names(&[(1, 0), (1, 1), (3, 0), (3, 1), (3, 2)]);
        let epoch = Epoch(seal.epoch.0 - 1);
        sealing.sealed(Seal { epoch, ..seal }, &all);
        let position = Position(seal.position.0 - 1);
        sealing.sealed(Seal { position, ..seal }, &all);
        assert_eq!(sealing.missing(), 5);
        sealing.sealed(seal, &all);
        assert!(sealing.is_complete());
    }

    /// Nobody has to own a stripe of a segment that is complete, so that nobody can answer for it.
    #[test]
    fn h5_complete_segments_are_not_waited_for_and_the_last_two_are() {
        let mut entry = entry(800);
        let mut newest = entry.segments[1];
        (newest.id, newest.start) = (SegmentId(5), Position(800));
        newest.layout = Layout::new(1, 1).expect("valid");
        entry.segments.push(newest);
        let mut sealing = Sealing::new(&entry);
        assert_eq!(sealing.missing(), 4);
        sealing.sealed(sealing.seal(), &names(&[(3, 0), (3, 1), (3, 2)]));
        assert_eq!(sealing.first_missing(), names(&[(5, 0)]).first().copied());
    }

    #[test]
    fn h4_the_first_reign_of_a_log_waits_for_nothing() {
        assert!(Sealing::new(&entry(0)).is_complete());
    }
}
