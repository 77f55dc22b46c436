//! What is read from the object store, and the live end of it.

pub(crate) mod view;
