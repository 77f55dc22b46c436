//! Records and objects in volume: the stores that are measured, raw objects, and appends through the library.

pub(crate) mod appends;
pub(crate) mod raw;
pub(crate) mod stores;
