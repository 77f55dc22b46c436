//! The sequencer of Stripelog: grants ranges of positions over UDP.

#![deny(unsafe_code)]

mod clock;
mod demand;
pub mod logic;
mod net;
#[allow(unsafe_code, reason = "system calls that no safe crate offers")]
mod sys;
