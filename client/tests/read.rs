//! Scans over what fake servers have written.

mod support;

use std::time::Duration;

use stripelog::{Content, Error, Item, Log, Position, Scan, Tail, Verify};
use support::*;
use wire::{Slot, StripeId};

async fn texts(mut scan: Scan) -> (Vec<(u64, String)>, Option<Error>) {
    let mut got = Vec::new();
    loop {
        match scan.next().await {
            Ok(None) => return (got, None),
            Ok(Some(item)) => got.push((item.position.0, text(&item))),
            Err(error) => return (got, Some(error)),
        }
    }
}

fn text(item: &Item) -> String {
    match &item.content {
        Content::Record(record) => String::from_utf8(record.to_vec()).expect("text"),
        Content::Junk { count } => format!("junk {count}"),
    }
}

fn expected(range: std::ops::Range<u64>) -> Vec<(u64, String)> {
    range.map(|i| (i, format!("record {i}"))).collect()
}

fn all(log: &Log) -> Scan {
    log.read(Position(0)..Position(u64::MAX))
}

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

#[tokio::test]
async fn r2_follow_waits_and_goes_on() {
    let fixture = Fixture::new(4, 2).await;
    let log = fixture.open().await;
    log.append(records(0..5)).await.expect("appends");
    let mut scan = log.follow(Position(3));
    for i in 3..5 {
        assert_eq!(
            text(&scan.next().await.expect("reads").expect("there")),
            format!("record {i}")
        );
    }
    let waiting = tokio::time::timeout(Duration::from_millis(100), scan.next());
    assert!(waiting.await.is_err(), "nothing is there yet");
    let appender = log.clone();
    tokio::spawn(async move {
        for i in 5..40 {
            appender
                .append_one(record(format!("record {i}")))
                .await
                .expect("appends");
        }
    });
    for i in 5..40 {
        let item = scan.next().await.expect("reads").expect("there");
        assert_eq!((item.position.0, text(&item)), (i, format!("record {i}")));
    }
}

/// Moves the trim point, as the control chain tells it.
async fn trim(fixture: &Fixture, to: u64) {
    let mut entry = fixture.catalog.last().await.expect("readable");
    entry.number += 1;
    entry.trim = Position(to);
    entry.reservation = entry.reservation.max(Position(to));
    fixture.catalog.append(&entry).await.expect("appended");
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
async fn r3_a_log_that_is_trimmed_to_its_end_does_not_spin() {
    let fixture = Fixture::new(2, 1).await;
    let log = fixture.open().await;
    log.append(records(0..6)).await.expect("appends");
    trim(&fixture, 6).await;
    let mut scan = log.follow(Position(6));
    let waiting = tokio::time::timeout(Duration::from_millis(200), scan.next());
    assert!(waiting.await.is_err(), "nothing is there yet");
    log.append(vec![record("record 6")]).await.expect("appends");
    let item = scan.next().await.expect("reads").expect("there");
    assert_eq!((item.position.0, text(&item)), (6, "record 6".to_owned()));
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
async fn verify_notices_a_chain_that_lost_its_end() {
    let fixture = Fixture::new(2, 2).await;
    let log = fixture.open().await;
    for part in 0..4 {
        let two = records(part * 2..(part + 1) * 2);
        log.append(two).await.expect("appends");
    }
    let report = log.verify(Verify::All, |_| ()).await.expect("verifies");
    assert!(report.is_clean(), "{report:?}");
    assert_eq!(report.durable, Some(Position(8)));

    let last = fixture.catalog.last().await.expect("readable");
    let segment = last.segments.first().expect("one");
    let chain = fixture.catalog.chain(segment, StripeId(1));
    let name = chain.id().object_name(Slot(2));
    let store = fixture.catalog.store();
    store.delete(&name).await.expect("deletes");
    for how in [Verify::All, Verify::Headers] {
        let report = log.verify(how, |_| ()).await.expect("verifies");
        let missing: Vec<_> = report.missing.iter().map(|f| (f.from, f.to)).collect();
        assert_eq!(missing, [(Position(6), Some(Position(10)))], "{report:?}");
    }

    // Without a sequencer nobody knows how long the chain was.
    fixture.sequencer.state.lock().expect("not poisoned").silent = true;
    let report = log.verify(Verify::All, |_| ()).await.expect("verifies");
    assert_eq!((report.durable, report.is_clean()), (None, true));
}
