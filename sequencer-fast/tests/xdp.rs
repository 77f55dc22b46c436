//! The program in the driver hook beside the shards: one counter, one memory, and what ends with a reign.

mod common;

use std::net::UdpSocket;
use std::thread;
use std::time::Duration;

use common::bed::{Bed, CLIENT, NATIVE, attached, counts};
use common::frame::{Way, frame};
use common::writer::{Seals, Writer, stripes};
use common::{Chain, Client, LOG, config, encode, eventually, grant, start, start_with, stop};
use rustix::net::netdevice::name_to_index;
use rustix::thread::{CpuSet, sched_setaffinity};
use sequencer_fast::hook::{Frames, Job, Tool};
use sequencer_fast::logic::Counter;
use sequencer_fast::{Backend, HookMode, Sequencer};
use wire::datagram::{Grant, Header, Kind, Restripe, Status};
use wire::mac::Key;
use wire::{ClientId, Lane, Layout, Position, RequestId, SegmentId};

fn passed_up(sequencer: &Sequencer, reason: &str) -> u64 {
    let counts = counts(sequencer);
    let found = counts.passed_up().find(|(known, _)| *known == reason);
    found.expect("a reason").1
}

/// Cores that frames come from, each by a queue of its own, and how many each sends.
const CORES: [usize; 2] = [0, 1];
const FRAMES: u32 = 200_000;

/// Clients that the frames of a core are of, and requests of each frame.
const CLIENTS: u32 = 1024;
const PACKED: u32 = 3;

/// Every datagram, byte by byte: with one request and many, new and repeated ones, and headers that are unusual.
#[test]
fn answers_as_the_sockets_do() {
    Bed::run(NATIVE, |_| {
        let with = start(&Chain::new(), config(Backend::Xdp));
        let without = start(&Chain::new(), config(Backend::Poll));
        let answers = [&with, &without].map(|sequencer| {
            let client = Client::new(sequencer.address(), 7);
            let mut answers = Vec::new();
            for request in 1..40_u32 {
                let lanes = 0..request % 29 + 1;
                let entries: Vec<Grant> = lanes
                    .map(|lane| {
                        Grant::at(
                            Lane(lane),
                            RequestId(u64::from(request / 2)),
                            lane + 1,
                            Position(9),
                        )
                    })
                    .collect();
                let mut header = client.header(Kind::Grant, entries.len());
                header.tag = u64::from(request) << 40;
                header.epoch.0 = 77;
                client.socket.send(&encode(header, &entries)).expect("sent");
                let mut buffer = [0; 2048];
                let len = client.socket.recv(&mut buffer).expect("answered");
                answers.push(buffer[..len].to_vec());
            }
            answers
        });
        assert_eq!(answers[0], answers[1]);
        let counts = counts(&with);
        assert!(counts.answered >= 38 && counts.retries > 100, "{counts:?}");
        stop(with);
        stop(without);
    });
}

/// Whoever of the two has granted a request, the other one gives it the same token.
#[test]
fn s6_the_program_and_the_shards_remember_together() {
    Bed::run(NATIVE, |_| {
        let chain = Chain::new();
        let mut config = config(Backend::Xdp);
        (config.reservation_min, config.reservation_max) = (100, 100);
        let sequencer = start(&chain, config);
        let client = Client::new(sequencer.address(), 1);
        let shard = &sequencer.status().shards()[0];
        // By the program, and again by the program and by a shard.
        let first = client.grant(5, 10);
        assert_eq!(counts(&sequencer).granted, 1);
        assert_eq!(client.grant(5, 10), first);
        let at = |request| Grant::at(Lane(0), RequestId(request), 10, first.first);
        let again = client.ask(Kind::GrantAt, &[at(5)])[0];
        assert_eq!((again.first, again.count), (first.first, 10));
        assert_eq!((counts(&sequencer).retries, shard.retries.get()), (1, 1));
        // What its lane has left behind is dropped, not granted anew.
        client.send(Kind::Grant, &[grant(0, 4, 10)]);
        eventually("dropped", || shard.dropped.get("stale") == 1);
        assert_eq!(passed_up(&sequencer, "stale"), 1);
        // By a shard, above the reservation, and again by the program.
        chain.hold_appends(0);
        let received = shard.received.get();
        client.send(Kind::Grant, &[grant(1, 1, 95)]);
        eventually("received", || shard.received.get() == received + 1);
        assert!(client.is_silent());
        assert!(passed_up(&sequencer, "limit") > 0);
        chain.release();
        let held = client.receive().1[0];
        assert_eq!((held.first, held.count), (Position(10), 95));
        let before = counts(&sequencer).retries;
        assert_eq!(client.ask(Kind::Grant, &[grant(1, 1, 95)])[0], held);
        assert_eq!(counts(&sequencer).retries, before + 1);
        stop(sequencer);
    });
}

/// Lanes that are no neighbours, a lane twice, counts out of bounds: decided where everything is.
#[test]
fn what_is_not_simple_is_passed_up() {
    Bed::run(NATIVE, |_| {
        let sequencer = start(&Chain::new(), config(Backend::Xdp));
        let client = Client::new(sequencer.address(), 1);
        let far = client.ask(Kind::Grant, &[grant(0, 1, 3), grant(40, 1, 3)]);
        assert_eq!((far[0].first, far[1].first), (Position(0), Position(3)));
        let twice = client.ask(Kind::Grant, &[grant(2, 1, 3), grant(2, 1, 3)]);
        assert_eq!(twice[0], twice[1]);
        let none = client.ask(Kind::Grant, &[grant(3, 1, 0)])[0];
        assert_eq!(none.status(), Ok(Status::Invalid));
        assert_eq!(passed_up(&sequencer, "odd"), 3);
        // The program has learnt what the shard has granted.
        assert_eq!(client.ask(Kind::Grant, &[grant(40, 1, 3)])[0], far[1]);
        assert_eq!(counts(&sequencer).retries, 1);
        stop(sequencer);
    });
}

/// A reign that cannot be renewed ends by the clock, for the program as well.
#[test]
fn s5_the_program_stops_when_the_reign_runs_out() {
    Bed::run(NATIVE, |_| {
        let chain = Chain::new();
        let mut config = config(Backend::Xdp);
        config.reign_ttl = Duration::from_secs(2);
        let sequencer = start(&chain, config);
        let client = Client::new(sequencer.address(), 1);
        assert_eq!(client.grant(1, 1).status(), Ok(Status::Ok));
        chain.set_mute(true);
        eventually("not granting", || sequencer.status().health().is_err());
        let before = counts(&sequencer);
        for request in [1, 2] {
            assert_eq!(client.grant(request, 1).status(), Ok(Status::NotReigning));
        }
        assert_eq!(counts(&sequencer).answered, before.answered);
        assert_eq!(passed_up(&sequencer, "stopped"), 2);
        chain.set_mute(false);
        eventually("granting", || sequencer.status().health().is_ok());
        assert_eq!(client.grant(2, 1).first, Position(1));
        stop(sequencer);
    });
}

/// The next reign of the same process has a program of its own, in the same link.
#[test]
fn h5_another_layout_is_another_program() {
    Bed::run(NATIVE, |_| {
        let owned = [stripes(0, 0..4), stripes(1, 0..2)];
        let writers = owned.map(|stripes| Writer::start(Seals::Well, stripes).address);
        let writers = writers.to_vec();
        let sequencer = start_with(&Chain::new(), config(Backend::Xdp), writers);
        let client = Client::new(sequencer.address(), 1);
        for _ in 0..2 {
            client.grant(1, 5);
        }
        let layout = Layout::new(2, 8).expect("valid");
        let wish = Restripe::new(Lane(0), RequestId(1), layout, SegmentId(0));
        assert_eq!(
            client.ask(Kind::Restripe, &[wish])[0].status(),
            Ok(Status::Ok)
        );
        eventually("the next reign", || {
            client.send(Kind::Grant, &[grant(0, 9, 1)]);
            let (header, replies) = client.receive();
            header.epoch.0 == 2 && replies[0].status() == Ok(Status::Ok)
        });
        let before = counts(&sequencer);
        assert!(before.granted >= 1 && before.retries >= 1, "{before:?}");
        let first = client.grant(20, 1).first;
        assert_eq!(client.grant(21, 1).first, first.plus(1));
        assert!(counts(&sequencer).granted > before.granted, "{before:?}");
        assert!(attached());
        stop(sequencer);
        assert!(!attached());
    });
}

/// With a key or a limit of rates the shards decide everything.
#[test]
fn signed_datagrams_are_passed_up() {
    Bed::run(NATIVE, |_| {
        let key = Key::new(&[7; 32]);
        let mut config = config(Backend::Xdp);
        config.key = Some(key.clone());
        let sequencer = start(&Chain::new(), config);
        let client = Client::new(sequencer.address(), 1);
        let mut signer = key.signer();
        for request in 1..5 {
            let header = client.header(Kind::Grant, 1);
            let mut bytes = encode(header, &[grant(0, request, 1)]);
            signer.sign(&mut bytes);
            client.socket.send(&bytes).expect("sent");
            let mut buffer = [0; 2048];
            let len = client.socket.recv(&mut buffer).expect("answered");
            assert!(signer.verify(&buffer[..len]));
        }
        assert_eq!(counts(&sequencer).answered, 0);
        stop(sequencer);
    });
}

/// A frame with requests for one position each.
fn request_frame(bed: &Bed, port: u16) -> Vec<u8> {
    let entries: Vec<_> = (0..PACKED).map(|lane| grant(lane, 1, 1)).collect();
    let header = Header::request(Kind::Grant, LOG, ClientId(1 << 40), entries.len());
    let way = Way {
        from: (bed.ip(2), Tool::SOURCE_PORT),
        to: (bed.ip(1), port),
    };
    frame(way, &encode(header, &entries), false)
}

/// Has the kernel send frames on every core at once, from the namespace of this thread.
fn send_on_all_cores(bytes: &[u8], interface: u32, port: u16) {
    thread::scope(|scope| {
        for core in CORES {
            scope.spawn(move || {
                let mut set = CpuSet::new();
                set.set(core);
                sched_setaffinity(None, &set).expect("two cores");
                let source = Tool::load(Job::Source, port, CLIENTS, 1);
                let sent = source.expect("loads").send(bytes, interface, FRAMES);
                sent.expect("sends");
            });
        }
    });
}

/// Both queues of an interface at once, each served by a core: every position that was granted is looked at.
#[test]
fn s1_two_queues_take_from_one_counter() {
    Bed::run_bare(NATIVE, |bed| {
        let mut config = config(Backend::Xdp);
        (config.reservation_min, config.reservation_max) = (1 << 40, 1 << 40);
        let sequencer = start(&Chain::new(), config);
        let port = sequencer.address().port();
        let bytes = request_frame(bed, port);
        let check = bed.in_client(|| {
            let hook = sequencer_fast::Hook {
                interface: CLIENT.to_owned(),
                mode: HookMode::Native,
            };
            let check = Tool::load(Job::Check, port, 1, 1).expect("loads");
            let check = check.attach(&hook).expect("attaches");
            let socket = UdpSocket::bind("127.0.0.1:0").expect("free port");
            let interface = name_to_index(&socket, CLIENT).expect("there");
            send_on_all_cores(&bytes, interface, port);
            // What a full queue has lost does not arrive.
            let mut before = None;
            eventually("nothing is under way any more", || {
                let now = (check.counts(), counts(&sequencer));
                before.replace(now) == Some(now)
            });
            check
        });
        let (seen, granted) = (check.counts(), check.granted().expect("readable"));
        let (program, reign) = (counts(&sequencer), sequencer.status().reign());
        let tail = reign.expect("one").counter().tail();
        let by_shards = sequencer.status().shards().iter();
        let by_shards: u64 = by_shards.map(|shard| shard.tokens.get()).sum();
        eprintln!("{seen:?} {program:?} by_shards={by_shards}");
        assert_eq!((seen.twice, seen.unchecked), (0, 0));
        assert_eq!(program.tokens + by_shards, tail);
        // Every position that arrived is one of those that were granted, and there are as many as arrived.
        let arrived: u64 = granted.iter().map(|(first, end)| end - first).sum();
        assert_eq!(arrived, u64::from(PACKED) * seen.replies);
        assert!(granted.last().is_some_and(|(_, end)| *end <= tail));
        let [first, second, ..] = seen.queues;
        let least = u64::from(FRAMES / 10);
        assert!(first > least && second > least, "both queues: {seen:?}");
        // It would be seen if a position came twice: the answer to a repeated request is one that does.
        bed.in_client(|| {
            let socket = UdpSocket::bind("127.0.0.1:0").expect("free port");
            let interface = name_to_index(&socket, CLIENT).expect("there");
            let sender = Frames::open(interface).expect("allowed");
            for _ in 0..2 {
                sender.send(&bytes).expect("sent");
            }
        });
        eventually("seen twice", || check.counts().twice == u64::from(PACKED));
        drop(check);
        stop(sequencer);
    });
}
