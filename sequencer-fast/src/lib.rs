//! The sequencer of Stripelog: grants ranges of positions over UDP.
//!
//! One pinned thread a shard receives datagrams, adds up what they ask for, takes all of it from one
//! shared counter in one step, and answers as far as the reservation reaches. The checkpoint thread
//! keeps the reservation ahead in the control chain of the log, which is all that survives a crash.
//!
//! [`logic`] decides, `net` moves datagrams, `store` writes the control chain, `sys` has all unsafe code.

#![deny(unsafe_code)]

mod clock;
mod config;
mod demand;
mod error;
mod limits;
pub mod logic;
mod metrics;
mod net;
mod server;
mod shards;
mod stop;
mod store;
#[allow(unsafe_code, reason = "system calls that no safe crate offers")]
mod sys;

pub use config::{Backend, Config, Hook, HookMode, Standby, Wait};
pub use error::SequencerError;
pub use metrics::Status;
pub use net::echo::{Echo, Io};
pub use server::{Ended, Sequencer};
pub use stop::Stop;
pub use store::{Control, Opened};

/// Datagrams by the many, with segmentation offload: for load generators on the same machine.
pub mod udp {
    pub use crate::sys::offload::merge_received;
    pub use crate::sys::receive::{Received, Receiver};
    pub use crate::sys::send::{Outgoing, Sender};
}

/// Programs in the driver hook of an interface, for tests and load generators on the same machine.
#[cfg(feature = "xdp")]
pub mod hook {
    pub use crate::net::xdp::tools::{Job, Tool, ToolCounts};
    pub use crate::sys::frames::Frames;
}
