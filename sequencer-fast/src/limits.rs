//! The bounds of the sequencer, in one place. Those that an operator may want to change are settings.

/// Sets of the table of limited senders, a power of two.
pub(crate) const LIMIT_SETS: usize = 1024;

/// Buckets of a set, one a sender.
pub(crate) const LIMIT_WAYS: usize = 4;

/// Positions that count as one request more where a sender is limited.
pub(crate) const POSITIONS_PER_REQUEST: u64 = 1024;

/// Runs of replies that one call sends.
pub(crate) const SEND_RUNS: usize = 32;

/// Buffers that one call may fill.
pub(crate) const RECEIVE_BUFFERS: usize = 64;

/// Bytes of a buffer where datagrams are merged: the most that the kernel merges into one.
pub(crate) const MERGED_BYTES: usize = 65_536;

/// Bytes of a buffer where they are not: more than any datagram of the protocol.
pub(crate) const SINGLE_BYTES: usize = 2048;

/// Bytes that the kernel may keep for a shard that is busy; less where the system allows less.
pub(crate) const SOCKET_BUFFER_BYTES: usize = 8 << 20;

/// Rounds in which the datagram of the probe has to arrive.
pub(crate) const PROBE_WAITS: u32 = 1000;

/// Completion entries; what does not fit is kept by the kernel.
pub(crate) const COMPLETIONS: u32 = 2048;

/// Turns of a ring that polls before it comes back without anything.
pub(crate) const SPINS: u64 = 4096;

/// Most datagrams in one send: what kernels before 6.9 take. Newer ones take twice as many.
pub(crate) const SEND_SEGMENTS: usize = 64;

/// Most bytes in one send: what a UDP datagram over IPv4 holds.
pub(crate) const SEND_BYTES: usize = 65_507;

/// Demands that wait. Each setting of the low-water mark raises one; what does not fit would say nothing
/// new.
pub(crate) const DEMANDS: usize = 64;

/// Buffers of a ring where datagrams are merged.
pub(crate) const MERGED_BUFFERS: u16 = 64;

/// Buffers of a ring where they are not.
pub(crate) const SINGLE_BUFFERS: u16 = 512;

/// Most buffers of a ring.
pub(crate) const MAX_BUFFERS: u16 = 512;
const _: () = assert!(MERGED_BUFFERS <= MAX_BUFFERS && SINGLE_BUFFERS <= MAX_BUFFERS);

/// Submission entries: a send for each buffer, the receive and the poll fit in at once, so that nothing has
/// to be submitted in between, which a thread of the kernel does in its own time.
pub(crate) const ENTRIES: u32 = 1024;
const _: () = assert!(MAX_BUFFERS as u32 + 2 < ENTRIES);

const _: () = assert!(SINGLE_BYTES > wire::datagram::MAX_DATAGRAM_BYTES);

/// Bounds of the table in which a program in the kernel remembers requests, in blocks of 832 bytes.
#[cfg(feature = "xdp")]
pub(crate) const MIN_TABLE_BLOCKS: usize = 64;
#[cfg(feature = "xdp")]
pub(crate) const MAX_TABLE_BLOCKS: usize = 1 << 20;
