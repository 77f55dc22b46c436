//! The sequencer of Stripelog: grants ranges of positions over UDP.

#![deny(unsafe_code)]

pub mod logic;
