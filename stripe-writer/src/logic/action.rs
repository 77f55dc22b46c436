//! What goes into and comes out of a stripe's state machine.

use std::time::Duration;

use wire::frame::AckStatus;
use wire::object::{Header, Index};
use wire::{Identity, Run, Slot};

/// How a stripe behaves.
#[derive(Debug, Clone, Copy)]
pub struct Config {
    /// An open object closes this long after its first record at the latest.
    pub linger: Duration,
    /// Payload at which an open object closes, in bytes.
    pub target_bytes: usize,
    /// A put that completes later than this after the chain's end was last verified is verified (C-7).
    pub max_commit_age: Duration,
}

/// Number of an object under way; never used twice.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct FlightId(pub u64);

/// What the owner of the state machine has to do.
#[derive(Debug)]
pub enum Action<T> {
    /// Tell what became of slots `[first, end)`.
    Answer {
        /// Whom.
        token: T,
        /// First slot.
        first: Slot,
        /// First slot behind.
        end: Slot,
        /// What became of them.
        status: AckStatus,
    },
    /// Find out what slots `[first, end)`, which are decided, hold, and tell (H-2).
    Lookup {
        /// Whom.
        token: T,
        /// First slot.
        first: Slot,
        /// First slot behind.
        end: Slot,
        /// Who appended.
        identity: Identity,
    },
    /// The chain goes on with this object: its runs are durable.
    Committed {
        /// The object's header.
        header: Header,
        /// Its runs.
        runs: Vec<Run>,
    },
    /// The chain goes on with another's object.
    Adopted(Box<Index>),
    /// Walk the chain and say whether it has this object (C-7).
    Verify {
        /// The flight that waits for it.
        id: FlightId,
        /// The object.
        header: Header,
    },
    /// Another process owns the stripe. Nothing is acknowledged any more.
    Fenced,
}

/// How a put ended, all doubt resolved.
#[derive(Debug)]
pub enum PutOutcome {
    /// The object is stored.
    Stored,
    /// Another object has the name (C-5).
    Taken(Box<Index>),
}
