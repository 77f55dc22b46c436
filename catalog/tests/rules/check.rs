//! The check of a store's promise (C-10).

use std::time::Duration;

use catalog::faults::{Fault, Lie, Operation, Quirks, Rates};
use catalog::{CatalogError, ErrorKind, Log, Store};

use crate::common::{Scene, layout, scene};

async fn refusal(scene: &Scene) -> String {
    let error = scene.store.check().await.expect_err("refused");
    assert!(matches!(error, CatalogError::Dishonest(_)), "{error}");
    assert_eq!(
        (error.kind(), error.is_definite()),
        (ErrorKind::Invalid, true)
    );
    let text = error.to_string();
    assert!(text.contains(scene.store.url()), "{text}");
    text
}

async fn names(store: &Store) -> Vec<String> {
    let listed = store.list("", None).await.expect("listed");
    listed.into_iter().map(|object| object.name).collect()
}

#[tokio::test]
async fn c10_a_store_that_ignores_the_condition_is_refused() {
    let scene = scene(1);
    scene.faults.set_lie(Lie::Ignores);
    let text = refusal(&scene).await;
    assert!(
        text.contains("16 of 16 creates of one name at the same time won"),
        "{text}"
    );
    assert!(names(&scene.truth).await.is_empty());
}

/// As s3s-fs does: a check one after the other finds nothing.
#[tokio::test]
async fn c10_a_store_that_looks_first_and_writes_then_is_refused() {
    let scene = scene(1);
    scene.faults.set_lie(Lie::Racy);
    let text = refusal(&scene).await;
    assert!(
        text.contains("16 of 16 creates of one name at the same time won"),
        "{text}"
    );
    assert!(text.contains("must be exactly 1"), "{text}");
    assert!(names(&scene.truth).await.is_empty());
}

#[tokio::test]
async fn c10_a_store_that_refuses_but_overwrites_is_refused() {
    let scene = scene(1);
    scene.faults.set_lie(Lie::RefusesButOverwrites);
    let text = refusal(&scene).await;
    assert!(text.contains("1 of 16 creates"), "{text}");
    assert!(text.contains(", must hold 'racer 0'"), "{text}");
    assert!(names(&scene.truth).await.is_empty());
}

#[tokio::test(start_paused = true)]
async fn c10_a_store_that_lets_nobody_win_is_refused() {
    for sequential in [true, false] {
        let scene = scene(1);
        let part = if sequential { "sequential" } else { "race" };
        scene
            .faults
            .next_named(Operation::Create, part, [Fault::ExistsBefore; 1000]);
        let text = refusal(&scene).await;
        let expected = if sequential {
            "never used"
        } else {
            "0 of 16 creates"
        };
        assert!(text.contains(expected), "{text}");
    }
}

#[tokio::test]
async fn c10_no_log_is_created_on_a_liar() {
    for lie in [Lie::Ignores, Lie::Racy, Lie::RefusesButOverwrites] {
        let scene = scene(1);
        scene.faults.set_lie(lie);
        let created = Log::create(scene.store.clone(), layout()).await;
        let error = created.expect_err("refused");
        assert!(matches!(error, CatalogError::Dishonest(_)), "{error}");
        assert!(names(&scene.truth).await.is_empty());
    }
}

#[tokio::test]
async fn c10_an_honest_store_passes_whatever_its_ways() {
    let scene = scene(1);
    scene.faults.set_quirks(Quirks {
        refuses_with_precondition: true,
        ignores_list_offset: true,
        lists_backwards: true,
    });
    let report = scene.store.check().await.expect("honest");
    let creates = report.racers * report.races + 2;
    assert_eq!(scene.faults.counts().requests.creates, creates as u64);
    assert!(names(&scene.truth).await.is_empty());
}

/// One fault in each of the first creates and reads: the round is void and another one settles it.
#[tokio::test(start_paused = true)]
async fn c10_passing_faults_do_not_refuse_an_honest_store() {
    let faults = [
        (Operation::Create, Fault::Fail),
        (Operation::Create, Fault::LoseAnswer),
        (Operation::Create, Fault::ExistsAfter),
        (Operation::Create, Fault::ExistsBefore),
        (Operation::Create, Fault::ApplyLate(Duration::from_secs(1))),
        (Operation::Get, Fault::Fail),
        (Operation::Get, Fault::LoseAnswer),
        (Operation::List, Fault::Fail),
        (Operation::List, Fault::LoseAnswer),
        (Operation::Delete, Fault::Fail),
        (Operation::Delete, Fault::LoseAnswer),
    ];
    for (operation, fault) in faults {
        for before in 0..24 {
            let scene = scene(1);
            scene.faults.next(operation, vec![Fault::None; before]);
            scene.faults.next(operation, [fault; 2]);
            let checked = scene.store.check().await;
            checked.unwrap_or_else(|error| panic!("{operation:?} {fault:?} {before}: {error}"));
            // What comes late may come behind the cleaning.
            if !matches!(fault, Fault::ApplyLate(_)) {
                let left = names(&scene.truth).await;
                assert!(
                    left.is_empty(),
                    "{operation:?} {fault:?} {before}: {left:?}"
                );
            }
        }
    }
}

/// A fault must not hide a lie.
#[tokio::test(start_paused = true)]
async fn c10_liars_are_refused_on_a_failing_store() {
    for seed in 0..30 {
        for lie in [Lie::Ignores, Lie::Racy, Lie::RefusesButOverwrites] {
            let scene = scene(seed);
            scene.faults.set_lie(lie);
            scene.faults.set_rates(Rates {
                create_fails: 0.02,
                create_answer_lost: 0.02,
                create_exists_after: 0.02,
                create_exists_before: 0.02,
                get_fails: 0.02,
                ..Rates::default()
            });
            let checked = scene.store.check().await;
            assert!(checked.is_err(), "seed={seed} lie={lie:?}");
        }
    }
}

#[tokio::test(start_paused = true)]
async fn c10_a_dead_store_fails_the_check_with_its_own_error() {
    let scene = scene(1);
    scene.faults.set_rates(Rates {
        create_fails: 1.0,
        ..Rates::default()
    });
    let error = scene.store.check().await.expect_err("failed");
    assert_eq!(error.kind(), ErrorKind::Retry);
    assert!((2..=16 * 8).contains(&scene.faults.counts().requests.creates));
    scene.faults.heal();
    scene.faults.next(Operation::Create, [Fault::Deny]);
    let error = scene.store.check().await.expect_err("denied");
    assert_eq!(
        (error.kind(), error.is_definite()),
        (ErrorKind::Invalid, true)
    );
}

/// Nothing that fails in the cleaning refuses a store, or hides what the check has found.
#[tokio::test(start_paused = true)]
async fn c10_a_store_that_keeps_the_scratch_names_is_no_liar() {
    for (lie, passes) in [(Lie::Honest, true), (Lie::Ignores, false)] {
        let scene = scene(1);
        scene.faults.set_lie(lie);
        scene.faults.set_rates(Rates {
            delete_fails: 1.0,
            ..Rates::default()
        });
        assert_eq!(scene.store.check().await.is_ok(), passes);
    }
}

#[tokio::test]
async fn c10_no_scratch_directory_stays() {
    let directory = tempfile::tempdir().expect("directory");
    let store = Store::open(&format!("file://{}", directory.path().display()));
    let store = store.expect("opened");
    for _ in 0..2 {
        store.check().await.expect("honest");
    }
    let left = std::fs::read_dir(directory.path().join("check"));
    assert_eq!(left.expect("directory").count(), 0);
}
