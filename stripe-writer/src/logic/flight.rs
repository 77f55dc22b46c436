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

/// Whether an object of `other` in the chain tells `me` that the stripe is owned by another now (C-6). An
/// owner whose first object is stored has its number to itself. Before that it may share the number with
/// one that started from the same end of the chain, dead or alive: whose object came first is adopted.
pub(super) fn is_fenced_by(me: Author, established: bool, other: Author) -> bool {
    let shared = other.owner == me.owner && other.writer != me.writer;
    other.owner > me.owner || shared && established
}

#[cfg(test)]
mod tests {
    use wire::{Epoch, OwnerNumber, WriterId};

    use super::*;

    fn author(owner: u64, writer: u8) -> Author {
        Author {
            epoch: Epoch(1),
            owner: OwnerNumber(owner),
            writer: WriterId([writer; 16]),
        }
    }

    #[test]
    fn c6_an_owner_is_fenced_by_a_higher_number_and_by_its_own_in_other_hands() {
        let me = author(5, 1);
        for (other, while_new, established) in [
            (author(4, 2), false, false),
            (author(5, 1), false, false),
            (author(5, 2), false, true),
            (author(6, 2), true, true),
        ] {
            assert_eq!(is_fenced_by(me, false, other), while_new, "{other:?}");
            assert_eq!(is_fenced_by(me, true, other), established, "{other:?}");
        }
    }
}
