use wire::datagram::{Datagram, Reply, Status};
use wire::{Epoch, Position};

use super::*;

fn shape() -> Shape {
    Shape {
        log: LogId([7; 16]),
        packed: 3,
        tokens: 5,
        echo: false,
    }
}

fn batch() -> Batch {
    Batch::new(shape(), ClientId(9), 2, 4, 100).expect("valid")
}

/// Replies to all datagrams of a batch, as the sequencer writes them.
fn replies(batch: &Batch, first: u64, status: Status) -> Vec<Vec<u8>> {
    let mut next = first;
    let datagrams = batch.bytes().chunks_exact(shape().datagram_bytes());
    datagrams
        .map(|bytes| {
            let request = Datagram::parse(bytes, LogId([7; 16])).expect("valid");
            let entries: Vec<_> = request
                .entries::<Grant>()
                .map(|grant| {
                    let grant = grant.expect("valid");
                    let position = Position(next);
                    next += u64::from(grant.count);
                    Reply::new(grant.request, grant.lane, status, position, grant.count)
                })
                .collect();
            let header = request.header.reply(Epoch(1));
            let mut bytes = vec![0; bytes.len()];
            datagram::write(header, &entries, &mut bytes).expect("fits");
            bytes
        })
        .collect()
}

#[test]
fn replies_are_taken_once() {
    let (mut batch, mut ranges) = (batch(), Ranges::default());
    batch.begin([1, 2, 3].into_iter(), 4);
    assert_eq!((batch.open(), batch.bytes().len()), (3, 3 * (64 + 3 * 48)));
    let replies = replies(&batch, 1000, Status::Ok);
    assert_eq!(Batch::number_in(&replies[1]), Some(2));
    let done = batch.accept(&replies[1], Some(&mut ranges));
    assert_eq!(
        done,
        Answer::Done {
            due_ns: 2,
            tokens: 15
        }
    );
    assert_eq!(batch.accept(&replies[1], None), Answer::Stale);
    assert_eq!((batch.open(), batch.again(9).count()), (2, 2));
    assert_eq!((ranges.positions(), ranges.tail()), (15, 1030));
}

#[test]
fn lanes_are_those_of_the_batch_and_requests_rise() {
    let mut batch = batch();
    for round in 1..3 {
        batch.begin([0; 4].into_iter(), 0);
        let datagrams = batch.bytes().chunks_exact(shape().datagram_bytes());
        let grants = datagrams.flat_map(|bytes| {
            let datagram = Datagram::parse(bytes, LogId([7; 16])).expect("valid");
            datagram.entries::<Grant>().flatten().collect::<Vec<_>>()
        });
        // Three of each four lanes.
        let lanes = (32..).filter(|lane| lane % 4 != 3);
        for (lane, grant) in lanes.zip(grants) {
            assert_eq!(grant, Grant::new(Lane(lane), RequestId(100 + round), 5));
        }
        batch.abandon();
    }
}

#[test]
fn what_is_not_an_answer_is_told_apart() {
    let mut batch = batch();
    batch.begin([0; 4].into_iter(), 0);
    let old = replies(&batch, 0, Status::Ok);
    let refused = replies(&batch, 0, Status::Busy);
    assert_eq!(batch.accept(&refused[0], None), Answer::Busy);
    assert_eq!(
        batch.accept(&replies(&batch, 0, Status::Invalid)[0], None),
        Answer::Wrong
    );
    let request = batch.bytes()[..shape().datagram_bytes()].to_vec();
    assert_eq!(batch.accept(&request, None), Answer::Wrong, "no reply");
    assert_eq!(
        batch.accept(&old[0][..200], None),
        Answer::Wrong,
        "too short"
    );
    assert_eq!(batch.accept(&[], None), Answer::Wrong);
    let mut less = old[0].clone();
    less[HEADER_BYTES + COUNT] -= 1;
    assert_eq!(batch.accept(&less, None), Answer::Wrong, "fewer tokens");
    let abandoned: Vec<_> = old.iter().filter_map(|reply| Identity::of(reply)).collect();
    assert_eq!((batch.abandon(), abandoned.len()), (abandoned, 4));
    batch.begin([0; 4].into_iter(), 0);
    assert_eq!(batch.accept(&old[0], None), Answer::Stale);
    let mut future = replies(&batch, 0, Status::Ok)[0].clone();
    future[HEADER_BYTES] += 1;
    assert_eq!(batch.accept(&future, None), Answer::Wrong);
    assert_eq!(batch.open(), 4);
}

#[test]
fn an_echo_is_an_answer_where_it_is_wanted() {
    let echo = Shape {
        echo: true,
        ..shape()
    };
    let mut batch = Batch::new(echo, ClientId(9), 0, 1, 0).expect("valid");
    batch.begin([3].into_iter(), 0);
    let bytes = batch.bytes().to_vec();
    assert_eq!(
        batch.accept(&bytes, None),
        Answer::Done {
            due_ns: 3,
            tokens: 15
        }
    );
}

/// The sequencer remembers 32 neighbouring lanes together (decision 0013).
#[test]
fn no_datagram_crosses_a_block_of_lanes() {
    for packed in 1..=MAX_ENTRIES {
        let shape = Shape { packed, ..shape() };
        let mut seen = std::collections::HashSet::new();
        for number in 0..3 {
            let batch = Batch::new(shape, ClientId(9), number, 5, 0).expect("valid");
            for bytes in batch.bytes.chunks_exact(shape.datagram_bytes()) {
                let datagram = Datagram::parse(bytes, LogId([7; 16])).expect("valid");
                let lanes: Vec<_> = datagram
                    .entries::<Grant>()
                    .map(|grant| grant.expect("valid").lane.0)
                    .collect();
                assert!(lanes.iter().all(|lane| lane / 32 == lanes[0] / 32));
                assert!(lanes.iter().all(|lane| seen.insert(*lane)), "{packed}");
            }
        }
    }
}
