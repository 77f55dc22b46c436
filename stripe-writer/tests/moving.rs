//! Stripes on their way, as those see it who append to them meanwhile, and stripe-writers that end (C-6).

mod group;

use std::collections::BTreeMap;
use std::time::Duration;

use catalog::faults::Operation;
use group::{Connection, Group, SOON};
use tokio::task::JoinHandle;
use tokio::time::{Instant, sleep, timeout};
use wire::OwnerNumber;
use wire::frame::AckStatus;

/// Well below the time for which an append waits for a stripe that is on its way.
const SHORT: Duration = Duration::from_millis(20);

/// Long enough for an append to be met, and far from all of it.
const PART: Duration = Duration::from_millis(60);

/// Nearly all of it.
const NEARLY: Duration = Duration::from_millis(200);

/// How often a host may stand still for longer than an append waits.
const TRIES: usize = 5;

/// Long enough that a busy host is not taken for a dead one.
const TIMEOUT: Duration = Duration::from_secs(1);

type Ended = JoinHandle<()>;

/// A group in which each owns what is its own and has heard of the others, and a connection to its first member.
async fn started() -> (Group, Connection) {
    let group = Group::start(TIMEOUT).await;
    group.become_home().await;
    // Each asks the others four times in this time: who was never heard is waited for.
    sleep(TIMEOUT).await;
    let connection = group.connect(0).await;
    (group, connection)
}

/// The first member takes a stripe of another that is dead, and comes to no end with it as the store does not answer.
async fn taking(group: &mut Group) -> u16 {
    let mut watching = group.connect(0).await;
    let faults = group.faults(0);
    faults.hold(Operation::Get);
    faults.hold(Operation::List);
    group.kill(1);
    let mut claims = BTreeMap::new();
    let looking = async {
        loop {
            claims = watching.claims().await.expect("answers");
            let taking = claims.iter().find(|(_, owner)| **owner == OwnerNumber(0));
            if let Some((stripe, _)) = taking {
                return *stripe;
            }
            sleep(SHORT).await;
        }
    };
    let stripe = timeout(SOON, looking).await;
    stripe.unwrap_or_else(|_| panic!("takes nothing: {claims:?}"))
}

/// The first member ends, and comes to no end with stripe 0 as the store takes nothing: the record with request 1. Gives
/// a connection that is open already, and the news of the end.
async fn leaving(group: &mut Group, connection: &mut Connection) -> (Connection, Ended) {
    let mut watching = group.connect(0).await;
    let faults = group.faults(0);
    faults.hold(Operation::Create);
    let before = faults.counts().injected.stalled;
    connection.append(0, 0, 1, "held").await;
    let put = async {
        while faults.counts().injected.stalled == before {
            sleep(SHORT).await;
        }
    };
    timeout(SOON, put).await.expect("in time");
    let ended = group.stop(0);
    let left = async {
        while watching.claims().await.expect("answers").len() > 1 {
            sleep(SHORT).await;
        }
    };
    let left = timeout(SOON, left).await;
    left.expect("leaves all that it holds nothing of");
    (watching, ended)
}

/// Appends to a stripe that is on its way and comes, and to another behind. Gives the answers, in the order of their
/// requests, whether there was none before it came, and how long they took.
async fn appended_while_it_comes() -> (bool, Vec<AckStatus>, Duration) {
    let (mut group, mut connection) = started().await;
    let stripe = taking(&mut group).await;
    let sent = Instant::now();
    connection.append(stripe, 0, 1, "first").await;
    connection.append(stripe, 0, 2, "second").await;
    connection
        .append(0, 0, 3, "of a stripe that is there")
        .await;
    let silent = connection.is_silent(PART).await;
    group.faults(0).release();
    let answers = answers(&mut connection, 3).await.into_iter();
    let statuses = answers.map(|(_, status)| status).collect();
    (silent, statuses, sent.elapsed())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn c6_an_append_waits_for_a_stripe_that_comes_and_what_was_sent_behind_it_waits_too() {
    let mut tries = Vec::new();
    for _ in 0..TRIES {
        let (silent, statuses, took) = appended_while_it_comes().await;
        let [committed, conflict] = [AckStatus::Committed, AckStatus::Conflict];
        let waited = statuses == [committed, conflict, committed];
        if silent && waited {
            return;
        }
        // On a host that stood still the wait was over before the stripe came.
        let too_long = statuses[0] == AckStatus::Busy && took >= NEARLY;
        assert!(waited || too_long, "{statuses:?} {took:?}");
        tries.push((silent, statuses));
    }
    panic!("does not wait: {tries:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn c6_an_append_waits_no_longer_for_a_stripe_than_its_bound() {
    let (mut group, mut connection) = started().await;
    let stripe = taking(&mut group).await;
    let sent = Instant::now();
    connection.append(stripe, 0, 1, "early").await;
    connection
        .append(0, 0, 2, "of a stripe that is there")
        .await;
    // Still on its way: to look for it elsewhere would take longer.
    assert_eq!(connection.answer().await, (1, AckStatus::Busy));
    assert!(sent.elapsed() >= NEARLY, "{:?}", sent.elapsed());
    assert_eq!(connection.answer().await, (2, AckStatus::Committed));
    group.faults(0).release();
    let owners = group.become_owned(|_, owner| owner != 1).await;
    let status = group.append(owners[&stripe], stripe, 0).await;
    assert_eq!(status, AckStatus::Committed);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn c6_an_append_to_a_stripe_that_goes_is_sent_elsewhere_at_the_bound() {
    let (mut group, mut connection) = started().await;
    let (_watching, ended) = leaving(&mut group, &mut connection).await;
    let sent = Instant::now();
    connection.append(0, 1, 2, "late").await;
    connection.append(0, 1, 3, "behind it").await;
    assert_eq!(connection.answer().await, (2, AckStatus::NotOwner));
    assert!(sent.elapsed() >= NEARLY, "{:?}", sent.elapsed());
    group.faults(0).release();
    // What it held before it went is durable.
    let [committed, elsewhere] = [AckStatus::Committed, AckStatus::NotOwner];
    let answers = answers(&mut connection, 2).await;
    assert_eq!(answers, [(1, committed), (3, elsewhere)]);
    timeout(SOON, ended).await.expect("in time").expect("ends");
    group.become_owned(|_, owner| owner != 0).await;
}

/// Of two that are left one is at its end, and the other takes everything.
#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn c6_a_member_at_its_end_takes_no_stripe() {
    let (mut group, mut connection) = started().await;
    let (mut watching, ended) = leaving(&mut group, &mut connection).await;
    group.kill(1);
    is_taken_by_the_last(&group).await;
    let claims = watching.claims().await.expect("answers");
    assert_eq!(claims.into_keys().collect::<Vec<_>>(), [0]);
    group.faults(0).release();
    assert_eq!(connection.answer().await, (1, AckStatus::Committed));
    timeout(SOON, ended).await.expect("in time").expect("ends");
}

/// What it was taking when it was told to end is nobody's, and not to be waited for.
#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn c6_a_member_at_its_end_gives_up_what_it_was_taking() {
    let (mut group, mut connection) = started().await;
    taking(&mut group).await;
    let _ending = leaving(&mut group, &mut connection).await;
    is_taken_by_the_last(&group).await;
}

/// So many answers, in the order of their requests.
async fn answers(connection: &mut Connection, count: usize) -> Vec<(u64, AckStatus)> {
    let mut answers = Vec::new();
    for _ in 0..count {
        answers.push(connection.answer().await);
    }
    answers.sort_unstable_by_key(|(request, _)| *request);
    answers
}

/// Waits until the third member owns every stripe but the one that the first holds something of.
async fn is_taken_by_the_last(group: &Group) {
    let mut connection = group.connect(2).await;
    let taken = async {
        loop {
            let claims = connection.claims().await.expect("answers");
            let owned = claims.values().filter(|owner| **owner > OwnerNumber(0));
            if owned.count() + 1 == usize::from(group::STRIPES) {
                return;
            }
            sleep(SHORT).await;
        }
    };
    timeout(SOON, taken).await.expect("takes them all");
}
