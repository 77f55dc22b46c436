//! Client of Stripelog: append to a shared log on object storage, read it and follow it.
//!
//! [`Log::open`] opens a log; [`Log::append`] returns when records are durable, with their positions.
//!
//! Inside, `logic` holds the pure parts, `net` the sockets, `store` what reads the object store.

#![forbid(unsafe_code)]

mod call;
mod error;
pub mod limits;
mod log;
#[doc(hidden)]
pub mod logic;
mod net;
mod options;
mod patience;
mod query;
mod restripe;
mod scan;
mod shared;
mod stats;
mod store;

pub use catalog::{Membership, Writer};
pub use error::{Error, ErrorKind, Result};
pub use log::Log;
pub use options::Options;
pub use query::{Status, StripeStatus, Tail, Tails};
pub use runtime::settings::EtcdSettings;
pub use scan::{Content, Item, Scan};
pub use stats::Stats;
pub use store::verify::{Finding, StripeReport, Verify, VerifyReport};
pub use wire::{Layout, LogId, Position, Segment};
