//! Sockets: raw requests for tokens, and a proxy that makes a store fail.

pub mod probe;
pub mod proxy;
pub mod stall;
