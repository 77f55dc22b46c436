//! Whole objects, built and taken apart.

use bytes::Bytes;
use rkyv::{Archive, Deserialize, Serialize};

use crate::object::index::IndexEntry;
use crate::object::{
    Author, ChainId, FOOTER_BYTES, HEADER_BYTES, Header, INDEX_ENTRY_BYTES, Index, IndexRun,
};
use crate::{Fixed, Run, WireError, crc32c};

const _: () = assert!(size_of::<ArchivedFooter>() == FOOTER_BYTES);

/// `STRIPEND`, read as a little-endian number.
const FOOTER_MAGIC: u64 = u64::from_le_bytes(*b"STRIPEND");

#[derive(Archive, Serialize, Deserialize)]
#[rkyv(derive(Debug))]
struct Footer {
    magic: u64,
    object_len: u64,
}

/// A whole object in chunks, ready to be put: header and index, the bodies as they were received, footer.
#[derive(Debug, Clone)]
pub struct Object {
    /// Its header and index.
    pub index: Index,
    /// Its bytes in order.
    pub chunks: Vec<Bytes>,
}

impl Object {
    /// Builds an object from runs that follow one another without gap.
    ///
    /// # Errors
    /// [`WireError::Malformed`] if the runs are none or do not follow one another, [`WireError::Bound`]
    /// if they are too many or too large.
    pub fn build(chain: ChainId, author: Author, runs: &[Run]) -> Result<Self, WireError> {
        let what = "object without runs";
        let (Some(first), Some(last)) = (runs.first(), runs.last()) else {
            return Err(WireError::Malformed { what });
        };
        let payload: usize = runs.iter().map(Run::body_len).sum();
        let index_end = HEADER_BYTES + runs.len() * INDEX_ENTRY_BYTES;
        let object_len = (index_end + payload + FOOTER_BYTES) as u64;
        let mut entries = Vec::with_capacity(index_end);
        let mut offset = index_end as u64;
        for run in runs {
            entries.extend(IndexEntry::of(run, offset).to_vec());
            offset += run.body_len() as u64;
        }
        let header = Header {
            chain,
            author,
            start: first.first,
            end: last.end(),
            runs: u32::try_from(runs.len()).unwrap_or(u32::MAX),
            object_len,
            index_crc: crc32c(&[&entries]),
        };
        let mut front = header.encode();
        front.extend(entries);
        let index = Index::decode(&front)?;
        let footer = Footer {
            magic: FOOTER_MAGIC,
            object_len,
        };
        let bodies = runs.iter().filter_map(|run| run.content.as_ref());
        let mut chunks = vec![Bytes::from(front)];
        chunks.extend(bodies.map(|(_, body)| body.bytes().clone()));
        chunks.push(footer.to_vec().into());
        Ok(Self { index, chunks })
    }

    /// Length of the object in bytes.
    #[must_use]
    pub fn len(&self) -> usize {
        self.chunks.iter().map(Bytes::len).sum()
    }

    /// Whether there are no bytes; a built object always has some.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Reads a whole object: checks header, index, footer and the body of every run.
    ///
    /// # Errors
    /// The first check that fails.
    pub fn decode(bytes: &Bytes) -> Result<(Index, Vec<Run>), WireError> {
        let index = Index::decode(bytes)?;
        if bytes.len() as u64 != index.header.object_len {
            return Err(WireError::Length {
                what: "object",
                got: bytes.len() as u64,
                expected: index.header.object_len,
            });
        }
        let footer = Footer::read(bytes.get(bytes.len() - FOOTER_BYTES..).unwrap_or(&[]))?;
        if footer.magic != FOOTER_MAGIC || footer.object_len != index.header.object_len {
            let what = "object footer";
            return Err(WireError::Malformed { what });
        }
        let runs = index
            .runs
            .iter()
            .map(|run| run.with_body(index_body(bytes, run)?))
            .collect::<Result<Vec<_>, _>>()?;
        Ok((index, runs))
    }
}

fn index_body(object: &Bytes, run: &IndexRun) -> Result<Bytes, WireError> {
    let Some(records) = run.records else {
        return Ok(Bytes::new());
    };
    let what = "place of a run";
    let malformed = || WireError::Malformed { what };
    let from = usize::try_from(records.offset).map_err(|_| malformed())?;
    let to = from + records.len as usize;
    if to > object.len() {
        return Err(malformed());
    }
    Ok(object.slice(from..to))
}
