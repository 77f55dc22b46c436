//! Two sequencers, of which one reigns: clients find it, and lose no time.

mod support;

use std::sync::MutexGuard;
use std::time::Duration;

use stripelog::{Log, Tail};
use support::sequencer::State;
use support::*;
use tokio::time::{Instant, sleep, timeout};
use wire::frame::AckStatus;
use wire::{Epoch, Position};

const MS: Duration = Duration::from_millis(1);

/// Far more than it takes to find the sequencer that reigns, and less than the first pause of a request.
const SOON: Duration = Duration::from_secs(5);
const PAUSE: Duration = Duration::from_secs(20);

/// A log with two sequencers; the first reigns, the second stands by.
struct Two {
    fixture: Fixture,
    second: FakeSequencer,
}

impl Two {
    async fn new() -> Self {
        let fixture = Fixture::new(4, 2).await;
        let id = fixture.catalog.id();
        let second = FakeSequencer::start(id, fixture.writer.clone()).await;
        let two = Self { fixture, second };
        two.second().standby = true;
        two
    }

    /// A client that repeats no request as long as anything here may take.
    async fn open(&self) -> Log {
        self.open_with(PAUSE).await
    }

    async fn open_with(&self, grant_timeout: Duration) -> Log {
        let mut membership = self.fixture.membership();
        membership.sequencers.push(self.second.address);
        let options = stripelog::Options::new("", membership);
        let options = options.append_timeout(2 * PAUSE);
        self.fixture
            .open_with(options.grant_timeout(grant_timeout))
            .await
    }

    fn first(&self) -> MutexGuard<'_, State> {
        self.fixture.sequencer.state.lock().expect("not poisoned")
    }

    fn second(&self) -> MutexGuard<'_, State> {
        self.second.state.lock().expect("not poisoned")
    }

    /// Begins the reign of the next epoch at a position, with everything below it junk.
    async fn begin(&self, start: Position) -> Epoch {
        let catalog = &self.fixture.catalog;
        let mut entry = catalog.last().await.expect("reads");
        entry.number += 1;
        entry.epoch = Epoch(entry.epoch.0 + 1);
        entry.epoch_start = start;
        entry.reservation = start.plus(1000);
        catalog.append(&entry).await.expect("appends");
        self.fixture.writer.fill_to(start).await;
        entry.epoch
    }

    /// The second takes over at a position.
    async fn second_reigns(&self, start: Position) {
        let epoch = self.begin(start).await;
        let mut second = self.second();
        (second.epoch, second.next, second.standby) = (epoch, start.0, false);
        second.silent = false;
    }
}

async fn appended(log: &Log, at: usize) -> (Vec<u64>, Duration) {
    let began = Instant::now();
    let acked = append(log, records(at..at + 3)).await;
    let positions = acked.iter().map(|acked| acked.0.0).collect();
    (positions, began.elapsed())
}

/// One request that it does not answer is enough: the first copy, and the second, with which all are asked.
#[tokio::test]
async fn a_sequencer_that_falls_silent_is_left_at_once() {
    let two = Two::new().await;
    let log = two.open_with(2000 * MS).await;
    assert_eq!(appended(&log, 0).await.0, [0, 1, 2]);
    assert_eq!(two.second().datagrams.len(), 0, "it was not asked");
    two.first().silent = true;
    two.second_reigns(Position(8)).await;
    let asked = two.first().grants();
    assert_eq!(appended(&log, 3).await.0, [8, 9, 10]);
    assert_eq!(two.first().grants() - asked, 2);
    // And now it is the one that is asked.
    let asked = two.first().datagrams.len();
    assert_eq!(appended(&log, 6).await.0, [11, 12, 13]);
    assert_eq!(two.first().datagrams.len(), asked);
}

#[tokio::test]
async fn one_that_says_that_it_does_not_reign_is_left_at_once() {
    let two = Two::new().await;
    let log = two.open().await;
    assert_eq!(appended(&log, 0).await.0, [0, 1, 2]);
    two.first().standby = true;
    two.second_reigns(Position(8)).await;
    let (positions, took) = appended(&log, 3).await;
    assert_eq!(positions, [8, 9, 10]);
    assert!(took < SOON, "{took:?}");
}

/// However long nobody reigned, the pauses of requests are not what the end of that is waited for.
#[tokio::test]
async fn while_nobody_reigns_all_are_asked_at_a_steady_interval() {
    let two = Two::new().await;
    let log = two.open().await;
    two.first().standby = true;
    let waiting = log.clone();
    let append = tokio::spawn(async move { appended(&waiting, 0).await.0 });
    // It has the word of the first, and asks all.
    let asked = async {
        while two.second().datagrams.is_empty() {
            sleep(MS).await;
        }
    };
    timeout(SOON, asked).await.expect("asks all");
    two.first().silent = true;
    two.second().silent = true;
    sleep(3000 * MS).await;
    let asked = two.second().datagrams.len();
    assert!((20..=140).contains(&asked), "asked={asked}");
    let began = Instant::now();
    two.second_reigns(Position(8)).await;
    assert_eq!(append.await.expect("no panic"), [8, 9, 10]);
    assert!(began.elapsed() < SOON, "{:?}", began.elapsed());
}

/// A sequencer that does not know yet that it was replaced grants on: its tokens are refused as sealed, and then
/// it is asked no more.
#[tokio::test]
async fn h3_tokens_of_a_former_reign_are_refused_once_and_not_asked_for_again() {
    let two = Two::new().await;
    let log = two.open().await;
    assert_eq!(appended(&log, 0).await.0, [0, 1, 2]);
    two.second_reigns(Position(8)).await;
    two.fixture
        .writer
        .script([Fault::Status(AckStatus::Sealed)]);
    let (positions, took) = appended(&log, 3).await;
    assert!(
        positions.iter().all(|position| *position >= 8),
        "{positions:?}"
    );
    assert!(took < SOON, "{took:?}");
    let granted = two.fixture.sequencer.requests().len();
    for at in 2..6 {
        appended(&log, 3 * at).await;
    }
    assert_eq!(two.fixture.sequencer.requests().len(), granted);
}

/// The tail of a reign that is over is not taken for that of the log.
#[tokio::test]
async fn r5_the_linearizable_tail_is_that_of_the_newest_reign() {
    let two = Two::new().await;
    let log = two.open().await;
    assert_eq!(appended(&log, 0).await.0, [0, 1, 2]);
    two.second_reigns(Position(8)).await;
    assert_eq!(appended(&two.open().await, 3).await.0, [8, 9, 10]);
    let began = Instant::now();
    let tail = log.tail(Tail::Linearizable).await.expect("told");
    assert_eq!(tail, Position(11));
    assert!(began.elapsed() < SOON, "{:?}", began.elapsed());
}

/// A to B to A: what the first says for the reign it had is of no account, until it has a new one.
#[tokio::test]
async fn s4_a_former_sequencer_is_believed_again_in_its_next_reign() {
    let two = Two::new().await;
    let log = two.open().await;
    two.first().standby = true;
    two.second_reigns(Position(8)).await;
    assert_eq!(appended(&log, 0).await.0, [8, 9, 10]);
    two.first().standby = false;
    assert_eq!(appended(&log, 3).await.0, [11, 12, 13]);
    let epoch = two.begin(Position(16)).await;
    two.second().standby = true;
    {
        let mut first = two.first();
        (first.epoch, first.next) = (epoch, 16);
    }
    let (positions, took) = appended(&log, 6).await;
    assert_eq!(positions, [16, 17, 18]);
    assert!(took < SOON, "{took:?}");
}
