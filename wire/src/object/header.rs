//! Who wrote an object and what it covers.

use rkyv::{Archive, Deserialize, Serialize};

use crate::fixed::head;
use crate::limits::{MAX_OBJECT_BYTES, MAX_OBJECT_RUNS, MAX_POSITION, MAX_STRIPES};
use crate::object::{FOOTER_BYTES, HEADER_BYTES, INDEX_ENTRY_BYTES};
use crate::{
    Epoch, Fixed, Layout, LogId, OwnerNumber, Position, SegmentId, Slot, StripeId, WireError,
    WriterId, crc32c,
};

/// `STRIPEOB`, read as a little-endian number.
pub const OBJECT_MAGIC: u64 = u64::from_le_bytes(*b"STRIPEOB");

/// The only version of the object format.
pub const OBJECT_VERSION: u32 = 1;

const _: () = assert!(size_of::<ArchivedRawHeader>() == HEADER_BYTES);

/// Which stripe of which log an object belongs to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ChainId {
    /// The log.
    pub log: LogId,
    /// The segment.
    pub segment: SegmentId,
    /// The stripe.
    pub stripe: StripeId,
    /// Layout of the segment.
    pub layout: Layout,
}

impl ChainId {
    /// The position of one of the chain's slots.
    #[must_use]
    pub fn position(&self, slot: Slot) -> Position {
        self.layout.position(self.stripe, slot)
    }

    /// Name of the chain's object that starts at a slot.
    #[must_use]
    pub fn object_name(&self, start: Slot) -> String {
        crate::name::object(self.log, self.segment, self.stripe, self.position(start))
    }

    /// Prefix of the names of the chain's objects.
    #[must_use]
    pub fn prefix(&self) -> String {
        crate::name::chain_prefix(self.log, self.segment, self.stripe)
    }
}

/// Who wrote an object, and in which reign.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Author {
    /// Newest epoch that the writer knew.
    pub epoch: Epoch,
    /// The writer's owner number for the stripe (C-6).
    pub owner: OwnerNumber,
    /// The writer process.
    pub writer: WriterId,
}

/// The header of an object, checked.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Header {
    /// The chain it belongs to.
    pub chain: ChainId,
    /// Who wrote it.
    pub author: Author,
    /// First slot it covers.
    pub start: Slot,
    /// First slot behind it.
    pub end: Slot,
    /// Number of runs, and so of index entries.
    pub runs: u32,
    /// Length of the whole object in bytes.
    pub object_len: u64,
    pub(super) index_crc: u32,
}

/// The encoding of [`Header`].
#[derive(Archive, Serialize, Deserialize)]
#[rkyv(derive(Debug))]
struct RawHeader {
    magic: u64,
    version: u32,
    runs: u32,
    log: LogId,
    writer: WriterId,
    epoch: Epoch,
    owner: OwnerNumber,
    segment: SegmentId,
    stripe: u32,
    stripes: u32,
    unit: u32,
    start: Slot,
    end: Slot,
    start_position: Position,
    object_len: u64,
    index_crc: u32,
    reserved: [u64; 5],
    header_crc: u32,
}

impl Header {
    /// Reads and checks a header. The index and the payload are not looked at.
    ///
    /// # Errors
    /// The first check that fails.
    pub fn decode(bytes: &[u8]) -> Result<Self, WireError> {
        let raw = RawHeader::read(bytes)?;
        if raw.magic != OBJECT_MAGIC {
            return Err(WireError::Magic { got: raw.magic });
        }
        if raw.version != OBJECT_VERSION {
            return Err(WireError::Version {
                got: raw.version,
                supported: OBJECT_VERSION,
            });
        }
        let got = crc32c(&[head(bytes, HEADER_BYTES - 4)?]);
        if got != raw.header_crc {
            return Err(WireError::Checksum {
                what: "object header",
                got,
                expected: raw.header_crc,
            });
        }
        raw.into_checked()
    }

    /// Bytes from the start of the object to the end of its index.
    #[must_use]
    pub fn index_end(&self) -> usize {
        HEADER_BYTES + self.runs as usize * INDEX_ENTRY_BYTES
    }

    pub(super) fn encode(&self) -> Vec<u8> {
        let mut bytes = RawHeader {
            magic: OBJECT_MAGIC,
            version: OBJECT_VERSION,
            runs: self.runs,
            log: self.chain.log,
            writer: self.author.writer,
            epoch: self.author.epoch,
            owner: self.author.owner,
            segment: self.chain.segment,
            stripe: u32::from(self.chain.stripe.0),
            stripes: self.chain.layout.stripes(),
            unit: self.chain.layout.unit(),
            start: self.start,
            end: self.end,
            start_position: self.chain.position(self.start),
            object_len: self.object_len,
            index_crc: self.index_crc,
            reserved: [0; 5],
            header_crc: 0,
        }
        .to_vec();
        if let Some((covered, crc)) = bytes.split_last_chunk_mut::<4>() {
            *crc = crc32c(&[covered]).to_le_bytes();
        }
        bytes
    }
}

impl RawHeader {
    fn into_checked(self) -> Result<Header, WireError> {
        let layout = Layout::new(self.stripes, self.unit)?;
        let bounds = [
            ("runs", u64::from(self.runs), MAX_OBJECT_RUNS as u64),
            ("object bytes", self.object_len, MAX_OBJECT_BYTES as u64),
            ("slots", self.end.0, MAX_POSITION),
            ("first position", self.start_position.0, MAX_POSITION),
            ("stripe", u64::from(self.stripe), u64::from(MAX_STRIPES) - 1),
        ];
        for (what, got, limit) in bounds {
            if got > limit {
                return Err(WireError::Bound { what, got, limit });
            }
        }
        let chain = ChainId {
            log: self.log,
            segment: self.segment,
            stripe: StripeId(u16::try_from(self.stripe).unwrap_or(u16::MAX)),
            layout,
        };
        let header = Header {
            chain,
            author: Author {
                epoch: self.epoch,
                owner: self.owner,
                writer: self.writer,
            },
            start: self.start,
            end: self.end,
            runs: self.runs,
            object_len: self.object_len,
            index_crc: self.index_crc,
        };
        let sound = self.runs > 0
            && self.start < self.end
            && self.stripe < layout.stripes()
            && self.start_position == chain.position(self.start)
            && self.object_len >= (header.index_end() + FOOTER_BYTES) as u64;
        if !sound {
            let what = "object header";
            return Err(WireError::Malformed { what });
        }
        Ok(header)
    }
}
