//! Pure parts: what is sent and what the answers mean, and whether a log keeps its promises.

pub(crate) mod batch;
pub(crate) mod digest;
pub(crate) mod history;
pub(crate) mod path;
pub(crate) mod ranges;
pub(crate) mod tally;

/// The whole part of a number that is not negative.
#[must_use]
pub(crate) fn whole(value: f64) -> u64 {
    #[allow(clippy::cast_possible_truncation, reason = "within u64")]
    let whole = value as u64;
    whole
}
