//! Which control entries nobody needs any more.

/// What is never collected, counted from the newest entry, and for how long.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Keep {
    /// Entries that stay: a reader that has just listed the chain finds what it listed.
    pub entries: u64,
    /// Age below which an entry stays, many times longer than any process may stall between a listing and a
    /// read.
    pub grace_ms: u64,
}

/// Whether an entry may go, of a chain whose newest entry is `newest` and whose last that the caller knows of
/// is `last`.
#[must_use]
pub fn is_old(
    (number, modified_unix_ms): (u64, u64),
    (last, newest): (u64, u64),
    keep: Keep,
    now_unix_ms: u64,
) -> bool {
    // [S-4] Whatever the caller believes, the newest entries stay.
    number.saturating_add(keep.entries) <= last.min(newest)
        && modified_unix_ms.saturating_add(keep.grace_ms) <= now_unix_ms
}
