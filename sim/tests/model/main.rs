//! One stripe in a model checker: every order in which few processes can commit, fill, seal and take over.
//!
//! An abstraction of `stripe_writer::logic`, small enough to look at all of its states: slots of one stripe, two
//! reigns, a few processes one after the other or at the same time, puts that land late or never. What the
//! product does with bytes, time and retries is left to the simulation.

use std::collections::{BTreeMap, BTreeSet};

use state::{Content, Flight, Object, Owner, Seen, State};
use stateright::{Checker, HasDiscoveries, Model, Property};

mod state;

/// How much there is of everything.
#[derive(Clone, Copy)]
struct Bounds {
    /// Processes, one after the other or at the same time.
    writers: u8,
    slots: u8,
    /// Slots that the first reign has reserved.
    window: u8,
}

/// A third of a million states at most, whatever guard is missing.
const SMALL: Bounds = Bounds {
    writers: 2,
    slots: 3,
    window: 2,
};

/// One slot more: two objects can be under way in the first reign behind a third.
const WIDE: Bounds = Bounds {
    writers: 2,
    slots: 4,
    window: 3,
};

/// Objects of one process under way.
const FLIGHTS: usize = 2;

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
enum Action {
    Start,
    Crash(usize),
    Grant(u8),
    NewReign,
    /// An owner reads the control chain.
    Hear(usize),
    /// An owner that has decided all below the seal says so.
    Sealed(usize),
    Append(usize, u8),
    Fill(usize),
    /// So many slots become an object.
    Close(usize, u8),
    Land(usize, usize),
    LandLoose(Object),
    Advance(usize),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Mutation {
    /// C-4: what is stored is acknowledged, whatever lies before it.
    AnyOrder,
    /// C-5: "exists" counts as mine.
    ExistsIsMine,
    /// C-6: the fence does not go alone.
    FenceNotAlone,
    /// C-6: a new owner takes the number of the last.
    SameNumber,
    /// H-1: slots are filled that were not granted.
    FillAhead,
    /// H-4: the second reign does not wait for the seal.
    NoSeal,
}

struct Stripe {
    bounds: Bounds,
    mutation: Option<Mutation>,
}

impl Stripe {
    fn is(&self, mutation: Mutation) -> bool {
        self.mutation == Some(mutation)
    }

    fn start(&self, state: &mut State) {
        let chain = state.walk();
        let newest = chain.iter().map(|object| object.owner).max().unwrap_or(0);
        let frontier = chain.last().map_or(0, |object| object.end());
        let next = u8::from(!self.is(Mutation::SameNumber) || newest == 0);
        let mut owner = Owner {
            writer: state.writers,
            number: newest + next,
            frontier,
            held: BTreeMap::new(),
            flights: Vec::new(),
            sealed: state.epoch,
            established: false,
            fenced: false,
        };
        if state.epoch == 2 {
            owner.fill(self.bounds.window);
        }
        state.writers += 1;
        state.owners.push(owner);
    }

    /// The front of the chain as far as it is known.
    fn advance(&self, state: &mut State, index: usize) {
        if self.is(Mutation::AnyOrder) {
            let flights = state.owners[index].flights.clone();
            for flight in flights.iter().filter(|flight| flight.seen == Seen::Stored) {
                state.acknowledge(&flight.object);
            }
        }
        while let Some(front) = state.owners[index].flights.first().cloned() {
            let owner = &mut state.owners[index];
            match front.seen {
                Seen::Nothing => return,
                Seen::Stored => {
                    owner.flights.remove(0);
                    owner.frontier = front.object.end();
                    owner.established = true;
                    state.acknowledge(&front.object);
                }
                Seen::Taken(_) if self.is(Mutation::ExistsIsMine) => {
                    owner.flights.remove(0);
                    owner.frontier = front.object.end();
                    state.acknowledge(&front.object);
                }
                Seen::Taken(other) => {
                    let flights = std::mem::take(&mut owner.flights);
                    let shared = other.owner == owner.number && other.writer != owner.writer;
                    if other.owner > owner.number || shared && owner.established {
                        owner.fenced = true;
                        owner.held.clear();
                    } else {
                        owner.number += u8::from(shared);
                        owner.frontier = other.end();
                        let mut held = std::mem::take(&mut owner.held);
                        for flight in &flights {
                            held.extend(
                                (flight.object.start..).zip(flight.object.contents.clone()),
                            );
                        }
                        held.retain(|slot, _| *slot >= other.end());
                        owner.held = held;
                    }
                    let under_way = flights.into_iter().filter(|f| f.seen == Seen::Nothing);
                    state.loose.extend(under_way.map(|flight| flight.object));
                    return;
                }
            }
        }
    }

    fn owner_actions(&self, state: &State, index: usize, actions: &mut Vec<Action>) {
        let owner = &state.owners[index];
        actions.push(Action::Crash(index));
        for (number, flight) in owner.flights.iter().enumerate() {
            if flight.seen == Seen::Nothing {
                actions.push(Action::Land(index, number));
            }
        }
        if owner
            .flights
            .iter()
            .any(|flight| flight.seen != Seen::Nothing)
        {
            actions.push(Action::Advance(index));
        }
        if owner.fenced {
            return;
        }
        if owner.sealed < state.epoch {
            actions.push(Action::Hear(index));
        }
        if state.epoch == 2
            && !state.grants
            && owner.sealed == 2
            && owner.frontier >= self.bounds.window
        {
            actions.push(Action::Sealed(index));
        }
        for (slot, epoch) in &state.tokens {
            // [H-3] Only epochs that it knows, and none that is sealed.
            if *epoch == owner.sealed && *slot >= owner.planned() && !owner.held.contains_key(slot)
            {
                actions.push(Action::Append(index, *slot));
            }
        }
        let hole = (owner.planned()..self.bounds.slots).find(|slot| !owner.held.contains_key(slot));
        let granted = |slot: &u8| state.tokens.contains_key(slot) || self.is(Mutation::FillAhead);
        if hole.is_some_and(|slot| granted(&slot)) {
            actions.push(Action::Fill(index));
        }
        let alone = !owner.established && !self.is(Mutation::FenceNotAlone);
        if owner.flights.len() < if alone { 1 } else { FLIGHTS } {
            let ready = (owner.planned()..self.bounds.slots)
                .take_while(|slot| owner.held.contains_key(slot));
            let ready = u8::try_from(ready.count()).expect("few");
            actions.extend((1..=ready).map(|count| Action::Close(index, count)));
        }
    }
}

impl Model for Stripe {
    type State = State;
    type Action = Action;

    fn init_states(&self) -> Vec<State> {
        vec![State {
            objects: BTreeMap::new(),
            loose: BTreeSet::new(),
            owners: Vec::new(),
            writers: 0,
            epoch: 1,
            grants: true,
            tokens: BTreeMap::new(),
            acknowledged: BTreeMap::new(),
            truth: Vec::new(),
            changed: false,
            numbers: BTreeMap::new(),
            shared: false,
        }]
    }

    fn actions(&self, state: &State, actions: &mut Vec<Action>) {
        if state.writers < self.bounds.writers {
            actions.push(Action::Start);
        }
        // The sequencer of the first reign may go on below its reservation for a while.
        let next = |from: u8, to: u8| (from..to).find(|slot| !state.tokens.contains_key(slot));
        actions.extend(
            next(0, self.bounds.window)
                .filter(|_| !(state.epoch == 2 && state.grants))
                .map(Action::Grant),
        );
        if state.epoch == 1 {
            actions.push(Action::NewReign);
        } else if state.grants {
            actions.extend(next(self.bounds.window, self.bounds.slots).map(Action::Grant));
        }
        for index in 0..state.owners.len() {
            self.owner_actions(state, index, actions);
        }
        actions.extend(state.loose.iter().cloned().map(Action::LandLoose));
    }

    fn next_state(&self, last: &State, action: Action) -> Option<State> {
        let mut state = last.clone();
        match action {
            Action::Start => self.start(&mut state),
            Action::Crash(index) => {
                let owner = state.owners.remove(index);
                let under_way = owner
                    .flights
                    .into_iter()
                    .filter(|f| f.seen == Seen::Nothing);
                state.loose.extend(under_way.map(|flight| flight.object));
            }
            Action::Grant(slot) => {
                let epoch = if slot < self.bounds.window { 1 } else { 2 };
                state.tokens.insert(slot, epoch);
            }
            Action::NewReign => {
                state.epoch = 2;
                state.grants = self.is(Mutation::NoSeal);
            }
            Action::Hear(index) => {
                let owner = &mut state.owners[index];
                owner.sealed = state.epoch;
                owner.fill(self.bounds.window);
            }
            Action::Sealed(_) => state.grants = true,
            Action::Append(index, slot) => {
                let epoch = state.tokens[&slot];
                state.owners[index]
                    .held
                    .insert(slot, Content::Record(epoch));
            }
            Action::Fill(index) => {
                let owner = &mut state.owners[index];
                let slots = owner.planned()..self.bounds.slots;
                let hole = slots.clone().find(|slot| !owner.held.contains_key(slot))?;
                owner.held.insert(hole, Content::Junk);
            }
            Action::Close(index, count) => {
                let owner = &mut state.owners[index];
                let start = owner.planned();
                let taken = (start..start + count).filter_map(|slot| owner.held.remove(&slot));
                let object = Object {
                    start,
                    contents: taken.collect(),
                    owner: owner.number,
                    writer: owner.writer,
                };
                let seen = Seen::Nothing;
                owner.flights.push(Flight { object, seen });
            }
            Action::Land(index, number) => {
                let object = state.owners[index].flights[number].object.clone();
                let seen = state.land(&object);
                state.owners[index].flights[number].seen = seen;
            }
            Action::LandLoose(object) => {
                state.loose.remove(&object);
                state.land(&object);
            }
            Action::Advance(index) => self.advance(&mut state, index),
        }
        Some(state)
    }

    fn properties(&self) -> Vec<Property<Self>> {
        vec![
            Property::always("c1 what is decided stays", |_, state: &State| {
                !state.changed
            }),
            Property::always(C4, |_, state: &State| {
                let is_there = |(slot, content): (&u8, &Content)| {
                    state.truth.get(usize::from(*slot)) == Some(content)
                };
                state.acknowledged.iter().all(is_there)
            }),
            Property::always(C6, |_, state: &State| !state.shared),
            Property::always(H1, |model: &Self, state: &State| {
                let sealed = if state.epoch == 2 {
                    model.bounds.window
                } else {
                    0
                };
                let granted = |slot: u8| slot < sealed || state.tokens.contains_key(&slot);
                (0..).zip(&state.truth).all(|(slot, _)| granted(slot))
            }),
            Property::always(H4, |model: &Self, state: &State| {
                let window = usize::from(model.bounds.window);
                state.epoch == 1 || !state.grants || state.truth.len() >= window
            }),
            Property::sometimes("all is acknowledged", |model: &Self, state: &State| {
                state.acknowledged.len() == usize::from(model.bounds.slots)
            }),
            Property::sometimes("a process is fenced", |_, state: &State| {
                state.owners.iter().any(|owner| owner.fenced)
            }),
            Property::sometimes("an object is adopted", |_, state: &State| {
                state
                    .owners
                    .iter()
                    .any(|o| !o.established && !o.fenced && o.frontier > 0 && o.number > 1)
            }),
        ]
    }
}

const C4: &str = "c4 what is acknowledged is there";
const C6: &str = "c6 one process a number";
const H1: &str = "h1 nothing is decided that was not granted";
const H4: &str = "h4 a reign grants over a sealed stripe";

/// Looks at all states, or until `enough` is found. Returns how many, and the rules that are broken in one of them.
fn check(
    bounds: Bounds,
    mutation: Option<Mutation>,
    enough: HasDiscoveries,
) -> (usize, Vec<&'static str>) {
    let model = Stripe { bounds, mutation };
    let builder = model.checker().threads(2).finish_when(enough);
    let checker = builder.spawn_bfs().join();
    let broken = |(name, _): (&'static str, _)| {
        let always = name.starts_with(['c', 'h']);
        always.then_some(name)
    };
    let found = checker.discoveries();
    if mutation.is_none() {
        for name in [
            "all is acknowledged",
            "a process is fenced",
            "an object is adopted",
        ] {
            assert!(found.contains_key(name), "never: {name}");
        }
    }
    let broken = found.into_iter().filter_map(broken).collect();
    (checker.unique_state_count(), broken)
}

#[test]
fn c1_no_order_of_events_breaks_a_rule() {
    for bounds in [SMALL, WIDE] {
        let (states, broken) = check(bounds, None, HasDiscoveries::All);
        assert_eq!(broken, [""; 0]);
        assert!(states > 100_000, "states={states}");
        eprintln!("states={states}");
    }
}

#[test]
fn a_guard_that_is_taken_out_is_noticed() {
    for (bounds, mutation, rule) in [
        (WIDE, Mutation::AnyOrder, C4),
        (SMALL, Mutation::ExistsIsMine, C4),
        (SMALL, Mutation::SameNumber, C6),
        (SMALL, Mutation::FenceNotAlone, C6),
        (SMALL, Mutation::FillAhead, H1),
        (SMALL, Mutation::NoSeal, H4),
    ] {
        // Which of two broken rules is met first depends on the threads.
        let enough = HasDiscoveries::AnyOf([rule].into());
        let (states, broken) = check(bounds, Some(mutation), enough);
        eprintln!("{mutation:?}: states={states} {broken:?}");
        assert!(
            broken.contains(&rule),
            "{mutation:?}: states={states} {broken:?}"
        );
    }
}
