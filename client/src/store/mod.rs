//! What is read from the object store, and the live end of it.

pub(crate) mod budget;
pub(crate) mod cache;
pub(crate) mod cached;
pub(crate) mod chunk;
pub(crate) mod loads;
pub(crate) mod stripe;
pub(crate) mod verify;
pub(crate) mod view;
