//! Scans over what fake servers have written.

mod support;

use std::time::Duration;

use stripelog::{Content, Error, Position, Tail};
use support::scans::{all, expected, text, texts, trim, waste};
use support::*;

#[tokio::test]
async fn r1_a_read_sees_what_was_acknowledged() {
    for (stripes, unit) in [(1, 1), (4, 1), (4, 3), (32, 1024)] {
        let fixture = Fixture::new(stripes, unit).await;
        let log = fixture.open().await;
        for part in 0..10 {
            log.append(records(part * 7..(part + 1) * 7))
                .await
                .expect("appends");
        }
        let (got, error) = texts(log.read(Position(0)..Position(70))).await;
        assert!(error.is_none(), "{error:?}");
        assert_eq!(got, expected(0..70));
        let (got, _) = texts(log.read(Position(33)..Position(41))).await;
        assert_eq!(got, expected(33..41));
        assert_eq!(
            log.tail(Tail::Linearizable).await.expect("tail"),
            Position(70)
        );
    }
}

#[tokio::test]
async fn r2_a_read_stops_at_the_durable_tail_and_says_so() {
    let fixture = Fixture::new(4, 2).await;
    let log = fixture.open().await;
    log.append(records(0..5)).await.expect("appends");
    let (got, error) = texts(all(&log)).await;
    assert_eq!(got, expected(0..5));
    assert!(
        matches!(
            error,
            Some(Error::NotYetDurable {
                position: Position(5)
            })
        ),
        "{error:?}"
    );
}

/// The names of all objects of the log, in order.
async fn objects(fixture: &Fixture) -> Vec<String> {
    let prefix = format!("{}/stripes", fixture.catalog.id());
    let listed = fixture.catalog.store().list(&prefix, None).await;
    listed.expect("lists").into_iter().map(|o| o.name).collect()
}

/// Replaces the bytes of an object.
async fn rewrite(fixture: &Fixture, name: &str, change: impl FnOnce(&mut Vec<u8>)) {
    let store = fixture.catalog.store();
    let mut bytes = store
        .get(name)
        .await
        .expect("reads")
        .expect("there")
        .to_vec();
    change(&mut bytes);
    store.delete(name).await.expect("deletes");
    store.create(name, &[bytes.into()]).await.expect("creates");
}

#[tokio::test]
async fn r2_a_hole_is_waited_for_and_never_skipped() {
    let fixture = Fixture::new(2, 2).await;
    let log = fixture.open().await;
    log.append(records(0..3)).await.expect("appends");
    waste(&fixture, 2);
    // The stripe of 5 has a hole at 4; what is behind it is not durable either.
    let appender = log.clone();
    let blocked = tokio::spawn(async move { appender.append(records(5..9)).await });
    tokio::time::sleep(Duration::from_millis(50)).await;
    let (got, error) = texts(all(&log)).await;
    assert_eq!(got, expected(0..3));
    assert!(
        matches!(
            error,
            Some(Error::NotYetDurable {
                position: Position(3)
            })
        ),
        "{error:?}"
    );
    let mut following = log.follow(Position(2));
    assert_eq!(
        text(&following.next().await.expect("reads").expect("there")),
        "record 2"
    );
    let early = tokio::time::timeout(Duration::from_millis(100), following.next());
    assert!(early.await.is_err(), "a follower stops at the hole");

    fixture.writer.fill_to(Position(9)).await;
    blocked.await.expect("no panic").expect("appends");
    assert_eq!(
        text(&following.next().await.expect("reads").expect("there")),
        "record 5"
    );
    let (got, error) = texts(log.read(Position(0)..Position(9))).await;
    assert!(error.is_none(), "{error:?}");
    assert_eq!(got, [expected(0..3), expected(5..9)].concat());
    let (got, _) = texts(log.read(Position(2)..Position(6)).with_junk(true)).await;
    assert_eq!(got[0], (2, "record 2".to_owned()));
    assert_eq!(got.last(), Some(&(5, "record 5".to_owned())));
    let junk: Vec<u64> = got[1..got.len() - 1].iter().map(|g| g.0).collect();
    assert_eq!(junk.first(), Some(&3));
}

#[tokio::test]
async fn r2_long_junk_is_passed_in_one_step() {
    let fixture = Fixture::new(4, 2).await;
    let log = fixture.open().await;
    log.append(records(0..3)).await.expect("appends");
    let end = (1 << 40) + 3;
    waste(&fixture, end - 3);
    fixture.writer.fill_to(Position(end)).await;
    log.append(vec![record("behind")]).await.expect("appends");
    let reading = texts(log.read(Position(0)..Position(end + 1)));
    let (got, error) = tokio::time::timeout(Duration::from_secs(5), reading)
        .await
        .expect("fast");
    assert!(error.is_none(), "{error:?}");
    assert_eq!(
        got,
        [expected(0..3), vec![(end, "behind".to_owned())]].concat()
    );
    let mut scan = log.read(Position(0)..Position(end + 1)).with_junk(true);
    let mut next = 0;
    while let Some(item) = scan.next().await.expect("reads") {
        assert_eq!(item.position.0, next, "each position once");
        next += match item.content {
            Content::Record(_) => 1,
            Content::Junk { count } => count,
        };
    }
    assert_eq!(next, end + 1);
}

#[tokio::test]
async fn r3_below_the_trim_point_a_read_says_what_is_readable() {
    let fixture = Fixture::new(4, 2).await;
    let log = fixture.open().await;
    log.append(records(0..20)).await.expect("appends");
    trim(&fixture, 7).await;
    for open in [log, fixture.open().await] {
        for from in [0, 6] {
            let (got, error) = texts(open.read(Position(from)..Position(20))).await;
            assert_eq!(got, [], "not a part of it in silence");
            let first_readable = Position(7);
            assert!(
                matches!(error, Some(Error::Trimmed { first_readable: f }) if f == first_readable),
                "{error:?}"
            );
        }
        let (got, error) = texts(open.read(Position(7)..Position(20))).await;
        assert!(error.is_none(), "{error:?}");
        assert_eq!(got, expected(7..20));
        assert_eq!(open.trim_point().await.expect("readable"), Position(7));
    }
}

#[tokio::test]
async fn r3_a_follower_below_the_trim_point_is_told_too() {
    let fixture = Fixture::new(2, 2).await;
    let log = fixture.open().await;
    log.append(records(0..12)).await.expect("appends");
    trim(&fixture, 6).await;
    for scan in [log.read(Position(0)..Position(12)), log.follow(Position(5))] {
        let (got, error) = texts(scan).await;
        assert!(got.is_empty());
        let first_readable = Position(6);
        assert!(matches!(error, Some(Error::Trimmed { first_readable: f }) if f == first_readable));
    }
    let (got, error) = texts(log.read(Position(6)..Position(12))).await;
    assert!(error.is_none(), "{error:?}");
    assert_eq!(got, expected(6..12));
    assert_eq!(log.trim_point().await.expect("reads"), Position(6));
}

#[tokio::test]
async fn r3_lessons_8_25_a_trim_in_mid_scan_is_told() {
    let fixture = Fixture::new(1, 4).await;
    let log = fixture.open().await;
    for i in 0..6 {
        log.append(records(i * 4..i * 4 + 4))
            .await
            .expect("appends");
    }
    for follows in [false, true] {
        let mut scan = match follows {
            false => log.read(Position(0)..Position(24)),
            true => log.follow(Position(0)),
        };
        let item = scan.next().await;
        if !follows {
            assert_eq!(text(&item.expect("reads").expect("there")), "record 0");
            trim(&fixture, 20).await;
            for name in &objects(&fixture).await[..5] {
                fixture.catalog.store().delete(name).await.expect("deletes");
            }
        }
        let reading = texts(scan);
        let (got, error) = tokio::time::timeout(Duration::from_secs(5), reading)
            .await
            .expect("no spin");
        assert!(
            matches!(
                error,
                Some(Error::Trimmed {
                    first_readable: Position(20)
                })
            ),
            "{error:?}"
        );
        assert!(got.len() < 20, "what was read ahead may come, no more");
    }
    let (got, error) = texts(log.read(Position(20)..Position(24))).await;
    assert!(error.is_none(), "{error:?}");
    assert_eq!(got, expected(20..24));
}

#[tokio::test]
async fn r4_a_changed_byte_anywhere_is_a_corrupt_object_with_its_name() {
    let fixture = Fixture::new(1, 4).await;
    let log = fixture.open().await;
    log.append(records(0..4)).await.expect("appends");
    let name = objects(&fixture).await.remove(0);
    let len = fixture
        .catalog
        .store()
        .get(&name)
        .await
        .expect("reads")
        .expect("there")
        .len();
    // Header, index and payload; the footer is for those who read whole objects.
    for at in [0, 20, 100, 170, 200, 300, len - 17] {
        rewrite(&fixture, &name, |bytes| bytes[at] ^= 4).await;
        let (got, error) = texts(log.read(Position(0)..Position(4))).await;
        let error = error.expect("corrupt");
        assert_eq!(error.kind(), stripelog::ErrorKind::Corrupt, "{at}: {error}");
        assert!(
            error.to_string().contains(&name) && got.is_empty(),
            "{at}: {error}"
        );
        rewrite(&fixture, &name, |bytes| bytes[at] ^= 4).await;
    }
    rewrite(&fixture, &name, |bytes| bytes.truncate(len - 30)).await;
    let (_, error) = texts(log.read(Position(0)..Position(4))).await;
    assert!(error.expect("cut off").to_string().contains(&name));
}

#[tokio::test]
async fn r5_a_linearizable_tail_lies_behind_every_acknowledged_append() {
    let fixture = Fixture::new(4, 2).await;
    let (one, other) = (fixture.open().await, fixture.open().await);
    for i in 0..20 {
        let position = one.append_one(record(i)).await.expect("appends");
        for log in [&one, &other] {
            let tail = log.tail(Tail::Linearizable).await.expect("tail");
            assert!(tail > position, "{tail} {position}");
            let issued = log.tail(Tail::Issued).await.expect("tail");
            let durable = log.tail(Tail::Durable).await.expect("tail");
            assert!(issued > position && durable <= issued);
        }
    }
}

#[tokio::test]
async fn r5_linearizable_waits_for_what_is_issued() {
    let fixture = Fixture::new(2, 2).await;
    let log = fixture.open().await;
    log.append(records(0..2)).await.expect("appends");
    waste(&fixture, 3);
    assert_eq!(log.tail(Tail::Issued).await.expect("tail"), Position(5));
    assert_eq!(log.tail(Tail::Durable).await.expect("tail"), Position(2));
    let early = tokio::time::timeout(Duration::from_millis(100), log.tail(Tail::Linearizable));
    assert!(early.await.is_err(), "2 to 5 are issued and not durable");
    fixture.writer.fill_to(Position(5)).await;
    assert_eq!(
        log.tail(Tail::Linearizable).await.expect("tail"),
        Position(5)
    );
    fixture
        .sequencer
        .state
        .lock()
        .expect("not poisoned")
        .durable_known = false;
    assert_eq!(log.tail(Tail::Issued).await.expect("tail"), Position(5));
    let unknown = tokio::time::timeout(Duration::from_millis(100), log.tail(Tail::Durable));
    assert!(
        unknown.await.is_err(),
        "a durable tail that is not known is not made up"
    );
}

#[tokio::test]
async fn r5_a_silent_sequencer_is_an_error_in_time() {
    let fixture = Fixture::new(2, 2).await;
    let log = fixture
        .open_with(fixture.options().append_timeout(Duration::from_millis(150)))
        .await;
    fixture.sequencer.state.lock().expect("not poisoned").silent = true;
    for tail in [Tail::Issued, Tail::Durable, Tail::Linearizable] {
        let error = log.tail(tail).await.expect_err("nobody answers");
        assert_eq!(error.kind(), stripelog::ErrorKind::Retry);
    }
}

#[tokio::test]
async fn t3_a_read_finds_what_compaction_moved() {
    let fixture = Fixture::new(1, 4).await;
    let log = fixture.open().await;
    for i in 0..6 {
        log.append(records(i * 4..i * 4 + 4))
            .await
            .expect("appends");
    }
    let mut scan = log.read(Position(0)..Position(24));
    assert_eq!(
        text(&scan.next().await.expect("reads").expect("there")),
        "record 0"
    );
    let entry = fixture.catalog.last().await.expect("reads");
    let chain = fixture.catalog.chain(&entry.segments[0], wire::StripeId(0));
    let mut runs = Vec::new();
    for start in 0..6 {
        let object = chain
            .read_object(wire::Slot(start * 4))
            .await
            .expect("reads");
        runs.extend(object.expect("there").1);
    }
    let names = objects(&fixture).await;
    for name in &names {
        fixture.catalog.store().delete(name).await.expect("deletes");
    }
    let merged = wire::object::Object::build(chain.id(), writer::author(), &runs).expect("valid");
    chain.put(&merged).await.expect("puts");
    let (got, error) = texts(scan).await;
    assert!(error.is_none(), "{error:?}");
    assert_eq!(got, expected(1..24));
}

#[tokio::test]
async fn a_scan_that_was_interrupted_goes_on_where_it_was() {
    let fixture = Fixture::new(4, 2).await;
    let log = fixture.open().await;
    log.append(records(0..40)).await.expect("appends");
    let mut scan = log.read(Position(0)..Position(40));
    let mut got = Vec::new();
    while got.len() < 40 {
        // Dropped at every point where it waits.
        let next = tokio::time::timeout(Duration::ZERO, scan.next()).await;
        match next {
            Ok(item) => got.push(text(&item.expect("reads").expect("there"))),
            Err(_) => tokio::task::yield_now().await,
        }
    }
    let expected: Vec<_> = expected(0..40).into_iter().map(|e| e.1).collect();
    assert_eq!(got, expected);
}
