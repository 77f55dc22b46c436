//! Reads with a cache on disk: they take less of the store, and never another byte.

mod support;

use std::path::Path;
use std::sync::Arc;

use bytes::Bytes;
use catalog::Store;
use catalog::faults::{Faults, FaultyStore};
use object_store::memory::InMemory;
use stripelog::{Content, ErrorKind, Log, Position};
use support::*;

/// Records of a log, each of them large: several entries of the cache.
const RECORDS: u64 = 24;

/// What a disk is too slow for is not cached: it is read again, so many times at most.
const ATTEMPTS: usize = 5;

fn large(number: u64) -> Bytes {
    let byte = u8::try_from(number % 251).expect("small");
    vec![byte; 300 << 10].into()
}

/// A log with records in it, and what counts the requests to its store.
async fn scene(records: u64) -> (Fixture, Faults) {
    let faulty = FaultyStore::new(Arc::new(InMemory::new()), 1);
    let faults = faulty.faults();
    let fixture = Fixture::in_store(Store::new(Arc::new(faulty), ""), 2, 4).await;
    let log = fixture.open().await;
    for number in 0..records {
        log.append_one(large(number)).await.expect("appends");
    }
    (fixture, faults)
}

async fn open(fixture: &Fixture, directory: &Path) -> Log {
    let options = fixture.options().cache(directory, 64 << 20);
    fixture.open_with(options).await
}

/// Reads all records and returns how many gets it took.
async fn read(log: &Log, faults: &Faults, records: u64) -> u64 {
    let before = faults.counts().requests.gets;
    let mut scan = log.read(Position(0)..Position(records));
    for number in 0..records {
        let item = scan.next().await.expect("reads").expect("there");
        assert_eq!(item.position, Position(number));
        assert_eq!(item.content, Content::Record(large(number)), "{number}");
    }
    faults.counts().requests.gets - before
}

#[tokio::test(flavor = "multi_thread")]
async fn a_warm_cache_takes_next_to_nothing_of_the_store() {
    let (fixture, faults) = scene(RECORDS).await;
    let directory = tempfile::tempdir().expect("directory");
    let log = open(&fixture, directory.path()).await;
    let cold = read(&log, &faults, RECORDS).await;
    let warm = read(&log, &faults, RECORDS).await;
    assert!(cold >= RECORDS && warm <= 4, "cold={cold} warm={warm}");
    // Another process, later.
    log.close_cache().await;
    drop(log);
    let mut again = cold;
    for _ in 0..ATTEMPTS {
        let log = open(&fixture, directory.path()).await;
        again = read(&log, &faults, RECORDS).await;
        log.close_cache().await;
        if again <= RECORDS / 2 {
            break;
        }
    }
    assert!(again <= RECORDS / 2, "cold={cold} again={again}");
}

#[tokio::test(flavor = "multi_thread")]
async fn r4_a_disk_that_changes_the_cache_changes_nothing_that_is_read() {
    let (fixture, faults) = scene(RECORDS).await;
    for (stride, offset) in [(4096, 77), (1 << 20, 5000), (1, 0)] {
        let directory = tempfile::tempdir().expect("directory");
        let log = open(&fixture, directory.path()).await;
        read(&log, &faults, RECORDS).await;
        log.close_cache().await;
        drop(log);
        let entries = std::fs::read_dir(directory.path().join("entries")).expect("there");
        for entry in entries {
            let path = entry.expect("listed").path();
            let mut bytes = std::fs::read(&path).expect("read");
            for at in (offset..bytes.len()).step_by(stride) {
                bytes[at] ^= 0x10;
            }
            std::fs::write(&path, bytes).expect("written");
        }
        let log = open(&fixture, directory.path()).await;
        read(&log, &faults, RECORDS).await;
        read(&log, &faults, RECORDS).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_cache_is_of_one_process_at_a_time() {
    let (fixture, _) = scene(1).await;
    let directory = tempfile::tempdir().expect("directory");
    let _log = open(&fixture, directory.path()).await;
    let options = fixture.options().cache(directory.path(), 64 << 20);
    let second = Log::open_in(fixture.catalog.clone(), options).await;
    let error = second.expect_err("taken");
    assert_eq!(error.kind(), ErrorKind::Invalid);
    assert!(error.to_string().contains("another process"), "{error}");
}
