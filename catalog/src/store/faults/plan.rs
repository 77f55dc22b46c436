//! The plan of a faulty store: script, chance, and the count of what it has done.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use object_store::path::Path;
use rand::SeedableRng;
use rand::rngs::StdRng;
use tokio::sync::watch;

use super::{Counts, Fault, Lie, Operation, Quirks, Rates};

#[derive(Debug)]
struct Step {
    operation: Operation,
    name_part: String,
    fault: Fault,
}

#[derive(Debug)]
struct Plan {
    script: VecDeque<Step>,
    held: Vec<Operation>,
    rates: Rates,
    lie: Lie,
    quirks: Quirks,
    rng: StdRng,
    counts: Counts,
}

/// Handle to what a [`FaultyStore`](super::FaultyStore) does wrong. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Faults {
    plan: Arc<Mutex<Plan>>,
    /// Counts the releases.
    releases: Arc<watch::Sender<u64>>,
}

impl Faults {
    pub(super) fn new(seed: u64) -> Self {
        let plan = Plan {
            script: VecDeque::new(),
            held: Vec::new(),
            rates: Rates::default(),
            lie: Lie::default(),
            quirks: Quirks::default(),
            rng: StdRng::seed_from_u64(seed),
            counts: Counts::default(),
        };
        Self {
            plan: Arc::new(Mutex::new(plan)),
            releases: Arc::new(watch::Sender::new(0)),
        }
    }

    /// Adds to the script: what happens to the next requests of this kind, one step each.
    pub fn next(&self, operation: Operation, faults: impl IntoIterator<Item = Fault>) {
        self.next_named(operation, "", faults);
    }

    /// As [`Self::next`], for requests whose path contains `name_part`.
    pub fn next_named(
        &self,
        operation: Operation,
        name_part: &str,
        faults: impl IntoIterator<Item = Fault>,
    ) {
        let steps = faults.into_iter().map(|fault| Step {
            operation,
            name_part: name_part.to_owned(),
            fault,
        });
        self.plan().script.extend(steps);
    }

    /// Steps of the script that no request has met yet.
    #[must_use]
    pub fn steps_left(&self) -> usize {
        self.plan().script.len()
    }

    /// Sets the rates of random faults.
    pub fn set_rates(&self, rates: Rates) {
        self.plan().rates = rates;
    }

    /// Sets the lie.
    pub fn set_lie(&self, lie: Lie) {
        self.plan().lie = lie;
    }

    /// Sets the oddities.
    pub fn set_quirks(&self, quirks: Quirks) {
        self.plan().quirks = quirks;
    }

    /// Stalls every request of this kind that comes from now on, until [`Self::release`].
    pub fn hold(&self, operation: Operation) {
        self.plan().held.push(operation);
    }

    /// Lets all stalled requests go on, and stalls no further ones.
    pub fn release(&self) {
        self.plan().held.clear();
        self.releases.send_modify(|releases| *releases += 1);
    }

    /// Forgets script, rates, lie and oddities, and releases: the store is well again. Counts stay.
    pub fn heal(&self) {
        {
            let mut plan = self.plan();
            plan.script.clear();
            plan.rates = Rates::default();
            plan.lie = Lie::default();
            plan.quirks = Quirks::default();
        }
        self.release();
    }

    /// What the store has seen and done until now.
    #[must_use]
    pub fn counts(&self) -> Counts {
        self.plan().counts
    }

    pub(super) fn lie(&self) -> Lie {
        self.plan().lie
    }

    pub(super) fn quirks(&self) -> Quirks {
        self.plan().quirks
    }

    pub(super) fn applied_late(&self) {
        self.plan().counts.injected.late_applied += 1;
    }

    /// Decides what happens to a request, counts it, and waits where that is what happens.
    pub(super) async fn before(&self, operation: Operation, at: &Path) -> Fault {
        let mut releases = self.releases.subscribe();
        let fault = self.plan().decide(operation, at.as_ref());
        match fault {
            Fault::Delay(delay) => tokio::time::sleep(delay).await,
            // The sender lives as long as `self`.
            Fault::Stall => drop(releases.changed().await),
            _ => {}
        }
        fault
    }

    /// Waits behind an operation that was applied, where that is what happens.
    pub(super) async fn after(&self, fault: Fault) {
        if fault == Fault::StallAnswer {
            drop(self.releases.subscribe().changed().await);
        }
    }

    fn plan(&self) -> MutexGuard<'_, Plan> {
        self.plan.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Plan {
    fn decide(&mut self, operation: Operation, at: &str) -> Fault {
        let requests = &mut self.counts.requests;
        *match operation {
            Operation::Create => &mut requests.creates,
            Operation::Get => &mut requests.gets,
            Operation::List => &mut requests.lists,
            Operation::Delete => &mut requests.deletes,
            Operation::Other => &mut requests.others,
        } += 1;
        let meant = |step: &Step| step.operation == operation && at.contains(&step.name_part);
        let step = self.script.iter().position(meant);
        let fault = match step.and_then(|step| self.script.remove(step)) {
            Some(step) => step.fault,
            None if self.held.contains(&operation) => Fault::Stall,
            None => self.rates.draw(operation, &mut self.rng),
        };
        let injected = &mut self.counts.injected;
        match fault {
            Fault::None => {}
            Fault::Fail => injected.failed += 1,
            Fault::Deny => injected.denied += 1,
            Fault::LoseAnswer => injected.answers_lost += 1,
            Fault::ApplyLate(_) => injected.late += 1,
            Fault::ExistsAfter => injected.exists_after += 1,
            Fault::ExistsBefore => injected.exists_before += 1,
            Fault::Delay(_) => injected.delayed += 1,
            Fault::Stall | Fault::StallAnswer => injected.stalled += 1,
        }
        fault
    }
}
