//! The bounds of everything this crate holds, tries or waits for, in one place.

use std::time::Duration;

/// Bytes of memory that one permit of an append stands for.
pub const PERMIT_BYTES: usize = 64;

/// What a record costs in memory beside its bytes: its handle, its place in a table and its position.
/// It bounds how many empty records can be under way.
pub const RECORD_OVERHEAD_BYTES: usize = PERMIT_BYTES;

/// Default of the bytes that all appends of a log together may hold. At the bound an append waits.
pub const IN_FLIGHT_BYTES: usize = 64 << 20;

/// Upper bound of that.
pub const IN_FLIGHT_BYTES_MAX: usize = 64 << 30;

/// Default of the bytes of one append frame; a frame with one record may be larger.
pub const FRAME_BYTES: usize = 1 << 20;

/// Default of the time that an append waits without a sign of progress.
pub const APPEND_TIMEOUT: Duration = Duration::from_secs(30);

/// So many times as long an append waits at most while there are signs of progress of others that it waits for,
/// and nothing becomes of its own records.
pub const PATIENCE: u32 = 10;

/// Least and longest turn that an append which has waited long enough leaves to everything else of its process, before
/// it calls that silence: as long as it woke late.
pub const TURN: (Duration, Duration) = (Duration::from_millis(10), Duration::from_secs(1));

/// Such turns at most, one after the other, if it wakes late of each.
pub const TURNS: u32 = 5;

/// First and longest pause of a stripe whose owner puts frames off. The longest is shorter than it takes a hole
/// to become junk.
pub const PUT_OFF: (Duration, Duration) = (Duration::from_millis(100), Duration::from_secs(1));

/// First and longest pause before another stripe-writer is asked for a stripe that one does not own.
pub const MOVED: (Duration, Duration) = (Duration::from_millis(10), Duration::from_millis(250));

/// Time without a move after which the pauses of a stripe begin anew.
pub const MOVED_FOR: Duration = Duration::from_secs(5);

/// Default of the time after which a grant request is sent again. It doubles each time.
pub const GRANT_TIMEOUT: Duration = Duration::from_millis(50);

/// Bytes of records that one grant is asked for, but for the last piece. A larger batch is so long in the
/// making that its last positions look like holes.
pub const GRANT_BYTES: usize = 16 << 20;

/// Bytes of frames that wait to be sent on a connection, or were put off, above which nothing more is granted. Positions
/// that are granted long before their records can leave look like holes.
pub const UNSENT_BYTES: usize = 16 << 20;

/// Longest time between two copies of a request to the sequencer.
pub const GRANT_TIMEOUT_MAX: Duration = Duration::from_secs(1);

/// Requests to the sequencer that may wait for an answer at once. At the bound a caller waits.
pub const REQUESTS_WAITING: usize = 64;

/// Default of the requests that share a datagram: a path with an MTU of 1,500 carries so many.
pub const REQUESTS_PER_DATAGRAM: usize = wire::datagram::MAX_ENTRIES;

/// Most grants that are asked for at once. The sequencer remembers neighbouring lanes together, by so many.
pub const GRANT_LANES_MAX: u32 = 32;

/// First and longest pause before something that failed is tried again.
pub const BACKOFF: (Duration, Duration) = (Duration::from_millis(10), Duration::from_secs(1));

/// Time for a connection to be made and welcomed.
pub const CONNECT_TIMEOUT: Duration = Duration::from_secs(3);

/// Time for which a writer that owes an answer may send nothing at all before the connection is made
/// anew. It is longer than a put to a slow store takes.
pub const SILENCE_MAX: Duration = Duration::from_secs(30);

/// Time for which a writer that owes an answer may send nothing before it is asked whether it is there, where another
/// could have taken its stripes over.
pub const PROBE_AFTER: Duration = Duration::from_secs(2);

/// Time for it to say so.
pub const PROBE_TIMEOUT: Duration = Duration::from_secs(2);

/// Longest wait for the membership, where it comes from etcd.
pub const MEMBERS_TIMEOUT: Duration = Duration::from_secs(10);

/// Pause before a sequencer of the membership is tried again to which no socket could be opened.
pub const RELIST_AGAIN: Duration = Duration::from_secs(1);

/// Bytes of small frames that are joined to one write.
pub const WRITE_BYTES: usize = 256 << 10;

/// Default of the bytes that a scan reads ahead, all stripes together: asked for, or here and not handed out
/// to the last record of their range read. In each stripe one of these is handed out in part, so that with
/// less than twice what one of each stripe takes a scan waits for each; with 64 stripes and objects of 2 MiB
/// that is this much. What a scan needs next is read also when the bound is reached: one run, of each stripe at most.
pub const READ_AHEAD_BYTES: usize = 256 << 20;

/// Bounds of that.
pub const READ_AHEAD_BYTES_BOUNDS: (usize, usize) = (1 << 20, 64 << 30);

/// Unit of that bound, in bytes.
pub const READ_AHEAD_UNIT: usize = 4 << 10;

/// Least and most bytes of one range read of a scan, and the most of an object that is read whole. A run is never
/// split.
pub const CHUNK_BYTES: (usize, usize) = (128 << 10, 4 << 20);

/// Bytes that are read of an object to learn its index, as long as nothing speaks for a small one that comes whole:
/// they hold the index of all but objects of many small runs.
pub const PROBE_BYTES: usize = 64 << 10;

/// Range reads that a scan has under way at once.
pub const SCAN_READS: usize = 16;

/// Stripes that a scan passes over while it looks for more to read ahead: those whose objects are being
/// looked up.
pub const SCAN_LOOKS: usize = 16;

/// Bytes of an entry of the cache of a large object, about: runs that follow one another, up to and with the one
/// that reaches it. A small object is one entry.
pub const CACHE_ENTRY_BYTES: usize = 1 << 20;

/// Unit in which the cache takes and gives back room on the disk, in bytes. An entry has to fit.
pub const CACHE_BLOCK_BYTES: usize = 8 << 20;

/// Bytes that wait to be written to the disk of the cache, and as many that are being written. What comes beyond
/// that is not kept: a scan does not wait for its cache. As much as a scan reads ahead by default comes at once.
pub const CACHE_WRITE_BYTES: usize = 64 << 20;

/// Bytes of the cache that are in memory, too.
pub const CACHE_MEMORY_BYTES: usize = 64 << 20;

/// Default of the cache's size.
pub const CACHE_BYTES: usize = 1 << 30;

/// Bounds of the cache's size.
pub const CACHE_BYTES_BOUNDS: (usize, usize) = (64 << 20, 1 << 44);

/// Runs that a live subscription holds for a stripe whose turn has not come. At the bound the
/// subscription is ended and the stripe is read from the store.
pub const LIVE_RUNS: usize = 256;

/// Bytes that all live subscriptions of a scan hold together; the bound works as that of [`LIVE_RUNS`].
pub const LIVE_BYTES: usize = 64 << 20;

/// Commands that wait for a live connection.
pub const LIVE_COMMANDS: usize = 64;

/// Time without a run after which a reader at the end looks into the store itself, whatever the owner
/// says or does not say.
pub const LIVE_QUIET: Duration = Duration::from_secs(2);

/// First and longest pause between two looks into the store of a reader at the end.
pub const POLL: (Duration, Duration) = (Duration::from_millis(20), Duration::from_secs(1));

/// Least time between two looks of a waiting scan at the control chain.
pub const VIEW_AGE: Duration = Duration::from_secs(1);

/// Time for the servers to say that a position is durable which the store does not have: of a read, and of a
/// scan that follows, which runs must not wait for.
pub const PROOF_TIMEOUT: (Duration, Duration) =
    (Duration::from_secs(2), Duration::from_millis(100));

/// Chains whose ends are looked for at once.
pub const END_READS: usize = 16;

/// First and longest pause between two questions for the durable tail.
pub const TAIL_POLL: (Duration, Duration) = (Duration::from_millis(2), Duration::from_millis(50));

/// First and longest pause between two looks whether a segment with another layout is there.
pub const RESTRIPE_POLL: (Duration, Duration) =
    (Duration::from_millis(20), Duration::from_millis(200));

/// Objects that `verify` reads at once.
pub const VERIFY_READS: usize = 8;

/// Times that `verify` looks again at a chain with objects behind its end, before it calls what is
/// between missing. Puts under way look the same.
pub const VERIFY_LOOKS: usize = 5;

/// Looks at a chain that goes on growing while objects are behind its end.
pub const VERIFY_MOST_LOOKS: usize = 50;

/// Pause between two of those looks.
pub const VERIFY_PAUSE: Duration = Duration::from_secs(1);

/// Frames of a frontier answer that are waited for.
pub const STATUS_TIMEOUT: Duration = Duration::from_secs(3);

const _: () = assert!(IN_FLIGHT_BYTES_MAX / PERMIT_BYTES <= u32::MAX as usize);
const _: () = assert!(CACHE_ENTRY_BYTES + wire::limits::MAX_RUN_BYTES < CACHE_BLOCK_BYTES);
const _: () = assert!(CHUNK_BYTES.1 < CACHE_BLOCK_BYTES);
const _: () = assert!(FRAME_BYTES <= wire::limits::MAX_RUN_BYTES);
