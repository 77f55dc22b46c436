//! The daemon of Stripelog that aggregates records into objects, one chain a stripe.
//!
//! `logic/` holds the state machines, without I/O; `net/` the connections of clients and readers and the
//! reports to the sequencer; `store/` the take-over of stripes, the puts, and the task that drives a
//! stripe's state machine. [`StripeWriter`] puts them together.

#![forbid(unsafe_code)]

pub mod limits;
pub mod logic;
mod metrics;
mod net;
mod shared;
mod store;
mod stripes;
mod writer;

pub use writer::{Options, StripeWriter, WriterError};
