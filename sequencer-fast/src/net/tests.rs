//! Both mechanisms with merged datagrams, which only a send with UDP_SEGMENT makes.

use std::io;
use std::net::{SocketAddr, UdpSocket};
use std::os::fd::AsFd;
use std::sync::Arc;
use std::thread;
use std::time::Duration;

use wire::control::ControlEntry;
use wire::datagram::{self, Datagram, Grant, Header, Kind, Reply};
use wire::{
    ClientId, Epoch, Lane, Layout, LogId, Position, RequestId, Segment, SegmentId, WriterId,
};

use super::echo::{Echo, Io};
use super::mechanism::Mechanism;
use super::sleeper::Sleeper;
use super::worker::{Granter, Worker};
use super::{outbox, socket, uring};
use crate::config::{Backend, Wait};
use crate::demand::Demand;
use crate::logic::{Limits, Reign, Shard, ShardCounters};
use crate::sys::send::{Outgoing, Sender};

const LOG: LogId = LogId([7; 16]);

/// A shard that serves in a thread of its own.
struct Served {
    address: SocketAddr,
    reign: Arc<Reign>,
    sleeper: Arc<Sleeper>,
    counters: Arc<ShardCounters>,
    thread: thread::JoinHandle<io::Result<()>>,
}

impl Served {
    fn start(how: How, reservation: u64) -> Self {
        Self::start_behind(how, reservation, |_| {})
    }

    /// Starts to serve when `before` has been done with the address.
    fn start_behind(how: How, reservation: u64, before: impl FnOnce(SocketAddr)) -> Self {
        let entry = ControlEntry {
            log: LOG,
            number: 1,
            epoch: Epoch(1),
            owner: WriterId::default(),
            epoch_start: Position(0),
            reservation: Position(reservation),
            clean: false,
            trim: Position(0),
            segments: vec![Segment {
                id: SegmentId(0),
                epoch: Epoch(1),
                start: Position(0),
                layout: Layout::new(1, 1).expect("valid"),
            }],
        };
        let reign = Arc::new(Reign::new(&entry).expect("has a segment"));
        reign.renew(u64::MAX);
        reign.grant();
        let counters = Arc::new(ShardCounters::default());
        let limits = Limits {
            retry_memory: 1 << 10,
            held_replies: 1 << 16,
            rate: None,
            key: None,
            seed: 5,
        };
        let any = SocketAddr::from(([127, 0, 0, 1], 0));
        let socket = socket::open(any, 1, how.merge)
            .expect("free port")
            .remove(0);
        let address = socket.local_addr().expect("bound");
        let sleeper = Arc::new(Sleeper::new().expect("eventfd"));
        let handler = Granter {
            shard: Shard::new(Arc::clone(&reign), Arc::clone(&counters), limits),
            sleeper: Arc::clone(&sleeper),
            demand: Arc::new(Demand::new()),
        };
        let worker = Worker {
            socket,
            handler,
            counters: Arc::clone(&counters),
            sleeper: Arc::clone(&sleeper),
            wait: how.wait,
            merges: how.merge,
        };
        before(address);
        let thread = thread::spawn(move || how.mechanism.serve(worker));
        Self {
            address,
            reign,
            sleeper,
            counters,
            thread,
        }
    }

    fn stop(self) {
        self.sleeper.quit();
        self.thread.join().expect("no panic").expect("no error");
    }
}

/// A run of datagrams with `entries` requests each, from lane `from` on.
fn run(datagrams: u32, entries: u32, from: u32) -> (Vec<u8>, u16) {
    let mut bytes = Vec::new();
    for number in 0..datagrams {
        let first = from + number * entries;
        let grants: Vec<_> = (first..first + entries)
            .map(|lane| Grant::new(Lane(lane), RequestId(1), 1))
            .collect();
        let mut place = vec![0; datagram::MAX_DATAGRAM_BYTES];
        let header = Header::request(Kind::Grant, LOG, ClientId(1), grants.len());
        let len = datagram::write(header, &grants, &mut place).expect("fits");
        bytes.extend(&place[..len]);
    }
    let size = bytes.len() / usize::try_from(datagrams).expect("small");
    (bytes, u16::try_from(size).expect("small"))
}

fn send(socket: &UdpSocket, peer: SocketAddr, bytes: &[u8], segment: u16) {
    let outgoing = Outgoing {
        peer,
        bytes,
        segment: Some(segment),
    };
    let sent = Sender::new(1).send(socket.as_fd(), std::iter::once(outgoing));
    assert_eq!(sent.expect("sent"), 1);
}

fn replies(socket: &UdpSocket, count: u32) -> Vec<Reply> {
    let timeout = Some(Duration::from_secs(20));
    socket.set_read_timeout(timeout).expect("valid");
    let mut replies = Vec::new();
    for _ in 0..count {
        let mut buffer = [0; 2048];
        let len = socket.recv(&mut buffer).expect("an answer");
        let datagram = Datagram::parse(&buffer[..len], LOG).expect("valid");
        replies.extend(
            datagram
                .entries::<Reply>()
                .map(|reply| reply.expect("valid")),
        );
    }
    replies
}

fn positions(replies: &[Reply]) -> Vec<u64> {
    let mut positions: Vec<_> = replies.iter().map(|reply| reply.first.0).collect();
    positions.sort_unstable();
    positions
}

/// A way to serve.
#[derive(Debug, Clone, Copy)]
struct How {
    mechanism: Mechanism,
    wait: Wait,
    merge: bool,
}

const WAYS: [(Mechanism, Wait); 5] = [
    (Mechanism::Poll, Wait::Block),
    (Mechanism::Poll, Wait::BusyPoll),
    (Mechanism::Uring, Wait::Block),
    (Mechanism::Uring, Wait::BusyPoll),
    (Mechanism::Uring, Wait::SqPoll { core: None }),
];

/// Every mechanism in every way to wait, with merging or without.
fn ways(merge: bool) -> impl Iterator<Item = How> {
    WAYS.into_iter().map(move |(mechanism, wait)| How {
        mechanism,
        wait,
        merge,
    })
}

#[test]
fn merged_datagrams_are_told_apart_and_answered_with_one_addition() {
    for how in ways(true) {
        for (datagrams, entries) in [(1, 1), (40, 2), (64, 1), (44, 29)] {
            let served = Served::start(how, 1 << 20);
            let client = UdpSocket::bind("127.0.0.1:0").expect("free port");
            let (bytes, segment) = run(datagrams, entries, 0);
            send(&client, served.address, &bytes, segment);
            let replies = replies(&client, datagrams);
            let expected: Vec<_> = (0..u64::from(datagrams * entries)).collect();
            assert_eq!(positions(&replies), expected, "{how:?}");
            assert_eq!(served.counters.received.get(), u64::from(datagrams));
            assert_eq!(served.counters.fetch_adds.get(), 1, "{how:?}");
            assert_eq!(served.counters.send_errors.get(), 0, "{how:?}");
            served.stop();
        }
    }
}

/// The last datagram of a merged buffer may be shorter than the others, and others bad.
#[test]
fn a_short_or_bad_datagram_does_not_spoil_its_run() {
    for how in ways(true) {
        let served = Served::start(how, 1 << 20);
        let client = UdpSocket::bind("127.0.0.1:0").expect("free port");
        let (mut bytes, segment) = run(6, 3, 0);
        bytes[usize::from(segment) * 2] ^= 1;
        bytes.truncate(bytes.len() - 9);
        send(&client, served.address, &bytes, segment);
        assert_eq!(replies(&client, 4).len(), 12);
        assert_eq!(served.counters.dropped.get("magic"), 1);
        assert_eq!(served.counters.dropped.get("length"), 1);
        served.stop();
    }
}

/// More replies at once than runs of them can be under way, to many peers, all of them held before.
#[test]
fn held_replies_to_many_peers_leave_when_the_shard_is_woken() {
    for how in ways(true) {
        let served = Served::start(how, 0);
        let clients: Vec<_> = (0..150)
            .map(|_| UdpSocket::bind("127.0.0.1:0").expect("free port"))
            .collect();
        for (client, number) in clients.iter().zip(0..) {
            let (bytes, segment) = run(3, 2, number * 6);
            send(client, served.address, &bytes, segment);
        }
        for _ in 0..5_000 {
            if served.counters.held.get() == 900 {
                break;
            }
            thread::park_timeout(Duration::from_millis(1));
        }
        assert_eq!(served.counters.held.get(), 900, "{how:?}");
        served.reign.reserve(Position(900));
        served.sleeper.wake_if_waits();
        let all: Vec<_> = clients.iter().flat_map(|c| replies(c, 3)).collect();
        assert_eq!(positions(&all), (0..900).collect::<Vec<_>>(), "{how:?}");
        served.stop();
    }
}

#[test]
fn the_probe_finds_what_this_system_allows() {
    uring::probe(Wait::Block).expect("the tests need a kernel that allows io_uring");
    assert!(outbox::cannot_cut(&io::Error::from_raw_os_error(
        libc::EINVAL
    )));
    assert!(!outbox::cannot_cut(&io::Error::from_raw_os_error(
        libc::EPERM
    )));
}

/// Single datagrams of one client are answered in one send where they came in one go, and every one of
/// them is answered whether they are merged or not.
#[test]
fn datagrams_that_are_not_merged_are_all_answered() {
    for how in ways(false) {
        let served = Served::start(how, 1 << 20);
        let client = UdpSocket::bind("127.0.0.1:0").expect("free port");
        let (bytes, segment) = run(64, 2, 0);
        send(&client, served.address, &bytes, segment);
        let replies = replies(&client, 64);
        let expected: Vec<_> = (0..128).collect();
        assert_eq!(positions(&replies), expected, "{how:?}");
        assert_eq!(served.counters.received.get(), 64, "{how:?}");
        served.stop();
    }
}

/// What is too long for a buffer, or empty, is counted once and answered never.
#[test]
fn what_cannot_be_used_is_counted_once() {
    for how in ways(false) {
        let served = Served::start(how, 1 << 20);
        let client = UdpSocket::bind("127.0.0.1:0").expect("free port");
        client.send_to(&[0xCD; 5000], served.address).expect("sent");
        client.send_to(&[], served.address).expect("sent");
        let (bytes, segment) = run(1, 1, 0);
        send(&client, served.address, &bytes, segment);
        assert_eq!(replies(&client, 1).len(), 1);
        assert_eq!(served.counters.received.get(), 3, "{how:?}");
        let dropped: Vec<_> = served.counters.dropped.iter().collect();
        let dropped: Vec<_> = dropped
            .into_iter()
            .filter(|(_, count)| *count > 0)
            .collect();
        assert_eq!(dropped, [("short", 1), ("truncated", 1)], "{how:?}");
        served.stop();
    }
}

/// More peers at once than fit into one go, before the thread has begun to serve.
#[test]
fn single_datagrams_of_many_peers_are_all_answered() {
    for how in ways(false) {
        let any = SocketAddr::from(([127, 0, 0, 1], 0));
        let clients: Vec<_> = (0..600)
            .map(|_| UdpSocket::bind(any).expect("free port"))
            .collect();
        let served = Served::start_behind(how, 1 << 20, |address| {
            for (client, lane) in clients.iter().zip(0..) {
                let (bytes, _) = run(1, 1, lane);
                client.send_to(&bytes, address).expect("sent");
            }
        });
        let all: Vec<_> = clients.iter().flat_map(|c| replies(c, 1)).collect();
        assert_eq!(positions(&all), (0..600).collect::<Vec<_>>(), "{how:?}");
        served.stop();
    }
}

/// An echo gives back what it was sent.
#[test]
fn an_echo_sends_everything_back() {
    for how in ways(true).chain(ways(false)) {
        let io = Io {
            listen: SocketAddr::from(([127, 0, 0, 1], 0)),
            backend: match how.mechanism {
                Mechanism::Poll => Backend::Poll,
                Mechanism::Uring => Backend::IoUring,
            },
            wait: how.wait,
            merge: how.merge,
            core: None,
        };
        let echo = Echo::start(io).expect("starts");
        let client = UdpSocket::bind("127.0.0.1:0").expect("free port");
        client
            .set_read_timeout(Some(Duration::from_secs(20)))
            .expect("valid");
        let (bytes, segment) = run(20, 3, 0);
        send(&client, echo.address(), &bytes, segment);
        let mut back: Vec<u8> = Vec::new();
        while back.len() < bytes.len() {
            let mut buffer = [0; 2048];
            match client.recv(&mut buffer) {
                Ok(len) => back.extend(&buffer[..len]),
                Err(error) => assert_eq!(error.kind(), io::ErrorKind::Interrupted),
            }
        }
        assert_eq!(back, bytes, "{how:?}");
        echo.stop().expect("no error");
    }
}
