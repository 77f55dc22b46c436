//! Pure parts: what is sent and what the answers mean, and whether a log keeps its promises.

pub(crate) mod batch;
pub(crate) mod digest;
pub(crate) mod history;
pub(crate) mod path;
pub(crate) mod ranges;
pub(crate) mod tally;
