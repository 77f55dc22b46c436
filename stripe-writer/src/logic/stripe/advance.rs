//! What happens at the front of a chain: puts end, and the frontier moves.

use std::time::Duration;

use wire::frame::AckStatus;
use wire::object::Index;
use wire::{Epoch, Identity, Run};

use super::Stripe;
use crate::logic::action::{Action, FlightId, PutOutcome};
use crate::logic::flight::{Check, Flight, FlightState, is_fenced_by};
use crate::logic::held::Waiter;

impl<T: Clone> Stripe<T> {
    /// A put ended. Answers for flights that were given up are ignored.
    pub fn put_done(&mut self, id: FlightId, outcome: PutOutcome, now: Duration) {
        let flight = self.flights.iter_mut().find(|flight| flight.id == id);
        if let Some(flight) = flight
            && matches!(flight.state, FlightState::Putting)
        {
            flight.state = match outcome {
                PutOutcome::Stored => FlightState::Stored,
                PutOutcome::Taken(index) => FlightState::Taken(index),
            };
        }
        self.advance(now);
    }

    /// The walk for [`Action::Verify`] ended. An object that the chain does not have means that the chain
    /// has gone on without this owner (C-7). One that it has is committed, which says nothing of what
    /// lies behind it: the chain may have gone on there long ago, so that flights behind are verified too.
    pub fn verified(&mut self, id: FlightId, in_chain: bool, now: Duration) {
        let asked = |flight: &&mut Flight<T>| flight.id == id && flight.check == Check::Asked;
        let Some(front) = self.flights.front_mut().filter(asked) else {
            return;
        };
        if in_chain {
            front.check = Check::Passed;
            self.advance(now);
        } else {
            self.fence();
        }
    }

    /// Moves the frontier over all objects in front that are stored (C-4).
    fn advance(&mut self, now: Duration) {
        while let Some(front) = self.flights.front_mut() {
            let Some(header) = front.decided() else {
                return;
            };
            if is_fenced_by(self.author, self.established, header.author)
                || header.start != self.frontier
            {
                return self.fence();
            }
            // [C-7] After a pause the name may have been created anew, by whomever, after it was collected.
            let late = now.saturating_sub(self.verified_at) > self.config.max_commit_age;
            match front.check {
                Check::None if late => {
                    front.check = Check::Asked;
                    let id = front.id;
                    return self.actions.push(Action::Verify { id, header });
                }
                Check::Asked => return,
                Check::None | Check::Passed => {}
            }
            match std::mem::replace(&mut front.state, FlightState::Putting) {
                FlightState::Putting => return,
                FlightState::Stored => self.commit(),
                FlightState::Taken(index) => self.adopt(index, now),
            }
        }
    }

    fn commit(&mut self) {
        let Some(flight) = self.flights.pop_front() else {
            return;
        };
        self.frontier = flight.header.end;
        self.established = true;
        // [C-7] The name was free at some time after `started`, and the chain ended there.
        self.verified_at = self.verified_at.max(flight.started);
        let (runs, waiters): (Vec<_>, Vec<_>) = flight
            .runs
            .into_iter()
            .map(|held| (held.run, held.waiters))
            .unzip();
        let header = flight.header;
        // Readers can see the records before anybody is told that they are committed.
        self.actions.push(Action::Committed { header, runs });
        for waiters in waiters {
            self.answer_all(waiters, AckStatus::Committed);
        }
        self.answer_late();
    }

    /// Another's object is the chain's next one and decides its slots (C-3, C-5). Everything behind it
    /// is planned anew: an object of this owner that is stored further on is met again under its name if
    /// the chain comes to end there, and is an orphan if not.
    fn adopt(&mut self, index: Box<Index>, now: Duration) {
        let author = index.header.author;
        if author.owner == self.author.owner {
            self.established = author.writer == self.author.writer;
            self.author.owner.0 += u64::from(!self.established);
        }
        self.outrun = true;
        self.frontier = index.header.end;
        self.actions.push(Action::Adopted(index));
        let flights = std::mem::take(&mut self.flights);
        let mut runs: Vec<_> = flights.into_iter().flat_map(|flight| flight.runs).collect();
        runs.extend(self.held.restart(self.frontier));
        for held in runs {
            let Some(identity) = held.run.identity() else {
                continue;
            };
            for waiter in held.waiters {
                self.place_again(&held.run, identity, held.epoch, waiter, held.since);
            }
        }
        self.held.extend(self.fill_below, now);
        self.answer_late();
    }

    fn place_again(
        &mut self,
        run: &Run,
        identity: Identity,
        epoch: Epoch,
        waiter: Waiter<T>,
        since: Duration,
    ) {
        let decided = waiter.end.min(self.frontier);
        if waiter.first < decided {
            self.look_up(waiter.token.clone(), waiter.first, decided, identity);
        }
        let from = waiter.first.max(self.frontier);
        if from < waiter.end
            && let Ok(part) = run.part(from, waiter.end)
        {
            self.hold(&part, from, waiter.end, epoch, &waiter.token, since);
        }
    }
}
