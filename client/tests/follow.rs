//! Scans that wait for what is not there yet.

mod support;

use std::time::Duration;

use stripelog::{Log, Position};
use support::scans::{text, trim};
use support::*;

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

/// Follows from `from` while records are appended, and gets all in order.
async fn follow_through(fixture: &Fixture, log: &Log, from: u64, to: u64) {
    let mut scan = log.follow(Position(from));
    let appender = log.clone();
    let first = fixture.sequencer.state.lock().expect("not poisoned").next;
    let appending = tokio::spawn(async move {
        for i in first..to {
            appender
                .append_one(record(format!("record {i}")))
                .await
                .expect("appends");
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
    });
    for i in from..to {
        let next = tokio::time::timeout(Duration::from_secs(10), scan.next());
        let item = next
            .await
            .expect("never parked")
            .expect("reads")
            .expect("there");
        assert_eq!((item.position.0, text(&item)), (i, format!("record {i}")));
    }
    appending.await.expect("no panic");
}

#[tokio::test]
async fn r2_lessons_16_a_follower_does_not_depend_on_the_owner() {
    use wire::frame::EndReason;
    let lives = [
        Live::Serve,
        Live::Silent,
        Live::Close,
        Live::End(EndReason::Lagged),
        Live::End(EndReason::NotOwner),
        Live::End(EndReason::Done),
    ];
    for live in lives {
        let fixture = Fixture::new(2, 2).await;
        let log = fixture.open().await;
        fixture.writer.set_live(live);
        let to = if live == Live::Silent { 4 } else { 12 };
        follow_through(&fixture, &log, 0, to).await;
        // From the middle of the log, where no object is known.
        follow_through(&fixture, &log, to / 2, to + 2).await;
    }
}

#[tokio::test]
async fn r2_a_follower_outlives_its_owner() {
    let fixture = Fixture::new(2, 2).await;
    let log = fixture.open().await;
    log.append(records(0..5)).await.expect("appends");
    let mut scan = log.follow(Position(0));
    for i in 0..5 {
        assert_eq!(
            text(&scan.next().await.expect("reads").expect("there")),
            format!("record {i}")
        );
    }
    let waiting = tokio::time::timeout(Duration::from_millis(50), scan.next()).await;
    assert!(waiting.is_err());
    fixture.writer.stop().await;
    let waiting = tokio::time::timeout(Duration::from_millis(50), scan.next()).await;
    assert!(waiting.is_err());
    fixture.writer.listen().await;
    log.append(records(5..8)).await.expect("appends");
    for i in 5..8 {
        assert_eq!(
            text(&scan.next().await.expect("reads").expect("there")),
            format!("record {i}")
        );
    }
}

#[tokio::test]
async fn r2_lessons_22_a_slow_follower_misses_nothing() {
    let fixture = Fixture::new(2, 2).await;
    let log = fixture.open().await;
    let mut scan = log.follow(Position(0));
    let early = tokio::time::timeout(Duration::from_millis(50), scan.next());
    assert!(early.await.is_err());
    let append = async |range: std::ops::Range<u64>| {
        for i in range {
            let record = record(format!("record {i}"));
            log.append_one(record).await.expect("appends");
        }
    };
    // Far more runs than a live subscription holds, and then some when it has room again.
    append(0..1500).await;
    for i in 0..1600 {
        if i == 200 {
            append(1500..1600).await;
        }
        let next = tokio::time::timeout(Duration::from_secs(10), scan.next());
        let item = next
            .await
            .expect("not parked")
            .expect("reads")
            .expect("there");
        assert_eq!((item.position.0, text(&item)), (i, format!("record {i}")));
    }
}
