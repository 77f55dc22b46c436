//! Appends against servers that do as they are told.

mod support;

use std::time::Duration;

use bytes::Bytes;
use stripelog::{Content, Error, ErrorKind, Options, Position};
use support::*;
use tokio::time::{sleep, timeout};
use wire::datagram::Status;
use wire::frame::AckStatus;
use wire::limits::{MAX_GRANT, MAX_RUN_RECORDS};
use wire::{Epoch, RequestId, SegmentId, StripeId};

const MS: Duration = Duration::from_millis(1);

/// Of a client that repeats no request by itself.
fn unhurried(fixture: &Fixture) -> Options {
    fixture.options().grant_timeout(20_000 * MS)
}

#[tokio::test]
async fn records_get_positions_in_order() {
    let fixture = Fixture::new(4, 2).await;
    let log = fixture.open().await;
    let got = log.append(records(0..20)).await.expect("appends");
    assert_eq!(got, positions(0..20));
    assert_eq!(log.append_one(record("x")).await.expect("appends").0, 20);
    assert!(
        log.append(Vec::new())
            .await
            .expect("nothing to do")
            .is_empty()
    );
}

#[tokio::test]
async fn what_waits_shares_one_grant_in_call_order() {
    let fixture = Fixture::new(4, 2).await;
    fixture.sequencer.script([Answer::LoseRequest]);
    let log = fixture.open().await;
    let first = log.append(records(0..3));
    let second = async {
        sleep(20 * MS).await;
        let calls = (0..10).map(|i| log.append(records(i * 2..i * 2 + 2)));
        futures::future::try_join_all(calls).await
    };
    let (first, second) = tokio::join!(first, second);
    assert_eq!(first.expect("appends"), positions(0..3));
    let expected: Vec<_> = (0..10).map(|i| positions(3 + 2 * i..5 + 2 * i)).collect();
    assert_eq!(second.expect("appends"), expected);
    let mut requests = fixture.sequencer.requests();
    assert_eq!(requests[0], requests[1], "it was lost");
    requests.dedup();
    let counts: Vec<_> = requests.iter().map(|r| r.1).collect();
    assert_eq!(counts, [3, 20]);
}

#[tokio::test]
async fn a_grant_is_never_asked_for_more_than_its_bound() {
    let fixture = Fixture::new(1, 1 << 20).await;
    fixture
        .writer
        .script(vec![Fault::Status(AckStatus::Committed); 20]);
    let log = fixture
        .open_with(unhurried(&fixture).max_in_flight_bytes(1 << 30))
        .await;
    let count = MAX_GRANT as usize + 5;
    let got = log
        .append(vec![Bytes::new(); count])
        .await
        .expect("appends");
    assert_eq!(got.len(), count);
    let counts: Vec<_> = fixture.sequencer.requests().iter().map(|r| r.1).collect();
    assert_eq!(counts, [MAX_GRANT, 5]);
    let appends = fixture.writer.appends();
    assert!(appends.iter().all(|a| a.count as usize <= MAX_RUN_RECORDS));
}

#[tokio::test]
async fn s6_a_lost_request_or_reply_is_asked_again_with_its_number() {
    for lost in [Answer::LoseRequest, Answer::LoseReply] {
        let fixture = Fixture::new(4, 2).await;
        fixture.sequencer.script([lost, lost]);
        let log = fixture.open().await;
        assert_eq!(
            log.append(records(0..5)).await.expect("appends"),
            positions(0..5)
        );
        let requests = fixture.sequencer.requests();
        assert!(requests.len() >= 3, "{requests:?}");
        assert!(requests.iter().all(|r| *r == requests[0]), "{requests:?}");
        assert!(log.stats().requests_resent >= 2);
    }
}

#[tokio::test]
async fn s6_late_and_repeated_replies_and_noise_are_ignored() {
    for odd in [Answer::Twice, Answer::LateReply, Answer::Noise] {
        let fixture = Fixture::new(4, 2).await;
        fixture.sequencer.script([odd, odd]);
        let log = fixture.open().await;
        assert_eq!(
            log.append(records(0..5)).await.expect("appends"),
            positions(0..5),
            "{odd:?}"
        );
        assert_eq!(
            log.append(records(5..9)).await.expect("appends"),
            positions(5..9),
            "{odd:?}"
        );
        let ignored = async {
            while log.stats().datagrams_ignored < 2 {
                sleep(MS).await;
            }
        };
        let ignored = timeout(10_000 * MS, ignored).await;
        assert!(ignored.is_ok(), "{odd:?}");
    }
}

#[tokio::test]
async fn a_refused_grant_is_asked_for_again_with_its_number() {
    let fixture = Fixture::new(4, 2).await;
    let refusals = [
        Answer::Status(Status::Busy),
        Answer::Status(Status::NotReigning),
        Answer::Fewer,
    ];
    fixture.sequencer.script(refusals);
    let log = fixture.open_with(unhurried(&fixture)).await;
    assert_eq!(
        log.append(records(0..5)).await.expect("appends"),
        positions(0..5)
    );
    let requests = fixture.sequencer.requests();
    assert_eq!(requests, vec![requests[0]; 4]);
}

#[tokio::test]
async fn every_request_has_a_number_of_its_own() {
    let fixture = Fixture::new(4, 2).await;
    let log = fixture.open_with(unhurried(&fixture)).await;
    for _ in 0..3 {
        log.append(records(0..2)).await.expect("appends");
    }
    let numbers: Vec<RequestId> = fixture.sequencer.requests().iter().map(|r| r.0).collect();
    assert!(
        numbers.windows(2).all(|pair| pair[0] < pair[1]),
        "{numbers:?}"
    );
    let identities: Vec<_> = fixture
        .writer
        .appends()
        .iter()
        .map(|a| a.identity.request)
        .collect();
    assert_eq!(identities, numbers);
}

#[tokio::test]
async fn h2_lost_frames_and_acks_neither_lose_nor_double_records() {
    let faults = [
        Fault::LoseAck,
        Fault::LoseFrame,
        Fault::AckTwice,
        Fault::AckInPieces,
    ];
    for fault in faults {
        let fixture = Fixture::new(2, 2).await;
        fixture
            .writer
            .script([fault.clone(), Fault::None, fault.clone()]);
        let log = fixture.open().await;
        let mut acked = append(&log, records(0..9)).await;
        acked.extend(append(&log, records(9..20)).await);
        assert_eq!(
            acked.iter().map(|a| a.0).collect::<Vec<_>>(),
            positions(0..20)
        );
        assert_exactly(&fixture, &log, &acked).await;
        assert_eq!(log.stats().records_reappended, 0, "{fault:?}");
    }
}

#[tokio::test]
async fn h2_only_records_that_became_junk_are_appended_again() {
    let fixture = Fixture::new(1, 8).await;
    fixture.writer.script([Fault::Junk(1..3)]);
    let log = fixture.open().await;
    let acked = append(&log, records(0..5)).await;
    let got: Vec<_> = acked.iter().map(|a| a.0.0).collect();
    assert_eq!(got, [0, 5, 6, 3, 4]);
    assert_eq!(log.stats().records_reappended, 2);
    assert_exactly(&fixture, &log, &acked).await;
    let requests: Vec<_> = fixture
        .writer
        .appends()
        .iter()
        .map(|a| a.identity.request)
        .collect();
    assert!(requests[0] < requests[1], "a new identity for a new token");
}

#[tokio::test]
async fn h3_sealed_records_are_appended_again_and_again() {
    let fixture = Fixture::new(1, 8).await;
    let sealed = || Fault::Status(AckStatus::Sealed);
    fixture.writer.script([sealed(), sealed()]);
    let log = fixture.open().await;
    let acked = append(&log, records(0..3)).await;
    assert_eq!(
        acked.iter().map(|a| a.0).collect::<Vec<_>>(),
        positions(6..9)
    );
    assert_eq!(log.stats().records_reappended, 6);
    assert_exactly(&fixture, &log, &acked).await;
}

#[tokio::test]
async fn busy_and_not_owner_are_tried_again_with_the_same_frame() {
    for status in [AckStatus::Busy, AckStatus::NotOwner] {
        let fixture = Fixture::new(1, 8).await;
        fixture
            .writer
            .script([Fault::Status(status), Fault::Status(status)]);
        let log = fixture.open().await;
        let acked = append(&log, records(0..3)).await;
        assert_exactly(&fixture, &log, &acked).await;
        let appends = fixture.writer.appends();
        assert_eq!(appends, vec![appends[0]; 3]);
        assert_eq!(log.stats().frames_put_off, 2);
    }
}

#[tokio::test]
async fn h2_conflict_and_invalid_are_definite_errors() {
    for status in [AckStatus::Conflict, AckStatus::Invalid] {
        let fixture = Fixture::new(1, 8).await;
        fixture.writer.script([Fault::Status(status)]);
        let log = fixture.open().await;
        let error = log.append(records(0..3)).await.expect_err("refused");
        assert!(
            matches!(error, Error::Refused { definite: true, .. }),
            "{error}"
        );
        assert_eq!(error.kind(), ErrorKind::Invalid);
        assert_eq!(
            log.append(records(0..1)).await.expect("goes on"),
            positions(3..4)
        );
    }
}

#[tokio::test]
async fn a_refusal_of_one_part_is_not_definite_when_another_is_written() {
    let fixture = Fixture::new(2, 1).await;
    fixture
        .writer
        .script([Fault::None, Fault::Status(AckStatus::Conflict)]);
    let log = fixture.open().await;
    let error = log.append(records(0..2)).await.expect_err("refused");
    assert!(!error.is_definite(), "{error}");
}

#[tokio::test]
async fn a_writer_that_restarts_in_mid_batch_gets_what_it_has_not_answered() {
    let fixture = Fixture::new(4, 2).await;
    let log = fixture.open().await;
    let appender = log.clone();
    let appending = tokio::spawn(async move {
        let mut acked = Vec::new();
        for part in 0..60 {
            acked.extend(append(&appender, records(part * 10..part * 10 + 10)).await);
            sleep(MS).await;
        }
        acked
    });
    for connections in 1..4 {
        while log.stats().connections < connections {
            sleep(MS).await;
        }
        sleep(20 * MS).await;
        fixture.writer.stop().await;
        sleep(10 * MS).await;
        fixture.writer.listen().await;
    }
    let acked = appending.await.expect("no panic");
    assert_eq!(acked.len(), 600);
    assert!(
        acked.windows(2).all(|pair| pair[0].0 < pair[1].0),
        "order is kept"
    );
    assert_exactly(&fixture, &log, &acked).await;
    assert!(log.stats().connections >= 3);
}

#[tokio::test]
async fn a_stranger_instead_of_a_writer_is_left_and_tried_again() {
    let fixture = Fixture::new(1, 8).await;
    fixture.writer.script([Fault::Nonsense]);
    let log = fixture.open().await;
    assert_eq!(
        log.append(records(0..2)).await.expect("appends"),
        positions(0..2)
    );
}

#[tokio::test]
async fn a_final_refusal_is_told_at_once() {
    let fixture = Fixture::new(1, 8).await;
    fixture.writer.script([Fault::Refuse]);
    let log = fixture.open().await;
    let error = log.append(records(0..2)).await.expect_err("refused");
    assert!(error.to_string().contains("not this log"), "{error}");
    // It may have been looked at before the refusal.
    assert!(!error.is_definite());
}

#[tokio::test]
async fn a_later_epoch_is_looked_up_before_its_token_is_used() {
    let fixture = Fixture::new(2, 2).await;
    let log = fixture.open().await;
    log.append(records(0..4)).await.expect("appends");
    // The next reign starts at 8, with another layout from 12 on: the token [8, 16) straddles.
    fixture.begin_reign(Position(8), Position(12)).await;
    fixture.writer.fill_to(Position(8)).await;
    {
        let mut state = fixture.sequencer.state.lock().expect("not poisoned");
        state.epoch = Epoch(9);
        state.next = 8;
    }
    let acked = append(&log, records(8..16)).await;
    assert_eq!(
        acked.iter().map(|a| a.0).collect::<Vec<_>>(),
        positions(8..16)
    );
    let appends = fixture.writer.appends();
    let last = appends.last().expect("some");
    assert_eq!(
        (last.place.segment, last.place.stripe),
        (SegmentId(9), StripeId(0))
    );
    assert_eq!(
        (last.place.first.0, last.count, last.epoch),
        (12, 4, Epoch(9))
    );
    // A scan crosses the border, too.
    let mut scan = log.read(Position(8)..Position(16));
    for i in 8..16 {
        let item = scan.next().await.expect("reads").expect("there");
        assert_eq!(item.position, Position(i));
        assert_eq!(item.content, Content::Record(record(format!("record {i}"))));
    }
    // A token of the former reign is of no use, and not used.
    fixture.sequencer.state.lock().expect("not poisoned").epoch = Epoch(1);
    let count = fixture.writer.appends().len();
    let used = timeout(200 * MS, log.append(records(0..1))).await;
    assert!(used.is_err());
    assert_eq!(fixture.writer.appends().len(), count);
}

#[tokio::test]
async fn an_append_after_an_acknowledged_one_is_behind_it() {
    let fixture = Fixture::new(4, 2).await;
    let (one, two) = (fixture.open().await, fixture.open().await);
    let mut last = None;
    for i in 0..20 {
        let log = if i % 2 == 0 { &one } else { &two };
        let got = log.append_one(record(i)).await.expect("appends");
        assert!(Some(got) > last);
        last = Some(got);
    }
}

#[tokio::test]
async fn many_callers_at_once_lose_nothing() {
    let fixture = Fixture::new(4, 4).await;
    let faults = (0..200).map(|i| match i % 11 {
        3 => Fault::LoseAck,
        5 => Fault::Junk(0..1),
        7 => Fault::Status(AckStatus::Sealed),
        9 => Fault::AckInPieces,
        _ => Fault::None,
    });
    fixture.writer.script(faults);
    let log = fixture.open().await;
    let callers = (0..8).map(|caller: usize| {
        let log = log.clone();
        tokio::spawn(async move {
            let mut acked = Vec::new();
            for part in 0..20 {
                let records = (0..5)
                    .map(|i| record(format!("{caller} {part} {i}")))
                    .collect();
                acked.extend(append(&log, records).await);
            }
            acked
        })
    });
    let mut acked = Vec::new();
    for caller in callers.collect::<Vec<_>>() {
        acked.extend(caller.await.expect("no panic"));
    }
    assert_eq!(acked.len(), 800);
    assert_exactly(&fixture, &log, &acked).await;
}
