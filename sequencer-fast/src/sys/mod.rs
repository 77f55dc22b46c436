//! System calls that no safe crate offers. All unsafe code of the sequencer is in here.
//!
//! [`abi`] lays out and reads what the kernel is given, on plain bytes and without unsafe code; [`receive`]
//! and [`send`] move many datagrams in one call; [`gather`] tells which of them go together; [`offload`]
//! sets socket options; [`ring`] is an io_uring over the memory of [`region`]; `mapped` is the memory of a program in
//! the kernel, `device` finds the interface for it, and `frames` sends what is
//! to be tried on it.

pub(crate) mod abi;
#[cfg(feature = "xdp")]
pub(crate) mod device;
#[cfg(feature = "xdp")]
pub(crate) mod frames;
mod gather;
#[cfg(feature = "xdp")]
pub(crate) mod mapped;
pub(crate) mod offload;
pub(crate) mod receive;
pub(crate) mod region;
pub(crate) mod ring;
pub(crate) mod send;
mod setup;
mod slot;
