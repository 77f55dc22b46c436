//! What a shard counts. Written by the shard alone, read by whoever shows metrics.

use std::ops::Add;
use std::sync::atomic::{AtomicU64, Ordering};

/// A number with one writing thread: a plain addition, no atomic read-modify-write.
#[derive(Debug, Default)]
pub struct Tally(AtomicU64);

impl Tally {
    /// The number.
    #[must_use]
    pub fn get(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }

    /// Adds to the number. Only for the thread that owns it.
    pub fn add(&self, count: u64) {
        self.set(self.get().wrapping_add(count));
    }

    /// Sets the number. Only for the thread that owns it.
    pub fn set(&self, value: u64) {
        self.0.store(value, Ordering::Relaxed);
    }
}

/// Counters of one shard.
#[derive(Debug, Default)]
#[repr(align(128))]
pub struct ShardCounters {
    /// Datagrams received, good or bad.
    pub received: Tally,
    /// Requests that were given a token, each request once.
    pub granted: Tally,
    /// Positions granted.
    pub tokens: Tally,
    /// Requests refused as Busy.
    pub busy: Tally,
    /// Requests refused for any other reason.
    pub refused: Tally,
    /// Requests that were given the token that they had been given before (S-6).
    pub retries: Tally,
    /// Replies that wait for the reservation now.
    pub held: Tally,
    /// Replies that had to wait for the reservation.
    pub held_total: Tally,
    /// Batches with at least one request.
    pub batches: Tally,
    /// Additions to the shared counter, at most one a batch.
    pub fetch_adds: Tally,
    /// Blocks of lanes that a program in the kernel stayed in for longer than a batch waits (S-6).
    pub stuck: Tally,
    /// Reply datagrams that the socket did not take; their clients ask again.
    pub send_errors: Tally,
    /// Times that the shard went to sleep and woke.
    pub wakeups: Tally,
    /// Times that a shard that polls found nothing.
    pub idle_polls: Tally,
    /// Datagrams dropped unanswered.
    pub dropped: Dropped,
}

/// Datagrams dropped unanswered, by reason.
#[derive(Debug, Default)]
pub struct Dropped([Tally; REASONS.len()]);

/// Reasons for a drop: those of `wire::WireError::reason`, and the shard's own.
const REASONS: [&str; 14] = [
    "short",
    "magic",
    "version",
    "kind",
    "log",
    "bound",
    "length",
    "malformed",
    STALE,
    FORGED,
    LIMITED,
    TRUNCATED,
    UNANSWERABLE,
    OTHER,
];

/// The lane has gone on to a later request (S-6).
pub(super) const STALE: &str = "stale";

/// Not signed with the key.
pub(super) const FORGED: &str = "mac";

/// Its sender asks too much.
pub(super) const LIMITED: &str = "limited";

/// The socket had more than the buffer could take.
pub const TRUNCATED: &str = "truncated";

/// The sender has no address that could be answered.
pub const UNANSWERABLE: &str = "unanswerable";

const OTHER: &str = "other";

impl Dropped {
    /// Counts a drop.
    pub fn count(&self, reason: &str) {
        let known = REASONS.iter().position(|known| *known == reason);
        if let Some(tally) = self.0.get(known.unwrap_or(REASONS.len() - 1)) {
            tally.add(1);
        }
    }

    /// All reasons with their counts.
    pub fn iter(&self) -> impl Iterator<Item = (&'static str, u64)> {
        REASONS.into_iter().zip(self.0.iter().map(Tally::get))
    }

    /// The count of one reason.
    #[must_use]
    pub fn get(&self, reason: &str) -> u64 {
        let counted = self.iter().find(|(known, _)| *known == reason);
        counted.map_or(0, |(_, count)| count)
    }
}

/// Why a program in the kernel passes up what is for the sequencer, in the order of `enum up` of `bpf/grant.h`.
const UPS: [&str; 6] = ["odd", "stopped", "limit", "stale", "busy", "checksum"];

/// What a program in the kernel counts: `struct counts` of `bpf/grant.h`.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct ProgramCounts {
    /// Datagrams that it has answered.
    pub answered: u64,
    /// Requests that were given a token, each request once.
    pub granted: u64,
    /// Positions granted.
    pub tokens: u64,
    /// Requests that were given the token that they had been given before (S-6).
    pub retries: u64,
    up: [u64; UPS.len()],
}

impl ProgramCounts {
    /// Numbers that a core has.
    pub const WORDS: usize = 14;

    /// Datagrams for the sequencer that were passed up, by reason.
    pub fn passed_up(&self) -> impl Iterator<Item = (&'static str, u64)> {
        UPS.into_iter().zip(self.up)
    }
}

impl From<[u64; Self::WORDS]> for ProgramCounts {
    fn from(words: [u64; Self::WORDS]) -> Self {
        let [answered, granted, tokens, retries, a, b, c, d, e, f, ..] = words;
        let up = [a, b, c, d, e, f];
        Self {
            answered,
            granted,
            tokens,
            retries,
            up,
        }
    }
}

impl Add for ProgramCounts {
    type Output = Self;

    fn add(self, other: Self) -> Self {
        let mut up = self.up;
        for (count, more) in up.iter_mut().zip(other.up) {
            *count += more;
        }
        Self {
            answered: self.answered + other.answered,
            granted: self.granted + other.granted,
            tokens: self.tokens + other.tokens,
            retries: self.retries + other.retries,
            up,
        }
    }
}
