//! Each injected fault does to the store beneath, and answers, what its documentation says.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use catalog::faults::{Fault, Faults, FaultyStore, Lie, Operation, Quirks, Rates};
use catalog::{Create, Store};
use object_store::memory::InMemory;

fn faulty() -> (Store, Faults, Store) {
    let faulty = FaultyStore::new(Arc::new(InMemory::new()), 1);
    let (faults, inner) = (faulty.faults(), Store::new(faulty.inner(), ""));
    (Store::new(Arc::new(faulty), ""), faults, inner)
}

async fn create(store: &Store, text: &'static str) -> Option<Create> {
    let body = [Bytes::from_static(text.as_bytes())];
    store.create("a/b", &body).await.ok()
}

#[tokio::test(start_paused = true)]
async fn creates_answer_and_apply_as_told() {
    let late = Fault::ApplyLate(Duration::from_secs(1));
    let delay = Fault::Delay(Duration::from_secs(1));
    for (fault, answer, applied) in [
        (Fault::None, Some(Create::Done), true),
        (Fault::Fail, None, false),
        (Fault::Deny, None, false),
        (Fault::LoseAnswer, None, true),
        (Fault::ExistsAfter, Some(Create::Exists), true),
        (Fault::ExistsBefore, Some(Create::Exists), false),
        (delay, Some(Create::Done), true),
        (late, None, false),
    ] {
        let (store, faults, inner) = faulty();
        faults.next_named(Operation::Create, "no such name", [Fault::Fail]);
        faults.next(Operation::Create, [fault]);
        assert_eq!(create(&store, "x").await, answer, "{fault:?}");
        let there = inner.get("a/b").await.expect("read").is_some();
        assert_eq!(there, applied, "{fault:?}");
        assert_eq!(faults.steps_left(), 1);
        tokio::time::sleep(Duration::from_secs(2)).await;
        let there = inner.get("a/b").await.expect("read").is_some();
        assert_eq!(there, applied || fault == late, "{fault:?}");
        assert_eq!(faults.counts().requests.creates, 1);
    }
}

#[tokio::test]
async fn reads_lists_and_deletes_fail_as_told() {
    let (store, faults, inner) = faulty();
    create(&inner, "x").await.expect("created");
    for fault in [Fault::Fail, Fault::LoseAnswer] {
        faults.next(Operation::Get, [fault]);
        assert!(store.get("a/b").await.is_err());
        faults.next(Operation::Get, [fault]);
        assert!(store.get("not/there").await.is_err());
        faults.next(Operation::List, [fault]);
        assert!(store.list("a", None).await.is_err());
        faults.next(Operation::Delete, [fault]);
        assert!(store.delete("a/b").await.is_err());
        let there = inner.get("a/b").await.expect("read").is_some();
        assert_eq!(there, fault == Fault::Fail);
    }
    let injected = faults.counts().injected;
    assert_eq!((injected.failed, injected.answers_lost), (4, 4));
}

#[tokio::test]
async fn stalled_requests_go_on_when_released() {
    let (store, faults, inner) = faulty();
    for stalls_before in [true, false] {
        if stalls_before {
            faults.hold(Operation::Create);
        } else {
            faults.next(Operation::Create, [Fault::StallAnswer]);
        }
        let task = tokio::spawn({
            let store = store.clone();
            async move { create(&store, "x").await }
        });
        while faults.counts().injected.stalled < 1 + u64::from(!stalls_before) {
            tokio::task::yield_now().await;
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
        assert!(!task.is_finished());
        let there = inner.get("a/b").await.expect("read").is_some();
        assert_eq!(there, !stalls_before);
        faults.release();
        assert_eq!(task.await.expect("joined"), Some(Create::Done));
        inner.delete("a/b").await.expect("deleted");
    }
    assert_eq!(create(&store, "x").await, Some(Create::Done));
}

#[tokio::test]
async fn liars_lie() {
    for (lie, second, holds) in [
        (Lie::Honest, Create::Exists, "first"),
        (Lie::Ignores, Create::Done, "second"),
        (Lie::Racy, Create::Exists, "first"),
        (Lie::RefusesButOverwrites, Create::Exists, "second"),
    ] {
        let (store, faults, _) = faulty();
        faults.set_lie(lie);
        assert_eq!(create(&store, "first").await, Some(Create::Done), "{lie:?}");
        assert_eq!(create(&store, "second").await, Some(second), "{lie:?}");
        let found = store.get("a/b").await.expect("read");
        assert_eq!(found.expect("there"), holds, "{lie:?}");
    }
    let (store, faults, _) = faulty();
    faults.set_lie(Lie::Racy);
    let both = tokio::join!(create(&store, "first"), create(&store, "second"));
    assert_eq!(both, (Some(Create::Done), Some(Create::Done)));
}

#[tokio::test]
async fn quirks_do_not_change_what_a_store_says() {
    let (store, faults, _) = faulty();
    for name in ["p/1", "p/2", "p/3"] {
        store.create(name, &[]).await.expect("created");
    }
    let expected = store.list("p", Some("p/1")).await.expect("listed");
    assert_eq!(expected.len(), 2);
    faults.set_quirks(Quirks {
        refuses_with_precondition: true,
        ignores_list_offset: true,
        lists_backwards: true,
    });
    assert_eq!(
        store.list("p", Some("p/1")).await.expect("listed"),
        expected
    );
    assert_eq!(
        store.create("p/1", &[]).await.expect("answered"),
        Create::Exists
    );
}

#[tokio::test]
async fn rates_are_drawn_from_the_seed() {
    let mut runs = Vec::new();
    for _ in 0..2 {
        let (store, faults, _) = faulty();
        faults.set_rates(Rates {
            create_fails: 0.3,
            get_fails: 0.5,
            ..Rates::default()
        });
        for _ in 0..100 {
            let _answer = create(&store, "x").await;
            drop(store.get("a/b").await);
        }
        runs.push(faults.counts());
        faults.heal();
        assert_eq!(create(&store, "x").await, Some(Create::Exists));
    }
    assert_eq!(runs[0], runs[1]);
    let failed = runs[0].injected.failed;
    assert!((30..80).contains(&failed), "{failed}");
}
