use std::sync::Arc;

use bytes::Bytes;
use catalog::faults::{Faults, FaultyStore};
use catalog::{Log, Put, Store};
use object_store::memory::InMemory;
use wire::frame::AckStatus;
use wire::object::Object;
use wire::{ClientId, Identity, Layout, RequestId, Run, RunBody, StripeId};

use super::*;
use crate::limits::SNAPSHOT_OBJECTS;
use crate::store::history::History;
use crate::store::snapshots::Snapshots;

const OBJECTS: u64 = 1500;

/// Slots of an object.
const SLOTS: u64 = 3;
const SLOTS_EACH: usize = 3;

const ME: WriterId = WriterId([9; 16]);

fn identity(object: u64) -> Identity {
    Identity {
        client: ClientId(3),
        request: RequestId(object),
    }
}

/// A chain of [`OBJECTS`] objects with its snapshots. The owner of the object with a number is `owner_of` it.
async fn scene(owner_of: impl Fn(u64) -> u64) -> (Chain, Store, Faults) {
    let faulty = FaultyStore::new(Arc::new(InMemory::new()), 1);
    let faults = faulty.faults();
    let store = Store::new(Arc::new(faulty), "");
    let layout = Layout::new(2, 2).expect("valid");
    let log = Log::create(store.clone(), layout).await.expect("created");
    let entry = log.last().await.expect("last");
    let chain = log.chain(entry.last_segment().expect("segment"), StripeId(1));
    let mut snapshots = Snapshots::new(chain.clone(), &[], Slot(0), OwnerNumber(0));
    let mut highest = 0;
    for number in 0..OBJECTS {
        highest = owner_of(number).max(highest);
        let author = Author {
            epoch: Epoch(1),
            owner: OwnerNumber(owner_of(number)),
            writer: WriterId([1; 16]),
        };
        let body = RunBody::new(&["record"; SLOTS_EACH]).expect("valid");
        let run = Run::records(Slot(number * SLOTS), identity(number), body);
        let object = Object::build(chain.id(), author, &[run]).expect("valid");
        assert_eq!(chain.put(&object).await.expect("put"), Put::Committed);
        snapshots.push(&object.index.header, OwnerNumber(highest));
    }
    while chain
        .snapshot_at(Slot(OBJECTS * SLOTS))
        .await
        .is_none_or(|last| (last.end.0 / SLOTS + SNAPSHOT_OBJECTS as u64) <= OBJECTS)
    {
        tokio::task::yield_now().await;
    }
    (chain, store, faults)
}

async fn requests(faults: &Faults, chain: &Chain) -> (Taken, u64) {
    let before = faults.counts().requests;
    let taken = take_over(chain, Epoch(2), ME).await.expect("taken");
    let after = faults.counts().requests;
    (taken, after.gets + after.lists - before.gets - before.lists)
}

#[tokio::test]
async fn a_long_chain_is_taken_over_with_few_requests() {
    let (chain, _, faults) = scene(|_| 1).await;
    let (taken, requests) = requests(&faults, &chain).await;
    // A listing and a snapshot; a listing and the objects from the last that it names on.
    let behind = OBJECTS % SNAPSHOT_OBJECTS as u64;
    assert!(requests <= behind + 4, "{requests}");
    assert_eq!(taken.frontier, Slot(OBJECTS * SLOTS));
    assert_eq!(taken.author.owner, OwnerNumber(2));
    assert_eq!(taken.named, Slot((OBJECTS - behind) * SLOTS));
    // What a repeated append finds is the same wherever its slots are.
    let history = History::new(chain, &taken.headers, taken.frontier, 100);
    for number in [
        0,
        1,
        700,
        OBJECTS - behind - 1,
        OBJECTS - behind,
        OBJECTS - 1,
    ] {
        let first = Slot(number * SLOTS + 1);
        for (asked, status) in [(number, AckStatus::Committed), (9999, AckStatus::Conflict)] {
            let found = history.look_up(first, first.plus(2), identity(asked)).await;
            assert!(
                found.iter().all(|range| range.status == status),
                "{found:?}"
            );
        }
    }
}

/// The fence of the highest owner is far back, and all behind it are late puts of a former one.
#[tokio::test]
async fn c6_the_next_owner_number_is_above_all_of_the_chain() {
    let (chain, _, faults) = scene(|number| if number == 10 { 7 } else { 4 }).await;
    let (taken, requests) = requests(&faults, &chain).await;
    assert_eq!(taken.author.owner, OwnerNumber(8));
    assert!(requests < 2 * SNAPSHOT_OBJECTS as u64, "{requests}");
}

/// A snapshot is a hint: without one that holds, the chain is walked, and the same is found.
#[tokio::test]
async fn c6_a_snapshot_that_does_not_hold_changes_nothing() {
    for kind in 0..4 {
        let (chain, store, faults) = scene(|number| if number == 10 { 7 } else { 4 }).await;
        let mut last = chain.snapshot_at(last_slot(&chain)).await.expect("there");
        let name = last.name();
        let bytes = store.get(&name).await.expect("read").expect("there");
        let mut bytes = bytes.to_vec();
        last.owner = OwnerNumber(1);
        match kind {
            // Rotten, cut off, of objects that are not there, and of ones that end elsewhere.
            0 => bytes[60] ^= 1,
            1 => bytes.truncate(80),
            2 => {
                let end = last.end;
                last.starts.push(end.plus(1));
                last.end = end.plus(2);
                bytes = last.encode().expect("valid");
            }
            _ => {
                last.end = last.end.plus(1);
                bytes = last.encode().expect("valid");
            }
        }
        store.delete(&name).await.expect("deleted");
        store
            .create(&name, &[Bytes::from(bytes)])
            .await
            .expect("written");
        let (taken, requests) = requests(&faults, &chain).await;
        assert_eq!(taken.frontier, Slot(OBJECTS * SLOTS), "{kind}");
        assert_eq!(taken.author.owner, OwnerNumber(8), "{kind}");
        assert_eq!(taken.headers.len() as u64, OBJECTS, "{kind}");
        assert!(requests > OBJECTS, "{kind}");
    }
}
