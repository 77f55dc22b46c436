//! The bounds of everything that crosses a wire, in one place.

/// Largest record a log accepts, in bytes.
pub const MAX_RECORD_BYTES: usize = 1 << 20;

/// Most records in one run (one append frame, one index entry).
pub const MAX_RUN_RECORDS: usize = 1 << 16;

/// Largest body of a run: the lengths of its records and their bytes.
pub const MAX_RUN_BYTES: usize = 4 << 20;

/// Size at which a stripe's open object closes, in bytes.
pub const OBJECT_TARGET_BYTES: usize = 16 << 20;

/// Most runs in one object. At 56 bytes a run the index stays below 1 MiB.
pub const MAX_OBJECT_RUNS: usize = 1 << 14;

/// Largest object: the target, one run that was being added, and the index.
pub const MAX_OBJECT_BYTES: usize = OBJECT_TARGET_BYTES + MAX_RUN_BYTES + (1 << 20);

/// Largest frame body that any peer may send.
pub const MAX_FRAME_BODY: usize = MAX_RUN_BYTES;

/// Most positions that one grant request may ask for.
pub const MAX_GRANT: u32 = 1 << 20;

/// First position that is never granted: sums of positions and counts cannot overflow below it.
pub const MAX_POSITION: u64 = 1 << 62;

/// Most stripes of a layout.
pub const MAX_STRIPES: u32 = 1 << 10;

/// Largest unit of a layout, in positions.
pub const MAX_UNIT: u32 = 1 << 20;

/// Most segments of a log, and so the bound on the size of a control entry.
pub const MAX_SEGMENTS: usize = 1 << 12;

/// Most objects that one snapshot of a chain names.
pub const MAX_SNAPSHOT_OBJECTS: usize = 1 << 12;

/// Longest text of a note on a request for another layout, in bytes.
pub const MAX_NOTE_TEXT: usize = 1024;

/// Largest control-chain entry, in bytes.
pub const MAX_CONTROL_BYTES: usize = 1 << 18;

// A frame always has room for the largest record.
const _: () = assert!(MAX_RECORD_BYTES + 4 <= MAX_RUN_BYTES);
const _: () = assert!(MAX_SEGMENTS * 32 + 1024 <= MAX_CONTROL_BYTES);
// The last unit of the last stripe still has a position that fits.
const _: () = assert!(MAX_POSITION < u64::MAX - (MAX_STRIPES as u64) * (MAX_UNIT as u64));
