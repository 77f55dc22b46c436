//! Pure parts: what a history of appends promises, and whether a log keeps it.

pub(crate) mod history;
