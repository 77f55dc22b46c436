//! Sockets: the sequencer over UDP, stripe-writers over TCP. The only place beside `store` that reads
//! clocks and draws chance.

mod chance;
pub(crate) mod connection;
pub(crate) mod datagrams;
pub(crate) mod frames;
pub(crate) mod granter;
pub(crate) mod live;
pub(crate) mod sequencer;
mod witness;
pub(crate) mod writers;

pub(crate) use chance::{draw_client, jitter};
