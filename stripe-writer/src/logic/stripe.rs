//! One stripe: from appended runs to a chain of objects.
//!
//! The owner of a stripe holds runs by slot, cuts the contiguous part into objects, and lets several puts
//! be under way; but the chain's end, the frontier, moves in order, and only what lies below it is
//! acknowledged (C-4). Owned by the stripe's task; every input gives a list of [`Action`]s.
//!
//! Invariants: `frontier <= planned`; the objects in `flights` cover `[frontier, planned)` in order,
//! without gap; what is held lies at or behind `planned`.

use std::collections::VecDeque;
use std::time::Duration;

use wire::frame::AckStatus;
use wire::object::{Author, ChainId, Object};
use wire::{Epoch, Identity, OwnerNumber, Run, Slot};

use super::action::{Action, Config, FlightId};
use super::flight::{Check, Flight, FlightState, Late};
use super::held::{Held, HeldRun, Occupant, Waiter};
use crate::limits::{FLIGHTS_A_STRIPE, LATE_A_STRIPE, MAX_AHEAD_SLOTS};

mod advance;

/// The state machine. `T` says whom to answer; it is cloned where one append needs several answers.
#[derive(Debug)]
pub struct Stripe<T> {
    chain: ChainId,
    author: Author,
    config: Config,
    frontier: Slot,
    held: Held<T>,
    flights: VecDeque<Flight<T>>,
    late: Vec<Late<T>>,
    next_flight: u64,
    sealed: Epoch,
    seal_to: Slot,
    /// Where the stripe ends for good; the last slot there is as long as its segment has not ended.
    end: Slot,
    fill_below: Slot,
    verified_at: Duration,
    established: bool,
    /// Whether a former owner's object came before the first of this owner.
    outrun: bool,
    fenced: bool,
    actions: Vec<Action<T>>,
}

impl<T: Clone> Stripe<T> {
    /// A stripe whose chain ends at `frontier`, as a walk that began at `now` found it. The owner number of
    /// `author` is the next one after all of the chain. The first object that this owner puts is its fence
    /// (C-6). Before anything is appended, [`Self::seal`] is to be told the last seal.
    #[must_use]
    pub fn new(
        chain: ChainId,
        author: Author,
        frontier: Slot,
        config: Config,
        now: Duration,
    ) -> Self {
        Self {
            chain,
            author,
            config,
            frontier,
            held: Held::new(frontier),
            flights: VecDeque::new(),
            late: Vec::new(),
            next_flight: 0,
            sealed: author.epoch,
            seal_to: frontier,
            end: Slot(u64::MAX),
            fill_below: frontier,
            verified_at: now,
            established: false,
            outrun: false,
            fenced: false,
            actions: Vec::new(),
        }
    }

    /// First slot that is not decided.
    #[must_use]
    pub fn frontier(&self) -> Slot {
        self.frontier
    }

    /// Bytes that are held in no object yet.
    #[must_use]
    pub fn held_bytes(&self) -> usize {
        self.held.bytes()
    }

    /// This owner's number.
    #[must_use]
    pub fn owner(&self) -> OwnerNumber {
        self.author.owner
    }

    /// Whether another process owns the stripe.
    #[must_use]
    pub fn is_fenced(&self) -> bool {
        self.fenced
    }

    /// Number of objects whose puts are under way.
    #[must_use]
    pub fn flights(&self) -> usize {
        self.flights.len()
    }

    /// The slot without which there is nothing more to put; `None` if there is something.
    #[must_use]
    pub fn wanted(&self) -> Option<Slot> {
        let nothing = self.held.ready_since().is_none();
        nothing.then_some(self.held.planned())
    }

    /// Takes what is to be done.
    pub fn actions(&mut self) -> Vec<Action<T>> {
        std::mem::take(&mut self.actions)
    }

    /// A run of records arrived under a token of `epoch`. The epoch is one that this owner has heard of.
    pub fn append(&mut self, run: &Run, epoch: Epoch, token: &T, now: Duration) {
        let Some(identity) = run.identity() else {
            return self.answer(token.clone(), run.first, run.end(), AckStatus::Invalid);
        };
        if self.fenced {
            return self.answer(token.clone(), run.first, run.end(), AckStatus::NotOwner);
        }
        let mut at = run.first;
        let decided = run.end().min(self.frontier);
        if at < decided {
            self.look_up(token.clone(), at, decided, identity);
            at = decided;
        }
        let under_way = run.end().min(self.held.planned());
        if at < under_way {
            self.wait_late(token.clone(), at, under_way, identity);
            at = under_way;
        }
        if at == run.end() {
            return;
        }
        // [H-3] Nothing of a sealed epoch is taken in. Below the seal no slot is free, and what holds one
        // may be this very record: the answer waits until the slot is decided, lest it be untrue.
        let mut to = run.end();
        if epoch < self.sealed {
            to = self.seal_to.max(at).min(to);
            self.answer(token.clone(), to, run.end(), AckStatus::Sealed);
        }
        // [H-5] Behind the end of its segment a stripe has no slots: no token is for them.
        if to > self.end {
            let end = self.end.max(at);
            self.answer(token.clone(), end, to, AckStatus::Invalid);
            to = end;
        }
        if self.held.planned().until(to) > MAX_AHEAD_SLOTS {
            return self.answer(token.clone(), at, to, AckStatus::Busy);
        }
        self.hold(run, at, to, epoch, token, now);
        self.held.extend(self.fill_below, now);
    }

    /// The sequencer's reign `epoch` began: tokens of lower epochs are refused from now on, and every
    /// slot below `to` is to be decided at once (H-3). Idempotent, and never undone by an older epoch.
    pub fn seal(&mut self, epoch: Epoch, to: Slot, now: Duration) {
        if epoch < self.sealed {
            return;
        }
        self.sealed = epoch;
        self.author.epoch = epoch;
        let to = to.min(self.end);
        self.seal_to = self.seal_to.max(to);
        for held in self.held.remove_older(self.seal_to, epoch) {
            self.answer_all(held.waiters, AckStatus::Sealed);
        }
        self.fill(to, now);
    }

    /// The segment ends (H-5): the chain of this stripe ends at `end` for ever.
    pub fn end_at(&mut self, end: Slot) {
        self.end = self.end.min(end);
    }

    /// Whether everything below the last seal is decided.
    #[must_use]
    pub fn is_sealed(&self) -> bool {
        self.frontier >= self.seal_to
    }

    /// Holes below `below` may be filled from now on (H-1).
    pub fn fill(&mut self, below: Slot, now: Duration) {
        // [H-5] The issued tail goes on in other segments.
        self.fill_below = self.fill_below.max(below.min(self.end));
        self.held.extend(self.fill_below, now);
    }

    /// What is held is to be put without delay from now on: the process is about to stop.
    pub fn flush(&mut self) {
        self.config.linger = Duration::ZERO;
    }

    /// When the next object is due; `None` if nothing waits or too many puts are under way.
    #[must_use]
    pub fn due(&self) -> Option<Duration> {
        // [C-6] The fence goes alone: an object behind it could otherwise be stored without it, and be
        // met by the next owner under a number that it cannot know of.
        let places = if self.established {
            FLIGHTS_A_STRIPE
        } else {
            1
        };
        if self.fenced || self.flights.len() >= places {
            return None;
        }
        let since = self.held.ready_since()?;
        let at_once = self.is_racing()
            || self.held.is_full(self.config.target_bytes)
            || self.held.planned() < self.seal_to;
        Some(if at_once {
            Duration::ZERO
        } else {
            since + self.config.linger
        })
    }

    /// [C-6] A former owner that is alive and busy puts at the end of the chain as well. An object of one slot
    /// is there before one of 16 MB that set out earlier; a large fence might come too late each time.
    fn is_racing(&self) -> bool {
        self.outrun && !self.established
    }

    /// Closes the open object, if one is due. The caller puts it under its name, create-only.
    pub fn close(&mut self, now: Duration) -> Option<(FlightId, Object)> {
        if self.due().is_none_or(|due| due > now) {
            return None;
        }
        let held = if self.is_racing() {
            self.held.take_slot().into_iter().collect()
        } else {
            self.held.take(self.config.target_bytes)
        };
        let runs: Vec<_> = held.iter().map(|held| held.run.clone()).collect();
        let object = match Object::build(self.chain, self.author, &runs) {
            Ok(object) => object,
            Err(_) => {
                // Runs are checked when they come in, so that this is a fault of this program: stop
                // writing rather than lose the thread of the chain.
                for held in held {
                    self.answer_all(held.waiters, AckStatus::NotOwner);
                }
                self.fence();
                return None;
            }
        };
        let id = FlightId(self.next_flight);
        self.next_flight += 1;
        self.flights.push_back(Flight {
            id,
            header: object.index.header,
            runs: held,
            state: FlightState::Putting,
            check: Check::None,
            started: now,
        });
        Some((id, object))
    }

    /// Holds the part `[at, limit)` of a run wherever nothing is held yet.
    fn hold(
        &mut self,
        run: &Run,
        mut at: Slot,
        limit: Slot,
        epoch: Epoch,
        token: &T,
        since: Duration,
    ) {
        let Some(identity) = run.identity() else {
            return;
        };
        while at < limit {
            let occupied = self.held.occupant(at, limit, Some(identity));
            let free_to = occupied.as_ref().map_or(limit, |(first, _, _)| *first);
            if at < free_to {
                self.hold_free(run, at, free_to, epoch, token, since);
                at = free_to;
            }
            let Some((first, end, occupant)) = occupied else {
                return;
            };
            let to = end.min(limit);
            let waiter = Waiter {
                token: token.clone(),
                first: at,
                end: to,
            };
            match occupant {
                Occupant::Same => {
                    if let Err(waiter) = self.held.wait(first, waiter) {
                        self.answer(waiter.token, at, to, AckStatus::Busy);
                    }
                }
                // [H-2] Not decided yet: another's object may still be the next one.
                Occupant::Junk | Occupant::Other => {
                    self.wait_late(waiter.token, at, to, identity);
                }
            }
            at = to;
        }
    }

    fn hold_free(
        &mut self,
        run: &Run,
        from: Slot,
        to: Slot,
        epoch: Epoch,
        token: &T,
        since: Duration,
    ) {
        let Ok(part) = run.part(from, to) else {
            return self.answer(token.clone(), from, to, AckStatus::Invalid);
        };
        let waiter = Waiter {
            token: token.clone(),
            first: from,
            end: to,
        };
        self.held.insert(HeldRun {
            run: part,
            epoch,
            since,
            waiters: vec![waiter],
        });
    }

    fn wait_late(&mut self, token: T, first: Slot, end: Slot, identity: Identity) {
        if self.late.len() >= LATE_A_STRIPE {
            return self.answer(token, first, end, AckStatus::Busy);
        }
        let waiter = Waiter { token, first, end };
        self.late.push(Late { waiter, identity });
    }

    fn answer_late(&mut self) {
        let (decided, waiting) = std::mem::take(&mut self.late)
            .into_iter()
            .partition(|late: &Late<T>| late.waiter.end <= self.frontier);
        self.late = waiting;
        for late in decided {
            let Waiter { token, first, end } = late.waiter;
            self.look_up(token, first, end, late.identity);
        }
    }

    /// Stops for good: nothing is acknowledged any more, since another owner decides now, or because this
    /// one cannot know what is decided.
    pub fn fence(&mut self) {
        if std::mem::replace(&mut self.fenced, true) {
            return;
        }
        let flights = std::mem::take(&mut self.flights);
        let mut runs: Vec<_> = flights.into_iter().flat_map(|flight| flight.runs).collect();
        runs.extend(self.held.restart(self.frontier));
        for held in runs {
            self.answer_all(held.waiters, AckStatus::NotOwner);
        }
        let late = std::mem::take(&mut self.late);
        self.answer_all(
            late.into_iter().map(|l| l.waiter).collect(),
            AckStatus::NotOwner,
        );
        self.actions.push(Action::Fenced);
    }

    fn answer_all(&mut self, waiters: Vec<Waiter<T>>, status: AckStatus) {
        for Waiter { token, first, end } in waiters {
            self.answer(token, first, end, status);
        }
    }

    fn answer(&mut self, token: T, first: Slot, end: Slot, status: AckStatus) {
        if first >= end {
            return;
        }
        self.actions.push(Action::Answer {
            token,
            first,
            end,
            status,
        });
    }

    fn look_up(&mut self, token: T, first: Slot, end: Slot, identity: Identity) {
        self.actions.push(Action::Lookup {
            token,
            first,
            end,
            identity,
        });
    }
}

#[cfg(test)]
mod tests;
