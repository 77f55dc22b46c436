//! Connections of clients and readers, and reports to the sequencer.

mod connection;
mod memory;
mod outgoing;
mod peers;
mod pulse;
mod report;
mod server;
mod tail;

pub(crate) use memory::Memory;
pub(crate) use outgoing::{Outgoing, Token};
pub(crate) use peers::Peer;
pub(crate) use report::Reporter;
pub(crate) use server::Server;
