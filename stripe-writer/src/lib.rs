//! The daemon of Stripelog that aggregates records into objects, one chain a stripe.

#![forbid(unsafe_code)]

pub mod limits;
pub mod logic;
