//! A membership that changes while the log is open.

mod support;

use std::time::Duration;

use catalog::{Membership, Writer};
use stripelog::{ErrorKind, Layout, Log, Options, Tail};
use support::*;
use tokio::sync::watch;
use tokio::time::{sleep, timeout};
use wire::frame::AckStatus;

/// A log with one stripe whose membership is told by `tell`.
struct Told {
    fixture: Fixture,
    tell: watch::Sender<Membership>,
    log: Log,
}

impl Told {
    async fn by(membership: impl FnOnce(&Fixture) -> Membership) -> Self {
        let fixture = Fixture::new(1, 8).await;
        let (tell, told) = watch::channel(membership(&fixture));
        let options = Options::told("", told).append_timeout(Duration::from_secs(6));
        let log = fixture.open_with(options).await;
        Self { fixture, tell, log }
    }

    /// Another stripe-writer of the same log, which decides nothing that the first one has.
    async fn other(&self) -> FakeWriter {
        FakeWriter::start(self.fixture.catalog.clone()).await
    }
}

fn with_writers(fixture: &Fixture, writers: &[&FakeWriter]) -> Membership {
    let writer = |writer: &&FakeWriter| Writer {
        address: writer.address(),
        stripes: 0..=1023,
    };
    Membership {
        writers: writers.iter().map(writer).collect(),
        ..fixture.membership()
    }
}

#[tokio::test]
async fn an_append_waits_for_servers_that_come_later() {
    let told = Told::by(|_| Membership::default()).await;
    let tail = told
        .log
        .tail(Tail::Issued)
        .await
        .expect_err("nobody is there");
    assert_eq!(tail.kind(), ErrorKind::Retry);
    assert!(tail.to_string().contains("no sequencer"), "{tail}");
    let log = told.log.clone();
    let appending = tokio::spawn(async move { append(&log, records(0..3)).await });
    sleep(Duration::from_millis(100)).await;
    assert!(!appending.is_finished());
    // A sequencer alone gives no token: nobody would write to its position.
    told.tell.send_replace(with_writers(&told.fixture, &[]));
    sleep(Duration::from_millis(100)).await;
    assert_eq!(told.fixture.sequencer.requests(), []);
    assert!(!appending.is_finished());
    told.tell.send_replace(told.fixture.membership());
    let acked = appending.await.expect("joined");
    assert_exactly(&told.fixture, &told.log, &acked).await;
}

#[tokio::test]
async fn who_told_of_the_membership_may_go_away() {
    let told = Told::by(Fixture::membership).await;
    let Told { fixture, tell, log } = told;
    drop(tell);
    let mut acked = append(&log, records(0..3)).await;
    sleep(Duration::from_millis(20)).await;
    acked.extend(append(&log, records(3..6)).await);
    assert_exactly(&fixture, &log, &acked).await;
}

/// A list that is wrong costs who knows the owner nothing: it serves the stripe, whether it is in the list or not.
#[tokio::test]
async fn c6_a_list_without_the_owner_takes_nobody_away_from_it() {
    let told = Told::by(Fixture::membership).await;
    let stranger = told.other().await;
    stranger.script(vec![Fault::Status(AckStatus::NotOwner); 10_000]);
    let mut acked = append(&told.log, records(0..3)).await;
    told.tell
        .send_replace(with_writers(&told.fixture, &[&stranger]));
    sleep(Duration::from_millis(50)).await;
    let early = timeout(Duration::from_secs(3), append(&told.log, records(3..6)));
    acked.extend(early.await.expect("the owner is asked"));
    assert_exactly(&told.fixture, &told.log, &acked).await;
    assert_eq!(stranger.appends().len(), 0);
}

/// Ranges may overlap where processes register by themselves, as they do by default.
#[tokio::test]
async fn another_layout_needs_a_stripe_writer_and_no_ranges_of_its_own() {
    let told = Told::by(Fixture::membership).await;
    let layout = Layout::new(3, 8).expect("valid");
    let other = told.other().await;
    for (writers, kind) in [
        (&[&told.fixture.writer, &other][..], ErrorKind::Retry),
        (&[][..], ErrorKind::Invalid),
    ] {
        told.tell.send_replace(with_writers(&told.fixture, writers));
        sleep(Duration::from_millis(50)).await;
        // This sequencer does not know how.
        let limit = Duration::from_millis(300);
        let error = told.log.restripe(layout, limit).await.expect_err("none");
        assert_eq!(error.kind(), kind, "{error}");
    }
}

/// An address that the list has no more may be another log's by now: what it says about itself fails no append.
#[tokio::test]
async fn c6_who_is_refused_at_an_address_that_left_the_list_asks_those_in_it() {
    let told = Told::by(Fixture::membership).await;
    append(&told.log, records(0..3)).await;
    let other = told.other().await;
    told.fixture.writer.script(vec![Fault::Refuse; 10_000]);
    told.tell
        .send_replace(with_writers(&told.fixture, &[&other]));
    sleep(Duration::from_millis(50)).await;
    append(&told.log, records(3..6)).await;
    append(&told.log, records(6..9)).await;
    assert_eq!(
        other.appends().len(),
        2,
        "acknowledged by the one in the list"
    );
}

/// Where the owner was never asked such a list costs a detour: it is asked when it is told again.
#[tokio::test]
async fn c6_a_list_without_the_owner_holds_appends_up_and_loses_nothing() {
    let told = Told::by(Fixture::membership).await;
    let stranger = told.other().await;
    stranger.script(vec![Fault::Status(AckStatus::NotOwner); 10_000]);
    told.tell
        .send_replace(with_writers(&told.fixture, &[&stranger]));
    sleep(Duration::from_millis(50)).await;
    let log = told.log.clone();
    let mut appending = tokio::spawn(async move { append(&log, records(0..3)).await });
    let early = timeout(Duration::from_millis(300), &mut appending).await;
    assert!(
        early.is_err(),
        "acknowledged by a writer that does not own the stripe"
    );
    assert!(!stranger.appends().is_empty(), "the list was followed");
    told.tell.send_replace(with_writers(
        &told.fixture,
        &[&stranger, &told.fixture.writer],
    ));
    let acked = appending.await.expect("joined");
    assert_exactly(&told.fixture, &told.log, &acked).await;
}

/// Frames that a writer owes an answer for stay with it, wherever the list has gone.
#[tokio::test]
async fn a_writer_that_leaves_the_list_is_asked_for_what_it_owes() {
    let told = Told::by(Fixture::membership).await;
    let stranger = told.other().await;
    told.fixture.writer.script([Fault::Ignore]);
    let log = told.log.clone();
    let appending = tokio::spawn(async move { append(&log, records(0..3)).await });
    while told.fixture.writer.appends().is_empty() {
        sleep(Duration::from_millis(5)).await;
    }
    told.tell
        .send_replace(with_writers(&told.fixture, &[&stranger]));
    sleep(Duration::from_millis(50)).await;
    // Not for so long that it is taken for dead.
    told.fixture.writer.restart().await;
    let acked = timeout(Duration::from_secs(5), appending).await;
    let acked = acked.expect("in time").expect("joined");
    assert_exactly(&told.fixture, &told.log, &acked).await;
    assert_eq!(stranger.appends().len(), 0);
}

/// Anybody may have written the list: one of it to which no socket can be opened keeps nobody from the others.
#[tokio::test]
async fn a_sequencer_to_which_there_is_no_way_holds_nobody_up() {
    let nowhere = std::net::SocketAddr::from(([255, 255, 255, 255], 9));
    let beside = |fixture: &Fixture| {
        let mut membership = fixture.membership();
        membership.sequencers.insert(0, nowhere);
        membership
    };
    let told = Told::by(beside).await;
    let acked = append(&told.log, records(0..3)).await;
    assert_exactly(&told.fixture, &told.log, &acked).await;
    let told = Told::by(|_| Membership {
        sequencers: vec![nowhere],
        ..Membership::default()
    })
    .await;
    told.tell.send_replace(beside(&told.fixture));
    let acked = append(&told.log, records(0..3)).await;
    assert_exactly(&told.fixture, &told.log, &acked).await;
}

/// The list is no reason to leave a sequencer that answers.
#[tokio::test]
async fn the_sequencer_that_reigns_is_asked_though_the_list_lacks_it() {
    let told = Told::by(Fixture::membership).await;
    let mut acked = append(&told.log, records(0..3)).await;
    let id = told.fixture.catalog.id();
    let standby = FakeSequencer::start(id, told.fixture.writer.clone()).await;
    standby.state.lock().expect("not poisoned").standby = true;
    told.tell.send_replace(Membership {
        sequencers: vec![standby.address],
        ..told.fixture.membership()
    });
    sleep(Duration::from_millis(50)).await;
    acked.extend(append(&told.log, records(3..6)).await);
    assert_exactly(&told.fixture, &told.log, &acked).await;
}
