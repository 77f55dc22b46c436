//! Requests to the sequencer on their way: packed into datagrams, repeated, and signed.

mod support;

use std::time::Duration;

use futures::future::join_all;
use stripelog::{Log, Tail};
use support::*;
use tokio::time::timeout;
use wire::Lane;
use wire::datagram::Kind;
use wire::mac::Key;

const SHORT: Duration = Duration::from_millis(400);

/// Longer than anything here takes: where nothing is lost nothing is to be repeated.
const LONG: Duration = Duration::from_secs(20);

fn key(byte: u8) -> Key {
    Key::new(&[byte; 32])
}

impl Fixture {
    fn use_key(&self, key: Option<Key>) {
        self.sequencer.state.lock().expect("not poisoned").key = key;
    }

    /// The datagrams that came since the last question.
    fn datagrams(&self) -> Vec<(Kind, Vec<Lane>, Vec<u64>)> {
        let mut state = self.sequencer.state.lock().expect("not poisoned");
        let told = std::mem::take(&mut state.datagrams);
        let lanes = |(kind, entries): (Kind, Vec<_>)| {
            let (lanes, requests): (Vec<_>, Vec<_>) = entries.into_iter().unzip();
            let requests = requests
                .into_iter()
                .map(|id: wire::RequestId| id.0)
                .collect();
            (kind, lanes, requests)
        };
        told.into_iter().map(lanes).collect()
    }
}

async fn ask_many(log: &Log, questions: usize) {
    let asked = (0..questions).map(|_| log.tail(Tail::Issued));
    for tail in join_all(asked).await {
        tail.expect("answered");
    }
}

#[tokio::test]
async fn questions_that_wait_share_datagrams() {
    let fixture = Fixture::new(4, 2).await;
    let options = fixture.options().grant_timeout(LONG);
    let log = fixture.open_with(options.clone()).await;
    ask_many(&log, 60).await;
    let sizes: Vec<_> = fixture.datagrams().iter().map(|d| d.1.len()).collect();
    assert_eq!(sizes, [29, 29, 2]);
    assert_eq!(log.stats().datagrams_sent, 3);

    let narrow = options.requests_per_datagram(4);
    let log = fixture.open_with(narrow).await;
    ask_many(&log, 10).await;
    let sizes: Vec<_> = fixture.datagrams().iter().map(|d| d.1.len()).collect();
    assert_eq!(sizes, [4, 4, 2]);
}

#[tokio::test]
async fn many_appends_that_wait_are_few_datagrams() {
    let fixture = Fixture::new(4, 2).await;
    let log = fixture
        .open_with(fixture.options().grant_timeout(LONG))
        .await;
    join_all((0..1000).map(|_| append(&log, records(0..3)))).await;
    let stats = log.stats();
    assert!(stats.datagrams_sent <= 10, "{stats:?}");
    assert_eq!(stats.grants, stats.datagrams_sent);
}

#[tokio::test]
async fn s6_a_lost_datagram_is_repeated_with_the_same_numbers() {
    let fixture = Fixture::new(4, 2).await;
    let log = fixture.open().await;
    fixture.sequencer.state.lock().expect("not poisoned").lose = 2;
    ask_many(&log, 20).await;
    let sent = fixture.datagrams();
    assert_eq!(sent[0].2.len(), 20);
    assert_eq!(sent[..3], vec![sent[0].clone(); 3]);
    // Answers that are late make it ask once more, with the same numbers.
    let mut late = sent.iter().skip(3).flat_map(|datagram| &datagram.2);
    assert!(late.all(|number| sent[0].2.contains(number)), "{sent:?}");
    let stats = log.stats();
    assert!(stats.datagrams_sent >= 3, "{stats:?}");
    assert!(stats.requests_resent >= 40, "{stats:?}");
}

#[tokio::test]
async fn s6_lanes_of_grants_are_dense_and_repeat_their_numbers() {
    let fixture = Fixture::new(4, 2).await;
    let options = fixture.options().grant_lanes(8).append_timeout(20 * SHORT);
    let log = fixture.open_with(options).await;
    fixture.sequencer.state.lock().expect("not poisoned").lose = usize::MAX;
    let mut appends = Vec::new();
    for at in 0..12 {
        let log = log.clone();
        let appended = async move { append(&log, records(at..at + 1)).await };
        appends.push(tokio::spawn(appended));
        // Each lane finds one append, until all have a request under way.
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
    let grants = |datagrams: Vec<(Kind, Vec<Lane>, Vec<u64>)>| {
        let entries = datagrams.into_iter().flat_map(|d| d.1.into_iter().zip(d.2));
        entries.collect::<std::collections::BTreeSet<_>>()
    };
    let eight = async || {
        let mut seen = std::collections::BTreeSet::new();
        while seen.len() < 8 {
            tokio::time::sleep(Duration::from_millis(1)).await;
            seen.extend(grants(fixture.datagrams()));
        }
        seen
    };
    let first = timeout(LONG, eight()).await.expect("in time");
    let lanes: Vec<u32> = first.iter().map(|(lane, _)| lane.0).collect();
    assert_eq!(lanes, (0..8).collect::<Vec<_>>());
    tokio::time::sleep(SHORT).await;
    let repeated = timeout(LONG, eight()).await.expect("in time");
    assert_eq!(repeated, first, "the same numbers");
    fixture.sequencer.state.lock().expect("not poisoned").lose = 0;
    let mut acked = Vec::new();
    for appended in appends {
        acked.extend(appended.await.expect("no panic"));
    }
    assert_eq!(acked.len(), 12);
    assert_exactly(&fixture, &log, &acked).await;
}

#[tokio::test]
async fn with_the_key_everything_goes_on() {
    let fixture = Fixture::new(4, 2).await;
    fixture.use_key(Some(key(7)));
    let log = fixture.open_with(fixture.options().key(key(7))).await;
    let acked = append(&log, records(0..10)).await;
    ask_many(&log, 40).await;
    assert_exactly(&fixture, &log, &acked).await;
    assert_eq!(log.stats().wrong_macs, 0);
}

/// What an append and a question say when the keys of client and sequencer do not fit.
async fn refusals(of_client: Option<Key>, of_sequencer: Option<Key>) -> (Vec<String>, u64) {
    let fixture = Fixture::new(4, 2).await;
    fixture.use_key(of_sequencer);
    let options = fixture.options().append_timeout(SHORT);
    let options = match of_client {
        Some(key) => options.key(key),
        None => options,
    };
    let log = fixture.open_with(options).await;
    let append = log.append(records(0..1)).await.expect_err("refused");
    assert!(append.is_definite(), "{append}");
    let tail = timeout(20 * SHORT, log.tail(Tail::Issued)).await;
    let tail = tail.expect("in time").expect_err("refused");
    let texts = vec![append.to_string(), tail.to_string()];
    (texts, log.stats().wrong_macs)
}

#[tokio::test]
async fn a_client_without_the_key_gets_nothing_and_says_so() {
    let (texts, wrong) = refusals(None, Some(key(7))).await;
    let says = "no answer; if it has a key file, it needs requests that are signed";
    assert!(texts.iter().all(|text| text.contains(says)), "{texts:?}");
    assert_eq!(wrong, 0);
}

#[tokio::test]
async fn a_client_with_another_key_gets_nothing_and_says_so() {
    let (texts, wrong) = refusals(Some(key(8)), Some(key(7))).await;
    let says = "no answer, to requests that are signed with our key";
    assert!(texts.iter().all(|text| text.contains(says)), "{texts:?}");
    assert_eq!(wrong, 0);
}

#[tokio::test]
async fn answers_that_are_not_signed_are_ignored_and_counted() {
    let (texts, wrong) = refusals(Some(key(7)), None).await;
    let says = "its answers fail the key check";
    assert!(texts.iter().all(|text| text.contains(says)), "{texts:?}");
    assert!(wrong >= 2, "{wrong}");
}
