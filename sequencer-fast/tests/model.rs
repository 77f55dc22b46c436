//! Random datagrams against a small oracle that knows what must never happen.

mod common;

use std::collections::{BTreeMap, HashMap};

use common::desk::{Desk, Sent, limits, request, status};
use common::grant;
use proptest::prelude::*;
use sequencer_fast::logic::Limits;
use wire::datagram::{Grant, Kind, MAX_ENTRIES, Report, Status};
use wire::{Lane, Position, RequestId, SegmentId, StripeId};

const SHARDS: u64 = 2;

#[derive(Debug, Clone)]
enum Step {
    Ask {
        client: u64,
        kind: Kind,
        /// Lane, how far behind the newest request of the lane, count, and distance of `expected_tail`.
        entries: Vec<(u32, u64, u32, i64)>,
    },
    Report(u16, u64),
    Settle,
    Reserve(u64),
    Sleep(u64),
    Renew(u64),
    Garbage(Vec<u8>),
    /// Another shard takes so many positions right before each addition of this one.
    Others(u64),
}

fn step() -> impl Strategy<Value = Step> {
    let entry = (0..4_u32, 0..4_u64, 0..6_u32, -2..3_i64);
    let kind = prop_oneof![
        4 => Just(Kind::Grant),
        2 => Just(Kind::GrantAt),
        1 => Just(Kind::Tail)
    ];
    prop_oneof![
        8 => (0..3_u64, kind, prop::collection::vec(entry, 1..5))
            .prop_map(|(client, kind, entries)| Step::Ask { client, kind, entries }),
        2 => (0..5_u16, 0..200_u64).prop_map(|(stripe, frontier)| Step::Report(stripe, frontier)),
        6 => Just(Step::Settle),
        3 => (0..20_u64).prop_map(Step::Reserve),
        1 => (0..50_u64).prop_map(Step::Sleep),
        1 => (0..200_u64).prop_map(Step::Renew),
        1 => prop::collection::vec(any::<u8>(), 0..1600).prop_map(Step::Garbage),
        2 => (0..4_u64).prop_map(Step::Others),
    ]
}

type Asker = (u64, Lane, RequestId);

/// What was asked, and what has been answered.
#[derive(Default)]
struct Oracle {
    asked: HashMap<u64, (u64, Kind, Vec<Grant>)>,
    newest: HashMap<(u64, u32), u64>,
    tokens: HashMap<Asker, (u64, u64)>,
    /// Granted ranges by start, with who has them.
    ranges: BTreeMap<u64, (u64, Asker)>,
    issued: u64,
    durable: u64,
    remembers: bool,
}

impl Oracle {
    fn check(&mut self, desk: &Desk, sent: &Sent, reigned: bool) {
        let Some((client, kind, asked)) = self.asked.get(&sent.header.tag).cloned() else {
            return self.check_tails(desk, sent, reigned);
        };
        assert_eq!(sent.header.client.0, client);
        // [S-9]
        assert_eq!(sent.replies.len(), asked.len());
        for (asked, reply) in asked.iter().zip(&sent.replies) {
            assert_eq!((asked.request, asked.lane), (reply.request, reply.lane));
            if kind == Kind::Tail || status(reply) != Status::Ok {
                assert_eq!(reply.count, 0);
                continue;
            }
            let (first, count) = (reply.first.0, u64::from(reply.count));
            // [S-2]
            assert!(first + count <= desk.reign.reservation().0);
            if kind == Kind::GrantAt {
                // [S-8]
                assert_eq!(reply.first, asked.expected_tail);
            }
            self.granted((client, asked.lane, asked.request), first, first + count);
        }
        self.check_tails(desk, sent, reigned);
    }

    fn granted(&mut self, asker: Asker, first: u64, end: u64) {
        let before = self.tokens.insert(asker, (first, end));
        if self.remembers {
            // [S-6]
            assert!(before.is_none_or(|before| before == (first, end)));
        }
        // [S-1]
        for (start, (stop, other)) in self.ranges.range(..end) {
            let same = (*start, *stop, *other) == (first, end, asker);
            assert!(same || *stop <= first, "{asker:?} and {other:?}");
        }
        self.ranges.insert(first, (end, asker));
    }

    fn check_tails(&mut self, desk: &Desk, sent: &Sent, reigned: bool) {
        // A refusal beside a token may have been held with it, and then tells the tail of that time.
        let alone = sent.replies.iter().all(|reply| reply.count == 0);
        for reply in &sent.replies {
            if status(reply) == Status::NotReigning {
                assert!(!reigned);
            } else if !alone {
                assert!(reply.first <= desk.reign.reservation());
            } else if reply.count == 0 {
                // [S-7]
                assert!(self.issued <= reply.first.0);
                assert!(reply.first <= desk.reign.reservation());
                self.issued = reply.first.0;
                if let Some(durable) = reply.durable() {
                    assert!(self.durable <= durable.0 && durable <= reply.first);
                    self.durable = durable.0;
                }
            }
        }
    }
}

fn run(steps: Vec<Step>, limits: Limits, remembers: bool) {
    let mut desk = Desk::new(40, 100, SHARDS, limits);
    let mut oracle = Oracle {
        remembers,
        ..Oracle::default()
    };
    let mut deadline = 100;
    for (tag, step) in steps.into_iter().enumerate() {
        let tag = tag as u64;
        match step {
            Step::Ask {
                client,
                kind,
                entries,
            } => {
                let entries: Vec<_> = entries
                    .into_iter()
                    .map(|(lane, behind, count, distance)| {
                        let newest = oracle.newest.entry((client, lane)).or_insert(4);
                        *newest += u64::from(behind == 0);
                        let request = RequestId(newest.saturating_sub(behind.saturating_sub(1)));
                        let expected = desk.tail().saturating_add_signed(distance);
                        Grant::at(Lane(lane), request, count, Position(expected))
                    })
                    .collect();
                let bytes = request(client, tag, kind, &entries);
                oracle.asked.insert(tag, (client, kind, entries));
                // A client always comes to the same shard.
                let shard = usize::try_from(client % SHARDS).expect("small");
                desk.inboxes[shard].put(0, &bytes);
            }
            Step::Report(stripe, frontier) => {
                let stripe = StripeId(stripe);
                let report = Report::new(RequestId(0), SegmentId(0), stripe, Position(frontier));
                desk.put(0, u64::MAX, Kind::Report, &[report]);
            }
            Step::Settle => settle(&mut desk, &mut oracle, deadline),
            Step::Reserve(more) => {
                let reservation = desk.reign.reservation().plus(more);
                desk.reign.reserve(reservation);
            }
            Step::Sleep(time) => desk.now_ns += time,
            Step::Renew(ttl) => {
                deadline = deadline.max(desk.now_ns + ttl);
                desk.reign.renew(deadline);
            }
            Step::Garbage(bytes) => desk.receive(0, &bytes),
            Step::Others(count) => desk.reign.counter().let_others_take(count),
        }
    }
    settle(&mut desk, &mut oracle, deadline);
    desk.reign.reserve(Position(desk.tail()));
    settle(&mut desk, &mut oracle, deadline);
    assert!(desk.shards.iter().all(|shard| !shard.holds()));
}

fn settle(desk: &mut Desk, oracle: &mut Oracle, deadline: u64) {
    let reigned = desk.now_ns < deadline;
    for index in 0..desk.shards.len() {
        let (tail, takes) = (desk.tail(), desk.reign.counter().takes());
        let sent = desk.settle_shard(index);
        for sent in &sent {
            oracle.check(desk, sent, reigned);
        }
        assert!(
            desk.reign.counter().takes() <= takes + 1,
            "one addition a batch"
        );
        // [S-5]
        assert!(reigned || desk.tail() == tail);
        let held = desk.shards[index].counters().held.get();
        assert!(held <= MAX_ENTRIES as u64, "held={held}");
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 2000, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn no_rule_is_broken(steps in prop::collection::vec(step(), 1..80)) {
        run(steps, limits(1 << 10, MAX_ENTRIES), true);
    }

    /// A memory of two lanes forgets, which costs holes and nothing else.
    #[test]
    fn no_rule_but_the_memory_is_broken_when_it_forgets(steps in prop::collection::vec(step(), 1..80)) {
        run(steps, limits(2, MAX_ENTRIES), false);
    }

    /// Any change to a good datagram is answered with its own size, or not at all.
    #[test]
    fn s9_whatever_comes_nothing_longer_goes(
        flips in prop::collection::vec((0..256_usize, any::<u8>()), 0..6),
        cut in 0..256_usize,
        kind in prop::sample::select(Kind::ALL.to_vec()),
    ) {
        let mut desk = Desk::simple(1 << 30);
        let mut bytes = request(1, 0, kind, &[grant(0, 1, 1), grant(1, 1, 9), grant(2, 1, 5)]);
        for (at, value) in flips {
            let at = at % bytes.len();
            bytes[at] = value;
        }
        bytes.truncate(bytes.len().saturating_sub(cut.saturating_sub(200)));
        desk.receive(1, &bytes);
        let sent = desk.settle();
        let dropped: u64 = desk.counters().dropped.iter().map(|(_, count)| count).sum();
        prop_assert_eq!(sent.len() as u64 + dropped, 1);
        for sent in sent {
            prop_assert_eq!(sent.header.datagram_len(), bytes.len());
            prop_assert_eq!(sent.replies.len(), sent.header.count());
        }
    }
}
