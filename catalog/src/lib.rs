//! The metadata of a Stripelog, and every conditional create.
//!
//! A [`Store`] is an object store opened by URL. A [`Log`] is a log in it: its control chain. A
//! [`Chain`] is the chain of objects of one stripe. All three rest on one operation, "create this name
//! if nothing has it", whose doubtful answers are resolved here and nowhere else (C-5).
//!
//! `logic/` is pure; `store/` does all I/O.

#![forbid(unsafe_code)]

mod error;
#[doc(hidden)]
pub mod logic;
mod store;

pub use error::{CatalogError, ErrorKind, StoreFault};
pub use logic::assign::{Rank, assigned};
pub use logic::membership::{Membership, Writer};
pub use logic::reigning::{Heard, Reigning, SEQUENCERS, with_asked};
pub use logic::walk::Walk;
pub use store::backoff::Backoff;
pub use store::chain::{Chain, Put};
pub use store::check::CheckReport;
#[cfg(feature = "faults")]
pub use store::faults;
pub use store::find::{Located, Sought};
pub use store::log::{COLLECTED_AT_ONCE, Log};
pub use store::{Create, Listed, Store};
