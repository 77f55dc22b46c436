//! What every store has to do, on memory, on a local directory, and on the S3 service that
//! `STRIPELOG_TEST_S3_URL` names. With `STRIPELOG_REQUIRE_S3=1` a missing service is a failure.

use bytes::Bytes;
use catalog::{CatalogError, Create, ErrorKind, Log, Put, Store};
use tempfile::TempDir;
use ulid::Ulid;
use wire::{Position, Slot, name};

use crate::common::{chain, layout, next, object};

/// A store of its own for each test.
struct Backend {
    store: Store,
    _directory: Option<TempDir>,
}

fn memory() -> Option<Backend> {
    let store = Store::open("memory:///").expect("opened");
    let _directory = None;
    Some(Backend { store, _directory })
}

fn file() -> Option<Backend> {
    let directory = tempfile::tempdir().expect("directory");
    let store = Store::open(&format!("file://{}", directory.path().display()));
    Some(Backend {
        store: store.expect("opened"),
        _directory: Some(directory),
    })
}

fn s3() -> Option<Backend> {
    let Ok(url) = std::env::var("STRIPELOG_TEST_S3_URL") else {
        let required = std::env::var("STRIPELOG_REQUIRE_S3").is_ok_and(|v| v == "1");
        assert!(!required, "STRIPELOG_TEST_S3_URL is not set");
        return None;
    };
    let url = format!("{}/{}", url.trim_end_matches('/'), Ulid::generate());
    let store = Store::open(&url).expect("opened");
    let _directory = None;
    Some(Backend { store, _directory })
}

macro_rules! conformance {
    ($($test:ident),* $(,)?) => {
        conformance!(@ memory: $($test),*);
        conformance!(@ file: $($test),*);
        conformance!(@ s3: $($test),*);
    };
    (@ $backend:ident: $($test:ident),*) => {
        mod $backend {
            $(#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
            async fn $test() {
                if let Some(backend) = super::$backend() {
                    super::$test(backend.store.clone()).await;
                }
            })*
        }
    };
}

conformance!(
    creates_win_once,
    reads_tell_nothing_from_failure,
    ranges,
    lists_in_order,
    deletes_are_idempotent,
    c10_honest_store_passes,
    log_lives,
    control_is_collected,
    chain_lives,
    c5_taken_and_mine,
    large_index,
);

fn text(text: &'static str) -> [Bytes; 1] {
    [Bytes::from_static(text.as_bytes())]
}

async fn creates_win_once(store: Store) {
    let chunks = [&text("ab")[..], &text(""), &text("cd")].concat();
    assert_eq!(
        store.create("a/b", &chunks).await.expect("ok"),
        Create::Done
    );
    let second = store.create("a/b", &text("x")).await.expect("ok");
    assert_eq!(second, Create::Exists);
    let found = store.get("a/b").await.expect("ok").expect("there");
    assert_eq!(found, "abcd");
    assert_eq!(store.create("a/0", &[]).await.expect("ok"), Create::Done);
    let found = store.get("a/0").await.expect("ok").expect("there");
    assert!(found.is_empty());
}

async fn reads_tell_nothing_from_failure(store: Store) {
    assert_eq!(store.get("none").await.expect("ok"), None);
    assert_eq!(store.get("no/such").await.expect("ok"), None);
    assert_eq!(store.get_range("none", 0..4).await.expect("ok"), None);
    assert_eq!(store.get_range("none", 4..4).await.expect("ok"), None);
}

async fn ranges(store: Store) {
    store.create("r", &text("0123456789")).await.expect("ok");
    store.create("empty", &[]).await.expect("ok");
    for (name, range, expected) in [
        ("r", 0..10, "0123456789"),
        ("r", 3..5, "34"),
        ("r", 8..20, "89"),
        ("r", 10..11, ""),
        ("r", 500..600, ""),
        ("r", 0..0, ""),
        ("r", 4..4, ""),
        ("empty", 0..160, ""),
    ] {
        let found = store.get_range(name, range.clone()).await;
        let found = found.expect("ok").expect("there");
        assert_eq!(found, expected, "{name} {range:?}");
    }
}

async fn lists_in_order(store: Store) {
    for name in ["p/3", "p/1", "p/20", "p/2", "q/1", "p0/1", "p/s/1"] {
        store.create(name, &text("abc")).await.expect("ok");
    }
    let names = |found: Vec<catalog::Listed>| found.into_iter().map(|o| o.name).collect::<Vec<_>>();
    let all = store.list("p", None).await.expect("ok");
    assert!(all.iter().all(|object| object.size == 3));
    assert!(
        all.iter()
            .all(|object| object.modified_unix_ms > 1_600_000_000_000)
    );
    assert_eq!(names(all), ["p/1", "p/2", "p/20", "p/3", "p/s/1"]);
    let after = store.list("p", Some("p/2")).await.expect("ok");
    assert_eq!(names(after), ["p/20", "p/3", "p/s/1"]);
    // A name that is not there is as good an offset as one that is.
    let after = store.list("p", Some("p/25")).await.expect("ok");
    assert_eq!(names(after), ["p/3", "p/s/1"]);
    assert!(store.list("p", Some("p/z")).await.expect("ok").is_empty());
    assert!(store.list("none", None).await.expect("ok").is_empty());
}

async fn deletes_are_idempotent(store: Store) {
    store.create("d/1", &text("x")).await.expect("ok");
    store.delete("d/1").await.expect("ok");
    store.delete("d/1").await.expect("ok");
    store.delete("never/there").await.expect("ok");
    assert_eq!(store.get("d/1").await.expect("ok"), None);
    assert_eq!(
        store.create("d/1", &text("y")).await.expect("ok"),
        Create::Done
    );
}

async fn c10_honest_store_passes(store: Store) {
    store.create("mine", &text("x")).await.expect("ok");
    let report = store.check().await.expect("honest");
    assert!(report.racers >= 16 && report.races >= 1);
    assert!(store.list("check", None).await.expect("ok").is_empty());
    assert!(store.get("mine").await.expect("ok").is_some());
}

async fn log_lives(store: Store) {
    let none = Log::open(store.clone()).await.expect_err("no log yet");
    assert!(matches!(none, CatalogError::NoLog { .. }), "{none}");
    assert_eq!(none.kind(), ErrorKind::Invalid);
    let log = Log::create(store.clone(), layout()).await.expect("created");
    let again = Log::create(store.clone(), layout()).await.expect_err("one");
    assert_eq!(again.kind(), ErrorKind::Invalid);
    assert!(
        again.to_string().contains("there is a log already"),
        "{again}"
    );
    let opened = Log::open(store.clone()).await.expect("opened");
    assert_eq!(opened.id(), log.id());
    let first = opened.last().await.expect("last");
    assert_eq!((first.number, first.reservation), (0, Position(0)));
    assert_eq!(first.last_segment().expect("one").layout, layout());
    assert!(log.is_last(0).await.expect("ok"));
    let second = next(&first, 1);
    log.append(&second).await.expect("appended");
    log.append(&second).await.expect("the same again is mine");
    let other = log.append(&next(&first, 2)).await.expect_err("fenced");
    assert_eq!(other.kind(), ErrorKind::Fenced);
    assert_eq!(opened.last().await.expect("last"), second);
    assert!(!log.is_last(0).await.expect("ok") && log.is_last(1).await.expect("ok"));
}

async fn control_is_collected(store: Store) {
    const LAST: u64 = 70;
    let log = Log::create(store.clone(), layout()).await.expect("created");
    let mut entry = log.last().await.expect("last");
    while entry.number < LAST {
        entry = next(&entry, 1);
        let bytes = [entry.encode().expect("valid")];
        let name = name::control(log.id(), entry.number);
        store.create(&name, &bytes).await.expect("ok");
    }
    let prefix = name::control_prefix(log.id());
    let newest = store.list(&prefix, None).await.expect("ok");
    let written = newest.last().expect("some").modified_unix_ms;
    let collect = |last, hours: u64| log.collect_control(last, written + hours * 3_700_000);
    assert_eq!(collect(LAST, 0).await.expect("ok"), 0, "all are young");
    assert_eq!(collect(63, 2).await.expect("ok"), 0, "all are kept");
    assert_eq!(collect(LAST, 2).await.expect("ok"), 7);
    assert_eq!(collect(LAST, 2).await.expect("ok"), 0);
    // [S-4] A caller that is wrong about the end does not empty the chain.
    assert_eq!(collect(u64::MAX, 2).await.expect("ok"), 0);
    assert_eq!(log.last().await.expect("last"), entry);
    let kept = store.list(&prefix, None).await.expect("ok");
    assert_eq!(kept.len() as u64, LAST + 1 - 7);
    assert_eq!(kept[0].name, name::control(log.id(), 7));
}

async fn chain_lives(store: Store) {
    let log = Log::create(store, layout()).await.expect("created");
    let chain = chain(&log).await;
    let empty = chain.walk(chain.first_slot()).await.expect("walk");
    assert_eq!((empty.end, empty.headers.len()), (Slot(0), 0));
    assert!(chain.index_at(Slot(0)).await.expect("ok").is_none());
    assert!(chain.read_object(Slot(0)).await.expect("ok").is_none());
    let objects = [
        object(&chain, 1, 0, &["a", "bc", ""]),
        object(&chain, 1, 4, &["d"]),
        object(&chain, 1, 6, &["e", "f"]),
    ];
    for object in &objects {
        let put = chain.put(object).await.expect("put");
        assert_eq!(put, Put::Committed);
    }
    let walk = chain.walk(Slot(0)).await.expect("walk");
    assert_eq!(walk.end, Slot(9));
    assert_eq!(walk.headers.len(), 3);
    let rest = chain.walk(Slot(4)).await.expect("walk");
    assert_eq!((rest.end, rest.headers.len()), (Slot(9), 2));
    for object in &objects {
        let start = object.index.header.start;
        let index = chain.index_at(start).await.expect("ok").expect("there");
        assert_eq!(index, object.index);
        let (whole, runs) = chain.read_object(start).await.expect("ok").expect("there");
        assert_eq!(whole, index);
        for (entry, run) in index.runs.iter().zip(&runs) {
            assert_eq!(&chain.read_run(&index, entry).await.expect("ok"), run);
        }
    }
    let (_, runs) = chain
        .read_object(Slot(0))
        .await
        .expect("ok")
        .expect("there");
    let (_, body) = runs[0].content.as_ref().expect("records");
    assert_eq!(body.records().collect::<Vec<_>>(), ["a", "bc", ""]);
    assert!(runs[1].is_junk());
}

async fn c5_taken_and_mine(store: Store) {
    let log = Log::create(store, layout()).await.expect("created");
    let chain = chain(&log).await;
    let (mine, other) = (
        object(&chain, 1, 0, &["a"]),
        object(&chain, 2, 0, &["b", "c"]),
    );
    assert_eq!(chain.put(&other).await.expect("put"), Put::Committed);
    let taken = Put::Taken(Box::new(other.index.clone()));
    assert_eq!(chain.put(&mine).await.expect("put"), taken);
    assert_eq!(chain.put(&other).await.expect("put"), Put::Committed);
}

/// An index that the first read does not hold.
async fn large_index(store: Store) {
    let log = Log::create(store, layout()).await.expect("created");
    let chain = chain(&log).await;
    let author = object(&chain, 1, 0, &["a"]).index.header.author;
    let runs: Vec<_> = (0..3000)
        .map(|slot| wire::Run::junk(Slot(slot), 1))
        .collect();
    let large = wire::object::Object::build(chain.id(), author, &runs).expect("valid");
    assert_eq!(chain.put(&large).await.expect("put"), Put::Committed);
    let index = chain.index_at(Slot(0)).await.expect("ok").expect("there");
    assert_eq!(index, large.index);
}

#[test]
fn urls_that_cannot_work_are_refused() {
    for url in [
        "",
        "nonsense",
        "ftp://host/x",
        "file:///no/such/directory",
        "file://host/x",
        "s3:///x",
    ] {
        let refused = Store::open(url).expect_err(url);
        assert_eq!(refused.kind(), ErrorKind::Invalid, "{refused}");
        assert!(
            refused.to_string().contains(&format!("url={url}")),
            "{refused}"
        );
    }
}
