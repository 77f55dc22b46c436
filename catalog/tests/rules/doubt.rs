//! Puts and control appends under every mix of faults: nothing that was acknowledged is lost, nothing is
//! there twice, no other content is taken for one's own. A failing case prints its script or its seed.

use std::collections::BTreeMap;
use std::time::Duration;

use catalog::faults::{Fault, Operation, Rates};
use catalog::{CatalogError, Chain, ErrorKind, Log, Put};
use proptest::prelude::*;
use wire::Slot;
use wire::object::{Index, Object};

use crate::common::{Scene, chains, logs, next, object, scene};

/// Calls with the same argument until the outcome is known.
const CALLS: usize = 60;

const CREATE_FAULTS: [Fault; 6] = [
    Fault::None,
    Fault::Fail,
    Fault::LoseAnswer,
    Fault::ExistsAfter,
    Fault::ExistsBefore,
    Fault::ApplyLate(Duration::from_millis(30)),
];

const READ_FAULTS: [Fault; 3] = [Fault::None, Fault::Fail, Fault::LoseAnswer];

/// A runtime whose clock jumps over every wait.
fn run<T>(work: impl Future<Output = T>) -> T {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_time()
        .start_paused(true)
        .build();
    runtime.expect("runtime").block_on(work)
}

async fn put(chain: &Chain, object: &Object) -> Put {
    for _ in 0..CALLS {
        match chain.put(object).await {
            Ok(put) => return put,
            Err(error) => assert_eq!(error.kind(), ErrorKind::Retry, "{error}"),
        }
    }
    panic!("not resolved in {CALLS} calls");
}

/// One put, alone or against another's object, under a script.
async fn scripted_put(creates: &[Fault], reads: &[Fault], other: bool) {
    let scene = scene(1);
    let (chain, truth) = chains(&scene).await;
    let mine = object(&chain, 1, 0, &["mine"]);
    let theirs = object(&chain, 2, 0, &["theirs", "x"]);
    if other {
        truth.put(&theirs).await.expect("put");
    }
    scene.faults.next(Operation::Create, creates.to_vec());
    scene.faults.next(Operation::Get, reads.to_vec());
    let outcome = put(&chain, &mine).await;
    let taken = Put::Taken(Box::new(theirs.index.clone()));
    assert_eq!(outcome, if other { taken } else { Put::Committed });
    tokio::time::sleep(Duration::from_secs(1)).await;
    let expected = if other { theirs } else { mine };
    let (index, _) = truth
        .read_object(Slot(0))
        .await
        .expect("ok")
        .expect("there");
    assert_eq!(index, expected.index);
    let walk = truth.walk(Slot(0)).await.expect("walk");
    assert_eq!(walk.headers, [expected.index.header]);
}

async fn append(log: &Log, entry: &wire::control::ControlEntry) -> Result<(), CatalogError> {
    for _ in 0..CALLS {
        match log.append(entry).await {
            Err(error) if error.kind() == ErrorKind::Retry => assert!(!error.is_definite()),
            outcome => return outcome,
        }
    }
    panic!("not resolved in {CALLS} calls");
}

/// One append, alone or against another's entry, under a script.
async fn scripted_append(creates: &[Fault], reads: &[Fault], lists: &[Fault], other: bool) {
    let scene = scene(1);
    let (log, truth) = logs(&scene).await;
    let first = truth.last().await.expect("last");
    let (mine, theirs) = (next(&first, 1), next(&first, 2));
    if other {
        truth.append(&theirs).await.expect("appended");
    }
    scene.faults.next(Operation::Create, creates.to_vec());
    scene.faults.next(Operation::Get, reads.to_vec());
    scene.faults.next(Operation::List, lists.to_vec());
    match append(&log, &mine).await {
        Ok(()) => assert!(!other),
        Err(error) => assert!(other && error.kind() == ErrorKind::Fenced, "{error}"),
    }
    tokio::time::sleep(Duration::from_secs(1)).await;
    let expected = if other { theirs } else { mine };
    assert_eq!(truth.last().await.expect("last"), expected);
}

/// All sequences of `length` of the faults.
fn sequences(faults: &[Fault], length: usize) -> Vec<Vec<Fault>> {
    let mut all = vec![Vec::new()];
    for _ in 0..length {
        let longer = |head: &Vec<Fault>| {
            let head = head.clone();
            faults
                .iter()
                .map(move |fault| [&head[..], &[*fault]].concat())
        };
        all = all.iter().flat_map(longer).collect();
    }
    all
}

#[test]
fn c5_c8_every_short_mix_of_faults_of_a_put_is_resolved() {
    for creates in sequences(&CREATE_FAULTS, 3) {
        for reads in sequences(&READ_FAULTS, 2) {
            for other in [false, true] {
                run(scripted_put(&creates, &reads, other));
            }
        }
    }
}

#[test]
fn s3_c5_every_short_mix_of_faults_of_an_append_is_resolved() {
    for creates in sequences(&CREATE_FAULTS, 2) {
        for reads in sequences(&READ_FAULTS, 2) {
            for lists in sequences(&READ_FAULTS, 1) {
                for other in [false, true] {
                    run(scripted_append(&creates, &reads, &lists, other));
                }
            }
        }
    }
}

fn script(faults: &'static [Fault], longest: usize) -> impl Strategy<Value = Vec<Fault>> {
    prop::collection::vec(prop::sample::select(faults), 0..longest)
}

/// Rates of every fault, up to a third of all requests.
fn rates() -> impl Strategy<Value = Rates> {
    prop::array::uniform9(0.0..0.3_f64).prop_map(|r| Rates {
        create_fails: r[0],
        create_answer_lost: r[1],
        create_exists_after: r[2],
        create_exists_before: r[3],
        create_late: r[4],
        get_fails: r[5],
        list_fails: r[6],
        delete_fails: r[7],
        delays: r[8],
        delay: Duration::ZERO..=Duration::from_millis(200),
    })
}

/// Appends `count` objects to a chain that another owner writes to at the same time: adopts the other's
/// object wherever it finds one, and goes on behind it. Returns what was acknowledged as its own.
async fn write_chain(chain: Chain, writer: u8, count: usize) -> Vec<(Index, String)> {
    let (mut acknowledged, mut end) = (Vec::new(), Slot(0));
    while acknowledged.len() < count {
        let record = format!("{writer}-{}", acknowledged.len());
        let longer = vec![record.as_str(); 1 + acknowledged.len() % 3];
        let mine = object(&chain, writer, end.0, &longer);
        match put(&chain, &mine).await {
            Put::Committed => {
                end = mine.index.header.end;
                acknowledged.push((mine.index, record));
            }
            Put::Taken(index) => {
                assert_ne!(index.header.author.writer, mine.index.header.author.writer);
                assert_eq!(index.header.start, end);
                end = index.header.end;
            }
        }
    }
    acknowledged
}

async fn two_writers(rates: Rates, seed: u64) {
    let scene = scene(seed);
    let (chain, truth) = chains(&scene).await;
    scene.faults.set_rates(rates);
    let tasks = [1, 2].map(|writer| tokio::spawn(write_chain(chain.clone(), writer, 10)));
    let mut acknowledged = BTreeMap::new();
    for task in tasks {
        for (index, record) in task.await.expect("joined") {
            let twice = acknowledged.insert(index.header.start, (index, record));
            assert!(twice.is_none(), "decided twice: {twice:?}");
        }
    }
    tokio::time::sleep(Duration::from_secs(10)).await;
    let walk = truth.walk(Slot(0)).await.expect("walk");
    // Nothing is in the chain that nobody was told of, and nothing is missing.
    let expected: Vec<_> = acknowledged
        .values()
        .map(|(index, _)| index.header)
        .collect();
    assert_eq!(walk.headers, expected);
    assert_eq!((walk.orphans.len(), walk.afloat.len()), (0, 0));
    for (start, (_, record)) in acknowledged {
        let (_, runs) = truth.read_object(start).await.expect("ok").expect("there");
        let (_, body) = runs[0].content.as_ref().expect("records");
        assert!(body.records().all(|found| found == record.as_bytes()));
    }
}

/// One of the processes that want to reign: reads the end of the chain, appends its entry, and extends it
/// until it is fenced. Returns the entries that were acknowledged.
async fn reign(log: Log, owner: u8, count: usize) -> Vec<wire::control::ControlEntry> {
    let mut acknowledged = Vec::new();
    while acknowledged.len() < count {
        let Ok(mut entry) = log.last().await else {
            tokio::time::sleep(Duration::from_millis(10)).await;
            continue;
        };
        for _ in 0..3 {
            entry = next(&entry, owner);
            match append(&log, &entry).await {
                Ok(()) => acknowledged.push(entry.clone()),
                Err(error) if error.kind() == ErrorKind::Fenced => break,
                Err(error) => panic!("{error}"),
            }
        }
    }
    acknowledged
}

async fn two_sequencers(rates: Rates, seed: u64) {
    let scene = scene(seed);
    let (log, truth) = logs(&scene).await;
    scene.faults.set_rates(rates);
    let tasks = [1, 2].map(|owner| tokio::spawn(reign(log.clone(), owner, 8)));
    let mut acknowledged = BTreeMap::new();
    for task in tasks {
        for entry in task.await.expect("joined") {
            let twice = acknowledged.insert(entry.number, entry);
            assert!(twice.is_none(), "acknowledged twice: {twice:?}");
        }
    }
    tokio::time::sleep(Duration::from_secs(10)).await;
    check_control(&scene, &truth, &acknowledged).await;
}

/// Reservations follow one another without overlap (S-1), and acknowledged entries are what is stored.
async fn check_control(
    scene: &Scene,
    truth: &Log,
    acknowledged: &BTreeMap<u64, wire::control::ControlEntry>,
) {
    let last = truth.last().await.expect("last");
    let mut before = None;
    for number in 0..=last.number {
        let name = wire::name::control(truth.id(), number);
        let bytes = scene.truth.get(&name).await.expect("ok").expect("no gap");
        let entry = wire::control::ControlEntry::decode(&bytes).expect("sound");
        if let Some(before) = before {
            assert_eq!(entry.epoch_start, before, "reservations overlap");
        }
        if let Some(mine) = acknowledged.get(&number) {
            assert_eq!(mine, &entry);
        }
        before = Some(entry.reservation);
    }
    assert!(acknowledged.keys().all(|number| *number <= last.number));
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 96, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn c5_c8_long_mixes_of_faults_of_a_put_are_resolved(
        creates in script(&CREATE_FAULTS, 24),
        reads in script(&READ_FAULTS, 24),
        other in any::<bool>(),
    ) {
        run(scripted_put(&creates, &reads, other));
    }

    #[test]
    fn s3_c5_long_mixes_of_faults_of_an_append_are_resolved(
        creates in script(&CREATE_FAULTS, 24),
        reads in script(&READ_FAULTS, 24),
        lists in script(&READ_FAULTS, 12),
        other in any::<bool>(),
    ) {
        run(scripted_append(&creates, &reads, &lists, other));
    }

    #[test]
    fn c1_c3_two_writers_of_a_chain_lose_nothing(rates in rates(), seed in any::<u64>()) {
        run(two_writers(rates, seed));
    }

    #[test]
    fn s1_s3_two_sequencers_reserve_nothing_twice(rates in rates(), seed in any::<u64>()) {
        run(two_sequencers(rates, seed));
    }
}
