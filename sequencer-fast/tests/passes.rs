//! What a shard sets right after its first pass over a batch, and what it does before it.

mod common;

use std::cell::Cell;
use std::sync::Arc;
use std::sync::atomic::{AtomicI64, AtomicU64, Ordering};

use common::desk::{Desk, Inbox, limits, request, status};
use common::{Chain, grant};
use sequencer_fast::logic::{BLOCK_WORDS, Counter, Limits, Rate, Reign, Shard, Table};
use wire::datagram::{Grant, Kind, MAX_ENTRIES, Status};
use wire::mac::Key;
use wire::{Lane, Position, RequestId};

/// Another shard takes positions between the look at the tail and the addition.
#[test]
fn s1_tokens_are_moved_behind_what_another_shard_took() {
    let mut desk = Desk::simple(1000);
    desk.reign.counter().let_others_take(7);
    for tag in 0..3 {
        desk.put(1, tag, Kind::Grant, &[grant(0, 1, 3), grant(40, 1, 4)]);
    }
    desk.put(1, 3, Kind::Grant, &[grant(1, 1, 5)]);
    let sent = desk.settle();
    let firsts = |index: usize| -> Vec<_> {
        let replies = sent[index].replies.iter();
        replies.map(|reply| (reply.first.0, reply.count)).collect()
    };
    for repeated in 0..3 {
        assert_eq!(firsts(repeated), [(7, 3), (10, 4)]);
    }
    assert_eq!(firsts(3), [(14, 5)]);
    assert_eq!(desk.tail(), 19);
    // [S-6] They are remembered where they are.
    desk.reign.counter().let_others_take(0);
    for (lane, count, first) in [(0, 3, 7), (40, 4, 10), (1, 5, 14)] {
        let reply = desk
            .ask(Kind::Grant, grant(lane, 1, count))
            .expect("answered");
        assert_eq!((status(&reply), reply.first), (Status::Ok, Position(first)));
    }
    assert_eq!(desk.tail(), 19);
}

/// Two requests of one lane in one batch: the second one's token is what is remembered.
#[test]
fn s6_a_lane_that_goes_on_within_a_batch_is_moved_once() {
    let mut desk = Desk::simple(1000);
    desk.reign.counter().let_others_take(2);
    for number in 1..=3 {
        desk.put(1, number, Kind::Grant, &[grant(0, number, 10)]);
    }
    let sent = desk.settle();
    let firsts: Vec<_> = sent.iter().map(|sent| sent.replies[0].first.0).collect();
    assert_eq!(firsts, [2, 12, 22]);
    let reply = desk.ask(Kind::Grant, grant(0, 3, 10)).expect("answered");
    assert_eq!(reply.first, Position(22));
}

/// A datagram is dropped for one stale request; the token of another one in it is not in any packet.
#[test]
fn s6_the_token_of_a_dropped_datagram_is_moved_in_the_memory() {
    let mut desk = Desk::simple(1000);
    desk.ask(Kind::Grant, grant(0, 5, 1));
    desk.reign.counter().let_others_take(10);
    desk.put(1, 0, Kind::Grant, &[grant(1, 1, 3), grant(0, 4, 1)]);
    desk.put(2, 0, Kind::Grant, &[grant(2, 1, 3)]);
    let sent = desk.settle();
    assert_eq!((sent.len(), sent[0].peer), (1, 2));
    assert_eq!(sent[0].replies[0].first, Position(14));
    let reply = desk.ask(Kind::Grant, grant(1, 1, 3)).expect("answered");
    assert_eq!(reply.first, Position(11));
}

/// A token that turns out to lie above the reservation because of another shard.
#[test]
fn s2_a_token_moved_above_the_reservation_is_held() {
    let mut desk = Desk::simple(10);
    desk.reign.counter().let_others_take(5);
    assert_eq!(desk.ask(Kind::Grant, grant(0, 1, 6)), None);
    desk.reign.reserve(Position(11));
    assert_eq!(desk.settle()[0].replies[0].first, Position(5));
}

#[test]
fn s1_what_a_closed_counter_did_not_give_is_not_remembered() {
    let mut desk = Desk::simple(1000);
    desk.ask(Kind::Grant, grant(0, 1, 7));
    desk.reign.counter().let_others_take(1 << 63);
    let reply = desk.ask(Kind::Grant, grant(1, 1, 1)).expect("answered");
    assert_eq!((status(&reply), reply.count), (Status::NotReigning, 0));
    assert_eq!(desk.counters().tokens.get(), 7);
    let again = desk.ask(Kind::Grant, grant(1, 1, 1)).expect("answered");
    assert_eq!(status(&again), Status::NotReigning);
}

/// A desk beside a program, and the memory that the program has of lanes, which is one block.
fn beside_program() -> (Desk, Arc<Vec<AtomicU64>>) {
    let mut desk = Desk::simple(1000);
    let memory: Arc<Vec<_>> = Arc::new((0..BLOCK_WORDS).map(|_| AtomicU64::new(0)).collect());
    let table = Table::new(Arc::<Vec<AtomicU64>>::clone(&memory), 7, 1);
    let shard = desk.shards.remove(0).with_table(Some(Arc::new(table)));
    desk.shards.push(shard);
    (desk, memory)
}

/// Whether a program finds anything in there.
fn is_known(memory: &[AtomicU64]) -> bool {
    memory.iter().any(|word| word.load(Ordering::Relaxed) != 0)
}

/// It may have looked at the counter before that was closed, and answers what it finds with no further look.
#[test]
fn s1_a_program_learns_nothing_of_what_a_closed_counter_did_not_give() {
    let (mut desk, memory) = beside_program();
    desk.reign.counter().let_others_take(1 << 63);
    let reply = desk.ask(Kind::Grant, grant(1, 1, 1)).expect("answered");
    assert_eq!(status(&reply), Status::NotReigning);
    assert!(!is_known(&memory), "the block is as it was, and not locked");
    let (mut desk, memory) = beside_program();
    let reply = desk.ask(Kind::Grant, grant(1, 1, 1)).expect("answered");
    assert_eq!(status(&reply), Status::Ok);
    assert!(is_known(&memory), "what was given is told");
}

/// A batch may have waited for a program whose core stood still.
#[test]
fn s5_the_clock_is_read_when_the_program_is_kept_out() {
    let (mut desk, memory) = beside_program();
    desk.put(1, 0, Kind::Grant, &[grant(1, 1, 1)]);
    let locks = Cell::new(0);
    let clock = || {
        locks.set(memory[0].load(Ordering::Relaxed));
        0
    };
    let sent = desk.inboxes[0].serve_with(&mut desk.shards[0], clock);
    assert_eq!(status(&sent[0].replies[0]), Status::Ok);
    assert_eq!((locks.get(), memory[0].load(Ordering::Relaxed)), (1, 0));
}

fn key() -> Key {
    Key::new(&[9; 32])
}

fn with_key(reservation: u64) -> Desk {
    let limits = Limits {
        key: Some(key()),
        ..limits(64, 64)
    };
    Desk::new(reservation, u64::MAX, 1, limits)
}

fn signed(kind: Kind, entries: &[Grant]) -> Vec<u8> {
    let mut bytes = request(1, 0, kind, entries);
    key().sign(&mut bytes);
    bytes
}

#[test]
fn s9_a_datagram_without_the_key_is_dropped_before_anything_else() {
    let mut desk = with_key(1000);
    let good = signed(Kind::Grant, &[grant(0, 1, 5)]);
    let mut other = good.clone();
    Key::new(&[8; 32]).sign(&mut other);
    let mut cases = vec![request(1, 0, Kind::Grant, &[grant(0, 1, 5)]), other];
    for at in [0, 4, 6, 10, 30, 63, 64, 80, good.len() - 1] {
        let mut flipped = good.clone();
        flipped[at] ^= 1;
        cases.push(flipped);
    }
    cases.push(good[..good.len() - 1].to_vec());
    for (number, bytes) in (1..).zip(cases) {
        desk.receive(1, &bytes);
        assert!(desk.settle().is_empty());
        assert_eq!(desk.counters().dropped.get("mac"), number);
    }
    assert_eq!(desk.tail(), 0);
    desk.receive(1, &good);
    assert_eq!(desk.settle().len(), 1);
}

/// Whoever sends a datagram again that it has overheard gets the token that was granted before.
#[test]
fn s6_a_replayed_datagram_gets_the_same_token() {
    let mut desk = with_key(1000);
    let bytes = signed(Kind::Grant, &[grant(0, 1, 5), grant(1, 1, 5)]);
    desk.receive(1, &bytes);
    let first = desk.settle();
    for peer in 2..5 {
        desk.receive(peer, &bytes);
        assert_eq!(desk.settle()[0].replies, first[0].replies);
    }
    assert_eq!(desk.tail(), 10);
    // And nothing once the lanes have gone on.
    desk.receive(1, &signed(Kind::Grant, &[grant(0, 2, 5), grant(1, 2, 5)]));
    desk.settle();
    desk.receive(7, &bytes);
    assert!(desk.settle().is_empty());
    assert_eq!(desk.tail(), 20);
}

#[test]
fn every_reply_is_signed_also_one_that_was_held() {
    let mut desk = with_key(10);
    let is_signed = |sent: &[common::desk::Sent]| {
        let mut count = 0;
        for sent in sent {
            assert!(key().verify(&sent.bytes));
            count += 1;
        }
        count
    };
    let tails = signed(Kind::Tail, &[grant(0, 1, 0)]);
    desk.receive(1, &signed(Kind::Grant, &[grant(0, 1, 5)]));
    desk.receive(2, &tails);
    desk.receive(3, &signed(Kind::Grant, &[grant(9, 1, 9)]));
    assert_eq!(is_signed(&desk.settle()), 2);
    desk.reign.reserve(Position(100));
    assert_eq!(is_signed(&desk.settle()), 1);
    let at = Grant::at(Lane(3), RequestId(1), 5, Position(14));
    desk.receive(1, &signed(Kind::GrantAt, &[at]));
    assert_eq!(is_signed(&desk.settle()), 1);
}

#[test]
fn who_asks_too_much_is_dropped_and_others_are_not() {
    let rate = Rate {
        per_second: 1000,
        burst: 50,
    };
    let limits = Limits {
        rate: Some(rate),
        ..limits(64, 64)
    };
    let mut desk = Desk::new(1 << 30, u64::MAX, 1, limits);
    let mut answered = 0;
    for number in 1..=100 {
        let entries: Vec<_> = (0..10).map(|lane| grant(lane, number, 1)).collect();
        desk.put(1, number, Kind::Grant, &entries);
        answered += desk.settle().len();
        desk.receive(2, &request(2, 0, Kind::Tail, &[grant(0, number, 0)]));
        assert_eq!(desk.settle().len(), usize::from(number <= 50));
    }
    assert_eq!(answered, 5, "fifty requests in datagrams of ten");
    assert_eq!(desk.counters().dropped.get("limited"), 95 + 50);
    desk.now_ns += 10_000_000;
    desk.put(1, 0, Kind::Grant, &[grant(0, 101, 1)]);
    assert_eq!(desk.settle().len(), 1);
    assert_eq!(desk.tail(), 51);
}

/// A flood of few but huge requests would use up the reservation.
#[test]
fn who_asks_for_too_many_positions_is_dropped() {
    let rate = Rate {
        per_second: 1000,
        burst: 2000,
    };
    let limits = Limits {
        rate: Some(rate),
        ..limits(64, 64)
    };
    let mut desk = Desk::new(1 << 40, u64::MAX, 1, limits);
    let answered =
        (1..=5).filter(|number| desk.ask(Kind::Grant, grant(0, *number, 1 << 20)).is_some());
    assert_eq!(answered.count(), 1, "each counts as 1,025 requests");
}

/// A counter that another thread closes at a certain look at it.
#[derive(Debug)]
struct ClosesAt {
    tail: AtomicU64,
    looks: AtomicI64,
}

impl Counter for ClosesAt {
    fn tail(&self) -> u64 {
        if self.looks.fetch_sub(1, Ordering::Relaxed) == 0 {
            self.tail.close();
        }
        self.tail.tail()
    }

    fn take(&self, count: u64) -> u64 {
        self.tail.take(count)
    }

    fn take_at(&self, expected: u64, count: u64) -> Result<(), u64> {
        self.tail.take_at(expected, count)
    }

    fn close(&self) -> Option<u64> {
        self.tail.close()
    }
}

/// The queue of held replies is full and the reign ends while a remembered request is answered, at any of
/// the moments at which the shard looks at the counter. The next reign grants what lies above the
/// reservation.
#[test]
fn s2_no_token_above_the_reservation_leaves_when_the_reign_ends() {
    for looks in 0..6 {
        let mut entry = Chain::new().newest();
        entry.reservation = Position(10);
        let counter = ClosesAt {
            tail: AtomicU64::new(0),
            looks: AtomicI64::new(-1),
        };
        let reign = Arc::new(Reign::with_counter(&entry, counter).expect("has a segment"));
        reign.grant();
        reign.renew(u64::MAX);
        let limits = limits(64, MAX_ENTRIES);
        let mut shard = Shard::new(Arc::clone(&reign), Arc::default(), limits);
        let mut inbox = Inbox::default();
        let lanes = 0..u32::try_from(MAX_ENTRIES).expect("small");
        let entries: Vec<_> = lanes.map(|lane| grant(lane, 1, 10)).collect();
        inbox.put(1, &request(1, 0, Kind::Grant, &entries));
        assert!(inbox.serve(&mut shard, 0).is_empty());
        reign.counter().looks.store(looks, Ordering::Relaxed);
        // Packed otherwise, so that it is not the held one.
        inbox.put(1, &request(1, 1, Kind::Grant, &[grant(7, 1, 10)]));
        for sent in inbox.serve(&mut shard, 0) {
            let reply = sent.replies[0];
            assert!(reply.count == 0, "looks={looks} {reply:?}");
            assert_ne!(status(&reply), Status::Ok, "looks={looks}");
        }
    }
}
