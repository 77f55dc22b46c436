//! The body of a run that is not joined yet.

use std::io::IoSlice;
use std::sync::Arc;

use bytes::Bytes;

use crate::crc::crc32c;
use crate::run::lengths;
use crate::{RunBody, WireError};

/// Records of this size, on average, are not copied: a slice more for the kernel to follow costs less.
const APART_BYTES: usize = 512;

/// The body of a run as its sender has it: what a [`RunBody`] of the same records has, byte for byte, but
/// large records stay where they are until the kernel takes them. Cheap to clone.
#[derive(Debug, Clone)]
pub struct RunParts {
    kind: Kind,
}

#[derive(Debug, Clone)]
enum Kind {
    Joined(RunBody),
    Apart {
        crc: u32,
        len: usize,
        table: Bytes,
        records: Arc<[Bytes]>,
    },
}

impl RunParts {
    /// Makes the body of records, and its checksum.
    ///
    /// # Errors
    /// [`WireError::Bound`] if there is no record, or one or all of them are too large.
    pub fn new(records: Vec<Bytes>) -> Result<Self, WireError> {
        let payload: usize = records.iter().map(Bytes::len).sum();
        if payload < records.len().saturating_mul(APART_BYTES) {
            let kind = Kind::Joined(RunBody::new(&records)?);
            return Ok(Self { kind });
        }
        let (table, len) = lengths(&records, false)?;
        let mut parts: Vec<&[u8]> = vec![&table];
        parts.extend(records.iter().map(|record| &record[..]));
        let crc = crc32c(&parts);
        let kind = Kind::Apart {
            crc,
            len,
            table: table.freeze(),
            records: records.into(),
        };
        Ok(Self { kind })
    }

    /// Number of records.
    #[must_use]
    pub fn count(&self) -> u32 {
        match &self.kind {
            Kind::Joined(body) => body.count(),
            Kind::Apart { records, .. } => u32::try_from(records.len()).unwrap_or(u32::MAX),
        }
    }

    /// CRC32C over the bytes of all slices.
    #[must_use]
    pub fn crc(&self) -> u32 {
        match &self.kind {
            Kind::Joined(body) => body.crc(),
            Kind::Apart { crc, .. } => *crc,
        }
    }

    /// Bytes of all slices.
    #[must_use]
    pub fn len(&self) -> usize {
        match &self.kind {
            Kind::Joined(body) => body.len(),
            Kind::Apart { len, .. } => *len,
        }
    }

    /// Whether there are no bytes; a valid body always has some.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Lengths and payload, as sent and stored.
    #[must_use]
    pub fn slices(&self) -> Vec<IoSlice<'_>> {
        match &self.kind {
            Kind::Joined(body) => vec![IoSlice::new(body.bytes())],
            Kind::Apart { table, records, .. } => {
                let all = std::iter::once(table).chain(records.iter());
                let filled = all.filter(|slice| !slice.is_empty());
                filled.map(|slice| IoSlice::new(slice)).collect()
            }
        }
    }

    /// The records in order, sharing the body's memory.
    #[must_use]
    pub fn records(&self) -> Vec<Bytes> {
        match &self.kind {
            Kind::Joined(body) => body.records().collect(),
            Kind::Apart { records, .. } => records.to_vec(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::limits::{MAX_RECORD_BYTES, MAX_RUN_RECORDS};

    #[test]
    fn parts_are_the_bytes_of_a_body() {
        for sizes in [
            &[0][..],
            &[1, 2, 3],
            &[600, 0, 700, 512],
            &[512; 40],
            &[511; 40],
        ] {
            let records: Vec<Bytes> = (0_u8..)
                .zip(sizes)
                .map(|(byte, size)| vec![byte; *size].into())
                .collect();
            let body = RunBody::new(&records).expect("valid");
            let parts = RunParts::new(records.clone()).expect("valid");
            let bytes: Vec<u8> = parts.slices().iter().flat_map(|s| s.to_vec()).collect();
            assert_eq!(&bytes[..], &body.bytes()[..]);
            assert_eq!((parts.count(), parts.crc()), (body.count(), body.crc()));
            assert_eq!((parts.len(), parts.records()), (body.len(), records));
            let again = RunBody::checked(parts.count(), parts.crc(), bytes.into());
            assert_eq!(again.expect("valid"), body);
        }
    }

    #[test]
    fn refuses_what_a_body_refuses() {
        let of = |size, count| RunParts::new(vec![vec![0; size].into(); count]);
        assert!(of(1, 0).is_err());
        assert!(of(MAX_RECORD_BYTES, 1).is_ok());
        assert!(of(MAX_RECORD_BYTES + 1, 1).is_err());
        assert!(of(MAX_RECORD_BYTES, 4).is_err());
        assert!(of(0, MAX_RUN_RECORDS + 1).is_err());
    }
}
