//! What changes while it is looked at.

mod support;

use std::sync::Arc;
use std::time::Duration;

use catalog::Store;
use catalog::faults::{Fault, Faults, FaultyStore, Operation};
use object_store::memory::InMemory;
use stripelog::{Error, Position, Verify};
use support::scans::text;
use support::*;
use wire::object::{Author, Object};
use wire::snapshot::Snapshot;
use wire::{Epoch, OwnerNumber, Run, Slot, StripeId, WriterId};

async fn scene() -> (Fixture, Faults) {
    let faulty = FaultyStore::new(Arc::new(InMemory::new()), 1);
    let faults = faulty.faults();
    let fixture = Fixture::in_store(Store::new(Arc::new(faulty), ""), 1, 4).await;
    (fixture, faults)
}

fn object(chain: &catalog::Chain, start: u64) -> Object {
    let author = Author {
        epoch: Epoch(1),
        owner: OwnerNumber(1),
        writer: WriterId([1; 16]),
    };
    Object::build(chain.id(), author, &[Run::junk(Slot(start), 4)]).expect("valid")
}

/// An owner writes a snapshot while verify walks.
#[tokio::test]
async fn verify_of_a_log_that_is_written() {
    let (fixture, faults) = scene().await;
    let log = fixture.open().await;
    log.append(records(0..4)).await.expect("appends");
    let entry = fixture.catalog.last().await.expect("last");
    let chain = fixture.catalog.chain(&entry.segments[0], StripeId(0));
    faults.next_named(
        Operation::Get,
        "stripes",
        [Fault::Delay(Duration::from_millis(500))],
    );
    let of = log.clone();
    let verifying = tokio::spawn(async move { of.verify(Verify::Headers, |_| ()).await });
    tokio::time::sleep(Duration::from_millis(200)).await;
    for start in [4, 8] {
        chain.put(&object(&chain, start)).await.expect("put");
    }
    let snapshot = Snapshot {
        chain: chain.id(),
        starts: vec![Slot(0), Slot(4), Slot(8)],
        end: Slot(12),
        owner: OwnerNumber(1),
    };
    chain.put_snapshot(&snapshot).await.expect("put");
    let report = verifying.await.expect("ends").expect("verifies");
    assert!(report.is_clean(), "{:?}", report.missing);
}

/// Later puts overtake earlier ones, as an owner's four do; nothing is missing.
#[tokio::test]
async fn verify_of_a_log_whose_puts_overtake() {
    let (fixture, _) = scene().await;
    let log = fixture.open().await;
    log.append(records(0..4)).await.expect("appends");
    let entry = fixture.catalog.last().await.expect("last");
    let chain = fixture.catalog.chain(&entry.segments[0], StripeId(0));
    let putting = tokio::spawn(async move {
        for pair in 0..300 {
            chain
                .put(&object(&chain, 4 + pair * 8 + 4))
                .await
                .expect("put");
            tokio::time::sleep(Duration::from_millis(20)).await;
            chain.put(&object(&chain, 4 + pair * 8)).await.expect("put");
        }
    });
    tokio::time::sleep(Duration::from_millis(10)).await;
    let report = log.verify(Verify::Headers, |_| ()).await.expect("verifies");
    putting.abort();
    assert!(report.is_clean(), "{:?}", report.missing);
}

/// A scan that was opened before its segment ended.
#[tokio::test]
async fn a_read_goes_on_into_a_segment_that_is_new() {
    let fixture = Fixture::new(2, 2).await;
    let log = fixture.open().await;
    log.append(records(0..8)).await.expect("appends");
    let mut scan = log.read(Position(0)..Position(16));
    for i in 0..8 {
        let item = scan.next().await.expect("reads").expect("there");
        assert_eq!((item.position.0, text(&item)), (i, format!("record {i}")));
    }
    let error = scan.next().await.expect_err("not yet");
    assert!(matches!(error, Error::NotYetDurable { .. }), "{error}");
    fixture.begin_reign(Position(8), Position(8)).await;
    {
        let mut state = fixture.sequencer.state.lock().expect("not poisoned");
        state.epoch = Epoch(9);
        state.next = 8;
    }
    let acked = append(&log, records(8..16)).await;
    assert_eq!(acked.len(), 8);
    for i in 8..16 {
        let item = scan.next().await.expect("reads").expect("there");
        assert_eq!((item.position.0, text(&item)), (i, format!("record {i}")));
    }
}

/// Whoever asks in a `select!` with a timer below LIVE_QUIET.
#[tokio::test]
async fn a_follower_that_is_asked_often_is_not_parked() {
    let fixture = Fixture::new(1, 4).await;
    let log = fixture.open().await;
    log.append(records(0..4)).await.expect("appends");
    fixture.writer.set_live(Live::Silent);
    let mut scan = log.follow(Position(0));
    for _ in 0..4 {
        scan.next().await.expect("reads");
    }
    let waiting = tokio::time::timeout(Duration::from_millis(300), scan.next());
    assert!(waiting.await.is_err(), "nothing yet");
    log.append(records(4..8)).await.expect("appends");
    for _ in 0..10 {
        if let Ok(item) = tokio::time::timeout(Duration::from_millis(1500), scan.next()).await {
            let item = item.expect("reads").expect("there");
            assert_eq!(text(&item), "record 4");
            return;
        }
    }
    panic!("parked for 15 s");
}
