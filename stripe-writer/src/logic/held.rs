//! Runs that wait for an object.

use std::collections::BTreeMap;
use std::time::Duration;

use wire::limits::MAX_OBJECT_RUNS;
use wire::{Epoch, Identity, Run, Slot};

use crate::limits::WAITERS_A_RUN;

/// Somebody who is to be told what became of slots `[first, end)`.
#[derive(Debug, Clone)]
pub struct Waiter<T> {
    /// Whom to tell.
    pub token: T,
    /// First slot that was appended.
    pub first: Slot,
    /// First slot behind.
    pub end: Slot,
}

/// A run with those who wait for it.
#[derive(Debug)]
pub struct HeldRun<T> {
    /// The run.
    pub run: Run,
    /// Epoch of its token; irrelevant for junk.
    pub epoch: Epoch,
    /// When it came in.
    pub since: Duration,
    /// Those who appended it.
    pub waiters: Vec<Waiter<T>>,
}

impl<T: Clone> HeldRun<T> {
    /// The same for a part of the run.
    fn part(&self, run: Run) -> Self {
        let waiters = self.waiters.iter().filter_map(|waiter| {
            let (first, end) = (waiter.first.max(run.first), waiter.end.min(run.end()));
            let token = waiter.token.clone();
            (first < end).then_some(Waiter { token, first, end })
        });
        Self {
            waiters: waiters.collect(),
            run,
            epoch: self.epoch,
            since: self.since,
        }
    }
}

/// What lies in a slot.
#[derive(Debug, PartialEq, Eq)]
pub enum Occupant {
    /// Junk that will be written with the next object.
    Junk,
    /// The same record.
    Same,
    /// Another record.
    Other,
}

/// All runs of a stripe that are in no object yet, by slot, without overlap.
///
/// Invariant: the runs in `[planned, ready_end)` follow one another without a hole; they are what the
/// next object takes. No run lies below `planned`.
#[derive(Debug)]
pub struct Held<T> {
    runs: BTreeMap<Slot, HeldRun<T>>,
    planned: Slot,
    ready_end: Slot,
    ready_bytes: usize,
    ready_runs: usize,
    /// When the oldest run of the ready part came in.
    ready_since: Option<Duration>,
    bytes: usize,
}

impl<T> Held<T> {
    /// Nothing held; the next object starts at `planned`.
    #[must_use]
    pub fn new(planned: Slot) -> Self {
        Self {
            runs: BTreeMap::new(),
            planned,
            ready_end: planned,
            ready_bytes: 0,
            ready_runs: 0,
            ready_since: None,
            bytes: 0,
        }
    }

    /// Where the next object starts.
    #[must_use]
    pub fn planned(&self) -> Slot {
        self.planned
    }

    /// Bytes of all runs.
    #[must_use]
    pub fn bytes(&self) -> usize {
        self.bytes
    }

    /// Whether an object of `target` bytes can be filled now.
    #[must_use]
    pub fn is_full(&self, target: usize) -> bool {
        self.ready_bytes >= target || self.ready_runs >= MAX_OBJECT_RUNS
    }

    /// When the oldest run that the next object takes came in.
    #[must_use]
    pub fn ready_since(&self) -> Option<Duration> {
        self.ready_since
    }

    /// The first run that shares slots with `[from, to)`, and what it is to `identity`.
    #[must_use]
    pub fn occupant(
        &self,
        from: Slot,
        to: Slot,
        identity: Option<Identity>,
    ) -> Option<(Slot, Slot, Occupant)> {
        let before = self.runs.range(..=from).next_back();
        let overlapping = before.filter(|(_, held)| held.run.end() > from);
        let (first, held) = overlapping.or_else(|| self.runs.range(from..to).next())?;
        let occupant = match held.run.identity() {
            None => Occupant::Junk,
            Some(_) if held.run.identity() == identity => Occupant::Same,
            Some(_) => Occupant::Other,
        };
        Some((*first, held.run.end(), occupant))
    }

    /// Holds a run in slots that nothing occupies, at or behind `planned`.
    pub fn insert(&mut self, held: HeldRun<T>) {
        debug_assert!(held.run.first >= self.planned);
        self.bytes += held.run.body_len();
        self.runs.insert(held.run.first, held);
    }

    /// Adds somebody who waits for the run that starts at `first`; gives it back if too many do.
    ///
    /// # Errors
    /// The waiter, if there is no room for it.
    pub fn wait(&mut self, first: Slot, waiter: Waiter<T>) -> Result<(), Waiter<T>> {
        match self.runs.get_mut(&first) {
            Some(held) if held.waiters.len() < WAITERS_A_RUN => {
                held.waiters.push(waiter);
                Ok(())
            }
            _ => Err(waiter),
        }
    }

    /// Extends what the next object takes as far as runs follow one another, and fills holes below
    /// `fill_below` with junk on the way (H-1).
    pub fn extend(&mut self, fill_below: Slot, now: Duration) {
        loop {
            if let Some(held) = self.runs.get(&self.ready_end) {
                self.ready_bytes += held.run.body_len();
                self.ready_runs += 1;
                self.ready_end = held.run.end();
                let since = self.ready_since.unwrap_or(held.since);
                self.ready_since = Some(since.min(held.since));
                continue;
            }
            let next = self.runs.range(self.ready_end..).next();
            let hole_end = next.map_or(fill_below, |(first, _)| fill_below.min(*first));
            if hole_end <= self.ready_end {
                return;
            }
            let count = self.ready_end.until(hole_end);
            self.insert(HeldRun {
                run: Run::junk(self.ready_end, count),
                epoch: Epoch(0),
                since: now,
                waiters: Vec::new(),
            });
        }
    }

    /// Takes the runs of the next object: at least one if any is ready, and no more than it takes to
    /// reach `target` bytes.
    pub fn take(&mut self, target: usize) -> Vec<HeldRun<T>> {
        let (mut taken, mut bytes) = (Vec::new(), 0);
        while self.planned < self.ready_end && bytes < target && taken.len() < MAX_OBJECT_RUNS {
            let Some(held) = self.take_run() else {
                break;
            };
            bytes += held.run.body_len();
            taken.push(held);
        }
        self.ready_since = self.oldest_ready();
        taken
    }

    fn take_run(&mut self) -> Option<HeldRun<T>> {
        if self.planned >= self.ready_end {
            return None;
        }
        let held = self.runs.remove(&self.planned)?;
        self.planned = held.run.end();
        self.ready_runs -= 1;
        self.ready_bytes -= held.run.body_len();
        self.bytes -= held.run.body_len();
        Some(held)
    }

    fn oldest_ready(&self) -> Option<Duration> {
        let ready = self.runs.range(self.planned..self.ready_end);
        ready.map(|(_, held)| held.since).min()
    }

    /// Takes the first slot of the next object, alone.
    pub fn take_slot(&mut self) -> Option<HeldRun<T>>
    where
        T: Clone,
    {
        let held = self.take_run()?;
        let (first, end) = (held.run.first, held.run.end());
        let second = first.plus(1);
        let parts = (held.run.part(first, second), held.run.part(second, end));
        let taken = match parts {
            (Ok(slot), Ok(rest)) => {
                self.planned = second;
                self.ready_runs += 1;
                self.ready_bytes += rest.body_len();
                self.insert(held.part(rest));
                held.part(slot)
            }
            // It is no longer than that.
            _ => held,
        };
        self.ready_since = self.oldest_ready();
        Some(taken)
    }

    /// Takes all runs out and starts again at `planned`.
    pub fn restart(&mut self, planned: Slot) -> Vec<HeldRun<T>> {
        let runs = std::mem::take(&mut self.runs);
        *self = Self::new(planned);
        runs.into_values().collect()
    }

    /// Takes out the runs at or behind `from` whose token is of an epoch below `epoch`.
    pub fn remove_older(&mut self, from: Slot, epoch: Epoch) -> Vec<HeldRun<T>> {
        let runs = self.restart(self.planned);
        let (older, kept): (Vec<_>, Vec<_>) = runs
            .into_iter()
            .partition(|held| held.run.first >= from && held.epoch < epoch && !held.run.is_junk());
        for held in kept {
            self.insert(held);
        }
        older
    }
}
