//! Pure parts: no sockets, clocks, tasks or store in them.

pub mod backoff;
pub mod current;
pub mod flight;
pub mod frames;
pub mod outcome;
pub mod pack;
pub(crate) mod pauses;
pub mod ranges;
pub mod routes;
pub mod split;
