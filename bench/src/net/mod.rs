//! Sockets: the load, the bed that it runs in, raw requests for tokens, and a proxy that makes a store fail.

pub(crate) mod bed;
pub(crate) mod bucket;
pub(crate) mod cut;
pub(crate) mod echo;
pub(crate) mod emulator;
pub(crate) mod flow;
#[cfg(feature = "xdp")]
mod frame;
pub(crate) mod generator;
#[cfg(feature = "xdp")]
pub(crate) mod hook;
#[cfg(not(feature = "xdp"))]
#[path = "no_hook.rs"]
pub(crate) mod hook;
mod job;
pub(crate) mod lan;
mod left;
mod listen;
pub(crate) mod metrics;
pub(crate) mod peers;
pub(crate) mod probe;
pub(crate) mod proxy;
pub(crate) mod stall;
