//! Snapshots: where the objects of a part of a chain start.
//!
//! A snapshot is a hint. The chain is what its objects say; who has a snapshot finds them sooner. The objects
//! of a chain follow one another without gap, so that each ends where the next one starts.

use std::ops::Range;

use rkyv::{Archive, Deserialize, Serialize};

use crate::fixed::head;
use crate::limits::{MAX_POSITION, MAX_SNAPSHOT_OBJECTS, MAX_STRIPES};
use crate::object::ChainId;
use crate::{Fixed, Layout, LogId, OwnerNumber, SegmentId, Slot, StripeId, WireError, crc32c};

/// `STRIPESN`, read as a little-endian number.
const SNAPSHOT_MAGIC: u64 = u64::from_le_bytes(*b"STRIPESN");

/// The only version that is read: one of another version is as none.
const SNAPSHOT_VERSION: u32 = 2;

/// Bytes of the head.
pub const SNAPSHOT_HEAD_BYTES: usize = 72;

/// Bytes of a slot.
const SLOT_BYTES: usize = 8;

const _: () = assert!(size_of::<ArchivedHead>() == SNAPSHOT_HEAD_BYTES);

/// Objects of a chain that follow one another.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Snapshot {
    /// The chain.
    pub chain: ChainId,
    /// First slots of the objects, rising; at least one.
    pub starts: Vec<Slot>,
    /// First slot behind the last object.
    pub end: Slot,
    /// No object of the chain below `end` has a higher owner number, whether it is named here or not (C-6).
    pub owner: OwnerNumber,
}

/// The encoding of all but the slots.
#[derive(Archive, Serialize, Deserialize)]
#[rkyv(derive(Debug))]
struct Head {
    magic: u64,
    version: u32,
    objects: u32,
    log: LogId,
    segment: SegmentId,
    stripe: u32,
    stripes: u32,
    unit: u32,
    end: Slot,
    owner: OwnerNumber,
    starts_crc: u32,
    head_crc: u32,
}

impl Snapshot {
    /// The slots of the object that covers a slot.
    #[must_use]
    pub fn object_at(&self, slot: Slot) -> Option<Range<Slot>> {
        let behind = self.starts.partition_point(|start| *start <= slot);
        let start = *self.starts.get(behind.checked_sub(1)?)?;
        let end = self.starts.get(behind).copied().unwrap_or(self.end);
        (slot < end).then_some(start..end)
    }

    /// The slots of the last object.
    #[must_use]
    pub fn last(&self) -> Option<Range<Slot>> {
        self.starts.last().map(|start| *start..self.end)
    }

    /// Name of the snapshot, by where it starts.
    #[must_use]
    pub fn name(&self) -> String {
        let first = self.starts.first().copied().unwrap_or(self.end);
        let ChainId {
            log,
            segment,
            stripe,
            ..
        } = self.chain;
        crate::name::snapshot(log, segment, stripe, self.chain.position(first))
    }

    /// The bytes of the snapshot.
    ///
    /// # Errors
    /// [`WireError`] for a snapshot that [`Self::decode`] would refuse.
    pub fn encode(&self) -> Result<Vec<u8>, WireError> {
        self.check()?;
        let starts: Vec<u8> = self
            .starts
            .iter()
            .flat_map(|start| start.0.to_le_bytes())
            .collect();
        let mut bytes = Head {
            magic: SNAPSHOT_MAGIC,
            version: SNAPSHOT_VERSION,
            objects: u32::try_from(self.starts.len()).unwrap_or(u32::MAX),
            log: self.chain.log,
            segment: self.chain.segment,
            stripe: u32::from(self.chain.stripe.0),
            stripes: self.chain.layout.stripes(),
            unit: self.chain.layout.unit(),
            end: self.end,
            owner: self.owner,
            starts_crc: crc32c(&[&starts]),
            head_crc: 0,
        }
        .to_vec();
        if let Some((covered, crc)) = bytes.split_last_chunk_mut::<4>() {
            *crc = crc32c(&[covered]).to_le_bytes();
        }
        bytes.extend(starts);
        Ok(bytes)
    }

    /// Reads and checks a snapshot.
    ///
    /// # Errors
    /// The first check that fails.
    pub fn decode(bytes: &[u8]) -> Result<Self, WireError> {
        let raw = Head::read(bytes)?;
        if raw.magic != SNAPSHOT_MAGIC {
            return Err(WireError::Magic { got: raw.magic });
        }
        if raw.version != SNAPSHOT_VERSION {
            return Err(WireError::Version {
                got: raw.version,
                supported: SNAPSHOT_VERSION,
            });
        }
        let (front, starts) = bytes
            .split_at_checked(SNAPSHOT_HEAD_BYTES)
            .unwrap_or((bytes, &[]));
        checksum(
            "snapshot head",
            head(front, SNAPSHOT_HEAD_BYTES - 4)?,
            raw.head_crc,
        )?;
        let expected = u64::from(raw.objects) * SLOT_BYTES as u64;
        if starts.len() as u64 != expected {
            return Err(WireError::Length {
                what: "snapshot",
                got: starts.len() as u64,
                expected,
            });
        }
        checksum("snapshot", starts, raw.starts_crc)?;
        let layout = Layout::new(raw.stripes, raw.unit)?;
        bound("stripe", u64::from(raw.stripe), u64::from(MAX_STRIPES) - 1)?;
        let (slots, _) = starts.as_chunks::<SLOT_BYTES>();
        let snapshot = Self {
            chain: ChainId {
                log: raw.log,
                segment: raw.segment,
                stripe: StripeId(u16::try_from(raw.stripe).unwrap_or(u16::MAX)),
                layout,
            },
            starts: slots
                .iter()
                .map(|slot| Slot(u64::from_le_bytes(*slot)))
                .collect(),
            end: raw.end,
            owner: raw.owner,
        };
        snapshot.check()?;
        Ok(snapshot)
    }

    fn check(&self) -> Result<(), WireError> {
        bound(
            "objects of a snapshot",
            self.starts.len() as u64,
            MAX_SNAPSHOT_OBJECTS as u64,
        )?;
        bound("slots", self.end.0, MAX_POSITION)?;
        let rising = self.starts.is_sorted_by(|a, b| a < b);
        let sound = rising && self.starts.last().is_some_and(|last| *last < self.end);
        if !sound || u32::from(self.chain.stripe.0) >= self.chain.layout.stripes() {
            let what = "snapshot";
            return Err(WireError::Malformed { what });
        }
        Ok(())
    }
}

fn bound(what: &'static str, got: u64, limit: u64) -> Result<(), WireError> {
    match got > limit {
        true => Err(WireError::Bound { what, got, limit }),
        false => Ok(()),
    }
}

fn checksum(what: &'static str, bytes: &[u8], expected: u32) -> Result<(), WireError> {
    let got = crc32c(&[bytes]);
    match got == expected {
        true => Ok(()),
        false => Err(WireError::Checksum {
            what,
            got,
            expected,
        }),
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn snapshot(starts: &[u64], end: u64) -> Snapshot {
        Snapshot {
            chain: ChainId {
                log: LogId([3; 16]),
                segment: SegmentId(1),
                stripe: StripeId(2),
                layout: Layout::new(4, 8).expect("valid"),
            },
            starts: starts.iter().copied().map(Slot).collect(),
            end: Slot(end),
            owner: OwnerNumber(9),
        }
    }

    #[test]
    fn finds_the_object_that_covers_a_slot() {
        let snapshot = snapshot(&[10, 12, 20], 25);
        assert_eq!(snapshot.object_at(Slot(9)), None);
        assert_eq!(snapshot.object_at(Slot(11)), Some(Slot(10)..Slot(12)));
        assert_eq!(snapshot.object_at(Slot(24)), Some(Slot(20)..Slot(25)));
        assert_eq!(snapshot.object_at(Slot(25)), None);
    }

    #[test]
    fn refuses_what_is_no_part_of_a_chain() {
        for (starts, end) in [(&[][..], 4), (&[4], 4), (&[2, 2], 4), (&[3, 1], 4)] {
            assert!(snapshot(starts, end).encode().is_err(), "{starts:?}");
        }
        let many: Vec<u64> = (0..=MAX_SNAPSHOT_OBJECTS as u64).collect();
        assert!(snapshot(&many, 1 << 20).encode().is_err());
        assert!(snapshot(&many[1..], 1 << 20).encode().is_ok());
    }

    proptest! {
        #[test]
        fn comes_back_and_a_changed_byte_is_found(lens in prop::collection::vec(1_u64..9, 1..40), at in any::<prop::sample::Index>(), bit in 0_u8..8) {
            let mut starts = vec![7];
            for len in &lens {
                starts.push(starts.last().expect("one") + len);
            }
            let end = starts.pop().expect("one");
            let snapshot = snapshot(&starts, end);
            let mut bytes = snapshot.encode().expect("valid");
            prop_assert_eq!(Snapshot::decode(&bytes), Ok(snapshot));
            let at = at.index(bytes.len());
            bytes[at] ^= 1 << bit;
            prop_assert!(Snapshot::decode(&bytes).is_err());
            prop_assert!(Snapshot::decode(&bytes[..at]).is_err());
        }
    }
}
