//! Where the runs of an object are.

use bytes::Bytes;
use rkyv::{Archive, Deserialize, Serialize};

use crate::fixed::head;
use crate::limits::{MAX_OBJECT_RUNS, MAX_POSITION, MAX_RUN_BYTES};
use crate::object::{FOOTER_BYTES, HEADER_BYTES, Header, INDEX_ENTRY_BYTES};
use crate::{ClientId, Fixed, Identity, RequestId, Run, RunBody, Slot, WireError, crc32c};

const _: () = assert!(size_of::<ArchivedIndexEntry>() == INDEX_ENTRY_BYTES);
const _: () = assert!(HEADER_BYTES + FOOTER_BYTES + MAX_OBJECT_RUNS * INDEX_ENTRY_BYTES <= 1 << 20);

/// Where a run of an object is, as the index tells it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct IndexRun {
    /// First slot.
    pub first: Slot,
    /// Number of slots.
    pub count: u64,
    /// Records, or `None` for junk.
    pub records: Option<IndexRecords>,
}

/// The part of an index entry that only runs of records have.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct IndexRecords {
    /// Who appended them.
    pub identity: Identity,
    /// Offset of the body from the start of the object, in bytes.
    pub offset: u64,
    /// Length of the body in bytes.
    pub len: u32,
    /// CRC32C of the body.
    pub crc: u32,
}

impl IndexRun {
    /// First slot behind the run.
    #[must_use]
    pub fn end(&self) -> Slot {
        self.first.plus(self.count)
    }

    /// Who appended the run, if it holds records.
    #[must_use]
    pub fn identity(&self) -> Option<Identity> {
        self.records.map(|records| records.identity)
    }

    /// The run with its body, after a check of the body; junk takes none.
    ///
    /// # Errors
    /// What [`RunBody::checked`] finds.
    pub fn with_body(&self, body: Bytes) -> Result<Run, WireError> {
        let Some(records) = self.records else {
            return Ok(Run::junk(self.first, self.count));
        };
        let what = "run count";
        let count = u32::try_from(self.count).map_err(|_| WireError::Malformed { what })?;
        let body = RunBody::checked(count, records.crc, body)?;
        Ok(Run::records(self.first, records.identity, body))
    }
}

/// The encoding of [`IndexRun`].
#[derive(Archive, Serialize, Deserialize)]
#[rkyv(derive(Debug))]
pub(super) struct IndexEntry {
    first: Slot,
    count: u64,
    client: ClientId,
    request: RequestId,
    offset: u64,
    len: u32,
    crc: u32,
    kind: u32,
    reserved: u32,
}

const KIND_RECORDS: u32 = 1;
const KIND_JUNK: u32 = 2;

impl IndexEntry {
    pub(super) fn of(run: &Run, offset: u64) -> Self {
        let (identity, len, crc, kind) = match &run.content {
            Some((identity, body)) => {
                let len = u32::try_from(body.len()).unwrap_or(u32::MAX);
                (*identity, len, body.crc(), KIND_RECORDS)
            }
            None => {
                let nobody = Identity {
                    client: ClientId(0),
                    request: RequestId(0),
                };
                (nobody, 0, 0, KIND_JUNK)
            }
        };
        Self {
            first: run.first,
            count: run.count,
            client: identity.client,
            request: identity.request,
            offset: if kind == KIND_RECORDS { offset } else { 0 },
            len,
            crc,
            kind,
            reserved: 0,
        }
    }

    fn into_run(self) -> Result<IndexRun, WireError> {
        let records = match self.kind {
            KIND_JUNK => None,
            KIND_RECORDS => Some(IndexRecords {
                identity: Identity {
                    client: self.client,
                    request: self.request,
                },
                offset: self.offset,
                len: self.len,
                crc: self.crc,
            }),
            got => return Err(WireError::Kind { got }),
        };
        Ok(IndexRun {
            first: self.first,
            count: self.count,
            records,
        })
    }
}

/// The header and the index of an object, checked: its runs cover its slots without gap or overlap, and
/// its bodies the payload.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Index {
    /// The header.
    pub header: Header,
    /// All runs in the order of their slots.
    pub runs: Vec<IndexRun>,
}

impl Index {
    /// Reads header and index from the start of an object.
    ///
    /// # Errors
    /// [`WireError::Short`] if `bytes` ends before the index does (`need` says where that is), or the
    /// first check that fails.
    pub fn decode(bytes: &[u8]) -> Result<Self, WireError> {
        let header = Header::decode(bytes)?;
        let index = head(bytes, header.index_end())?
            .get(HEADER_BYTES..)
            .unwrap_or(&[]);
        let got = crc32c(&[index]);
        if got != header.index_crc {
            return Err(WireError::Checksum {
                what: "object index",
                got,
                expected: header.index_crc,
            });
        }
        let runs = index
            .chunks_exact(INDEX_ENTRY_BYTES)
            .map(|entry| IndexEntry::read(entry)?.into_run())
            .collect::<Result<Vec<_>, _>>()?;
        check_runs(&header, &runs)?;
        Ok(Self { header, runs })
    }

    /// The run that covers a slot, if the object does.
    #[must_use]
    pub fn run_at(&self, slot: Slot) -> Option<&IndexRun> {
        let behind = self.runs.partition_point(|run| run.first <= slot);
        let run = self.runs.get(behind.checked_sub(1)?)?;
        (slot < run.end()).then_some(run)
    }
}

fn check_runs(header: &Header, runs: &[IndexRun]) -> Result<(), WireError> {
    let malformed = |what| Err(WireError::Malformed { what });
    let mut slot = header.start;
    let mut offset = header.index_end() as u64;
    for run in runs {
        if run.first != slot || run.count == 0 || run.count > MAX_POSITION {
            return malformed("slots of a run");
        }
        slot = run.end();
        if let Some(records) = run.records {
            if records.offset != offset || records.len as usize > MAX_RUN_BYTES {
                return malformed("place of a run");
            }
            offset += u64::from(records.len);
        }
    }
    if slot != header.end {
        return malformed("end of the last run");
    }
    if offset + FOOTER_BYTES as u64 != header.object_len {
        return malformed("object length");
    }
    Ok(())
}
