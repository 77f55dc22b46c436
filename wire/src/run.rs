//! Runs: records or junk in slots of one stripe that follow one another.

use bytes::{BufMut, Bytes, BytesMut};
use rkyv::{Archive, Deserialize, Serialize};

use crate::limits::{MAX_RECORD_BYTES, MAX_RUN_BYTES, MAX_RUN_RECORDS};
use crate::{ClientId, RequestId, Slot, WireError, crc32c};

/// Bytes of one entry of a run's table of lengths.
const LENGTH_BYTES: usize = 4;

/// Who appended a run. A token belongs to one request of one client, so that this and a position name
/// a record: the same identity at the same position is the same record, sent again.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Archive, Serialize, Deserialize)]
#[rkyv(derive(Debug))]
pub struct Identity {
    /// The client process.
    pub client: ClientId,
    /// Its append request.
    pub request: RequestId,
}

/// What slots `[first, first + count)` of a stripe hold.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Run {
    /// First slot.
    pub first: Slot,
    /// Number of slots, at least 1.
    pub count: u64,
    /// Records and who appended them, or `None` for junk.
    pub content: Option<(Identity, RunBody)>,
}

impl Run {
    /// A run of junk.
    #[must_use]
    pub fn junk(first: Slot, count: u64) -> Self {
        Self {
            first,
            count,
            content: None,
        }
    }

    /// A run of records.
    #[must_use]
    pub fn records(first: Slot, identity: Identity, body: RunBody) -> Self {
        Self {
            first,
            count: u64::from(body.count()),
            content: Some((identity, body)),
        }
    }

    /// First slot behind the run.
    #[must_use]
    pub fn end(&self) -> Slot {
        self.first.plus(self.count)
    }

    /// Whether the run fills holes.
    #[must_use]
    pub fn is_junk(&self) -> bool {
        self.content.is_none()
    }

    /// Who appended the run, if it holds records.
    #[must_use]
    pub fn identity(&self) -> Option<Identity> {
        self.content.as_ref().map(|(identity, _)| *identity)
    }

    /// The part of the run in slots `[from, to)`, which have to be its own.
    ///
    /// # Errors
    /// [`WireError::Malformed`] if they are not, or are none.
    pub fn part(&self, from: Slot, to: Slot) -> Result<Self, WireError> {
        let what = "part of a run";
        if from < self.first || to > self.end() || from >= to {
            return Err(WireError::Malformed { what });
        }
        let count = from.until(to);
        let Some((identity, body)) = &self.content else {
            return Ok(Self::junk(from, count));
        };
        if count == self.count {
            return Ok(self.clone());
        }
        let number = |n: u64| usize::try_from(n).map_err(|_| WireError::Malformed { what });
        let body = body.part(number(self.first.until(from))?, number(count)?)?;
        Ok(Self::records(from, *identity, body))
    }

    /// Bytes of the run's body, 0 for junk.
    #[must_use]
    pub fn body_len(&self) -> usize {
        self.content.as_ref().map_or(0, |(_, body)| body.len())
    }
}

/// The records of a run as they travel and as they are stored: a table of lengths (u32, little endian)
/// and then the bytes of all records as one run. Never copied between the socket and the object.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RunBody {
    count: u32,
    crc: u32,
    bytes: Bytes,
}

impl RunBody {
    /// Joins records to a body and computes its checksum. Here, or in [`crate::RunParts::new`], is the only
    /// place where that is done for a record on its way from the client to the store.
    ///
    /// # Errors
    /// [`WireError::Bound`] if there is no record, or one or all of them are too large.
    pub fn new<R: AsRef<[u8]>>(records: &[R]) -> Result<Self, WireError> {
        let (mut bytes, _) = lengths(records, true)?;
        let count = checked_count(records.len())?;
        for record in records {
            bytes.put_slice(record.as_ref());
        }
        let bytes = bytes.freeze();
        let crc = crc32c(&[&bytes]);
        Ok(Self { count, crc, bytes })
    }

    /// Takes a body from outside, after a check of its checksum and of every length in it.
    ///
    /// # Errors
    /// [`WireError::Checksum`] if the bytes changed on their way, [`WireError::Bound`] or
    /// [`WireError::Length`] if they do not hold `count` records.
    pub fn checked(count: u32, crc: u32, bytes: Bytes) -> Result<Self, WireError> {
        let table = checked_count(count as usize)? as usize * LENGTH_BYTES;
        bound("run bytes", bytes.len(), MAX_RUN_BYTES)?;
        let got = crc32c(&[&bytes]);
        if got != crc {
            return Err(WireError::Checksum {
                what: "run",
                got,
                expected: crc,
            });
        }
        let body = Self { count, crc, bytes };
        let mut payload = 0_u64;
        for length in crate::fixed::head(&body.bytes, table)?.chunks_exact(LENGTH_BYTES) {
            payload += u64::from(checked_record(read_length(length))?);
        }
        let expected = (body.bytes.len() - table) as u64;
        if payload != expected {
            let what = "run payload";
            return Err(WireError::Length {
                what,
                got: payload,
                expected,
            });
        }
        Ok(body)
    }

    /// Number of records.
    #[must_use]
    pub fn count(&self) -> u32 {
        self.count
    }

    /// CRC32C over [`Self::bytes`].
    #[must_use]
    pub fn crc(&self) -> u32 {
        self.crc
    }

    /// Lengths and payload, as sent and stored.
    #[must_use]
    pub fn bytes(&self) -> &Bytes {
        &self.bytes
    }

    /// Length of [`Self::bytes`].
    #[must_use]
    pub fn len(&self) -> usize {
        self.bytes.len()
    }

    /// Whether there are no bytes; a valid body always has some.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.bytes.is_empty()
    }

    /// The records in order, sharing the body's memory.
    pub fn records(&self) -> impl Iterator<Item = Bytes> + '_ {
        let table = self.count as usize * LENGTH_BYTES;
        let lengths = self.bytes.get(..table).unwrap_or(&[]);
        let mut at = table;
        lengths.chunks_exact(LENGTH_BYTES).map(move |length| {
            let from = at;
            at = (at + read_length(length)).min(self.bytes.len());
            self.bytes.slice(from..at)
        })
    }

    /// A body of `count` of the records from number `from` on: with a checksum of its own, computed from
    /// bytes that were checked when they came in.
    ///
    /// # Errors
    /// [`WireError::Bound`] or [`WireError::Malformed`] if there are no such records.
    pub fn part(&self, from: usize, count: usize) -> Result<Self, WireError> {
        let records: Vec<_> = self.records().skip(from).take(count).collect();
        if records.len() != count {
            let what = "part of a run";
            return Err(WireError::Malformed { what });
        }
        Self::new(&records)
    }
}

/// The table of lengths of records that make a valid body, with room behind it for their bytes if they are
/// to follow; and how long the body is.
pub(crate) fn lengths<R: AsRef<[u8]>>(
    records: &[R],
    room: bool,
) -> Result<(BytesMut, usize), WireError> {
    let payload: usize = records.iter().map(|r| r.as_ref().len()).sum();
    let table = records.len().saturating_mul(LENGTH_BYTES);
    let total = payload.saturating_add(table);
    checked_count(records.len())?;
    bound("run bytes", total, MAX_RUN_BYTES)?;
    let mut bytes = BytesMut::with_capacity(if room { total } else { table });
    for record in records {
        bytes.put_u32_le(checked_record(record.as_ref().len())?);
    }
    Ok((bytes, total))
}

fn read_length(bytes: &[u8]) -> usize {
    bytes
        .try_into()
        .map_or(usize::MAX, |b: [u8; LENGTH_BYTES]| {
            u32::from_le_bytes(b) as usize
        })
}

fn bound(what: &'static str, got: usize, limit: usize) -> Result<(), WireError> {
    if got > limit {
        let (got, limit) = (got as u64, limit as u64);
        return Err(WireError::Bound { what, got, limit });
    }
    Ok(())
}

fn checked_count(count: usize) -> Result<u32, WireError> {
    if count == 0 {
        return Err(WireError::Malformed { what: "empty run" });
    }
    bound("records of a run", count, MAX_RUN_RECORDS)?;
    u32::try_from(count).map_err(|_| WireError::Malformed { what: "run count" })
}

fn checked_record(len: usize) -> Result<u32, WireError> {
    bound("record bytes", len, MAX_RECORD_BYTES)?;
    u32::try_from(len).map_err(|_| WireError::Malformed { what: "length" })
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn refuses_nothing_and_too_much() {
        assert!(RunBody::new::<&[u8]>(&[]).is_err());
        assert!(RunBody::new(&[vec![0; MAX_RECORD_BYTES]]).is_ok());
        assert!(RunBody::new(&[vec![0; MAX_RECORD_BYTES + 1]]).is_err());
        assert!(RunBody::new(&[[0_u8; 0]; MAX_RUN_RECORDS + 1]).is_err());
        assert!(RunBody::new(&vec![vec![0; MAX_RECORD_BYTES]; 4]).is_err());
    }

    #[test]
    fn refuses_lengths_that_do_not_add_up() {
        let mut bytes = RunBody::new(&["abc", "d"]).expect("valid").bytes.to_vec();
        bytes[0] = 2;
        let crc = crc32c(&[&bytes]);
        let refused = RunBody::checked(2, crc, bytes.into());
        assert!(matches!(refused, Err(WireError::Length { .. })));
    }

    proptest! {
        #[test]
        fn records_come_back(records in prop::collection::vec(prop::collection::vec(any::<u8>(), 0..40), 1..40), skip in 0_usize..40) {
            let body = RunBody::new(&records).expect("valid");
            let again = RunBody::checked(body.count(), body.crc(), body.bytes().clone()).expect("valid");
            prop_assert_eq!(again.records().collect::<Vec<_>>(), records.clone());
            if skip < records.len() {
                let rest = body.part(skip, records.len() - skip).expect("valid");
                prop_assert_eq!(rest.records().collect::<Vec<_>>(), &records[skip..]);
            }
        }

        #[test]
        fn r4_a_changed_byte_is_found(records in prop::collection::vec(prop::collection::vec(any::<u8>(), 0..40), 1..40), at in any::<prop::sample::Index>(), bit in 0_u8..8) {
            let body = RunBody::new(&records).expect("valid");
            let mut bytes = body.bytes().to_vec();
            let at = at.index(bytes.len());
            bytes[at] ^= 1 << bit;
            prop_assert!(RunBody::checked(body.count(), body.crc(), bytes.into()).is_err());
        }
    }
}
