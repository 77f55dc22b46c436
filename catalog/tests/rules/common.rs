//! What the tests share: scenes and the smallest log, entries and objects.

use std::sync::Arc;

use catalog::faults::{Faults, FaultyStore};
use catalog::{Chain, Log, Store};
use object_store::memory::InMemory;
use wire::control::ControlEntry;
use wire::object::{Author, Object};
use wire::{
    ClientId, Epoch, Identity, Layout, OwnerNumber, RequestId, Run, RunBody, Slot, StripeId,
    WriterId,
};

/// A store in memory that does what `faults` says, and the view beneath, which never fails.
pub(crate) struct Scene {
    pub(crate) store: Store,
    pub(crate) faults: Faults,
    pub(crate) truth: Store,
}

pub(crate) fn scene(seed: u64) -> Scene {
    let faulty = FaultyStore::new(Arc::new(InMemory::new()), seed);
    Scene {
        faults: faulty.faults(),
        truth: Store::new(faulty.inner(), ""),
        store: Store::new(Arc::new(faulty), ""),
    }
}

pub(crate) fn layout() -> Layout {
    Layout::new(4, 2).expect("valid")
}

/// Creates a log in the scene by the view that never fails, and opens it by the other.
pub(crate) async fn logs(scene: &Scene) -> (Log, Log) {
    let truth = Log::create(scene.truth.clone(), layout()).await;
    let log = Log::open(scene.store.clone()).await.expect("opened");
    (log, truth.expect("created"))
}

/// The chain of stripe 1, in both views.
pub(crate) async fn chains(scene: &Scene) -> (Chain, Chain) {
    let (log, truth) = logs(scene).await;
    (chain(&log).await, chain(&truth).await)
}

pub(crate) async fn chain(log: &Log) -> Chain {
    let entry = log.last().await.expect("last");
    log.chain(entry.last_segment().expect("segment"), StripeId(1))
}

/// The entry behind `last` as the process `owner` would write it.
pub(crate) fn next(last: &ControlEntry, owner: u8) -> ControlEntry {
    ControlEntry {
        number: last.number + 1,
        epoch: Epoch(last.epoch.0 + 1),
        owner: WriterId([owner; 16]),
        epoch_start: last.reservation,
        reservation: last.reservation.plus(100),
        clean: false,
        ..last.clone()
    }
}

/// An object of the process `writer`: the records, and one slot of junk behind them.
pub(crate) fn object(chain: &Chain, writer: u8, start: u64, records: &[&str]) -> Object {
    let author = Author {
        epoch: Epoch(1),
        owner: OwnerNumber(u64::from(writer)),
        writer: WriterId([writer; 16]),
    };
    let identity = Identity {
        client: ClientId(u64::from(writer)),
        request: RequestId(start),
    };
    let body = RunBody::new(records).expect("valid");
    let first = Run::records(Slot(start), identity, body);
    let junk = Run::junk(first.end(), 1);
    Object::build(chain.id(), author, &[first, junk]).expect("valid")
}

/// All bytes of an object.
pub(crate) fn bytes_of(object: &Object) -> Vec<u8> {
    object.chunks.concat()
}

pub(crate) async fn write(store: &Store, name: &str, bytes: &[u8]) {
    let bytes = bytes::Bytes::copy_from_slice(bytes);
    store.delete(name).await.expect("deleted");
    store.create(name, &[bytes]).await.expect("created");
}
