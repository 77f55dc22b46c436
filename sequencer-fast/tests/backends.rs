//! One suite over loopback sockets, for every mechanism.

mod common;

use common::{Chain, Client, LOG, STRIPES, config, encode, eventually, grant, start, stop};
#[cfg(feature = "xdp")]
use sequencer_fast::HookMode;
use sequencer_fast::logic::{ProgramCounts, ShardCounters, Tally};
use sequencer_fast::{Backend, Ended, Sequencer};
use wire::datagram::{Grant, Header, Kind, Report, Status};
use wire::{ClientId, Lane, LogId, Position, RequestId, SegmentId, StripeId};

macro_rules! suite {
    ($($test:ident),* $(,)?) => {
        mod poll {
            $(#[test] fn $test() { super::$test(super::Backend::Poll); })*
        }
        mod io_uring {
            $(#[test] fn $test() { super::$test(super::Backend::IoUring); })*
        }
        #[cfg(feature = "xdp")]
        mod xdp {
            $(#[test] fn $test() { super::on_a_bed(super::HookMode::Native, false, super::$test); })*
        }
        #[cfg(feature = "xdp")]
        mod xdp_ipv6 {
            $(#[test] fn $test() { super::on_a_bed(super::HookMode::Native, true, super::$test); })*
        }
        #[cfg(feature = "xdp")]
        mod xdp_generic {
            $(#[test] fn $test() { super::on_a_bed(super::HookMode::Generic, false, super::$test); })*
        }
    };
}

suite![
    grants_one_after_another,
    s6_duplicates_get_the_same_token,
    s9_bad_datagrams_are_counted_and_never_answered,
    s2_replies_are_held_until_the_reservation_covers_them,
    s7_reports_make_the_durable_tail,
    s8_conditional_grants,
    several_shards_share_the_positions,
    stops_at_the_exact_tail,
    every_size_of_datagram,
];

/// Runs a test with a program in the driver hook of an interface that the test has to itself.
#[cfg(feature = "xdp")]
fn on_a_bed(mode: HookMode, ipv6: bool, test: fn(Backend)) {
    let shape = common::bed::Shape { mode, ipv6 };
    common::bed::Bed::run(shape, |_| test(Backend::Xdp));
}

/// What all of a sequencer has counted: its shards, and its program if it has one.
fn counted(
    sequencer: &Sequencer,
    shard: fn(&ShardCounters) -> &Tally,
    program: fn(&ProgramCounts) -> u64,
) -> u64 {
    let status = sequencer.status();
    let shards = status.shards().iter().map(|counters| shard(counters).get());
    shards.sum::<u64>() + status.program().as_ref().map_or(0, program)
}

/// Where there is a program, it has answered this test's plain requests.
fn program_answered(sequencer: &Sequencer, backend: Backend, least: u64) {
    let answered = sequencer.status().program().map(|counts| counts.answered);
    assert_eq!(answered.is_some(), backend == Backend::Xdp);
    assert!(answered.is_none_or(|count| count >= least), "{answered:?}");
}

fn dropped(sequencer: &Sequencer, reason: &str) -> u64 {
    let shards = sequencer.status().shards().iter();
    shards.map(|shard| shard.dropped.get(reason)).sum()
}

fn grants_one_after_another(backend: Backend) {
    let sequencer = start(&Chain::new(), config(backend));
    let client = Client::new(sequencer.address(), 1);
    let mut next = 0;
    for request in 1..200 {
        let count = u32::try_from(request % 7 + 1).expect("small");
        let reply = client.grant(request, count);
        assert_eq!(reply.status(), Ok(Status::Ok));
        assert_eq!((reply.first.0, reply.count), (next, count));
        assert_eq!(reply.request, RequestId(request));
        next += u64::from(count);
    }
    let tokens = counted(&sequencer, |shard| &shard.tokens, |program| program.tokens);
    assert_eq!(tokens, next);
    program_answered(&sequencer, backend, 198);
    stop(sequencer);
}

fn s6_duplicates_get_the_same_token(backend: Backend) {
    let sequencer = start(&Chain::new(), config(backend));
    let client = Client::new(sequencer.address(), 1);
    let first = client.grant(1, 10);
    for _ in 0..3 {
        assert_eq!(client.grant(1, 10), first);
    }
    assert_eq!(client.grant(2, 1).first, Position(10));
    let retries = counted(
        &sequencer,
        |shard| &shard.retries,
        |program| program.retries,
    );
    assert_eq!(retries, 3);
    program_answered(&sequencer, backend, 4);
    stop(sequencer);
}

fn s9_bad_datagrams_are_counted_and_never_answered(backend: Backend) {
    let sequencer = start(&Chain::new(), config(backend));
    let client = Client::new(sequencer.address(), 1);
    let good = encode(client.header(Kind::Grant, 1), &[grant(0, 1, 1)]);
    let other_log = Header::request(Kind::Grant, LogId([8; 16]), ClientId(1), 1);
    let mut bad = vec![
        ("log", encode(other_log, &[grant(0, 1, 1)])),
        ("short", good[..30].to_vec()),
        ("length", good[..good.len() - 1].to_vec()),
        ("length", [good.as_slice(), &[0; 5]].concat()),
        ("short", Vec::new()),
        ("magic", vec![0xAB; 1472]),
        ("length", vec![0xCD; 60_000]),
    ];
    for (at, reason) in [(0, "magic"), (4, "version"), (5, "kind"), (6, "bound")] {
        let mut bytes = good.clone();
        bytes[at] = if at == 6 { 30 } else { 0x7F };
        bad.push((reason, bytes));
    }
    let mut reply = good.clone();
    reply[5] |= 0x80;
    bad.push(("malformed", reply));
    for (reason, bytes) in &bad {
        let before = dropped(&sequencer, reason);
        client.socket.send(bytes).expect("sent");
        eventually(reason, || dropped(&sequencer, reason) == before + 1);
    }
    assert!(client.is_silent());
    // Service goes on.
    assert_eq!(client.grant(1, 1).first, Position(0));
    stop(sequencer);
}

fn s2_replies_are_held_until_the_reservation_covers_them(backend: Backend) {
    let chain = Chain::new();
    let mut config = config(backend);
    (config.reservation_min, config.reservation_max) = (100, 100);
    let sequencer = start(&chain, config);
    let client = Client::new(sequencer.address(), 1);
    chain.hold_appends(0);
    assert_eq!(client.grant(1, 60).first, Position(0));
    let shard = &sequencer.status().shards()[0];
    // A repeated request is held as well, and answered once.
    for _ in 0..2 {
        let before = shard.received.get();
        client.send(Kind::Grant, &[grant(0, 2, 60)]);
        eventually("received", || shard.received.get() == before + 1);
        assert!(client.is_silent(), "position 100 is not reserved");
    }
    assert_eq!(shard.held.get(), 1);
    chain.release();
    let (_, replies) = client.receive();
    assert_eq!((replies[0].first, replies[0].count), (Position(60), 60));
    assert!(client.is_silent());
    assert!(chain.newest().reservation >= Position(120));
    stop(sequencer);
}

fn s7_reports_make_the_durable_tail(backend: Backend) {
    let sequencer = start(&Chain::new(), config(backend));
    let client = Client::new(sequencer.address(), 1);
    client.grant(1, 100);
    let report = |stripe: u16, frontier| {
        let (segment, stripe) = (SegmentId(0), StripeId(stripe));
        Report::new(RequestId(1), segment, stripe, Position(frontier))
    };
    let stripes = u16::try_from(STRIPES).expect("small");
    let reports: Vec<_> = (1..stripes).map(|s| report(s, 90)).collect();
    for reply in client.ask(Kind::Report, &reports) {
        assert_eq!(reply.status(), Ok(Status::Ok));
        assert_eq!((reply.first, reply.durable()), (Position(100), None));
    }
    for (frontier, durable) in [(50, 50), (40, 50), (95, 90)] {
        let replies = client.ask(Kind::Report, &[report(0, frontier)]);
        assert_eq!(replies[0].durable(), Some(Position(durable)));
    }
    let tails = client.ask(Kind::Tail, &[Grant::new(Lane(3), RequestId(9), 0)]);
    assert_eq!(tails[0].first, Position(100));
    assert_eq!(tails[0].durable(), Some(Position(90)));
    let unknown = client.ask(Kind::Report, &[report(stripes, 0)]);
    assert_eq!(unknown[0].status(), Ok(Status::Invalid));
    stop(sequencer);
}

fn s8_conditional_grants(backend: Backend) {
    let sequencer = start(&Chain::new(), config(backend));
    let client = Client::new(sequencer.address(), 1);
    client.grant(1, 5);
    let at = |request, tail| Grant::at(Lane(1), RequestId(request), 3, Position(tail));
    let moved = client.ask(Kind::GrantAt, &[at(1, 4)])[0];
    assert_eq!(moved.status(), Ok(Status::TailMoved));
    assert_eq!((moved.first, moved.count), (Position(5), 0));
    let granted = client.ask(Kind::GrantAt, &[at(2, 5)])[0];
    assert_eq!((granted.first, granted.count), (Position(5), 3));
    assert_eq!(client.grant(2, 1).first, Position(8));
    stop(sequencer);
}

fn several_shards_share_the_positions(backend: Backend) {
    let mut config = config(backend);
    config.shards = 3;
    let sequencer = start(&Chain::new(), config);
    let mut tokens = Vec::new();
    for id in 0..16 {
        let client = Client::new(sequencer.address(), id);
        for request in 1..20 {
            let reply = client.grant(request, 3);
            tokens.push(reply.first.0);
        }
    }
    tokens.sort_unstable();
    let expected: Vec<_> = (0..16 * 19).map(|token| token * 3).collect();
    assert_eq!(tokens, expected);
    let used = sequencer.status().shards().iter();
    let used = used.filter(|shard| shard.granted.get() > 0).count();
    assert!(used > 1 || backend == Backend::Xdp, "used={used}");
    program_answered(&sequencer, backend, 16 * 19 - 3);
    stop(sequencer);
}

fn stops_at_the_exact_tail(backend: Backend) {
    let chain = Chain::new();
    let sequencer = start(&chain, config(backend));
    let client = Client::new(sequencer.address(), 1);
    client.grant(1, 77);
    assert_eq!(stop(sequencer), Ended::Stopped { clean: true });
    let entry = chain.newest();
    assert!(entry.clean);
    assert_eq!(entry.reservation, Position(77));
}

fn every_size_of_datagram(backend: Backend) {
    let sequencer = start(&Chain::new(), config(backend));
    let client = Client::new(sequencer.address(), 1);
    for count in 1..=29_u32 {
        let requests: Vec<_> = (0..count)
            .map(|lane| grant(lane, u64::from(count), 1))
            .collect();
        let mut header = client.header(Kind::Grant, 1);
        header.tag = u64::from(count);
        client
            .socket
            .send(&encode(header, &requests))
            .expect("sent");
        let (header, replies) = client.receive();
        assert_eq!((header.tag, header.epoch.0), (u64::from(count), 1));
        assert_eq!((header.client, header.log), (client.id, LOG));
        let pairs = requests.iter().zip(&replies);
        assert_eq!(replies.len(), requests.len());
        assert!(
            pairs
                .into_iter()
                .all(|(request, reply)| request.lane == reply.lane)
        );
    }
    program_answered(&sequencer, backend, 28);
    stop(sequencer);
}
