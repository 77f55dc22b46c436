//! The checkpoint thread: it begins a reign, keeps the reservation ahead of the grants, renews the reign,
//! and ends it.
//!
//! [`control`] is the control chain as this crate needs it, [`standby`] the wait for the reign of others to end,
//! [`begin`] the start of a reign, [`seal`] what has to happen before anything is granted, [`checkpoint`] the reign
//! itself.

pub(crate) mod begin;
pub(crate) mod checkpoint;
mod control;
pub(crate) mod seal;
pub(crate) mod standby;

pub use control::{Control, Opened};
