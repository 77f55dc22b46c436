//! Objects under way, and those who wait for slots in them.

use std::time::Duration;

use wire::Identity;
use wire::object::{Author, Header, Index};

use super::action::FlightId;
use super::held::{HeldRun, Waiter};

/// What is known of a flight's put.
#[derive(Debug)]
pub(super) enum FlightState {
    Putting,
    Stored,
    Taken(Box<Index>),
}

/// How far the walk is that a late completion needs (C-7).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Check {
    None,
    Asked,
    Passed,
}

/// An object under way.
#[derive(Debug)]
pub(super) struct Flight<T> {
    pub(super) id: FlightId,
    pub(super) header: Header,
    pub(super) runs: Vec<HeldRun<T>>,
    pub(super) state: FlightState,
    pub(super) check: Check,
    pub(super) started: Duration,
}

impl<T> Flight<T> {
    /// Header of the object that has the name, once that is known.
    pub(super) fn decided(&self) -> Option<Header> {
        match &self.state {
            FlightState::Putting => None,
            FlightState::Stored => Some(self.header),
            FlightState::Taken(index) => Some(index.header),
        }
    }
}

/// Somebody who appended to slots that are under way: answered when they are decided.
#[derive(Debug)]
pub(super) struct Late<T> {
    pub(super) waiter: Waiter<T>,
    pub(super) identity: Identity,
}

/// Whether an object of `other` in the chain tells `me` that the stripe is owned by another now: an owner
/// number belongs to one writer, so that the same number from another one is no former owner's (C-6).
pub(super) fn is_fenced_by(me: Author, other: Author) -> bool {
    other.owner > me.owner || other.owner == me.owner && other.writer != me.writer
}
