use std::collections::{BTreeMap, BTreeSet};

use proptest::prelude::*;
use wire::frame::AckStatus;
use wire::{ClientId, Layout, RequestId};

use super::*;

const STRIPE: StripeId = StripeId(1);

fn segment() -> Segment {
    Segment {
        id: SegmentId(1),
        epoch: Epoch(1),
        start: Position(0),
        layout: Layout::new(2, 4).expect("valid"),
    }
}

/// A frame whose shares hold `counts` records; the owner of each is its index.
fn frame(first: u64, request: u64, counts: &[u32]) -> AppendFrame<usize> {
    let total: u32 = counts.iter().sum();
    let records: Vec<_> = (0..total)
        .map(|i| format!("{}", first + u64::from(i)))
        .collect();
    AppendFrame {
        segment: segment(),
        stripe: STRIPE,
        first: Slot(first),
        epoch: Epoch(1),
        identity: Identity {
            client: ClientId(1),
            request: RequestId(request),
        },
        body: RunParts::new(records.into_iter().map(Into::into).collect()).expect("valid"),
        shares: counts
            .iter()
            .enumerate()
            .map(|(owner, count)| Share {
                owner,
                first: 10 * owner,
                count: *count,
            })
            .collect(),
    }
}

fn ack(first: u64, count: u32, request: u64) -> Ack {
    let place = Place {
        segment: SegmentId(1),
        stripe: STRIPE,
        first: Slot(first),
    };
    Ack::new(place, count, RequestId(request), AckStatus::Committed)
}

fn seen(answers: Vec<Answer<usize>>) -> Vec<(usize, usize, u32)> {
    let one = |a: Answer<usize>| (a.share.owner, a.share.first, a.share.count);
    answers.into_iter().map(one).collect()
}

#[test]
fn h2_a_partial_answer_speaks_of_its_shares_only() {
    let mut flight = Flight::new();
    flight.push(frame(4, 7, &[2, 3]));
    assert_eq!(seen(flight.settle(&ack(5, 2, 7))), [(0, 1, 1), (1, 10, 1)]);
    assert!(!flight.is_empty());
    assert_eq!(
        seen(flight.settle(&ack(0, 100, 7))),
        [(0, 0, 1), (1, 11, 2)]
    );
    assert!(flight.is_empty());
}

#[test]
fn h2_answers_to_another_request_are_ignored() {
    let mut flight = Flight::new();
    flight.push(frame(4, 7, &[2]));
    assert!(flight.settle(&ack(4, 2, 8)).is_empty());
    assert!(flight.settle(&ack(0, 4, 7)).is_empty());
    assert!(flight.settle(&ack(6, 4, 7)).is_empty());
    assert!(flight.settle(&ack(4, 0, 7)).is_empty());
    assert_eq!(seen(flight.settle(&ack(4, 2, 7))), [(0, 0, 2)]);
}

#[test]
fn resends_unanswered_frames_in_order() {
    let mut flight = Flight::new();
    for first in [8, 0, 4] {
        flight.push(frame(first, first, &[1]));
    }
    let order = |flight: &mut Flight<usize>| -> Vec<u64> {
        std::iter::from_fn(|| flight.next_to_send(|_| true))
            .map(|(head, _)| head.place.first.0)
            .collect()
    };
    assert_eq!(order(&mut flight), [8, 0, 4]);
    assert!(flight.is_owed());
    flight.settle(&ack(0, 1, 0));
    flight.reconnected();
    assert!(!flight.is_owed());
    assert_eq!(order(&mut flight), [8, 4]);
}

/// How many shares the next frame asks for.
fn claims(flight: &mut Flight<usize>) -> Option<usize> {
    let mut claims = 0;
    flight.next_to_send(|_| {
        claims += 1;
        true
    })?;
    Some(claims)
}

#[test]
fn only_the_first_copy_counts_its_records_as_sent() {
    let mut flight = Flight::new();
    flight.push(frame(0, 1, &[2, 1]));
    assert_eq!(claims(&mut flight), Some(2));
    flight.reconnected();
    assert_eq!(claims(&mut flight), Some(0));
}

#[test]
fn shares_whose_caller_is_gone_are_left_out() {
    let mut flight = Flight::new();
    flight.push(frame(0, 1, &[2, 3, 1]));
    let mut sent = Vec::new();
    while let Some((head, body)) = flight.next_to_send(|share| share.owner != 1) {
        sent.push((head.place.first.0, body.records()));
    }
    assert_eq!(
        sent,
        [(0, vec!["0".into(), "1".into()]), (5, vec!["5".into()])]
    );
    assert_eq!(seen(flight.settle(&ack(0, 6, 1))), [(0, 0, 2), (2, 20, 1)]);
    assert!(flight.is_empty());
}

#[test]
fn a_frame_that_is_put_off_comes_back_in_time() {
    let ms = Duration::from_millis;
    let mut flight = Flight::new();
    flight.push(frame(0, 1, &[2]));
    assert_eq!(claims(&mut flight), Some(1));
    assert_eq!(flight.put_off(&ack(0, 2, 1), ms(30), true).len(), 1);
    assert!(flight.put_off(&ack(0, 2, 1), ms(90), true).is_empty());
    flight.wake(ms(29));
    assert_eq!(claims(&mut flight), None);
    assert_eq!(flight.next_due(), Some(ms(30)));
    flight.wake(ms(30));
    assert_eq!(claims(&mut flight), Some(1));
    // An earlier copy may have arrived: what a later answer says does not speak for it.
    flight.reconnected();
    assert_eq!(claims(&mut flight), Some(0));
    assert!(flight.put_off(&ack(0, 2, 1), ms(90), true).is_empty());
}

#[test]
fn a_stripe_that_pauses_keeps_the_order_of_its_frames() {
    let ms = Duration::from_millis;
    let mut flight = Flight::new();
    for request in 0..3 {
        flight.push(frame(10 * request, request, &[1]));
    }
    assert!(flight.next_to_send(|_| true).is_some());
    let until = flight.pause(STRIPE, ms(5), 1.0);
    assert!(flight.next_to_send(|_| true).is_none(), "they wait");
    assert_eq!(flight.put_off(&ack(0, 1, 0), until, true).len(), 1);
    flight.push(frame(30, 3, &[1]));
    assert!(flight.next_to_send(|_| true).is_none(), "so does a new one");
    assert_eq!(flight.next_due(), Some(until));
    assert_unsent(&flight);
    flight.wake(until);
    let firsts = std::iter::from_fn(|| flight.next_to_send(|_| true));
    let firsts: Vec<_> = firsts.map(|(head, _)| head.place.first.0).collect();
    assert_eq!(firsts, [0, 10, 20, 30]);
}

#[derive(Debug, Clone)]
enum Op {
    Ack {
        first: u64,
        count: u32,
        request: u64,
    },
    Reconnect,
    Send,
    PutOff {
        first: u64,
        count: u32,
        request: u64,
    },
    Pause,
    Wake(u64),
}

fn ops() -> impl Strategy<Value = Vec<Op>> {
    let range = || (0_u64..40, 0_u32..12, 0_u64..4);
    let op = prop_oneof![
        4 => range().prop_map(|(first, count, request)| Op::Ack { first, count, request }),
        1 => Just(Op::Reconnect),
        3 => Just(Op::Send),
        1 => range().prop_map(|(first, count, request)| Op::PutOff { first, count, request }),
        1 => Just(Op::Pause),
        1 => (0_u64..200).prop_map(Op::Wake),
    ];
    prop::collection::vec(op, 0..60)
}

proptest! {
    /// Against a map from slot to request: each slot is answered once, by the first answer that names
    /// it and its request, with the position of its slot, its own record and its own share.
    #[test]
    fn agrees_with_a_table_of_slots(
        frames in prop::collection::vec((prop::collection::vec(1_u32..4, 1..4), 0_u64..4, 0_u64..3), 1..6),
        ops in ops(),
    ) {
        let mut flight = Flight::new();
        let mut oracle: BTreeMap<u64, (u64, usize, usize)> = BTreeMap::new();
        let mut at = 0;
        for (counts, request, gap) in frames {
            at += gap;
            flight.push(frame(at, request, &counts));
            for (owner, count) in counts.into_iter().enumerate() {
                for index in 0..count as usize {
                    oracle.insert(at, (request, owner, 10 * owner + index));
                    at += 1;
                }
            }
        }
        for op in ops {
            match op {
                Op::Ack { first, count, request } => {
                    let mut got = BTreeSet::new();
                    for answer in flight.settle(&ack(first, count, request)) {
                        let records = answer.body.records();
                        for (i, position) in answer.positions.iter().enumerate() {
                            let slot = segment().layout.slot(*position).0;
                            prop_assert_eq!(segment().layout.stripe(*position), STRIPE);
                            let expected = slot.to_string();
                            prop_assert_eq!(&records[answer.offsets.start as usize + i][..], expected.as_bytes());
                            prop_assert!(got.insert((slot, (request, answer.share.owner, answer.share.first + i))));
                        }
                        prop_assert_eq!(answer.positions.len(), answer.share.count as usize);
                    }
                    let named: Vec<_> = oracle
                        .range(first..first + u64::from(count))
                        .filter(|(_, (r, ..))| *r == request)
                        .map(|(slot, owner)| (*slot, *owner))
                        .collect();
                    prop_assert_eq!(got.into_iter().collect::<Vec<_>>(), named.clone());
                    for (slot, _) in named {
                        oracle.remove(&slot);
                    }
                }
                Op::Reconnect => flight.reconnected(),
                Op::Send => {
                    if let Some((head, _)) = flight.next_to_send(|_| true) {
                        let (first, count) = (head.place.first.0, u64::from(head.count));
                        prop_assert!(oracle.range(first..first + count).next().is_some());
                    }
                }
                Op::PutOff { first, count, request } => {
                    flight.put_off(&ack(first, count, request), Duration::from_millis(50), true);
                }
                Op::Pause => {
                    flight.pause(STRIPE, Duration::from_millis(50), 0.5);
                }
                Op::Wake(ms) => flight.wake(Duration::from_millis(ms)),
            }
            assert_unsent(&flight);
            prop_assert_eq!(flight.is_empty(), oracle.is_empty());
            prop_assert_eq!(flight.places.len(), flight.frames.len());
        }
        // Nothing is forgotten: after a reconnect every frame with an unanswered slot goes out.
        flight.reconnected();
        let mut again = BTreeSet::new();
        while let Some((head, _)) = flight.next_to_send(|_| true) {
            again.extend(head.place.first.0..head.place.first.0 + u64::from(head.count));
        }
        prop_assert!(oracle.keys().all(|slot| again.contains(slot)));
    }
}

/// The bytes that wait to be sent are those of the frames that do.
fn assert_unsent(flight: &Flight<usize>) {
    let put_off = flight.put_off.iter().map(|(_, number)| number);
    let waiting = flight
        .to_send
        .iter()
        .chain(put_off)
        .map(|n| flight.frames[n].frame.body.len());
    assert_eq!(flight.unsent_bytes(), waiting.sum::<usize>());
}

#[test]
fn unsent_bytes_are_counted_through_all_that_happens_to_a_frame() {
    let mut flight = Flight::new();
    for request in 0..4 {
        flight.push(frame(10 * request, request, &[2, 1]));
        assert_unsent(&flight);
    }
    assert!(flight.next_to_send(|_| true).is_some());
    assert!(flight.next_to_send(|share| share.owner == 1).is_some());
    assert_unsent(&flight);
    flight.put_off(&ack(0, 3, 0), Duration::from_secs(1), false);
    assert_unsent(&flight);
    flight.wake(Duration::from_secs(1));
    assert_unsent(&flight);
    flight.settle(&ack(0, 3, 0));
    assert_unsent(&flight);
    flight.reconnected();
    assert_unsent(&flight);
    assert!(flight.unsent_bytes() > 0);
    flight.drain();
    assert_eq!(flight.unsent_bytes(), 0);
}

#[test]
fn c6_a_frame_that_moves_to_another_owner_keeps_what_is_known_of_it() {
    let (mut from, mut to) = (Flight::new(), Flight::new());
    from.push(frame(10, 1, &[2, 1]));
    from.push(frame(20, 2, &[1]));
    let claims = std::cell::Cell::new(0);
    let claim = |_: &Share<usize>| {
        claims.set(claims.get() + 1);
        true
    };
    assert!(from.next_to_send(claim).is_some());
    assert_eq!(seen(from.settle(&ack(10, 1, 1))), [(0, 0, 1)]);
    let moved = from.take(&ack(11, 2, 1));
    assert_eq!(moved.len(), 1);
    for frame in moved {
        to.give(frame, Duration::from_secs(1));
    }
    assert!(seen(from.settle(&ack(11, 2, 1))).is_empty(), "it is gone");
    assert!(to.next_to_send(claim).is_none(), "not before its time");
    to.wake(Duration::from_secs(1));
    assert!(to.next_to_send(claim).is_some());
    assert_eq!(claims.get(), 2, "it was counted as sent before");
    assert!(
        to.put_off(&ack(10, 3, 1), Duration::from_secs(2), true)
            .is_empty()
    );
    assert_eq!(seen(to.settle(&ack(10, 3, 1))), [(0, 1, 1), (1, 10, 1)]);
    assert!(to.is_empty());
    assert_eq!((from.take_all().len(), from.is_empty()), (1, true));
}
