//! Snapshots of a stripe's chain: written now and then by its owner, so that readers find objects sooner.
//!
//! A snapshot names only objects that are in the chain for ever. It is a hint, and what becomes of it is
//! nothing that the log depends on.

use std::time::Duration;

use catalog::Chain;
use wire::OwnerNumber;
use wire::Slot;
use wire::limits::MAX_SNAPSHOT_OBJECTS;
use wire::object::Header;
use wire::snapshot::Snapshot;

use crate::limits::SNAPSHOT_OBJECTS;

/// Pauses between the tries to store a snapshot.
const PAUSES: [Duration; 3] = [
    Duration::from_millis(500),
    Duration::from_secs(5),
    Duration::from_secs(30),
];

/// Longest time to store the last snapshot of an owner.
const FINISH_TIMEOUT: Duration = Duration::from_millis(100);

/// The objects of a chain that no snapshot names yet.
#[derive(Debug)]
pub(super) struct Snapshots {
    chain: Chain,
    starts: Vec<Slot>,
    end: Slot,
}

impl Snapshots {
    /// For a chain with these objects, of which the last snapshot names those below `named`, and none has a
    /// higher owner number than `owner`. Snapshots of what is missing are written at once.
    #[must_use]
    pub(super) fn new(chain: Chain, headers: &[Header], named: Slot, owner: OwnerNumber) -> Self {
        let mut snapshots = Self {
            chain,
            starts: Vec::new(),
            end: named,
        };
        let unnamed = headers.iter().filter(|header| header.start >= named);
        let due: Vec<_> = unnamed
            .filter_map(|header| snapshots.next(header, owner, MAX_SNAPSHOT_OBJECTS))
            .collect();
        let rest = snapshots.due(owner, SNAPSHOT_OBJECTS);
        let due: Vec<_> = due.into_iter().chain(rest).collect();
        if !due.is_empty() {
            snapshots.write(due);
        }
        snapshots
    }

    /// The chain goes on with an object, for ever. None of it has a higher owner number than `owner`.
    pub(super) fn push(&mut self, header: &Header, owner: OwnerNumber) {
        if let Some(snapshot) = self.next(header, owner, SNAPSHOT_OBJECTS) {
            self.write(vec![snapshot]);
        }
    }

    /// Names what no snapshot names yet, for an owner to whom the chain is left: it finds the end at once. None of the
    /// chain has a higher owner number than `owner`.
    pub(super) async fn finish(&mut self, owner: OwnerNumber) {
        if let Some(snapshot) = self.due(owner, 1) {
            let put = tokio::time::timeout(FINISH_TIMEOUT, self.chain.put_snapshot(&snapshot));
            // Without it the chain is walked.
            let _ = put.await;
        }
    }

    fn next(&mut self, header: &Header, owner: OwnerNumber, objects: usize) -> Option<Snapshot> {
        self.starts.push(header.start);
        self.end = header.end;
        self.due(owner, objects)
    }

    fn due(&mut self, owner: OwnerNumber, objects: usize) -> Option<Snapshot> {
        (self.starts.len() >= objects).then(|| Snapshot {
            chain: self.chain.id(),
            starts: std::mem::take(&mut self.starts),
            end: self.end,
            owner,
        })
    }

    fn write(&self, snapshots: Vec<Snapshot>) {
        let chain = self.chain.clone();
        tokio::spawn(async move {
            for snapshot in snapshots {
                write(&chain, &snapshot).await;
            }
        });
    }
}

async fn write(chain: &Chain, snapshot: &Snapshot) {
    for pause in PAUSES {
        match chain.put_snapshot(snapshot).await {
            Ok(()) => return,
            Err(error) => {
                let stripe = chain.id().stripe;
                tracing::debug!(%error, %stripe, "a snapshot of the chain is not stored");
            }
        }
        tokio::time::sleep(pause).await;
    }
}

#[cfg(test)]
mod tests {
    use catalog::{Log, Store};
    use wire::object::{Author, Object};
    use wire::{Epoch, Layout, OwnerNumber, Run, StripeId, WriterId};

    use super::*;

    async fn chain() -> Chain {
        let store = Store::open("memory:///").expect("opened");
        let layout = Layout::new(2, 2).expect("valid");
        let log = Log::create(store, layout).await.expect("created");
        let entry = log.last().await.expect("last");
        log.chain(entry.last_segment().expect("segment"), StripeId(1))
    }

    fn header(chain: &Chain, number: usize) -> Header {
        let author = Author {
            epoch: Epoch(1),
            owner: OwnerNumber(1),
            writer: WriterId([1; 16]),
        };
        let run = Run::junk(Slot(3 * number as u64), 3);
        let object = Object::build(chain.id(), author, &[run]).expect("valid");
        object.index.header
    }

    async fn settled() {
        for _ in 0..100 {
            tokio::task::yield_now().await;
        }
    }

    #[tokio::test]
    async fn a_snapshot_is_due_after_so_many_objects() {
        let chain = chain().await;
        let mut snapshots = Snapshots::new(chain.clone(), &[], Slot(0), OwnerNumber(1));
        for number in 0..2 * SNAPSHOT_OBJECTS + 5 {
            snapshots.push(&header(&chain, number), OwnerNumber(1));
        }
        settled().await;
        let slots = 3 * SNAPSHOT_OBJECTS as u64;
        for (at, end) in [(0, slots), (slots - 1, slots), (slots, 2 * slots)] {
            let snapshot = chain.snapshot_at(Slot(at)).await.expect("there");
            assert_eq!(snapshot.end, Slot(end));
        }
        let last = chain.snapshot_at(Slot(1 << 40)).await.expect("there");
        assert_eq!(
            last.end,
            Slot(2 * slots),
            "what is not complete is not named"
        );
    }

    #[tokio::test]
    async fn one_that_leaves_names_the_rest() {
        let chain = chain().await;
        let mut snapshots = Snapshots::new(chain.clone(), &[], Slot(0), OwnerNumber(1));
        snapshots.finish(OwnerNumber(1)).await;
        assert!(chain.snapshot_at(Slot(1 << 40)).await.is_none(), "nothing");
        for number in 0..5 {
            snapshots.push(&header(&chain, number), OwnerNumber(1));
        }
        snapshots.finish(OwnerNumber(1)).await;
        let last = chain.snapshot_at(Slot(1 << 40)).await.expect("there");
        assert_eq!((last.starts.len(), last.end), (5, Slot(15)));
    }

    #[tokio::test]
    async fn a_new_owner_goes_on_where_the_last_snapshot_ends() {
        let chain = chain().await;
        let headers: Vec<_> = (0..MAX_SNAPSHOT_OBJECTS + SNAPSHOT_OBJECTS + 10)
            .map(|number| header(&chain, number))
            .collect();
        let named = headers[10].start;
        let snapshots = Snapshots::new(chain.clone(), &headers, named, OwnerNumber(3));
        settled().await;
        assert!(snapshots.starts.is_empty());
        assert!(chain.snapshot_at(Slot(named.0 - 1)).await.is_none());
        let first = chain.snapshot_at(named).await.expect("there");
        assert_eq!(first.starts.len(), MAX_SNAPSHOT_OBJECTS);
        assert_eq!(first.owner, OwnerNumber(3));
        let second = chain.snapshot_at(first.end).await.expect("there");
        assert_eq!(second.starts.len(), SNAPSHOT_OBJECTS);
    }
}
