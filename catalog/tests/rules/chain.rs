//! Chains of stripes: what the answers to a put mean, and which objects are the chain.

use std::sync::Arc;
use std::time::Duration;

use catalog::faults::{Fault, Operation, Quirks};
use catalog::{CatalogError, ErrorKind, Put};
use wire::{Position, Slot};

use crate::common::{bytes_of, chains, object, scene, write};

#[tokio::test(start_paused = true)]
async fn c5_every_doubtful_answer_to_my_own_put_is_committed() {
    let late = Fault::ApplyLate(Duration::from_millis(1));
    let doubts = [
        Fault::Fail,
        Fault::LoseAnswer,
        // Lesson 10: the retry of a put that had succeeded is answered "exists".
        Fault::ExistsAfter,
        // Lesson 11: 409 comes back as "exists" though nothing is there.
        Fault::ExistsBefore,
        late,
    ];
    for doubt in doubts {
        let scene = scene(1);
        let (chain, truth) = chains(&scene).await;
        let mine = object(&chain, 1, 0, &["a"]);
        scene.faults.next(Operation::Create, [doubt]);
        assert_eq!(
            chain.put(&mine).await.expect("put"),
            Put::Committed,
            "{doubt:?}"
        );
        let found = truth.index_at(Slot(0)).await.expect("ok").expect("there");
        assert_eq!(found, mine.index);
    }
}

#[tokio::test(start_paused = true)]
async fn c5_anothers_object_is_taken_whatever_the_answer() {
    for answer in [
        Fault::None,
        Fault::Fail,
        Fault::LoseAnswer,
        Fault::ExistsBefore,
    ] {
        for (precondition, lost) in [(false, 0), (true, 0), (false, 2)] {
            let scene = scene(1);
            let (chain, truth) = chains(&scene).await;
            let other = object(&chain, 2, 0, &["b", "c"]);
            truth.put(&other).await.expect("put");
            scene.faults.set_quirks(Quirks {
                refuses_with_precondition: precondition,
                ..Quirks::default()
            });
            scene.faults.next(Operation::Create, [answer]);
            scene
                .faults
                .next(Operation::Get, vec![Fault::LoseAnswer; lost]);
            let put = chain.put(&object(&chain, 1, 0, &["a"])).await;
            let taken = Put::Taken(Box::new(other.index.clone()));
            assert_eq!(put.expect("put"), taken, "{answer:?}");
        }
    }
}

/// The same process, epoch and slots, other records: not the object of this put.
#[tokio::test]
async fn c5_mine_means_the_same_content() {
    let scene = scene(1);
    let (chain, truth) = chains(&scene).await;
    let other = object(&chain, 1, 0, &["b"]);
    truth.put(&other).await.expect("put");
    let put = chain.put(&object(&chain, 1, 0, &["a"])).await.expect("put");
    assert_eq!(put, Put::Taken(Box::new(other.index)));
}

#[tokio::test(start_paused = true)]
async fn c5_a_store_that_always_refuses_is_no_commit() {
    let scene = scene(1);
    let (chain, truth) = chains(&scene).await;
    let mine = object(&chain, 1, 0, &["a"]);
    scene
        .faults
        .next(Operation::Create, [Fault::ExistsBefore; 5]);
    let refused = chain.put(&mine).await.expect_err("never created");
    assert!(
        matches!(refused, CatalogError::Contended { attempts: 5, .. }),
        "{refused}"
    );
    assert_eq!(
        (refused.kind(), refused.is_definite()),
        (ErrorKind::Retry, false)
    );
    assert!(truth.index_at(Slot(0)).await.expect("ok").is_none());
    assert_eq!(chain.put(&mine).await.expect("put"), Put::Committed);
}

#[tokio::test(start_paused = true)]
async fn c5_a_failing_look_is_neither_committed_nor_taken() {
    for there in [None, Some(1), Some(2)] {
        let scene = scene(1);
        let (chain, truth) = chains(&scene).await;
        let mine = object(&chain, 1, 0, &["a"]);
        if let Some(writer) = there {
            truth
                .put(&object(&chain, writer, 0, &["a"]))
                .await
                .expect("put");
        }
        scene
            .faults
            .next(Operation::Create, [Fault::ExistsBefore; 5]);
        scene.faults.next(Operation::Get, [Fault::Fail; 10]);
        let doubt = chain.put(&mine).await.expect_err("in doubt");
        assert_eq!(
            (doubt.kind(), doubt.is_definite()),
            (ErrorKind::Retry, false)
        );
        let put = chain.put(&mine).await.expect("resolved");
        assert_eq!(matches!(put, Put::Taken(_)), there == Some(2));
    }
}

#[tokio::test(start_paused = true)]
async fn c8_an_indefinite_failure_is_resolved_by_the_same_put() {
    for outcome in [
        Fault::Fail,
        Fault::LoseAnswer,
        Fault::ApplyLate(Duration::from_secs(5)),
    ] {
        let scene = scene(1);
        let (chain, truth) = chains(&scene).await;
        let mine = object(&chain, 1, 0, &["a"]);
        scene.faults.next(Operation::Create, [outcome]);
        scene.faults.next(Operation::Create, [Fault::Fail; 4]);
        let doubt = chain.put(&mine).await.expect_err("in doubt");
        assert_eq!(
            (doubt.kind(), doubt.is_definite()),
            (ErrorKind::Retry, false)
        );
        tokio::time::sleep(Duration::from_secs(10)).await;
        assert_eq!(chain.put(&mine).await.expect("resolved"), Put::Committed);
        let walk = truth.walk(Slot(0)).await.expect("walk");
        assert_eq!((walk.headers.len(), walk.end), (1, Slot(2)));
    }
}

/// "Permission denied" says that this attempt did nothing, and nothing of the one before.
#[tokio::test(start_paused = true)]
async fn c8_only_a_first_attempt_fails_definitely() {
    let scene = scene(1);
    let (chain, _) = chains(&scene).await;
    let mine = object(&chain, 1, 0, &["a"]);
    scene.faults.next(Operation::Create, [Fault::Deny]);
    let denied = chain.put(&mine).await.expect_err("denied");
    assert_eq!(
        (denied.kind(), denied.is_definite()),
        (ErrorKind::Invalid, true)
    );
    scene.faults.next(Operation::Create, [Fault::LoseAnswer]);
    scene.faults.next(Operation::Create, [Fault::Deny; 4]);
    let doubt = chain.put(&mine).await.expect_err("in doubt");
    assert_eq!(
        (doubt.kind(), doubt.is_definite()),
        (ErrorKind::Retry, false)
    );
    // A failing read of a range is followed by one of the head.
    scene.faults.next(Operation::Get, [Fault::Deny; 10]);
    let doubt = chain.put(&mine).await.expect_err("in doubt");
    assert_eq!(
        (doubt.kind(), doubt.is_definite()),
        (ErrorKind::Retry, false)
    );
    assert_eq!(chain.put(&mine).await.expect("resolved"), Put::Committed);
}

#[tokio::test]
async fn c2_an_object_is_stored_under_its_own_name_only() {
    let scene = scene(1);
    let (chain, truth) = chains(&scene).await;
    let other = {
        let (log, _) = crate::common::logs(&crate::common::scene(2)).await;
        crate::common::chain(&log).await
    };
    let refused = chain
        .put(&object(&other, 1, 0, &["a"]))
        .await
        .expect_err("foreign");
    assert_eq!(
        (refused.kind(), refused.is_definite()),
        (ErrorKind::Invalid, true)
    );
    for bytes in [
        bytes_of(&object(&chain, 1, 4, &["elsewhere in the chain"])),
        bytes_of(&object(&other, 1, 0, &["another log's"])),
    ] {
        let name = chain.id().object_name(Slot(0));
        write(&scene.truth, &name, &bytes).await;
        let errors = [
            truth.header_at(Slot(0)).await.err(),
            truth.index_at(Slot(0)).await.err(),
            truth.read_object(Slot(0)).await.err(),
            truth.walk(Slot(0)).await.err(),
        ];
        for error in errors {
            let error = error.expect("corrupt");
            assert_eq!(error.kind(), ErrorKind::Corrupt);
            assert!(error.to_string().contains(&name), "{error}");
        }
    }
}

#[tokio::test]
async fn c2_a_strangers_name_in_the_chain_is_an_error() {
    let scene = scene(1);
    let (chain, _) = chains(&scene).await;
    chain.put(&object(&chain, 1, 0, &["a"])).await.expect("put");
    for stray in [
        "x",
        "000000000000000A",
        "0000000000000000",
        "sub/0000000000000002",
    ] {
        // Position 0 is stripe 0's; positions 2 and 3 are the first of stripe 1.
        let stray = format!("{}/{stray}", chain.id().prefix());
        write(&scene.truth, &stray, b"x").await;
        let from_start = chain.walk(chain.first_slot()).await;
        let behind = stray > chain.id().object_name(Slot(0));
        match from_start {
            Err(error) => {
                assert_eq!(error.kind(), ErrorKind::Corrupt);
                assert!(error.to_string().contains(&stray), "{error}");
            }
            Ok(_) => assert!(!behind, "{stray}"),
        }
        scene.truth.delete(&stray).await.expect("deleted");
    }
}

/// An owner's late put, at a place that its successor's fence has covered.
#[tokio::test]
async fn c3_a_late_put_inside_anothers_range_is_an_orphan() {
    let scene = scene(1);
    let (chain, _) = chains(&scene).await;
    let fence = object(&chain, 2, 2, &["fence", "long", "enough"]);
    let puts = [
        object(&chain, 1, 0, &["a"]),
        fence,
        object(&chain, 1, 4, &["late"]),
        object(&chain, 2, 6, &["b"]),
        object(&chain, 1, 9, &["afloat"]),
    ];
    for object in &puts {
        assert_eq!(chain.put(object).await.expect("put"), Put::Committed);
    }
    let walk = chain.walk(Slot(0)).await.expect("walk");
    let starts: Vec<_> = walk.headers.iter().map(|header| header.start).collect();
    assert_eq!(starts, [Slot(0), Slot(2), Slot(6)]);
    assert_eq!(walk.end, Slot(8));
    let position = |slot| chain.id().position(Slot(slot));
    assert_eq!(walk.orphans, [position(4)]);
    assert_eq!(walk.afloat, [position(9)]);
    assert_eq!(position(9), Position(35));
}

#[tokio::test]
async fn c3_a_corrupt_object_hurts_only_where_the_chain_needs_it() {
    let scene = scene(1);
    let (chain, _) = chains(&scene).await;
    let name = |slot| chain.id().object_name(Slot(slot));
    chain
        .put(&object(&chain, 1, 0, &["a", "b", "c"]))
        .await
        .expect("put");
    write(&scene.truth, &name(2), &[0; 200]).await;
    write(&scene.truth, &name(7), b"").await;
    let walk = chain
        .walk(Slot(0))
        .await
        .expect("inside and afloat do not matter");
    assert_eq!((walk.headers.len(), walk.end), (1, Slot(4)));
    write(&scene.truth, &name(4), b"").await;
    let error = chain.walk(Slot(0)).await.expect_err("the next object");
    assert_eq!(error.kind(), ErrorKind::Corrupt);
    assert!(error.to_string().contains(&name(4)), "{error}");
    // Nor is its place free for a put.
    let error = chain.put(&object(&chain, 1, 4, &["x"])).await;
    let error = error.expect_err("occupied");
    assert_eq!(
        (error.kind(), error.is_definite()),
        (ErrorKind::Corrupt, false)
    );
}

/// A failing read of a header must not look like the end of the chain.
#[tokio::test]
async fn c3_a_failing_walk_finds_no_end() {
    for (operation, fault) in [
        (Operation::Get, Fault::Fail),
        (Operation::Get, Fault::LoseAnswer),
        (Operation::List, Fault::Fail),
        (Operation::List, Fault::LoseAnswer),
    ] {
        let scene = scene(1);
        let (chain, truth) = chains(&scene).await;
        for start in [0, 2, 4] {
            truth
                .put(&object(&chain, 1, start, &["a"]))
                .await
                .expect("put");
        }
        scene.faults.next(operation, [Fault::None]);
        scene.faults.next(operation, [fault]);
        let walks = [chain.walk(Slot(0)).await, chain.walk(Slot(0)).await];
        assert!(walks.iter().any(Result::is_err));
        for walk in walks.into_iter().flatten() {
            assert_eq!(walk.end, Slot(6));
        }
    }
}

/// Compaction merges the second object into the first and deletes it, between the reads of a walk.
#[tokio::test]
async fn c3_an_end_that_vanished_during_the_walk_is_looked_at_again() {
    let scene = scene(1);
    let (chain, truth) = chains(&scene).await;
    for start in [0, 2, 4] {
        truth
            .put(&object(&chain, 1, start, &["a"]))
            .await
            .expect("put");
    }
    let second = chain.id().object_name(Slot(2));
    let at = |name: &str| name.rsplit('/').next().expect("last part").to_owned();
    scene
        .faults
        .next_named(Operation::Get, &at(&second), [Fault::Stall]);
    let walking = tokio::spawn({
        let chain = chain.clone();
        async move { chain.walk(Slot(0)).await }
    });
    while scene.faults.counts().requests.gets < 4 {
        tokio::task::yield_now().await;
    }
    let merged = bytes_of(&object(&chain, 1, 0, &["a", "merged", "a"]));
    write(&scene.truth, &chain.id().object_name(Slot(0)), &merged).await;
    scene.truth.delete(&second).await.expect("deleted");
    scene.faults.release();
    let walk = walking.await.expect("joined").expect("walk");
    assert_eq!((walk.headers.len(), walk.end), (2, Slot(6)));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn c1_of_many_puts_at_one_name_one_decides() {
    for round in 0..20 {
        let scene = scene(round);
        let (chain, truth) = chains(&scene).await;
        let chain = Arc::new(chain);
        let tasks = (1..=8).map(|writer| {
            let chain = Arc::clone(&chain);
            tokio::spawn(async move {
                let mine = object(&chain, writer, 0, &["x"; 3]);
                (mine.index.clone(), chain.put(&mine).await.expect("put"))
            })
        });
        let stored = {
            let outcomes = futures::future::join_all(tasks.collect::<Vec<_>>()).await;
            let outcomes: Vec<_> = outcomes.into_iter().map(|o| o.expect("joined")).collect();
            let stored = truth.index_at(Slot(0)).await.expect("ok").expect("there");
            for (mine, put) in &outcomes {
                match put {
                    Put::Committed => assert_eq!(mine, &stored),
                    Put::Taken(index) => assert_eq!(index.as_ref(), &stored),
                }
            }
            let won = outcomes.iter().filter(|(_, put)| *put == Put::Committed);
            assert_eq!(won.count(), 1);
            stored
        };
        assert_eq!(stored.header.start, Slot(0));
    }
}
