//! What became durable a moment ago, kept in memory for readers at the tail.

use std::collections::VecDeque;

use wire::{Run, Slot};

/// The newest runs of a stripe, without gap, up to a bound in bytes.
#[derive(Debug)]
pub struct Recent {
    runs: VecDeque<Run>,
    start: Slot,
    bytes: usize,
    bound: usize,
}

/// What a reader gets.
#[derive(Debug, PartialEq, Eq)]
pub enum Found {
    /// A run, cut to the slots that were asked for.
    Run(Run),
    /// The slot is not durable yet.
    NotYet,
    /// The slot is in memory no more; the store has it.
    Gone,
}

impl Recent {
    /// Nothing durable yet behind `start`; keeps at most `bound` bytes.
    #[must_use]
    pub fn new(start: Slot, bound: usize) -> Self {
        Self {
            runs: VecDeque::new(),
            start,
            bytes: 0,
            bound,
        }
    }

    /// First slot that is not durable.
    #[must_use]
    pub fn end(&self) -> Slot {
        self.runs.back().map_or(self.start, Run::end)
    }

    /// Adds runs that became durable. Runs that do not follow on the last one begin anew.
    pub fn push(&mut self, runs: Vec<Run>) {
        for run in runs {
            if run.first != self.end() {
                self.forget(run.first);
            }
            self.bytes += run.body_len();
            self.runs.push_back(run);
        }
        // The newest run goes too if it alone is above the bound: the bound is on memory.
        while self.bytes > self.bound || self.runs.len() > wire::limits::MAX_OBJECT_RUNS {
            let Some(run) = self.runs.pop_front() else {
                break;
            };
            self.bytes -= run.body_len();
            self.start = run.end();
        }
    }

    /// Drops everything: what comes next starts at `start`.
    pub fn forget(&mut self, start: Slot) {
        self.runs.clear();
        self.bytes = 0;
        self.start = start;
    }

    /// The run at a slot, from that slot on.
    #[must_use]
    pub fn at(&self, slot: Slot) -> Found {
        if slot >= self.end() {
            return Found::NotYet;
        }
        let behind = self.runs.partition_point(|run| run.first <= slot);
        let run = behind.checked_sub(1).and_then(|i| self.runs.get(i));
        match run.map(|run| run.part(slot, run.end())) {
            Some(Ok(run)) => Found::Run(run),
            Some(Err(_)) | None => Found::Gone,
        }
    }
}

#[cfg(test)]
mod tests {
    use wire::{ClientId, Identity, RequestId, RunBody};

    use super::*;

    fn records(first: u64, count: usize) -> Run {
        let identity = Identity {
            client: ClientId(1),
            request: RequestId(first),
        };
        let body = RunBody::new(&vec![b"12345678"; count]).expect("valid");
        Run::records(Slot(first), identity, body)
    }

    #[test]
    fn keeps_the_newest_within_the_bound() {
        let mut recent = Recent::new(Slot(10), 40);
        assert_eq!(recent.at(Slot(10)), Found::NotYet);
        recent.push(vec![records(10, 2), Run::junk(Slot(12), 5)]);
        assert_eq!(recent.at(Slot(9)), Found::Gone);
        assert_eq!(recent.at(Slot(10)), Found::Run(records(10, 2)));
        assert_eq!(recent.at(Slot(14)), Found::Run(Run::junk(Slot(14), 3)));
        recent.push(vec![records(17, 3)]);
        assert_eq!(recent.at(Slot(10)), Found::Gone);
        assert_eq!(recent.at(Slot(17)), Found::Run(records(17, 3)));
        recent.push(vec![records(20, 40)]);
        assert_eq!(recent.at(Slot(20)), Found::Gone);
        assert_eq!(recent.at(Slot(60)), Found::NotYet);
    }

    #[test]
    fn a_jump_forgets_what_was_before() {
        let mut recent = Recent::new(Slot(0), 1000);
        recent.push(vec![records(0, 2)]);
        recent.push(vec![records(5, 2)]);
        assert_eq!(recent.at(Slot(1)), Found::Gone);
        assert_eq!(recent.at(Slot(5)), Found::Run(records(5, 2)));
    }
}
