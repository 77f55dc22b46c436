//! The daemon of Stripelog that aggregates records into objects, one chain a stripe.
//!
//! `logic/` holds the state machines, without I/O; `net/` the connections of clients and readers and the
//! reports to the sequencer; `store/` the take-over of stripes, the puts, and the task that drives a
//! stripe's state machine. `keeper.rs` takes stripes of dead peers over and gives them back. [`StripeWriter`] puts them
//! together.

#![forbid(unsafe_code)]

mod keeper;
pub mod limits;
pub mod logic;
mod metrics;
mod net;
mod owned;
mod shared;
mod store;
mod taking;
mod writer;

pub use keeper::Takeover;
pub use writer::{Options, StripeWriter, WriterError};
