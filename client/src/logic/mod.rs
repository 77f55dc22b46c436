//! Pure parts: no sockets, clocks, tasks or store in them.

pub(crate) mod backoff;
pub(crate) mod current;
pub(crate) mod flight;
pub(crate) mod outcome;
pub(crate) mod pack;
pub(crate) mod ranges;
pub(crate) mod split;
