//! Verification: was anything lost?

mod support;

use stripelog::{Log, Verify, VerifyReport};
use support::*;
use wire::{Epoch, Position, SegmentId, Slot, StripeId};

async fn names(fixture: &Fixture) -> Vec<String> {
    let prefix = format!("{}/stripes", fixture.catalog.id());
    let listed = fixture.catalog.store().list(&prefix, None).await;
    listed.expect("lists").into_iter().map(|o| o.name).collect()
}

async fn verify(log: &Log, how: Verify) -> VerifyReport {
    log.verify(how, |_| {}).await.expect("the store works")
}

async fn filled(stripes: u32) -> (Fixture, Log) {
    let fixture = Fixture::new(stripes, 4).await;
    let log = fixture.open().await;
    for i in 0..10 {
        log.append(records(i * 4..i * 4 + 4))
            .await
            .expect("appends");
    }
    (fixture, log)
}

#[tokio::test]
async fn a_sound_log_is_clean_and_counted() {
    let (fixture, log) = filled(2).await;
    fixture.writer.fill_to(Position(46)).await;
    let mut calls = 0;
    let report = log
        .verify(Verify::All, |_| calls += 1)
        .await
        .expect("the store works");
    assert!(report.is_clean(), "{report:?}");
    assert_eq!(report.total(|s| s.records), 40);
    assert_eq!(report.total(|s| s.junk), 6);
    assert_eq!(report.total(|s| s.positions), 46);
    assert_eq!(report.total(|s| s.objects), calls);
    assert_eq!(report.stripes.len(), 2);
    let fast = verify(&log, Verify::Headers).await;
    assert!(fast.is_clean());
    assert_eq!(fast.total(|s| s.positions), 46);
    let status = log.status().await.expect("the store works");
    assert_eq!(status.stripes.len(), 2);
    assert!(status.problems.is_empty(), "{:?}", status.problems);
}

#[tokio::test]
async fn a_lost_object_in_the_middle_is_missing() {
    let (fixture, log) = filled(1).await;
    let name = names(&fixture).await.remove(3);
    fixture
        .catalog
        .store()
        .delete(&name)
        .await
        .expect("deletes");
    for how in [Verify::Headers, Verify::All] {
        let report = verify(&log, how).await;
        let [missing] = report.missing.as_slice() else {
            panic!("one gap: {report:?}");
        };
        assert_eq!(
            (missing.from, missing.to),
            (Position(12), Some(Position(16)))
        );
    }
}

/// While a new reign has it sealed, the last segment may end anywhere; once that reign grants it is whole.
#[tokio::test]
async fn h5_a_segment_that_has_ended_has_to_be_whole_when_the_next_one_is_granted_in() {
    let (fixture, log) = filled(2).await;
    let mut entry = fixture.catalog.last().await.expect("reads");
    let mut segment = entry.segments[0];
    (segment.id, segment.epoch, segment.start) = (SegmentId(2), Epoch(2), Position(44));
    entry.segments.push(segment);
    (entry.number, entry.epoch) = (entry.number + 1, Epoch(2));
    (entry.epoch_start, entry.reservation) = (Position(44), Position(100));
    fixture.catalog.append(&entry).await.expect("appends");
    assert!(verify(&log, Verify::All).await.is_clean(), "being sealed");
    let state = &fixture.sequencer.state;
    state.lock().expect("not poisoned").epoch = Epoch(2);
    let report = verify(&log, Verify::All).await;
    let missing: Vec<_> = report
        .missing
        .iter()
        .map(|f| (f.stripe, f.from, f.to))
        .collect();
    let end = entry.segments[0].layout.position(StripeId(0), Slot(24));
    assert_eq!(missing, [(StripeId(0), Position(40), Some(end))]);
    fixture.writer.fill_to(Position(44)).await;
    assert!(verify(&log, Verify::All).await.is_clean());
}

#[tokio::test]
async fn r4_corrupt_objects_are_named() {
    let (fixture, log) = filled(1).await;
    let name = names(&fixture).await.remove(3);
    let store = fixture.catalog.store();
    let sound = store.get(&name).await.expect("reads").expect("there");
    // Payload, footer, header: the last one also breaks the chain.
    for at in [sound.len() - 20, sound.len() - 1, 10] {
        let mut bytes = sound.to_vec();
        bytes[at] ^= 1;
        store.delete(&name).await.expect("deletes");
        store.create(&name, &[bytes.into()]).await.expect("creates");
        let report = verify(&log, Verify::All).await;
        let [corrupt] = report.corrupt.as_slice() else {
            panic!("one object: {report:?}");
        };
        assert_eq!(corrupt.object.as_deref(), Some(name.as_str()));
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

    // Without a sequencer its owner knows how long the chain was, and then nobody.
    fixture.sequencer.state.lock().expect("not poisoned").silent = true;
    let report = log.verify(Verify::All, |_| ()).await.expect("verifies");
    assert_eq!((report.durable, report.is_clean()), (None, false));
    fixture.writer.stop().await;
    let report = log.verify(Verify::All, |_| ()).await.expect("verifies");
    assert_eq!((report.durable, report.is_clean()), (None, true));
}
