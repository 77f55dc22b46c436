//! The stripe object: an immutable piece of one stripe's chain.
//!
//! ```text
//! header   160 bytes   what it is, which slots it covers, who wrote it; checksum of itself and of the index
//! index    56 bytes a run, in the order of slots, without gap or overlap
//! payload  the bodies of the runs that hold records, in the same order
//! footer   16 bytes    magic and length: a cut-off object is known by its end alone
//! ```
//!
//! The index stands before the payload, so that one range read of the object's start is enough to know
//! where every record is. Junk takes one index entry however long it is, and no payload.

mod header;
mod index;
mod whole;

pub use header::{Author, ChainId, Header, OBJECT_MAGIC, OBJECT_VERSION};
pub use index::{Index, IndexRecords, IndexRun};
pub use whole::Object;

/// Bytes of the header.
pub const HEADER_BYTES: usize = 160;

/// Bytes of one index entry.
pub const INDEX_ENTRY_BYTES: usize = 56;

/// Bytes of the footer.
pub const FOOTER_BYTES: usize = 16;
