//! Standbys: when they take over, when they do not, and what they say meanwhile.

mod common;

use std::net::{SocketAddr, TcpListener, UdpSocket};
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use catalog::Membership;
use common::desk::status;
use common::writer::{Seals, Writer, stripes};
use common::{
    Chain, Client, begin, begin_told, config, eventually, grant, start, start_with, stop,
};
use sequencer_fast::{Backend, Config, Ended, Sequencer, Standby, logic};
use tokio::sync::watch;
use wire::datagram::{Kind, Status};
use wire::{Epoch, Position, WriterId};

/// Longer than a busy host stands still.
const DETECT: Duration = Duration::from_secs(1);

fn as_standby(others: &[SocketAddr]) -> Config {
    let mut config = config(Backend::Poll);
    config.standby = Some(Standby {
        others: others.to_vec(),
        member: None,
        detect: DETECT,
    });
    config
}

fn standby(chain: &Chain, others: &[SocketAddr]) -> Sequencer {
    let sequencer = begin(chain, as_standby(others), owners());
    eventually("standing by", || sequencer.status().is_standby());
    sequencer
}

/// A stripe-writer that has all stripes and seals them.
fn owners() -> Vec<SocketAddr> {
    vec![Writer::start(Seals::Well, stripes(0, 0..4)).address]
}

/// An address at which nobody is.
fn nobody() -> SocketAddr {
    let socket = UdpSocket::bind("127.0.0.1:0").expect("free port");
    socket.local_addr().expect("bound")
}

/// An address to which no socket can be opened.
fn nowhere() -> SocketAddr {
    ([255, 255, 255, 255], 9).into()
}

/// A chain whose newest reign was killed: it had granted nobody knows how much below 777.
fn left_behind() -> Chain {
    let chain = Chain::new();
    let mut entry = logic::begin(&chain.newest(), WriterId([1; 16]), 777);
    chain.entries().push(entry.clone());
    entry.number += 1;
    chain.entries().push(entry);
    chain
}

fn grants(sequencer: &Sequencer) -> bool {
    let granting = sequencer.status().health().is_ok();
    granting && !sequencer.status().is_standby()
}

#[test]
#[allow(clippy::disallowed_methods, reason = "real time is what is tested")]
fn s4_a_standby_begins_at_the_old_reservation_when_there_is_no_sign() {
    let chain = left_behind();
    let began = Instant::now();
    let sequencer = standby(&chain, &[nobody()]);
    eventually("the takeover", || grants(&sequencer));
    assert!(began.elapsed() >= DETECT, "{:?}", began.elapsed());
    let reply = Client::new(sequencer.address(), 1).grant(1, 10);
    assert_eq!((reply.first, reply.count), (Position(777), 10));
    assert_eq!(chain.newest().epoch, Epoch(2));
    assert_eq!(stop(sequencer), Ended::Stopped { clean: true });
}

/// Lets pass in what a standby that was wrong would have taken over.
#[allow(clippy::disallowed_methods, reason = "real time is what is tested")]
fn stand() {
    thread::sleep(2 * DETECT);
}

#[test]
#[allow(clippy::disallowed_methods, reason = "waits for real threads")]
fn a_standby_leaves_a_reign_alone_that_answers_and_follows_on_one_that_ends() {
    for merge in [true, false] {
        let chain = Chain::new();
        let first = start(&chain, config(Backend::Auto));
        let mut own = as_standby(&[nobody(), first.address()]);
        (own.merge, own.shards) = (merge, 2);
        let second = begin(&chain, own, owners());
        eventually("standing by", || second.status().is_standby());
        assert!(second.status().health().is_ok());
        stand();
        assert!(second.status().is_standby() && chain.newest().epoch == Epoch(1));
        Client::new(first.address(), 1).grant(1, 42);
        assert_eq!(stop(first), Ended::Stopped { clean: true });
        eventually("the takeover", || grants(&second));
        let reply = Client::new(second.address(), 1).grant(1, 1);
        assert_eq!(reply.first, Position(42), "the exact tail");
        stop(second);
    }
}

/// What is about to grant is not disturbed, or two standbys would take the log from each other for ever.
#[test]
#[allow(clippy::disallowed_methods, reason = "waits for real threads")]
fn a_standby_leaves_a_reign_alone_that_waits_for_seals() {
    let chain = left_behind();
    let writer = TcpListener::bind("127.0.0.1:0").expect("free port");
    let address = writer.local_addr().expect("bound");
    let first = begin(&chain, config(Backend::Poll), vec![address]);
    eventually("the reign", || chain.newest().epoch == Epoch(2));
    let second = standby(&chain, &[first.address()]);
    stand();
    let reply = Client::new(first.address(), 1).grant(1, 1);
    assert_eq!(status(&reply), Status::Sealing);
    assert!(second.status().is_standby() && chain.newest().epoch == Epoch(2));
    stop(second);
    stop(first);
}

/// Both find that nobody reigns and create the next entry. One of them wins, and the other is none the worse.
#[test]
fn s3_of_two_standbys_that_begin_at_once_one_reigns() {
    let chain = left_behind();
    chain.hold_appends(0);
    let both = [standby(&chain, &[]), standby(&chain, &[])];
    eventually("both creates", || chain.come() >= 2);
    chain.release();
    eventually("one reigns", || both.iter().any(grants));
    eventually("the other stands by", || {
        both.iter().any(|one| one.status().is_standby())
    });
    let epochs: Vec<_> = chain.entries().iter().map(|entry| entry.epoch.0).collect();
    assert_eq!(epochs, [0, 1, 1, 2]);
    for one in both {
        let clean = grants(&one);
        assert_eq!(stop(one), Ended::Stopped { clean });
    }
}

#[test]
fn s9_a_standby_says_that_it_does_not_reign_and_keeps_no_request_for_later() {
    let chain = left_behind();
    let first = start_with(&chain, config(Backend::Poll), owners());
    let start = chain.newest().epoch_start;
    let second = standby(&chain, &[first.address()]);
    let client = Client::new(second.address(), 9);
    for request in 1..50 {
        client.send(Kind::Grant, &[grant(0, request, 100)]);
        let (header, replies) = client.receive();
        assert_eq!((header.epoch, replies.len()), (Epoch(0), 1));
        assert_eq!(
            (status(&replies[0]), replies[0].count),
            (Status::NotReigning, 0)
        );
    }
    stop(first);
    eventually("the takeover", || grants(&second));
    assert!(client.is_silent());
    assert_eq!(
        client.grant(50, 1).first,
        start,
        "nothing was granted before"
    );
    stop(second);
}

/// A sequencer that nobody can reach but its clients goes on until its own clock stops it. What it grants lies
/// below the new reign, in an epoch that sealed stripes refuse (H-3), and nothing else does.
#[test]
fn s1_s5_a_stalled_reign_grants_below_the_one_that_took_over() {
    let chain = Chain::new();
    let mut long = config(Backend::Poll);
    (long.reign_ttl, long.reservation_min) = (Duration::from_secs(60), 1000);
    let first = start(&chain, long);
    let old = Client::new(first.address(), 1);
    old.grant(1, 10);
    let reserved = chain.newest().reservation;
    let second = standby(&chain, &[nobody()]);
    eventually("the takeover", || grants(&second));
    assert!(grants(&first), "it does not know yet");
    let new = Client::new(second.address(), 1);
    let mut behind = reserved;
    for request in 2..20 {
        old.send(Kind::Grant, &[grant(0, request, 7)]);
        let (header, replies) = old.receive();
        assert_eq!((header.epoch, status(&replies[0])), (Epoch(1), Status::Ok));
        assert!(replies[0].first.plus(7) <= reserved);
        new.send(Kind::Grant, &[grant(0, request, 7)]);
        let (header, replies) = new.receive();
        assert_eq!((header.epoch, replies[0].first), (Epoch(2), behind));
        behind = behind.plus(7);
    }
    // More than it had reserved is never granted: it finds itself fenced.
    let asked = AtomicU64::new(100);
    let reign = first.status().reign().expect("has begun");
    eventually("the end of the reign", || {
        let request = asked.fetch_add(1, Ordering::Relaxed);
        old.send(Kind::Grant, &[grant(0, request, 700)]);
        reign.has_ended()
    });
    let ended = first.wait().expect("not an error");
    assert!(matches!(ended, Ended::Fenced { .. }), "{ended:?}");
    stop(second);
}

/// A standby whose store does not answer waits on: what it cannot read says nothing.
#[test]
fn s4_a_standby_that_cannot_read_the_chain_does_not_begin() {
    let chain = left_behind();
    let sequencer = standby(&chain, &[nobody()]);
    chain.make_corrupt();
    let ended = sequencer
        .wait()
        .expect_err("an error, as for any sequencer");
    assert!(ended.to_string().contains("control entry"), "{ended}");
    assert_eq!(chain.entries().len(), 3);
}

/// A list that changes may lack the one that reigns, until that one registers again. It is given the time for it.
#[test]
#[allow(clippy::disallowed_methods, reason = "real time is what is tested")]
fn a_reign_that_a_list_lacks_has_time_to_come_into_it_and_stays_when_it_answers() {
    let chain = Chain::new();
    let ttl = 3 * DETECT;
    let (mut own, mut first) = (as_standby(&[]), config(Backend::Poll));
    (own.reign_ttl, first.reign_ttl) = (ttl, ttl);
    let first = start(&chain, first);
    let lacking = Membership {
        sequencers: vec![nobody()],
        ..Membership::default()
    };
    let (tell, told) = watch::channel(lacking.clone());
    let second = begin_told(&chain, own.clone(), owners(), Some(told));
    eventually("standing by", || second.status().is_standby());
    thread::sleep(ttl / 2);
    assert!(second.status().is_standby() && chain.newest().epoch == Epoch(1));
    // It comes into the list, and leaves it again: it has answered, and is asked on.
    let sequencers = vec![nowhere(), first.address()];
    tell.send_replace(Membership {
        sequencers,
        ..Membership::default()
    });
    thread::sleep(DETECT);
    tell.send_replace(lacking.clone());
    thread::sleep(2 * ttl);
    assert!(second.status().is_standby() && chain.newest().epoch == Epoch(1));
    stop(second);
    stop(first);
    let (chain, began) = (left_behind(), Instant::now());
    let (_tell, told) = watch::channel(lacking);
    let third = begin_told(&chain, own, owners(), Some(told));
    eventually("the takeover", || grants(&third));
    assert!(began.elapsed() >= ttl, "{:?}", began.elapsed());
    stop(third);
}
