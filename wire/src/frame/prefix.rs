//! What stands before the head of every frame.

use bytes::Bytes;
use rkyv::{Archive, Deserialize, Serialize};

use super::{MAGIC, PREFIX_BYTES, VERSION, shape};
use crate::fixed::head;
use crate::{Fixed, WireError, crc32c};

#[derive(Archive, Serialize, Deserialize)]
#[rkyv(derive(Debug))]
struct RawPrefix {
    magic: u32,
    version: u8,
    kind: u8,
    reserved: u16,
    body_len: u32,
    head_crc: u32,
}

/// A prefix, checked: the rest of the frame has these lengths.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Prefix {
    pub(super) kind: u8,
    head_crc: u32,
    covered: [u8; PREFIX_BYTES - 4],
    /// Bytes of the head, at most [`super::MAX_HEAD_BYTES`].
    pub head_len: usize,
    /// Bytes of the body, at most [`crate::limits::MAX_FRAME_BODY`].
    pub body_len: usize,
}

impl Prefix {
    /// Reads and checks a prefix, so that no more is ever read or allocated than its kind may have.
    ///
    /// # Errors
    /// The first check that fails. There is no way to find the next frame after that.
    pub fn decode(bytes: &[u8; PREFIX_BYTES]) -> Result<Self, WireError> {
        let raw = RawPrefix::read(bytes)?;
        if raw.magic != MAGIC {
            let got = u64::from(raw.magic);
            return Err(WireError::Magic { got });
        }
        if raw.version != VERSION {
            return Err(WireError::Version {
                got: u32::from(raw.version),
                supported: u32::from(VERSION),
            });
        }
        let (kind, body_len) = (raw.kind, raw.body_len as usize);
        let got = u32::from(kind);
        let (head_len, max_body) = shape(kind).ok_or(WireError::Kind { got })?;
        if body_len > max_body {
            return Err(WireError::Bound {
                what: "frame body",
                got: body_len as u64,
                limit: max_body as u64,
            });
        }
        let mut covered = [0; PREFIX_BYTES - 4];
        covered.copy_from_slice(head(bytes, PREFIX_BYTES - 4)?);
        Ok(Self {
            kind,
            head_crc: raw.head_crc,
            covered,
            head_len,
            body_len,
        })
    }

    pub(super) fn check(&self, head: &[u8]) -> Result<(), WireError> {
        let (got, need) = (head.len(), self.head_len);
        if got != need {
            return Err(WireError::Short { got, need });
        }
        let got = crc32c(&[&self.covered, head]);
        if got != self.head_crc {
            return Err(WireError::Checksum {
                what: "frame head",
                got,
                expected: self.head_crc,
            });
        }
        Ok(())
    }
}

pub(super) fn encode<H: Fixed>(
    kind: u8,
    head: &H,
    body_len: usize,
    max_body: usize,
) -> Result<Bytes, WireError> {
    if body_len > max_body {
        return Err(WireError::Bound {
            what: "frame body",
            got: body_len as u64,
            limit: max_body as u64,
        });
    }
    let mut prefix = RawPrefix {
        magic: MAGIC,
        version: VERSION,
        kind,
        reserved: 0,
        body_len: u32::try_from(body_len).unwrap_or(u32::MAX),
        head_crc: 0,
    };
    let mut out = vec![0; PREFIX_BYTES + H::SIZE];
    prefix.write(&mut out)?;
    head.write(out.get_mut(PREFIX_BYTES..).unwrap_or(&mut []))?;
    let covered = out.get(..PREFIX_BYTES - 4).unwrap_or(&[]);
    let head = out.get(PREFIX_BYTES..).unwrap_or(&[]);
    prefix.head_crc = crc32c(&[covered, head]);
    prefix.write(&mut out)?;
    Ok(out.into())
}
