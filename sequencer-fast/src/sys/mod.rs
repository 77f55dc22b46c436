//! System calls that no safe crate offers. All unsafe code of the sequencer is in here.
//!
//! [`abi`] lays out and reads what the kernel is given, on plain bytes and without unsafe code; [`mmsg`]
//! receives and sends many datagrams in one call; [`offload`] sets socket options; [`ring`] is an io_uring
//! over the memory of [`region`].

pub(crate) mod abi;
pub(crate) mod mmsg;
pub(crate) mod offload;
pub(crate) mod parcel;
mod region;
pub(crate) mod ring;
