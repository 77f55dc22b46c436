//! Every bound of the stripe-writer, in one place.

use std::time::Duration;

/// Stripes that are taken over at the same time.
pub const TAKE_OVERS: usize = 32;

/// Longest wait for the store to say where the log is, before a stripe is taken over; then another has its turn. However
/// short the time-out for peers is: a store that is slow answers all the same.
pub const STORE_ANSWERS: Duration = Duration::from_secs(10);

/// Objects of one stripe whose puts may be under way at the same time.
pub const FLIGHTS_A_STRIPE: usize = 4;

/// Stripes that may have all their puts late at the same time without taking places from others.
pub const LATE_STRIPES: usize = 4;

/// Connections that wait for the same held run; a client has one and reconnects now and then.
pub const WAITERS_A_RUN: usize = 8;

/// Appends that wait until slots under way are decided, for each stripe.
pub const LATE_A_STRIPE: usize = 1024;

/// Slots ahead of a stripe's chain that a client may write to: far more than are granted while an object
/// is put, far less than would let a faulty client park records behind a hole that nobody ever fills.
pub const MAX_AHEAD_SLOTS: u64 = 1 << 32;

/// Events that wait for one stripe.
pub const EVENTS_A_STRIPE: usize = 256;

/// Frames that wait for one connection. A client that does not read its answers is cut off at this bound.
pub const FRAMES_A_CONNECTION: usize = 16 << 10;

/// Connections at the same time.
pub const CONNECTIONS: usize = 4096;

/// Subscriptions and reads of one connection at the same time.
pub const ASKS_A_CONNECTION: usize = 4096;

/// Tasks of one connection at the same time: those, and seals.
pub const TASKS_A_CONNECTION: usize = ASKS_A_CONNECTION + 64;

/// Bytes of records that were made durable and are kept in memory for readers at the tail, all stripes
/// together.
pub const RECENT_BYTES: usize = 128 << 20;

/// How long the store may refuse an object before health checks tell: longer than a hiccup that puts wait out.
pub const STORE_PATIENCE: Duration = Duration::from_secs(10);

/// Durable records take at most this part of what records that are not durable may take.
pub const RECENT_PART: usize = 8;

/// Reads of indexes, to answer repeated appends, at the same time.
pub const LOOKUPS: usize = 16;

/// Bytes of the first read of an index that is looked up: most have no more.
pub const LOOKUP_BYTES: u64 = 16 << 10;

/// Pause before a sequencer of the membership is tried again to which no socket could be opened.
pub const RELIST_AGAIN: Duration = Duration::from_secs(1);

/// How often frontiers are reported while they move.
pub const REPORT_INTERVAL: Duration = Duration::from_millis(20);

/// How often frontiers are reported while they rest.
pub const REPORT_HEARTBEAT: Duration = Duration::from_millis(200);

/// Time without an answer to a report after which another sequencer may reign.
pub const REPORT_PATIENCE: Duration = Duration::from_millis(60);

/// Time without an answer of the sequencer after which that is told.
pub const SILENCE_TOLD: Duration = Duration::from_secs(5);

/// How often a connection that waits for this process is told that it gets on.
pub const PULSE: Duration = Duration::from_secs(1);

/// Longest time for which an append waits for a stripe that is on its way here, or away. A host that is taken out of
/// service leaves its stripes within it on a store that answers in some 20 ms; who waits longer asks again.
pub const MOVING: Duration = Duration::from_millis(250);

/// Time after a moment in which memory was full or puts were slow, for which clients are told.
pub const PRESSED: Duration = Duration::from_secs(3);

/// How often a stripe that holds back from filling holes looks again.
pub const HOLD_LOOK: Duration = Duration::from_millis(100);

/// Least time for which it does: longer than the longest pause of a client that was put off.
pub const HOLD_LEAST: Duration = Duration::from_secs(2);

/// Time for a new connection to say hello.
pub const HELLO_TIMEOUT: Duration = Duration::from_secs(5);

/// Time for the body of an append to come in once there is room for it: a peer that stalls in the middle
/// must not keep the room.
pub const BODY_TIMEOUT: Duration = Duration::from_secs(30);

/// Unit of the memory bound, in bytes. A frame takes one more than its body fills: its own cost.
pub const MEMORY_UNIT: usize = 1024;

/// So many stripes together may fill the memory, where there are so many; one alone takes only its part.
/// Beyond that its appends are put off.
pub const STRIPES_THAT_FILL_MEMORY: usize = 4;

/// Bytes of pushed runs that wait for one reader. A subscription waits at this bound.
pub const PUSHES_A_CONNECTION: usize = 8 << 20;

/// Bytes of pushed runs that wait for all readers together. At this bound a reader is sent to the store.
pub const PUSHES: usize = 64 << 20;

/// Objects after which a stripe's owner writes a snapshot of its chain. A reader that seeks behind the last
/// one looks at fewer objects than that; each costs it a request, as a snapshot costs one here.
pub const SNAPSHOT_OBJECTS: usize = 64;
