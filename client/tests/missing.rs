//! What is lost is told from what is still to come.

mod support;

use std::time::Duration;

use stripelog::{Error, ErrorKind, Position, Verify};
use support::scans::{expected, texts};
use support::*;

/// Names of the objects of a log's stripes, in order.
async fn objects(fixture: &Fixture) -> Vec<String> {
    let prefix = format!("{}/stripes", fixture.catalog.id());
    let listed = fixture.catalog.store().list(&prefix, None).await;
    listed.expect("lists").into_iter().map(|o| o.name).collect()
}

/// A log of one stripe and six objects, of which the one in the middle is lost.
async fn without_the_middle() -> (Fixture, String) {
    let fixture = Fixture::new(1, 4).await;
    let log = fixture.open().await;
    for part in 0..6 {
        let of = records(part * 4..part * 4 + 4);
        log.append(of).await.expect("appends");
    }
    let name = objects(&fixture).await.remove(3);
    fixture
        .catalog
        .store()
        .delete(&name)
        .await
        .expect("deletes");
    (fixture, name)
}

#[tokio::test]
async fn r2_a_missing_object_within_a_chain_is_corrupt_and_not_late() {
    for (sequencer, owner) in [(true, true), (true, false), (false, true)] {
        let (fixture, name) = without_the_middle().await;
        fixture.sequencer.state.lock().expect("not poisoned").silent = !sequencer;
        fixture.writer.set_live(Live::Silent);
        if !owner {
            fixture.writer.stop().await;
        }
        let log = fixture.open().await;
        for scan in [
            log.read(Position(0)..Position(24)),
            log.read(Position(14)..Position(15)),
            log.follow(Position(0)),
        ] {
            let reading = tokio::time::timeout(Duration::from_secs(20), texts(scan));
            let (_, error) = reading.await.expect("an end");
            let error = error.expect("lost");
            assert_eq!(error.kind(), ErrorKind::Corrupt, "{error}");
            assert!(error.to_string().contains(&name), "{error}");
        }
    }
}

#[tokio::test]
async fn r2_without_a_word_of_the_servers_it_may_still_come() {
    let (fixture, _) = without_the_middle().await;
    fixture.sequencer.state.lock().expect("not poisoned").silent = true;
    fixture.writer.stop().await;
    let log = fixture.open().await;
    let (got, error) = texts(log.read(Position(0)..Position(24))).await;
    assert_eq!(got, expected(0..12));
    let position = Position(12);
    assert!(
        matches!(error, Some(Error::NotYetDurable { position: at }) if at == position),
        "{error:?}"
    );
}

#[tokio::test]
async fn the_stored_tail_needs_no_server() {
    let fixture = Fixture::new(4, 2).await;
    let log = fixture.open().await;
    assert_eq!(log.stored_tail().await.expect("reads"), Position(0));
    log.append(records(0..13)).await.expect("appends");
    fixture.sequencer.state.lock().expect("not poisoned").silent = true;
    fixture.writer.stop().await;
    assert_eq!(log.stored_tail().await.expect("reads"), Position(13));
}

#[tokio::test]
async fn verify_without_a_sequencer_takes_the_owners_at_their_word() {
    let fixture = Fixture::new(1, 4).await;
    let log = fixture.open().await;
    for part in 0..3 {
        let of = records(part * 4..part * 4 + 4);
        log.append(of).await.expect("appends");
    }
    fixture.sequencer.state.lock().expect("not poisoned").silent = true;
    let last = objects(&fixture).await.remove(2);
    let report = log.verify(Verify::All, |_| ()).await.expect("verifies");
    assert!(report.is_clean() && report.durable.is_none());
    fixture
        .catalog
        .store()
        .delete(&last)
        .await
        .expect("deletes");
    let report = log.verify(Verify::All, |_| ()).await.expect("verifies");
    assert_eq!(report.missing.len(), 1);
    let finding = &report.missing[0];
    assert_eq!(
        (finding.from, finding.to),
        (Position(8), Some(Position(12)))
    );
}
