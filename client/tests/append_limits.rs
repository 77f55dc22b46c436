//! Deadlines, cancelled appends and bounds.

mod support;

use std::time::Duration;

use bytes::Bytes;
use stripelog::{Error, ErrorKind, Log};
use support::*;
use tokio::time::{Instant, sleep, timeout};
use wire::frame::AckStatus;
use wire::limits::MAX_RECORD_BYTES;

const MS: Duration = Duration::from_millis(1);

#[tokio::test]
async fn a_deadline_before_any_frame_was_sent_is_definite() {
    let fixture = Fixture::new(1, 8).await;
    let options = fixture.options().append_timeout(150 * MS);
    let log = fixture.open_with(options.clone()).await;
    fixture.sequencer.state.lock().expect("not poisoned").silent = true;
    let error = log.append(records(0..2)).await.expect_err("no token");
    assert!(
        error.is_definite() && error.kind() == ErrorKind::Retry,
        "{error}"
    );
    let text = error.to_string();
    assert!(
        text.contains("sequencer is not available") && text.contains("no answer"),
        "{text}"
    );
    fixture.sequencer.state.lock().expect("not poisoned").silent = false;

    // A token, but nobody to send the records to.
    fixture.writer.stop().await;
    let error = log.append(records(2..4)).await.expect_err("no writer");
    assert!(error.is_definite(), "{error}");
    fixture.writer.listen().await;
    sleep(1500 * MS).await;
    // What was called certainly not written is not written later.
    let acked = append(&fixture.open().await, records(10..11)).await;
    assert_exactly(&fixture, &log, &acked).await;
}

/// The time of an append is over before its request is late.
#[tokio::test]
async fn a_deadline_before_a_request_is_repeated_says_that_it_has_no_answer() {
    let fixture = Fixture::new(1, 8).await;
    let options = fixture.options().grant_timeout(10_000 * MS);
    let log = fixture.open_with(options.append_timeout(100 * MS)).await;
    fixture.sequencer.state.lock().expect("not poisoned").silent = true;
    let error = log.append(records(0..2)).await.expect_err("no token");
    let text = error.to_string();
    assert!(
        text.contains("sequencer is not available") && text.contains("no answer"),
        "{text}"
    );
}

#[tokio::test]
async fn a_deadline_after_a_frame_was_sent_is_not_definite() {
    let fixture = Fixture::new(1, 8).await;
    fixture.writer.script([Fault::Ignore]);
    let log = fixture
        .open_with(fixture.options().append_timeout(1000 * MS))
        .await;
    let started = Instant::now();
    let error = log.append(records(0..2)).await.expect_err("no answer");
    assert!(
        matches!(
            error,
            Error::TimedOut {
                definite: false,
                ..
            }
        ),
        "{error}"
    );
    // Without signs of others it does not wait ten times as long.
    assert!(started.elapsed() < 6000 * MS, "{:?}", started.elapsed());
}

#[tokio::test]
async fn a_deadline_after_busy_only_is_definite() {
    let fixture = Fixture::new(1, 8).await;
    fixture
        .writer
        .script(vec![Fault::Status(AckStatus::Busy); 100]);
    let log = fixture
        .open_with(fixture.options().append_timeout(250 * MS))
        .await;
    let started = Instant::now();
    let error = log.append(records(0..2)).await.expect_err("busy");
    assert!(error.is_definite(), "{error}");
    assert!(error.to_string().contains("Busy"), "{error}");
    // It waited longer than without a sign, and not for ever; and it asked less and less often.
    let waited = started.elapsed();
    assert!((2400 * MS..10_000 * MS).contains(&waited), "{waited:?}");
    let asked = fixture.writer.appends().len();
    assert!((3..20).contains(&asked), "{asked}");
}

#[tokio::test]
async fn an_append_waits_while_the_writer_is_busy() {
    let fixture = Fixture::new(1, 8).await;
    fixture
        .writer
        .script(vec![Fault::Status(AckStatus::Busy); 4]);
    let log = fixture
        .open_with(fixture.options().append_timeout(500 * MS))
        .await;
    let started = Instant::now();
    let acked = append(&log, records(0..2)).await;
    // 100, 200, 400 and 800 ms, or the half of that.
    assert!(started.elapsed() > 700 * MS, "{:?}", started.elapsed());
    assert_exactly(&fixture, &log, &acked).await;
}

/// A client that waits 300 ms for a sign, of a writer that gives twenty of them before its answer, 50 ms apart.
async fn with_signs() -> (Fixture, Log) {
    let fixture = Fixture::new(1, 8).await;
    let signs = Fault::Signs(20, AckStatus::Waiting);
    fixture.writer.script([signs]);
    let options = fixture.options().append_timeout(300 * MS);
    let log = fixture.open_with(options).await;
    (fixture, log)
}

#[tokio::test]
async fn an_append_waits_while_the_writer_says_that_it_gets_on() {
    let (fixture, log) = with_signs().await;
    let waiting = log.clone();
    let behind = async {
        // It waits for the same writer, behind the first one.
        sleep(50 * MS).await;
        append(&waiting, records(2..4)).await
    };
    let started = Instant::now();
    let (mut acked, behind) = tokio::join!(append(&log, records(0..2)), behind);
    assert!(started.elapsed() > 1000 * MS, "{:?}", started.elapsed());
    acked.extend(behind);
    assert_exactly(&fixture, &log, &acked).await;
}

/// What was said while it stood still waits in its sockets, and whatever else it has to do waits as well.
#[tokio::test]
async fn an_append_does_not_take_its_own_standstill_for_silence() {
    let (fixture, log) = with_signs().await;
    let stands_still = tokio::spawn(async {
        sleep(200 * MS).await;
        #[allow(clippy::disallowed_methods, reason = "nothing runs meanwhile")]
        std::thread::sleep(800 * MS);
    });
    let acked = append(&log, records(0..2)).await;
    stands_still.await.expect("no panic");
    assert_exactly(&fixture, &log, &acked).await;
}

#[tokio::test]
async fn an_append_that_no_sequencer_helps_ends_in_time_and_says_so() {
    let fixture = Fixture::new(1, 8).await;
    fixture
        .writer
        .script([Fault::Signs(100, AckStatus::Unheard)]);
    let log = fixture
        .open_with(fixture.options().append_timeout(500 * MS))
        .await;
    let started = Instant::now();
    let error = log.append(records(0..2)).await.expect_err("no answer");
    assert!(!error.is_definite(), "{error}");
    assert!(
        error.to_string().contains("their keys may differ"),
        "{error}"
    );
    assert!(started.elapsed() < 4000 * MS, "{:?}", started.elapsed());
}

#[tokio::test]
async fn a_cancelled_append_that_was_not_sent_is_not_written() {
    let fixture = Fixture::new(1, 8).await;
    let log = fixture.open().await;
    fixture
        .sequencer
        .script([Answer::LoseRequest, Answer::LoseRequest]);
    let cancelled = timeout(20 * MS, log.append(records(0..3))).await;
    assert!(cancelled.is_err());
    let acked = append(&log, records(10..12)).await;
    assert_exactly(&fixture, &log, &acked).await;
}

#[tokio::test]
async fn a_cancelled_append_does_not_hold_up_those_who_share_its_token() {
    let fixture = Fixture::new(1, 8).await;
    let log = fixture.open().await;
    fixture.writer.stop().await;
    let other = log.clone();
    let staying = tokio::spawn(async move { append(&other, records(5..7)).await });
    let cancelled = timeout(50 * MS, log.append(records(0..3))).await;
    assert!(cancelled.is_err());
    fixture.writer.listen().await;
    let acked = staying.await.expect("no panic");
    assert_exactly(&fixture, &log, &acked).await;
}

#[tokio::test]
async fn lessons_28_a_record_above_the_limit_is_refused_at_once() {
    let fixture = Fixture::new(1, 8).await;
    let log = fixture.open().await;
    let large = Bytes::from(vec![0; MAX_RECORD_BYTES + 1]);
    let error = log
        .append(vec![record("a"), large])
        .await
        .expect_err("too large");
    assert!(
        matches!(error, Error::RecordTooLarge { index: 1, .. }),
        "{error}"
    );
    assert!(error.is_definite() && error.kind() == ErrorKind::Invalid);
    assert!(fixture.sequencer.requests().is_empty());
    let largest = Bytes::from(vec![7; MAX_RECORD_BYTES]);
    log.append(vec![largest; 3])
        .await
        .expect("the largest fits");
}

#[tokio::test]
async fn frames_keep_to_the_batch_size() {
    let fixture = Fixture::new(1, 1 << 20).await;
    let log = fixture
        .open_with(fixture.options().max_batch_bytes(1000))
        .await;
    let acked = append(&log, vec![Bytes::from(vec![1; 300]); 10]).await;
    let counts: Vec<_> = fixture.writer.appends().iter().map(|a| a.count).collect();
    assert_eq!(counts, [3, 3, 3, 1]);
    assert_exactly(&fixture, &log, &acked).await;
}

#[tokio::test]
async fn l_appends_wait_at_the_memory_bound() {
    let fixture = Fixture::new(1, 8).await;
    fixture.writer.script([Fault::Ignore]);
    let options = fixture
        .options()
        .max_in_flight_bytes(4096)
        .append_timeout(2000 * MS)
        .grant_timeout(10_000 * MS);
    let log = fixture.open_with(options).await;
    // The first takes all memory and gets no answer; the second has to wait for it.
    let held = log.append(vec![Bytes::from(vec![0; 4000])]);
    let waiting = async {
        sleep(50 * MS).await;
        let result = timeout(150 * MS, log.append(records(0..1))).await;
        assert!(result.is_err(), "there is no memory for it");
        assert_eq!(fixture.sequencer.requests().len(), 1);
    };
    let (held, ()) = tokio::join!(held, waiting);
    assert!(held.is_err());
    // A call larger than all memory goes alone.
    fixture.writer.stop().await;
    fixture.writer.listen().await;
    log.append(records(0..1000)).await.expect("appends");
}
