//! Sockets: raw requests for tokens, and a proxy that makes a store fail.

pub(crate) mod probe;
pub(crate) mod proxy;
pub(crate) mod stall;
