//! Stripes that another stripe-writer has taken over than the membership says (C-6).

mod support;

use catalog::{Membership, Writer};
use stripelog::Options;
use support::{FakeWriter, Fault, Fixture, append, assert_exactly, records};
use wire::frame::AckStatus;

/// A log whose stripe should be owned by the first writer, and is by the second, the fixture's.
async fn scene() -> (Fixture, FakeWriter, Options) {
    let fixture = Fixture::new(1, 8).await;
    let former = FakeWriter::start(fixture.catalog.clone()).await;
    let writers = [(former.address(), 0..=0), (fixture.writer.address(), 1..=9)];
    let writers = writers.map(|(address, stripes)| Writer { address, stripes });
    let membership = Membership {
        writers: writers.to_vec(),
        ..fixture.membership()
    };
    let options = Options::new("", membership);
    (fixture, former, options)
}

#[tokio::test]
async fn c6_an_append_follows_a_stripe_to_the_writer_that_took_it_over() {
    let (fixture, former, options) = scene().await;
    former.script(vec![Fault::Status(AckStatus::NotOwner); 9]);
    let log = fixture.open_with(options).await;
    let mut acked = append(&log, records(0..3)).await;
    acked.extend(append(&log, records(3..6)).await);
    assert_exactly(&fixture, &log, &acked).await;
    assert_eq!(former.appends().len(), 1, "and stays there");
    assert_eq!(fixture.writer.appends()[0], former.appends()[0]);
}

#[tokio::test]
async fn c6_an_append_that_cannot_reach_a_writer_asks_the_others() {
    let (fixture, former, options) = scene().await;
    former.stop().await;
    let log = fixture.open_with(options).await;
    let acked = append(&log, records(0..3)).await;
    assert_exactly(&fixture, &log, &acked).await;
}

/// Records that are on their way when their writer dies are taken in by the next one, at their positions.
#[tokio::test]
async fn c6_frames_that_are_under_way_move_with_their_stripe() {
    let (fixture, former, options) = scene().await;
    former.script([Fault::Ignore, Fault::Status(AckStatus::NotOwner)]);
    let log = fixture.open_with(options).await;
    let first = tokio::spawn({
        let log = log.clone();
        async move { append(&log, records(0..3)).await }
    });
    while former.appends().is_empty() {
        tokio::time::sleep(std::time::Duration::from_millis(5)).await;
    }
    former.stop().await;
    let mut acked = append(&log, records(3..6)).await;
    acked.extend(first.await.expect("joined"));
    assert_exactly(&fixture, &log, &acked).await;
}
