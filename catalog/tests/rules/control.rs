//! The control chain: who is fenced, what is never taken for an empty chain, what a late process can do.

use std::time::Duration;

use catalog::faults::{Fault, Operation};
use catalog::{COLLECTED_AT_ONCE, CatalogError, ErrorKind, Log, Put};
use wire::{LogId, Slot, name};

use crate::common::{chain, layout, logs, next, object, scene, write};

#[tokio::test]
async fn s3_another_entry_at_my_number_fences() {
    let scene = scene(1);
    let (log, _) = logs(&scene).await;
    let first = log.last().await.expect("last");
    log.append(&next(&first, 1)).await.expect("appended");
    let fenced = log.append(&next(&first, 2)).await.expect_err("fenced");
    assert_eq!(fenced.kind(), ErrorKind::Fenced);
    assert!(fenced.to_string().contains("number=1"), "{fenced}");
}

// Lesson 9: a stalled sequencer finds its next name free, because the entry that had it was collected.
#[tokio::test]
async fn s3_a_stalled_sequencer_that_recreates_a_collected_name_is_fenced() {
    let scene = scene(1);
    let (log, truth) = logs(&scene).await;
    let first = log.last().await.expect("last");
    scene.faults.hold(Operation::Create);
    let stalled = tokio::spawn({
        let (log, entry) = (log.clone(), next(&first, 1));
        async move { log.append(&entry).await }
    });
    while scene.faults.counts().injected.stalled == 0 {
        tokio::task::yield_now().await;
    }
    let mut entry = first;
    for _ in 0..3 {
        entry = next(&entry, 2);
        truth.append(&entry).await.expect("appended");
    }
    let collected = name::control(log.id(), 1);
    scene.truth.delete(&collected).await.expect("deleted");
    scene.faults.release();
    let fenced = stalled.await.expect("joined").expect_err("fenced");
    assert_eq!(fenced.kind(), ErrorKind::Fenced);
    // Its create did succeed, and changes nothing.
    assert!(scene.truth.get(&collected).await.expect("ok").is_some());
    assert_eq!(log.last().await.expect("last"), entry);
}

// Lesson 1: A reigns, then B, then A again: A's second reign begins where B's ended.
#[tokio::test]
async fn s3_s4_a_b_a_goes_on_from_the_chain() {
    let scene = scene(1);
    let (log, _) = logs(&scene).await;
    let a = next(&log.last().await.expect("last"), 1);
    log.append(&a).await.expect("A reigns");
    let b = next(&log.last().await.expect("last"), 2);
    log.append(&b).await.expect("B reigns");
    let extended = log.append(&next(&a, 1)).await.expect_err("A is fenced");
    assert_eq!(extended.kind(), ErrorKind::Fenced);
    assert!(!log.is_last(a.number).await.expect("listed"));
    let again = next(&log.last().await.expect("last"), 1);
    assert_eq!(again.epoch_start, b.reservation);
    assert!(again.epoch > b.epoch);
    log.append(&again).await.expect("A reigns again");
}

#[tokio::test(start_paused = true)]
async fn s3_the_listing_behind_a_create_has_to_succeed() {
    for fault in [Fault::Fail, Fault::LoseAnswer, Fault::Deny] {
        let scene = scene(1);
        let (log, _) = logs(&scene).await;
        let entry = next(&log.last().await.expect("last"), 1);
        scene.faults.next(Operation::List, [fault]);
        let doubt = log.append(&entry).await.expect_err("not known to be last");
        // The entry is there: no error may say that it is certainly not.
        assert!(!doubt.is_definite(), "{doubt}");
        assert_eq!(doubt.kind(), ErrorKind::Retry);
        log.append(&entry).await.expect("resolved");
    }
}

#[tokio::test]
async fn s4_a_chain_without_entries_is_an_error() {
    let scene = scene(1);
    let (log, _) = logs(&scene).await;
    let only = name::control(log.id(), 0);
    scene.truth.delete(&only).await.expect("deleted");
    let error = log.last().await.expect_err("never a new log");
    assert!(matches!(error, CatalogError::Missing { .. }), "{error}");
    assert_eq!(error.kind(), ErrorKind::Corrupt);
}

#[tokio::test]
async fn s4_an_unreadable_entry_is_an_error_and_never_the_one_before() {
    let scene = scene(1);
    let (log, _) = logs(&scene).await;
    let first = log.last().await.expect("last");
    let second = next(&first, 1);
    let good = second.encode().expect("valid");
    let elsewhere = next(&second, 1).encode().expect("valid");
    let mut foreign = second.clone();
    foreign.log = LogId([9; 16]);
    let foreign = foreign.encode().expect("valid");
    let mut bad = vec![
        Vec::new(),
        vec![0; good.len()],
        elsewhere.to_vec(),
        foreign.to_vec(),
    ];
    bad.extend((0..good.len()).map(|len| good[..len].to_vec()));
    bad.extend((0..good.len()).map(|at| {
        let mut bytes = good.to_vec();
        bytes[at] ^= 0x40;
        bytes
    }));
    bad.push([&good[..], b"x"].concat());
    let name = name::control(log.id(), 1);
    let mut refused = 0;
    for bytes in bad {
        write(&scene.truth, &name, &bytes).await;
        match log.last().await {
            Err(error) => {
                assert_eq!(error.kind(), ErrorKind::Corrupt, "{error}");
                assert!(error.to_string().contains(&name), "{error}");
                refused += 1;
            }
            // Some bytes of the envelope are reserved.
            Ok(entry) => assert_eq!(entry, second),
        }
    }
    assert!(refused >= 4 + 2 * good.len() - 4, "{refused}");
}

#[tokio::test]
async fn s4_a_name_that_is_no_entry_is_an_error() {
    let scene = scene(1);
    let (log, _) = logs(&scene).await;
    let prefix = name::control_prefix(log.id());
    for stray in [
        "x",
        "1",
        "sub/00000000000000000005",
        "control/00000000000000000005",
    ] {
        let stray = format!("{prefix}/{stray}");
        write(&scene.truth, &stray, b"x").await;
        let error = log.last().await.expect_err("stray");
        assert_eq!(error.kind(), ErrorKind::Corrupt);
        assert!(error.to_string().contains(&stray), "{error}");
        // It neither is an entry nor can be overlooked.
        let error = log.is_last(0).await.expect_err("stray");
        assert_eq!(error.kind(), ErrorKind::Corrupt);
        scene.truth.delete(&stray).await.expect("deleted");
    }
    let last = format!("{prefix}/{}", u64::MAX);
    write(&scene.truth, &last, b"x").await;
    assert_eq!(
        log.last().await.expect_err("stray").kind(),
        ErrorKind::Corrupt
    );
    drop(log.collect_control(u64::MAX, u64::MAX).await);
}

/// A reign stands still while it collects.
#[tokio::test]
async fn t4_a_collection_takes_a_part_and_the_next_one_goes_on() {
    const KEPT: usize = 64;
    let scene = scene(1);
    let (_, log) = logs(&scene).await;
    let mut entry = log.last().await.expect("last");
    let old = COLLECTED_AT_ONCE + 5;
    while entry.number + 1 < (old + KEPT) as u64 {
        entry = next(&entry, 1);
        log.append(&entry).await.expect("appended");
    }
    let prefix = name::control_prefix(log.id());
    let listed = scene.truth.list(&prefix, None).await.expect("ok");
    let written = listed.last().expect("some").modified_unix_ms;
    for collected in [COLLECTED_AT_ONCE, 5, 0] {
        let collecting = log.collect_control(entry.number, written + 7_400_000);
        assert_eq!(collecting.await.expect("ok"), collected);
    }
    assert_eq!(log.last().await.expect("last"), entry);
}

// Lesson 14: a read error taken for "no such entry".
#[tokio::test]
async fn s4_a_failing_read_is_never_not_there() {
    for fault in [Fault::Fail, Fault::LoseAnswer, Fault::Deny] {
        let scene = scene(1);
        let (log, _) = logs(&scene).await;
        let faults = &scene.faults;
        faults.next(Operation::Get, [fault]);
        let error = Log::open(scene.store.clone()).await.expect_err("failed");
        assert!(matches!(error, CatalogError::Store { .. }), "{error}");
        faults.next(Operation::Get, [fault]);
        let error = log.last().await.expect_err("failed");
        assert!(matches!(error, CatalogError::Store { .. }), "{error}");
        faults.next(Operation::List, [fault]);
        let error = log.last().await.expect_err("failed");
        assert!(matches!(error, CatalogError::Store { .. }), "{error}");
        faults.next(Operation::List, [fault]);
        assert!(log.is_last(0).await.is_err());
        faults.next(Operation::Get, [fault]);
        let created = Log::create(scene.store.clone(), layout()).await;
        let error = created.expect_err("failed");
        assert!(matches!(error, CatalogError::Store { .. }), "{error}");
    }
}

#[tokio::test]
async fn s4_a_head_that_cannot_be_read_is_not_a_free_place() {
    let scene = scene(1);
    for head in [&b""[..], &[0; 64], b"STRIPEHD"] {
        write(&scene.truth, name::HEAD, head).await;
        let error = Log::open(scene.store.clone()).await.expect_err("corrupt");
        assert_eq!(error.kind(), ErrorKind::Corrupt);
        assert!(error.to_string().contains(name::HEAD), "{error}");
        let error = Log::create(scene.store.clone(), layout()).await;
        assert_eq!(error.expect_err("occupied").kind(), ErrorKind::Invalid);
    }
}

#[tokio::test]
async fn an_entry_of_another_log_is_not_written() {
    let scene = scene(1);
    let (log, _) = logs(&scene).await;
    let mut entry = next(&log.last().await.expect("last"), 1);
    entry.log = LogId([9; 16]);
    let refused = log.append(&entry).await.expect_err("refused");
    assert_eq!(
        (refused.kind(), refused.is_definite()),
        (ErrorKind::Invalid, true)
    );
    assert_eq!(log.last().await.expect("last").number, 0);
}

#[tokio::test]
async fn one_of_two_racing_creations_makes_the_log() {
    let scene = scene(1);
    let store = || scene.store.clone();
    // Both have looked for a head before either writes one.
    let looks = [Fault::StallAnswer, Fault::StallAnswer];
    scene.faults.next_named(Operation::Get, name::HEAD, looks);
    let a = tokio::spawn(Log::create(store(), layout()));
    let b = tokio::spawn(Log::create(store(), layout()));
    while scene.faults.counts().injected.stalled < 2 {
        tokio::task::yield_now().await;
    }
    scene.faults.release();
    let outcomes = [a.await.expect("joined"), b.await.expect("joined")];
    let (made, refused): (Vec<_>, Vec<_>) = outcomes.into_iter().partition(Result::is_ok);
    assert_eq!((made.len(), refused.len()), (1, 1));
    for outcome in refused {
        assert_eq!(outcome.expect_err("lost").kind(), ErrorKind::Invalid);
    }
    let log = Log::open(store()).await.expect("opened");
    assert_eq!(log.id(), made[0].as_ref().expect("made").id());
    let all = scene.truth.list("", None).await.expect("listed");
    assert_eq!(all.len(), 2, "the loser leaves nothing behind: {all:?}");
}

#[tokio::test(start_paused = true)]
async fn c5_a_creation_whose_answers_are_lost_makes_the_log() {
    for fault in [
        Fault::LoseAnswer,
        Fault::ExistsAfter,
        Fault::ExistsBefore,
        Fault::Fail,
    ] {
        let scene = scene(1);
        scene
            .faults
            .next_named(Operation::Create, "control", [fault]);
        scene
            .faults
            .next_named(Operation::Create, name::HEAD, [fault]);
        let log = Log::create(scene.store.clone(), layout()).await;
        let log = log.expect("created");
        assert_eq!(scene.faults.steps_left(), 0);
        let opened = Log::open(scene.store.clone()).await.expect("opened");
        assert_eq!(opened.id(), log.id());
        assert_eq!(opened.last().await.expect("last").number, 0);
    }
}

#[tokio::test]
async fn a_second_creation_writes_nothing() {
    let scene = scene(1);
    let (_, _) = logs(&scene).await;
    let before = scene.faults.counts().requests.creates;
    let again = Log::create(scene.store.clone(), layout()).await;
    assert_eq!(again.expect_err("one").kind(), ErrorKind::Invalid);
    assert_eq!(scene.faults.counts().requests.creates, before);
}

// Lesson 30: a late create of a deleted log hits the log that was made in its place.
#[tokio::test(start_paused = true)]
async fn c2_late_creates_of_a_deleted_log_miss_its_successor() {
    let scene = scene(1);
    let (old, _) = logs(&scene).await;
    let (old_chain, old_first) = (chain(&old).await, old.last().await.expect("last"));
    let late = Fault::ApplyLate(Duration::from_secs(60));
    scene.faults.next(Operation::Create, [late; 10]);
    let entry = old.append(&next(&old_first, 1)).await;
    assert_eq!(entry.expect_err("in doubt").kind(), ErrorKind::Retry);
    let stray = object(&old_chain, 1, 0, &["late"]);
    let put = old_chain.put(&stray).await.expect_err("in doubt");
    assert_eq!((put.kind(), put.is_definite()), (ErrorKind::Retry, false));
    for object in scene.truth.list("", None).await.expect("listed") {
        scene.truth.delete(&object.name).await.expect("deleted");
    }
    let new = Log::create(scene.truth.clone(), layout())
        .await
        .expect("made");
    tokio::time::sleep(Duration::from_secs(120)).await;
    assert_eq!(scene.faults.counts().injected.late_applied, 10);
    assert_ne!(new.id(), old.id());
    assert_eq!(new.last().await.expect("last").number, 0);
    let new_chain = chain(&new).await;
    let walk = new_chain.walk(Slot(0)).await.expect("walk");
    assert_eq!(
        (walk.end, walk.orphans.len(), walk.afloat.len()),
        (Slot(0), 0, 0)
    );
    let put = new_chain.put(&object(&new_chain, 2, 0, &["new"])).await;
    assert_eq!(put.expect("put"), Put::Committed);
    new.append(&next(&new.last().await.expect("last"), 2))
        .await
        .expect("appended");
    // Nor can what the old process holds be written into the new log.
    let refused = new_chain.put(&stray).await.expect_err("another log's");
    assert_eq!(refused.kind(), ErrorKind::Invalid);
}
