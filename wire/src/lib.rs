//! Every byte of Stripelog that leaves a process.
//!
//! Datagrams between clients, stripe-writers and the sequencer ([`datagram`], answered in
//! [`datagram::place`], authenticated with [`mac`]), frames between
//! clients and stripe-writers ([`frame`]), stripe objects ([`object`]), control-chain entries
//! ([`control`]), requests for another layout ([`request`]) and the names of objects ([`name`]). There is no I/O here, no async and no unsafe
//! code; whatever comes from outside is checked before it becomes a typed value, and a check that
//! fails is a [`WireError`] that says which one.

#![forbid(unsafe_code)]

pub mod control;
mod crc;
pub mod datagram;
mod error;
mod fixed;
pub mod frame;
#[allow(missing_debug_implementations, reason = "derived resolvers")]
mod ids;
mod layout;
pub mod limits;
pub mod mac;
pub mod name;
pub mod object;
mod parts;
pub mod request;
mod run;
pub mod snapshot;

pub use crc::crc32c;
pub use error::WireError;
pub use fixed::Fixed;
pub use ids::{
    ClientId, Epoch, Lane, LogId, OwnerNumber, Position, RequestId, SegmentId, Slot, StripeId,
    WriterId,
};
pub use layout::{Layout, Segment};
pub use parts::RunParts;
pub use run::{Identity, Run, RunBody};
