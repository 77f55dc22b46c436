//! The run that a reader stands in.

use bytes::Bytes;
use wire::{Run, Slot};

/// What is left of a run.
#[derive(Debug)]
pub struct Current {
    next: Slot,
    end: Slot,
    /// The records from `next` on, or `None` for junk.
    records: Option<std::vec::IntoIter<Bytes>>,
}

impl Current {
    /// What a run holds from `next` on; `None` if that is nothing, or if the run starts behind `next`.
    pub fn of(run: &Run, next: Slot) -> Option<Self> {
        if next < run.first || run.end() <= next {
            return None;
        }
        let skip = usize::try_from(run.first.until(next)).unwrap_or(usize::MAX);
        let records = run.content.as_ref().map(|(_, body)| {
            let records: Vec<Bytes> = body.records().skip(skip).collect();
            records.into_iter()
        });
        Some(Self {
            next,
            end: run.end(),
            records,
        })
    }

    pub fn is_junk(&self) -> bool {
        self.records.is_none()
    }

    /// First slot behind the run.
    pub fn end(&self) -> Slot {
        self.end
    }

    /// The next record; `None` at the end of the run, and of junk always.
    pub fn take(&mut self) -> Option<Bytes> {
        let record = self.records.as_mut()?.next()?;
        self.next = self.next.plus(1);
        Some(record)
    }

    /// Goes on to a slot, within junk. Returns whether anything is left.
    pub fn skip_to(&mut self, slot: Slot) -> bool {
        self.next = self.next.max(slot);
        self.next < self.end
    }

    pub fn is_over(&self) -> bool {
        self.next >= self.end
    }
}

#[cfg(test)]
mod tests {
    use wire::{ClientId, Identity, RequestId, RunBody};

    use super::*;

    #[test]
    fn starts_in_the_middle_of_a_run() {
        let identity = Identity {
            client: ClientId(1),
            request: RequestId(1),
        };
        let body = RunBody::new(&["a", "b", "c"]).expect("valid");
        let run = Run::records(Slot(5), identity, body);
        let mut current = Current::of(&run, Slot(6)).expect("inside");
        assert_eq!(current.take().expect("there"), "b");
        assert!(!current.is_over());
        assert_eq!(current.take().expect("there"), "c");
        assert!(current.is_over() && current.take().is_none());
        assert!(Current::of(&run, Slot(4)).is_none());
        assert!(Current::of(&run, Slot(8)).is_none());
    }

    #[test]
    fn junk_is_skipped_in_one_step() {
        let mut current = Current::of(&Run::junk(Slot(0), 1 << 40), Slot(3)).expect("inside");
        assert!(current.is_junk() && current.take().is_none());
        assert!(current.skip_to(Slot((1 << 40) - 1)));
        assert!(!current.skip_to(Slot(1 << 40)));
    }
}
