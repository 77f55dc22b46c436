//! What a stripe's decided slots hold: the answer to a repeated append (H-2).

use std::sync::{Mutex, PoisonError};

use catalog::{CatalogError, Chain, Sought};
use wire::frame::AckStatus;
use wire::object::Header;
use wire::{Identity, Slot};

use crate::limits::LOOKUP_BYTES;
use crate::logic::recent::{Found, Recent};

/// The chain of a stripe as its owner knows it: where its newest objects start, and the newest runs.
#[derive(Debug)]
pub(crate) struct History {
    chain: Chain,
    starts: Mutex<Vec<Slot>>,
    recent: Mutex<Recent>,
}

/// What became of slots `[first, end)`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Decided {
    /// First slot.
    pub(crate) first: Slot,
    /// First slot behind.
    pub(crate) end: Slot,
    /// What became of them.
    pub(crate) status: AckStatus,
}

impl History {
    /// The history of a chain whose newest objects are these, keeping at most `recent_bytes` of what comes.
    #[must_use]
    pub(crate) fn new(
        chain: Chain,
        headers: &[Header],
        frontier: Slot,
        recent_bytes: usize,
    ) -> Self {
        let starts = headers.iter().map(|header| header.start).collect();
        Self {
            chain,
            starts: Mutex::new(starts),
            recent: Mutex::new(Recent::new(frontier, recent_bytes)),
        }
    }

    /// Looks at, or changes, what is kept in memory.
    pub(crate) fn with_recent<R>(&self, work: impl FnOnce(&mut Recent) -> R) -> R {
        work(&mut self.recent.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// The chain goes on with an object.
    pub(crate) fn push(&self, header: &Header) {
        let mut starts = self.starts.lock().unwrap_or_else(PoisonError::into_inner);
        starts.push(header.start);
    }

    /// Start of the newest object.
    #[must_use]
    pub(crate) fn last_start(&self) -> Slot {
        let starts = self.starts.lock().unwrap_or_else(PoisonError::into_inner);
        starts.last().copied().unwrap_or(self.chain.first_slot())
    }

    /// What slots `[first, end)`, all decided, hold, seen by the client that appended there as `identity`.
    /// Where the store fails, the rest is answered with "not known here": the records may be there, so
    /// that Busy, which says that nothing was written, would be untrue.
    pub(crate) async fn look_up(&self, first: Slot, end: Slot, identity: Identity) -> Vec<Decided> {
        let mut decided = Vec::new();
        let mut at = first;
        while at < end {
            let (run_end, status) = match self.run_at(at).await {
                Ok((run_end, None)) => (run_end, AckStatus::Junk),
                Ok((run_end, Some(holder))) if holder == identity => {
                    (run_end, AckStatus::Committed)
                }
                Ok((run_end, Some(_))) => (run_end, AckStatus::Conflict),
                Err(error) => {
                    tracing::warn!(%error, "cannot look up a repeated append");
                    (end, AckStatus::NotOwner)
                }
            };
            let to = run_end.min(end);
            let first = at;
            decided.push(Decided {
                first,
                end: to,
                status,
            });
            at = to;
        }
        decided
    }

    async fn run_at(&self, slot: Slot) -> Result<(Slot, Option<Identity>), CatalogError> {
        match self.with_recent(|recent| recent.at(slot)) {
            Found::Run(run) => Ok((run.end(), run.identity())),
            Found::NotYet | Found::Gone => self.stored_run(slot).await,
        }
    }

    async fn stored_run(&self, slot: Slot) -> Result<(Slot, Option<Identity>), CatalogError> {
        let missing = |start| CatalogError::Missing {
            name: self.chain.id().object_name(start),
        };
        let index = match self.start_of(slot) {
            Some(start) => {
                let index = self.chain.index_at(start).await?;
                index.ok_or_else(|| missing(start))?
            }
            // Older than what was found when the stripe was taken over.
            None => {
                let from = self.chain.first_slot();
                match self.chain.seek(from, slot, LOOKUP_BYTES).await? {
                    Sought::In(index, _) => *index,
                    Sought::Behind(end) => return Err(missing(end)),
                }
            }
        };
        let run = index.run_at(slot);
        let run = run.ok_or_else(|| missing(index.header.start))?;
        Ok((run.end(), run.identity()))
    }

    fn start_of(&self, slot: Slot) -> Option<Slot> {
        let starts = self.starts.lock().unwrap_or_else(PoisonError::into_inner);
        let behind = starts.partition_point(|start| *start <= slot);
        starts.get(behind.checked_sub(1)?).copied()
    }
}

#[cfg(test)]
mod tests {
    use catalog::{Log, Store};
    use wire::{ClientId, Layout, RequestId, Run, StripeId};

    use super::*;

    /// The store does not give what it has: the record may well be there.
    #[tokio::test]
    async fn h2_a_look_up_that_fails_does_not_say_that_nothing_was_written() {
        let store = Store::open("memory:///").expect("opened");
        let layout = Layout::new(1, 1).expect("valid");
        let log = Log::create(store, layout).await.expect("created");
        let entry = log.last().await.expect("last");
        let segment = entry.last_segment().expect("segment");
        let history = History::new(log.chain(segment, StripeId(0)), &[], Slot(4), 100);
        history.with_recent(|recent| recent.push(vec![Run::junk(Slot(4), 2)]));
        let identity = Identity {
            client: ClientId(1),
            request: RequestId(1),
        };
        for (first, status) in [(4, AckStatus::Junk), (2, AckStatus::NotOwner)] {
            let (first, end) = (Slot(first), Slot(6));
            let decided = Decided { first, end, status };
            assert_eq!(history.look_up(first, end, identity).await, [decided]);
        }
    }
}
