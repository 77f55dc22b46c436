//! Tests of the catalog against the rules of the protocol, each named by its rule.

mod chain;
mod check;
mod common;
mod conformance;
mod control;
mod corrupt;
mod doubt;
mod durable;
mod snapshot;
