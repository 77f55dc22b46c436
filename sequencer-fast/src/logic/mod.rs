//! Pure state machines: what a shard answers, and how far the reservation has to reach.
//!
//! Time comes in as nanoseconds of a monotonic clock, datagrams as bytes with a peer token, replies go
//! out through [`Outbox`]. There are no sockets, clocks, threads or stores in here; what shards share
//! are the atomics of [`Reign`].

mod answer;
mod chain;
mod counter;
mod counters;
mod frontiers;
mod grant;
mod held;
mod memory;
mod reign;
mod reservation;
mod shard;
mod staged;

pub use chain::{begin, clean, extend, nothing_to_seal};
pub use counter::{CLOSED, Counter};
pub use counters::{Dropped, ShardCounters, TRUNCATED, Tally, UNANSWERABLE};
pub use frontiers::Frontiers;
pub use reign::{Reign, Tails};
pub use reservation::Window;
pub use shard::{Limits, Outbox, Shard};
