//! How much of the store a scan reads, and when.

mod support;

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use catalog::Store;
use catalog::faults::{Faults, FaultyStore};
use object_store::memory::InMemory;
use stripelog::{Content, Log, Position};
use support::*;

const RECORDS: u64 = 80;

fn large(number: u64) -> Bytes {
    let byte = u8::try_from(number % 251).expect("small");
    vec![byte; 300 << 10].into()
}

/// A log whose every record is an object of its own, and what counts the requests to its store.
async fn scene(stripes: u32) -> (Fixture, Log, Faults) {
    let faulty = FaultyStore::new(Arc::new(InMemory::new()), 1);
    let faults = faulty.faults();
    let fixture = Fixture::in_store(Store::new(Arc::new(faulty), ""), stripes, 1).await;
    let log = fixture
        .open_with(fixture.options().read_ahead_bytes(1 << 20))
        .await;
    for number in 0..RECORDS {
        log.append_one(large(number)).await.expect("appends");
    }
    (fixture, log, faults)
}

#[tokio::test]
async fn a_slow_consumer_makes_a_scan_hold_no_more_than_its_bound() {
    for stripes in [1, 4, 16] {
        let (_fixture, log, faults) = scene(stripes).await;
        let mut scan = log.read(Position(0)..Position(RECORDS));
        let before = faults.counts().requests.gets;
        for number in 0..RECORDS {
            let item = scan.next().await.expect("reads").expect("there");
            assert_eq!(item.content, Content::Record(large(number)));
            if number % 16 == 0 {
                tokio::time::sleep(Duration::from_millis(50)).await;
            }
            // An object that is larger than a stripe's share of the bound takes two reads, others one. What was
            // handed out, three records of 300 KiB ahead, an object that is looked at of each stripe, a second
            // read of the first object of each, whose size was not known, and the control chain.
            let each = if stripes == 1 { 1 } else { 2 };
            let most = each * (number + 1 + 3) + 2 * u64::from(stripes) + 2;
            let gets = faults.counts().requests.gets - before;
            assert!(gets <= most, "{stripes}: {number}: {gets} of {most}");
        }
    }
}

#[tokio::test]
async fn small_objects_take_a_request_each() {
    let faulty = FaultyStore::new(Arc::new(InMemory::new()), 1);
    let faults = faulty.faults();
    let fixture = Fixture::in_store(Store::new(Arc::new(faulty), ""), 2, 4).await;
    let log = fixture.open().await;
    for part in 0..20 {
        let of = records(part * 4..part * 4 + 4);
        log.append(of).await.expect("appends");
    }
    let before = faults.counts().requests;
    let (got, error) = scans::texts(log.read(Position(0)..Position(80))).await;
    assert!(error.is_none() && got.len() == 80);
    let after = faults.counts().requests;
    // With the control chain, which is listed and read once.
    assert!(after.gets - before.gets <= 21, "{before:?} {after:?}");
    assert!(after.lists - before.lists <= 1, "{before:?} {after:?}");
}

#[tokio::test]
async fn a_short_read_asks_for_nothing_else() {
    let (_fixture, log, faults) = scene(16).await;
    let before = faults.counts().requests.gets;
    let mut scan = log.read(Position(0)..Position(2));
    while scan.next().await.expect("reads").is_some() {}
    let gets = faults.counts().requests.gets - before;
    // The control chain, and index and body of two objects.
    assert!(gets <= 5, "{gets}");
}
