//! The rules of a shard, one by one, without sockets and clocks.

mod common;

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use common::desk::{Counting, Desk, Inbox, limits, request, status};
use common::{Chain, STRIPES, encode, grant};
use sequencer_fast::logic::{CLOSED, Counter, Reign, Shard, ShardCounters};
use wire::datagram::{Grant, Header, Kind, MAX_ENTRIES, Report, Status};
use wire::limits::{MAX_GRANT, MAX_POSITION};
use wire::{ClientId, Lane, LogId, Position, RequestId, SegmentId, StripeId};

#[test]
fn one_addition_a_batch_is_split_over_all_replies() {
    let mut desk = Desk::simple(1000);
    for peer in 0..10 {
        let lane = u32::from(peer);
        desk.put(
            peer,
            0,
            Kind::Grant,
            &[grant(lane, 1, 3), grant(100 + lane, 1, 4)],
        );
    }
    let sent = desk.settle();
    assert_eq!((desk.reign.counter().takes(), desk.tail()), (1, 70));
    let firsts: Vec<_> = sent.iter().flat_map(|sent| &sent.replies).collect();
    let expected = (0..10).flat_map(|n| [(7 * n, 3), (7 * n + 3, 4)]);
    let got = firsts.iter().map(|reply| (reply.first.0, reply.count));
    assert!(got.eq(expected));
    let counters = desk.counters();
    assert_eq!((counters.granted.get(), counters.tokens.get()), (20, 70));
}

#[test]
fn s2_a_reply_leaves_only_when_the_reservation_covers_its_end() {
    let mut desk = Desk::simple(100);
    for (reserved, count, leaves) in [(100, 100, true), (101, 2, false), (101, 1, false)] {
        desk.reign.reserve(Position(reserved));
        let request = reserved + u64::from(count);
        let reply = desk.ask(Kind::Grant, grant(count, request, count));
        assert_eq!(reply.is_some(), leaves, "reserved={reserved} count={count}");
    }
    assert_eq!(desk.counters().held.get(), 2);
    desk.reign.reserve(Position(102));
    let sent = desk.settle();
    assert_eq!(sent.len(), 1);
    assert_eq!(sent[0].replies[0].first, Position(100));
    desk.reign.reserve(Position(103));
    assert_eq!(desk.settle()[0].replies[0].first, Position(102));
    assert_eq!(desk.counters().held.get(), 0);
}

/// A datagram is answered as a whole, when the last of its tokens is covered.
#[test]
fn s2_s9_a_datagram_is_held_as_a_whole() {
    let mut desk = Desk::simple(10);
    desk.put(1, 7, Kind::Grant, &[grant(0, 1, 10), grant(1, 1, 1)]);
    assert!(desk.settle().is_empty());
    desk.reign.reserve(Position(11));
    let sent = desk.settle();
    assert_eq!(
        (sent.len(), sent[0].replies.len(), sent[0].header.tag),
        (1, 2, 7)
    );
}

#[test]
fn s5_past_the_deadline_nothing_is_granted_or_told() {
    let mut desk = Desk::new(1000, 500, 1, limits(64, 64));
    let at = |request, tail| Grant::at(Lane(9), RequestId(request), 1, Position(tail));
    for (now_ns, reigns) in [(499, true), (500, false), (501, false), (499, true)] {
        desk.now_ns = now_ns;
        let tail = desk.tail();
        let expected = if reigns {
            Status::Ok
        } else {
            Status::NotReigning
        };
        let request = tail + 1;
        for (kind, entry) in [
            (Kind::Grant, grant(0, request, 1)),
            (Kind::GrantAt, at(request, tail + u64::from(reigns))),
            (Kind::Tail, grant(0, 1, 0)),
        ] {
            let reply = desk.ask(kind, entry).expect("answered");
            assert_eq!(status(&reply), expected, "now_ns={now_ns} {kind:?}");
        }
        assert_eq!(desk.tail() - tail, 2 * u64::from(reigns));
    }
    desk.now_ns = 501;
    desk.reign.renew(600);
    let reply = desk.ask(Kind::Grant, grant(0, 100, 1)).expect("answered");
    assert_eq!(status(&reply), Status::Ok);
}

#[test]
fn s6_a_repeated_request_gets_the_same_token() {
    let mut desk = Desk::simple(1000);
    let first = desk.ask(Kind::Grant, grant(3, 5, 10));
    assert_eq!(desk.ask(Kind::Grant, grant(3, 5, 10)), first);
    assert_eq!((desk.tail(), desk.counters().retries.get()), (10, 1));
    // Another lane, another client, and the next request of the lane are other requests.
    desk.ask(Kind::Grant, grant(4, 5, 10));
    desk.receive(1, &request(2, 0, Kind::Grant, &[grant(3, 5, 10)]));
    desk.settle();
    desk.ask(Kind::Grant, grant(3, 6, 10));
    assert_eq!(desk.tail(), 40);
}

#[test]
fn s6_a_repeat_within_a_batch_gets_the_same_token() {
    let mut desk = Desk::simple(1000);
    for tag in 0..3 {
        desk.put(1, tag, Kind::Grant, &[grant(9, 1, 1), grant(3, 5, 10)]);
    }
    let sent = desk.settle();
    assert_eq!((sent.len(), desk.tail()), (3, 11));
    assert!(sent.iter().all(|other| other.replies == sent[0].replies));
}

#[test]
fn s6_a_repeat_of_a_held_request_takes_no_room_and_is_answered_where_it_was_sent_last() {
    let mut desk = Desk::new(0, u64::MAX, 1, limits(64, MAX_ENTRIES));
    for attempt in 0..1000 {
        let peer = u16::try_from(attempt % 7).expect("small");
        desk.put(
            peer,
            attempt,
            Kind::Grant,
            &[grant(0, 1, 5), grant(1, 1, 5)],
        );
        assert!(desk.settle().is_empty());
    }
    assert_eq!((desk.tail(), desk.counters().held.get()), (10, 2));
    desk.reign.reserve(Position(10));
    let sent = desk.settle();
    assert_eq!(sent.len(), 1);
    assert_eq!((sent[0].peer, sent[0].header.tag), (999 % 7, 999));
    assert_eq!(sent[0].replies[1].first, Position(5));
}

/// Two requests that were asked together and are repeated apart, or the other way round.
#[test]
fn s6_a_held_request_in_another_datagram_is_held_again_with_its_token() {
    let mut desk = Desk::simple(0);
    desk.put(1, 1, Kind::Grant, &[grant(0, 1, 5)]);
    desk.put(1, 2, Kind::Grant, &[grant(0, 1, 5), grant(1, 1, 5)]);
    assert!(desk.settle().is_empty());
    assert_eq!(desk.tail(), 10);
    desk.reign.reserve(Position(10));
    let sent = desk.settle();
    assert_eq!(sent.len(), 2);
    assert_eq!(sent[0].replies[0], sent[1].replies[0]);
}

#[test]
fn s6_a_lower_request_is_dropped_and_counted() {
    let mut desk = Desk::simple(1000);
    desk.ask(Kind::Grant, grant(0, 5, 1));
    assert_eq!(desk.ask(Kind::Grant, grant(0, 4, 1)), None);
    assert_eq!((desk.tail(), desk.counters().dropped.get("stale")), (1, 1));
    // What came with it has its token, when it is asked for again.
    desk.put(1, 0, Kind::Grant, &[grant(1, 1, 1), grant(0, 4, 1)]);
    assert!(desk.settle().is_empty());
    let reply = desk.ask(Kind::Grant, grant(1, 1, 1)).expect("answered");
    assert_eq!((reply.first, desk.tail()), (Position(1), 2));
}

#[test]
fn s6_forgetting_costs_a_hole_and_no_double_grant() {
    let mut desk = Desk::new(1000, u64::MAX, 1, limits(2, 64));
    // Lanes of three blocks, with room for two.
    for block in 0..3 {
        desk.ask(Kind::Grant, grant(block * 32, 1, 10));
    }
    let reply = desk.ask(Kind::Grant, grant(0, 1, 10)).expect("answered");
    assert_eq!(reply.first, Position(30));
}

#[test]
fn s7_the_issued_tail_that_is_told_stays_below_the_reservation() {
    let mut desk = Desk::simple(10);
    desk.ask(Kind::Grant, grant(0, 1, 8));
    desk.ask(Kind::Grant, grant(1, 1, 50));
    for (reserved, told) in [(10, 10), (30, 30), (58, 58), (900, 58)] {
        desk.reign.reserve(Position(reserved));
        desk.settle();
        let reply = desk.ask(Kind::Tail, grant(0, 1, 0)).expect("answered");
        assert_eq!(reply.first, Position(told), "reserved={reserved}");
    }
}

#[test]
fn s7_the_durable_tail_is_the_least_frontier_only_grows_and_stays_below_the_issued_tail() {
    let mut desk = Desk::simple(1000);
    desk.ask(Kind::Grant, grant(0, 1, 60));
    let report = |stripe, frontier| {
        let (segment, stripe) = (SegmentId(0), StripeId(stripe));
        Report::new(RequestId(1), segment, stripe, Position(frontier))
    };
    // (stripe, frontier) and the durable tail that is told then.
    for (stripe, frontier, durable) in [
        (0, 40, None),
        (1, 30, None),
        (2, 80, None),
        (3, 20, Some(20)),
        (3, 10, Some(20)),
        (3, 50, Some(30)),
        (0, 70, Some(30)),
        (1, 75, Some(50)),
        (3, 90, Some(60)),
        (2, 10, Some(60)),
    ] {
        desk.put(1, 0, Kind::Report, &[report(stripe, frontier)]);
        let reply = desk.settle()[0].replies[0];
        assert_eq!(status(&reply), Status::Ok);
        let expected = durable.map(Position);
        assert_eq!(
            reply.durable(),
            expected,
            "stripe={stripe} frontier={frontier}"
        );
    }
    // A fence above the issued tail counts as soon as that has passed it.
    desk.ask(Kind::Grant, grant(0, 2, 100));
    let reply = desk.ask(Kind::Tail, grant(0, 1, 0)).expect("answered");
    assert_eq!(reply.durable(), Some(Position(70)));
    let stripes = u16::try_from(STRIPES).expect("small");
    let other_segment = Report::new(RequestId(1), SegmentId(1), StripeId(0), Position(900));
    for refused in [report(stripes, 900), other_segment, report(0, u64::MAX)] {
        desk.put(1, 0, Kind::Report, &[refused]);
        assert_eq!(status(&desk.settle()[0].replies[0]), Status::Invalid);
    }
}

#[test]
fn s8_a_conditional_grant_starts_exactly_where_it_is_expected() {
    let mut desk = Desk::simple(1000);
    desk.ask(Kind::Grant, grant(0, 1, 10));
    let mut request = 0;
    for (expected_tail, granted) in [(9, false), (11, false), (10, true), (10, false), (15, true)] {
        request += 1;
        let tail = Position(desk.tail());
        let entry = Grant::at(Lane(1), RequestId(request), 5, Position(expected_tail));
        let reply = desk.ask(Kind::GrantAt, entry).expect("answered");
        let expected = if granted {
            (Status::Ok, Position(expected_tail), 5)
        } else {
            (Status::TailMoved, tail, 0)
        };
        assert_eq!((status(&reply), reply.first, reply.count), expected);
        if granted {
            assert_eq!(
                desk.ask(Kind::GrantAt, entry),
                Some(reply),
                "S-6 holds as well"
            );
        }
    }
    assert_eq!(desk.tail(), 20);
}

/// The tail that is told is where it is expected, but positions behind it are taken and held back.
#[test]
fn s8_a_condition_on_a_tail_that_is_held_back_is_busy() {
    let mut desk = Desk::simple(10);
    desk.ask(Kind::Grant, grant(0, 1, 20));
    let entry = Grant::at(Lane(1), RequestId(1), 5, Position(10));
    let reply = desk.ask(Kind::GrantAt, entry).expect("answered");
    assert_eq!((status(&reply), desk.tail()), (Status::Busy, 20));
}

#[test]
fn s9_bad_datagrams_are_counted_and_not_answered() {
    let mut desk = Desk::simple(1000);
    let good = request(1, 0, Kind::Grant, &[grant(0, 1, 1)]);
    let foreign = Header::request(Kind::Grant, LogId([8; 16]), ClientId(1), 1);
    let changed = |at: usize, value: u8| {
        let mut bytes = good.clone();
        bytes[at] = value;
        bytes
    };
    let cases = [
        ("log", encode(foreign, &[grant(0, 1, 1)])),
        ("short", Vec::new()),
        ("short", good[..63].to_vec()),
        ("length", good[..good.len() - 1].to_vec()),
        ("length", [good.as_slice(), &[0]].concat()),
        ("magic", changed(0, 0)),
        ("version", changed(4, 2)),
        ("kind", changed(5, 99)),
        ("bound", changed(6, 0)),
        ("bound", changed(6, 30)),
        ("malformed", changed(5, good[5] | 0x80)),
    ];
    for (reason, bytes) in cases {
        let before = desk.counters().dropped.get(reason);
        desk.receive(1, &bytes);
        assert!(desk.settle().is_empty(), "{reason}");
        assert_eq!(desk.counters().dropped.get(reason), before + 1, "{reason}");
    }
    let reply = desk
        .ask(Kind::Grant, grant(0, 1, 1))
        .expect("service goes on");
    assert_eq!(reply.first, Position(0));
}

#[test]
fn requests_that_break_a_bound_are_invalid_and_take_nothing() {
    let mut desk = Desk::simple(1000);
    let far = Position(MAX_POSITION);
    for (kind, entry) in [
        (Kind::Grant, grant(0, 1, 0)),
        (Kind::Grant, grant(0, 1, MAX_GRANT + 1)),
        (Kind::GrantAt, Grant::at(Lane(0), RequestId(1), 1, far)),
        (
            Kind::GrantAt,
            Grant::at(Lane(0), RequestId(1), 1, Position(u64::MAX)),
        ),
    ] {
        let reply = desk.ask(kind, entry).expect("answered");
        assert_eq!(status(&reply), Status::Invalid);
    }
    assert_eq!(desk.tail(), 0);
}

#[test]
fn nothing_is_granted_from_the_last_position_on() {
    let mut desk = Desk::simple(10);
    desk.reign.counter().take(MAX_POSITION - 5);
    desk.reign.reserve(Position(MAX_POSITION));
    for (request, count, expected) in [
        (1, 6, Status::Invalid),
        (2, 5, Status::Ok),
        (3, 1, Status::Invalid),
    ] {
        let reply = desk
            .ask(Kind::Grant, grant(0, request, count))
            .expect("answered");
        assert_eq!(status(&reply), expected);
    }
    assert_eq!(desk.tail(), MAX_POSITION);
}

#[test]
fn s10_without_headroom_requests_wait_and_are_then_refused_without_an_addition() {
    let bound = u64::try_from(MAX_ENTRIES).expect("small");
    let mut desk = Desk::new(5, u64::MAX, 1, limits(1 << 10, MAX_ENTRIES));
    assert_eq!(desk.reign.headroom(), 5);
    desk.ask(Kind::Grant, grant(0, 1, 5));
    assert_eq!(desk.reign.headroom(), 0);
    for lane in 1..=bound {
        let lane = u32::try_from(lane).expect("small");
        assert_eq!(
            desk.ask(Kind::Grant, grant(lane, 1, 1)),
            None,
            "lane={lane}"
        );
    }
    let (takes, tail) = (desk.reign.counter().takes(), desk.tail());
    let at = Grant::at(Lane(900), RequestId(1), 1, Position(tail));
    for (kind, entry) in [(Kind::Grant, grant(999, 1, 1)), (Kind::GrantAt, at)] {
        let reply = desk.ask(kind, entry).expect("answered");
        assert_eq!((status(&reply), reply.count), (Status::Busy, 0));
    }
    assert_eq!((desk.reign.counter().takes(), desk.tail()), (takes, tail));
    assert_eq!(desk.counters().busy.get(), 2);
    // A remembered token still comes; one that is held as well, as soon as there is room.
    let known = desk.ask(Kind::Grant, grant(0, 1, 5)).expect("answered");
    assert_eq!((status(&known), known.first), (Status::Ok, Position(0)));
    desk.put(1, 0, Kind::Grant, &[grant(0, 1, 5), grant(1, 1, 1)]);
    let mixed = desk.settle();
    let statuses: Vec<_> = mixed[0].replies.iter().map(status).collect();
    assert_eq!(statuses, [Status::Ok, Status::Busy]);
    desk.reign.reserve(Position(tail));
    assert_eq!(desk.settle().len(), MAX_ENTRIES);
    let later = desk.ask(Kind::Grant, grant(1, 1, 1)).expect("answered");
    assert_eq!((status(&later), later.first), (Status::Ok, Position(5)));
}

/// Plain grants of one batch that would be held have to find room together.
#[test]
fn s10_a_batch_without_room_for_all_takes_only_what_finds_room() {
    let mut desk = Desk::new(0, u64::MAX, 1, limits(1 << 10, MAX_ENTRIES));
    let twenty =
        |lane: u32| -> Vec<_> { (lane..lane + 20).map(|lane| grant(lane, 1, 1)).collect() };
    desk.put(1, 0, Kind::Grant, &twenty(0));
    desk.put(2, 0, Kind::Grant, &twenty(100));
    let sent = desk.settle();
    assert_eq!((sent.len(), sent[0].peer, desk.tail()), (1, 2, 20));
    assert!(sent[0].replies.iter().all(|r| status(r) == Status::Busy));
    assert_eq!(desk.counters().held.get(), 20);
}

/// Conditional grants of one batch that would be held have to find room together.
#[test]
fn s10_conditional_grants_without_room_take_nothing() {
    let mut desk = Desk::new(0, u64::MAX, 1, limits(1 << 10, MAX_ENTRIES));
    let chained = |lane: u32, from: u64| -> Vec<_> {
        let at = |index: u32| {
            let expected = Position(from + u64::from(index));
            Grant::at(Lane(lane + index), RequestId(1), 1, expected)
        };
        (0..20).map(at).collect()
    };
    desk.put(1, 0, Kind::GrantAt, &chained(0, 0));
    desk.put(2, 0, Kind::GrantAt, &chained(100, 20));
    let sent = desk.settle();
    assert_eq!((sent.len(), sent[0].peer, desk.tail()), (1, 2, 20));
    assert!(sent[0].replies.iter().all(|r| status(r) == Status::Busy));
    assert_eq!(desk.counters().held.get(), 20);
}

/// A shard that has passed all checks when the reign ends takes nothing.
#[test]
fn s1_a_closed_counter_grants_nothing_and_tells_nothing() {
    let mut desk = Desk::simple(1000);
    desk.ask(Kind::Grant, grant(0, 1, 7));
    // As between the check of the phase and the addition: the phase is as it was.
    assert_eq!(desk.reign.counter().close(), Some(7));
    let at = Grant::at(Lane(1), RequestId(1), 1, Position(7));
    for (kind, entry) in [
        (Kind::Grant, grant(0, 2, 1)),
        (Kind::GrantAt, at),
        (Kind::Tail, grant(0, 1, 0)),
    ] {
        let reply = desk.ask(kind, entry).expect("answered");
        assert_eq!((status(&reply), reply.count), (Status::NotReigning, 0));
    }
    let counters = desk.counters();
    assert_eq!((counters.granted.get(), counters.tokens.get()), (1, 7));
    assert_eq!(desk.reign.end(), None, "closed for ever");
    assert_eq!(desk.reign.headroom(), 0);
}

/// A counter that is closed by another thread right after it has been looked at.
#[derive(Debug, Default)]
struct Closing {
    inner: Counting,
    looks: AtomicU64,
}

impl Counter for Closing {
    fn tail(&self) -> u64 {
        let tail = self.inner.tail();
        if self.looks.fetch_add(1, Ordering::Relaxed) == 0 {
            self.close();
        }
        tail
    }

    fn take(&self, count: u64) -> u64 {
        self.inner.take(count)
    }

    fn take_at(&self, expected: u64, count: u64) -> Result<(), u64> {
        self.inner.take_at(expected, count)
    }

    fn close(&self) -> Option<u64> {
        self.inner.close()
    }
}

#[test]
fn s1_an_addition_after_the_close_grants_nothing() {
    let mut entry = Chain::new().newest();
    entry.reservation = Position(1000);
    let reign = Reign::with_counter(&entry, Closing::default()).expect("has a segment");
    reign.renew(u64::MAX);
    reign.grant();
    let counters = Arc::new(ShardCounters::default());
    let mut shard = Shard::new(Arc::new(reign), Arc::clone(&counters), limits(8, 64));
    let mut inbox = Inbox::default();
    inbox.put(1, &request(1, 0, Kind::Grant, &[grant(0, 1, 3)]));
    let sent = inbox.serve(&mut shard, 0);
    assert_eq!(status(&sent[0].replies[0]), Status::NotReigning);
    assert_eq!((counters.fetch_adds.get(), counters.tokens.get()), (1, 0));
}

#[test]
fn s1_the_end_of_a_reign_closes_the_counter() {
    let desk = Desk::simple(1000);
    assert_eq!(desk.reign.counter().take(7), 0);
    assert_eq!(desk.reign.end(), Some(Position(7)));
    assert!(desk.reign.counter().take(1) >= CLOSED);
    assert!(desk.reign.counter().take_at(8, 1).is_err());
    desk.reign.grant();
    assert!(!desk.reign.reigns(0), "it never grants again");
}
