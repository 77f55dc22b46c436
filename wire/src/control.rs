//! Entries of the control chain, and the head of a log.
//!
//! Each entry is the whole small state of the log. Creating number n + 1 is the only way to change
//! anything in it.

use bytes::{BufMut, Bytes, BytesMut};
use rkyv::rancor::Failure;
use rkyv::{Archive, Deserialize, Serialize};

use crate::fixed::head;
use crate::limits::{MAX_CONTROL_BYTES, MAX_POSITION, MAX_SEGMENTS};
use crate::{
    Epoch, Fixed, LogId, Position, Segment, SegmentId, StripeId, WireError, WriterId, crc32c,
};

/// `STRIPECT`, read as a little-endian number.
pub const CONTROL_MAGIC: u64 = u64::from_le_bytes(*b"STRIPECT");

/// `STRIPEHD`, read as a little-endian number.
pub const HEAD_MAGIC: u64 = u64::from_le_bytes(*b"STRIPEHD");

/// The only version of both formats.
pub const CONTROL_VERSION: u32 = 1;

/// Segments that may have positions which are not decided: see [`ControlEntry::open_segments`].
const OPEN_SEGMENTS: usize = 2;

/// The state of a log at one number of its control chain.
#[derive(Debug, Clone, PartialEq, Eq, Archive, Serialize, Deserialize)]
#[rkyv(derive(Debug))]
pub struct ControlEntry {
    /// The log.
    pub log: LogId,
    /// Number of the entry in the chain, from 0.
    pub number: u64,
    /// Reign that wrote the entry; 0 before the first sequencer.
    pub epoch: Epoch,
    /// The process that reigns.
    pub owner: WriterId,
    /// First position of this reign.
    pub epoch_start: Position,
    /// Positions below this one may have been granted, or may be by this reign.
    pub reservation: Position,
    /// Whether `reservation` is the exact issued tail, written by a sequencer that stopped and grants no more.
    pub clean: bool,
    /// First position that is still readable.
    pub trim: Position,
    /// All segments, oldest first, at least one.
    pub segments: Vec<Segment>,
}

impl ControlEntry {
    /// The segment that a position belongs to; `None` only below the first one.
    #[must_use]
    pub fn segment_of(&self, position: Position) -> Option<&Segment> {
        self.segments.iter().rev().find(|s| s.start <= position)
    }

    /// The newest segment. A checked entry always has one.
    ///
    /// # Errors
    /// [`WireError::Malformed`] if there is none.
    pub fn last_segment(&self) -> Result<&Segment, WireError> {
        let what = "control entry without segments";
        self.segments.last().ok_or(WireError::Malformed { what })
    }

    /// First position behind a segment: the start of the next one, or nothing for the newest.
    #[must_use]
    pub fn segment_end(&self, segment: &Segment) -> Option<Position> {
        let later = self.segments.iter().find(|s| s.start > segment.start);
        later.map(|s| s.start)
    }

    /// The segments that may have positions which are not decided yet: the newest, where records are appended,
    /// and the one before it, which is complete once a reign has granted in the newest. A segment is opened by a
    /// reign that grants, and that reign has sealed everything before the segment it grants in (H-4, H-5).
    #[must_use]
    pub fn open_segments(&self) -> &[Segment] {
        let first = self.segments.len().saturating_sub(OPEN_SEGMENTS);
        self.segments.get(first..).unwrap_or(&[])
    }

    /// A segment that has this stripe, and its end, if every position of it is decided: a reign has sealed it (H-5).
    #[must_use]
    pub fn complete(&self, id: SegmentId, stripe: StripeId) -> Option<(&Segment, Position)> {
        let open = self.open_segments().first()?.start;
        let segment = self.segments.iter().find(|segment| segment.id == id)?;
        let end = self.segment_end(segment)?;
        let has = u32::from(stripe.0) < segment.layout.stripes();
        (has && end <= open).then_some((segment, end))
    }

    /// First position of a segment that the reign of this entry may grant: everything below is sealed (H-3). In a
    /// segment that has ended that is its end.
    #[must_use]
    pub fn sealed_to(&self, segment: &Segment) -> Position {
        let end = self.segment_end(segment);
        end.map_or(self.epoch_start, |end| end.min(self.epoch_start))
    }

    /// Encodes the entry.
    ///
    /// # Errors
    /// [`WireError::Bound`] if it has too many segments.
    pub fn encode(&self) -> Result<Bytes, WireError> {
        self.check()?;
        let body = rkyv::to_bytes::<Failure>(self).map_err(|_| WireError::Malformed {
            what: "control entry",
        })?;
        envelope(CONTROL_MAGIC, &body)
    }

    /// Decodes an entry and checks all of it. An entry that does not pass is an error, never an empty
    /// chain (S-4).
    ///
    /// # Errors
    /// The first check that fails.
    pub fn decode(bytes: &[u8]) -> Result<Self, WireError> {
        let body = open_envelope(CONTROL_MAGIC, bytes)?;
        let entry = rkyv::from_bytes::<Self, Failure>(body).map_err(|_| WireError::Malformed {
            what: "control entry",
        })?;
        entry.check()?;
        Ok(entry)
    }

    fn check(&self) -> Result<(), WireError> {
        let segments = self.segments.len() as u64;
        let bounds = [
            ("segments", segments, MAX_SEGMENTS as u64),
            ("reservation", self.reservation.0, MAX_POSITION),
            ("epoch start", self.epoch_start.0, self.reservation.0),
            ("trim point", self.trim.0, self.reservation.0),
        ];
        for (what, got, limit) in bounds {
            if got > limit {
                return Err(WireError::Bound { what, got, limit });
            }
        }
        self.last_segment()?;
        for segment in &self.segments {
            segment.check()?;
        }
        let rising = |pair: &[Segment]| match pair {
            [a, b] => a.start < b.start && a.id < b.id && a.epoch <= b.epoch,
            _ => true,
        };
        if !self.segments.windows(2).all(rising) {
            let what = "order of segments";
            return Err(WireError::Malformed { what });
        }
        Ok(())
    }
}

/// The first object of a log, which gives its identity. Whoever creates it has created the log.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Archive, Serialize, Deserialize)]
#[rkyv(derive(Debug))]
pub struct LogHead {
    /// The log.
    pub log: LogId,
    /// When it was created, in milliseconds since 1970. For people; nothing depends on it.
    pub created_unix_ms: u64,
}

impl LogHead {
    /// Encodes the head.
    ///
    /// # Errors
    /// None in practice.
    pub fn encode(&self) -> Result<Bytes, WireError> {
        envelope(HEAD_MAGIC, &self.to_vec())
    }

    /// Decodes and checks a head.
    ///
    /// # Errors
    /// The first check that fails.
    pub fn decode(bytes: &[u8]) -> Result<Self, WireError> {
        let body = open_envelope(HEAD_MAGIC, bytes)?;
        if body.len() > Self::SIZE {
            return Err(WireError::Length {
                what: "log head",
                got: body.len() as u64,
                expected: Self::SIZE as u64,
            });
        }
        Self::read(body)
    }
}

/// What stands before the body of an entry: magic, version, length and CRC32C of the body.
#[derive(Debug, Clone, Copy, Archive, Serialize, Deserialize)]
#[rkyv(derive(Debug))]
struct Envelope {
    magic: u64,
    version: u32,
    body_len: u32,
    body_crc: u32,
    reserved: u32,
}

pub(crate) fn envelope(magic: u64, body: &[u8]) -> Result<Bytes, WireError> {
    let body_len = u32::try_from(body.len())
        .ok()
        .filter(|len| *len as usize + Envelope::SIZE <= MAX_CONTROL_BYTES)
        .ok_or(WireError::Bound {
            what: "control entry bytes",
            got: body.len() as u64,
            limit: MAX_CONTROL_BYTES as u64,
        })?;
    let head = Envelope {
        magic,
        version: CONTROL_VERSION,
        body_len,
        body_crc: crc32c(&[body]),
        reserved: 0,
    };
    let mut out = BytesMut::with_capacity(Envelope::SIZE + body.len());
    out.put_slice(&head.to_vec());
    out.put_slice(body);
    Ok(out.freeze())
}

pub(crate) fn open_envelope(magic: u64, bytes: &[u8]) -> Result<&[u8], WireError> {
    let envelope = Envelope::read(bytes)?;
    if envelope.magic != magic {
        let got = envelope.magic;
        return Err(WireError::Magic { got });
    }
    if envelope.version != CONTROL_VERSION {
        return Err(WireError::Version {
            got: envelope.version,
            supported: CONTROL_VERSION,
        });
    }
    let body = bytes.get(Envelope::SIZE..).unwrap_or(&[]);
    head(body, envelope.body_len as usize)?;
    if body.len() != envelope.body_len as usize {
        return Err(WireError::Length {
            what: "control entry",
            got: body.len() as u64,
            expected: u64::from(envelope.body_len),
        });
    }
    let got = crc32c(&[body]);
    if got != envelope.body_crc {
        return Err(WireError::Checksum {
            what: "control entry",
            got,
            expected: envelope.body_crc,
        });
    }
    Ok(body)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Layout;

    fn entry(starts: &[u64], epoch_start: u64) -> ControlEntry {
        let layout = Layout::new(2, 1).expect("valid");
        let segments = (1..).zip(starts).map(|(id, start)| Segment {
            id: SegmentId(id),
            epoch: Epoch(u64::from(id)),
            start: Position(*start),
            layout,
        });
        ControlEntry {
            log: LogId([1; 16]),
            number: 7,
            epoch: Epoch(9),
            owner: WriterId([2; 16]),
            epoch_start: Position(epoch_start),
            reservation: Position(1000),
            clean: false,
            trim: Position(0),
            segments: segments.collect(),
        }
    }

    #[test]
    fn h5_the_last_two_segments_may_be_incomplete() {
        for (starts, open) in [(vec![0], vec![1]), (vec![0, 5, 9], vec![2, 3])] {
            let entry = entry(&starts, 9);
            let ids: Vec<_> = entry.open_segments().iter().map(|s| s.id.0).collect();
            assert_eq!(ids, open);
        }
    }

    #[test]
    fn h5_only_what_lies_before_both_is_complete() {
        let entry = entry(&[0, 5, 9], 9);
        let end = |id, stripe| {
            let complete = entry.complete(SegmentId(id), StripeId(stripe));
            complete.map(|(segment, end)| (segment.id.0, end.0))
        };
        assert_eq!(end(1, 1), Some((1, 5)));
        assert_eq!(end(1, 2), None, "no such stripe");
        assert_eq!((end(2, 0), end(3, 0), end(4, 0)), (None, None, None));
    }

    #[test]
    fn h5_a_segment_is_sealed_to_where_the_reign_starts_or_to_its_end() {
        let entry = entry(&[0, 5, 9], 20);
        let sealed = entry.segments.iter().map(|s| entry.sealed_to(s).0);
        assert_eq!(sealed.collect::<Vec<_>>(), [5, 9, 20]);
    }
}
