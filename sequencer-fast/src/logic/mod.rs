//! Pure state machines: what a shard answers, and how far the reservation has to reach.
//!
//! Time comes in as nanoseconds of a monotonic clock, datagrams as bytes with a peer token in [`Packets`],
//! where they are answered; what was held goes out through [`Outbox`]. There are no sockets, clocks, threads or stores in here; what shards share
//! are the atomics of [`Reign`].

mod answer;
mod batch;
mod beside;
mod chain;
mod counter;
mod counters;
mod frontiers;
mod grant;
mod held;
mod limit;
mod memory;
mod packets;
mod reign;
mod reservation;
mod sealed;
mod shard;
mod table;
mod tail;
mod take;
mod watch;
mod wish;

pub use chain::{begin, clean, extend, nothing_to_seal, restripe};
pub use counter::{CLOSED, Counter};
pub use counters::{Dropped, ProgramCounts, ShardCounters, TRUNCATED, Tally, UNANSWERABLE};
pub use frontiers::Frontiers;
pub use limit::Rate;
pub use packets::{Outbox, Packet, Packets, Peer};
pub use reign::{Reign, Tails};
pub use reservation::Window;
pub use sealed::Sealing;
pub use shard::{Limits, Shard};
pub use table::{BLOCK_WORDS, Table};
pub use tail::{STATE_WORDS, Shared, Tail, Words};
pub use watch::Watch;
pub use wish::Wish;
