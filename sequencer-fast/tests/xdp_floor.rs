//! How fast the program in the driver hook is, against programs and servers that do less, all in one run: with frames
//! that the kernel sends by itself, and with an ordinary client.

mod common;

use std::net::{SocketAddr, UdpSocket};
use std::os::fd::AsFd;
use std::thread;
use std::time::{Duration, Instant};

use common::bed::{Bed, CLIENT, SERVER, Shape, client_socket, pass};
use common::frame::{Way, frame};
use common::{Chain, LOG, config, encode, grant, start, stop};
use rustix::net::netdevice::name_to_index;
use rustix::thread::{CpuSet, sched_setaffinity};
use sequencer_fast::hook::{Job, Tool};
use sequencer_fast::logic::Counter;
use sequencer_fast::udp::{Outgoing, Receiver, Sender};
use sequencer_fast::{Backend, Hook, HookMode, Sequencer, Wait};
use wire::ClientId;
use wire::datagram::{Header, Kind};

const PORT: u16 = 7400;

/// Rounds of each server, in turn. The best of each counts: what else the machine does only makes them worse.
const ROUNDS: usize = 5;

/// Frames of a round.
const FRAMES: u32 = 200_000;

/// Clients that the frames are of.
const CLIENTS: u32 = 1024;

/// The least that the program reaches of what one does that only turns packets round, and requests a second with 29 in a
/// datagram. It reached 0.7, and 59 million, where it was measured: the memory of lanes is what takes the time.
const LEAST_SHARE: f64 = 0.5;
const LEAST_PACKED: f64 = 30e6;

/// Datagrams that an ordinary client has under way, and how many it sends.
const WINDOW: usize = 32;
const DATAGRAMS: usize = 20_000;

/// Round trips of one datagram.
const TRIPS: usize = 5_000;

const NATIVE: Shape = Shape {
    mode: HookMode::Native,
    ipv6: false,
};

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Server {
    /// Only turns packets round.
    Reflector,
    Program,
    Uring(Wait),
}

/// A server that runs, for as long as this is there.
enum Running {
    Tool(#[allow(dead_code, reason = "is attached while it lives")] Tool),
    Sequencer(Sequencer, Option<Tool>),
}

impl Server {
    fn start(self, bed: &Bed) -> Running {
        keep_to(&[0, 1]);
        let running = self.run(bed);
        // The client, and what the kernel does for it.
        keep_to(&[1]);
        running
    }

    fn run(self, bed: &Bed) -> Running {
        let mut settings = config(match self {
            Self::Program => Backend::Xdp,
            Self::Reflector | Self::Uring(_) => Backend::IoUring,
        });
        settings.listen = SocketAddr::new(bed.ip(1), PORT);
        settings.reservation_min = 1 << 40;
        settings.reservation_max = 1 << 40;
        settings.cores = vec![0];
        match self {
            Self::Reflector => {
                let tool = Tool::load(Job::Reflect, PORT, 1, 1).expect("loads");
                Running::Tool(tool.attach(&bed.hook()).expect("attaches"))
            }
            Self::Program => Running::Sequencer(start(&Chain::new(), settings), None),
            Self::Uring(wait) => {
                settings.wait = wait;
                // Frames come in by a program, or not at all.
                let tool = Some(pass(SERVER));
                Running::Sequencer(start(&Chain::new(), settings), tool)
            }
        }
    }
}

impl Running {
    fn end(self) {
        if let Self::Sequencer(sequencer, _tool) = self {
            stop(sequencer);
        }
    }
}

/// Keeps this thread, and those that it starts, to cores.
fn keep_to(cores: &[usize]) {
    let mut set = CpuSet::new();
    cores.iter().for_each(|core| set.set(*core));
    sched_setaffinity(None, &set).expect("two cores");
}

/// A round's number, so that no request is one of a round before.
fn next_request(round: &mut u64) -> u64 {
    *round += 1;
    *round << 32
}

fn request_frame(bed: &Bed, packed: u32) -> Vec<u8> {
    let entries: Vec<_> = (0..packed).map(|lane| grant(lane, 1, 1)).collect();
    let header = Header::request(Kind::Grant, LOG, ClientId(0), entries.len());
    let way = Way {
        from: (bed.ip(2), 4000),
        to: (bed.ip(1), PORT),
    };
    frame(way, &encode(header, &entries), false)
}

fn sink(mode: HookMode) -> Tool {
    let hook = Hook {
        interface: CLIENT.to_owned(),
        mode,
    };
    let tool = Tool::load(Job::Sink, PORT, 1, 1).expect("loads");
    tool.attach(&hook).expect("attaches")
}

fn came(sink: &Tool) -> u64 {
    let counts = sink.counts();
    counts.replies + counts.others
}

/// Replies a second to frames that the kernel sends.
fn live(bed: &Bed, server: Server, packed: u32, round: &mut u64) -> f64 {
    let running = server.start(bed);
    let frames = match server {
        Server::Uring(_) => FRAMES / 2,
        _ => FRAMES,
    };
    let request = next_request(round);
    let bytes = request_frame(bed, packed);
    let rate = bed.in_client(|| {
        let sink = sink(HookMode::Native);
        let socket = UdpSocket::bind("127.0.0.1:0").expect("free port");
        let index = name_to_index(&socket, CLIENT).expect("there");
        let mut source = Tool::load(Job::Source, PORT, CLIENTS, request).expect("loads");
        let before = came(&sink);
        let (replies, took) = timed(|| {
            source.send(&bytes, index, frames).expect("sends");
            came(&sink) - before
        });
        if !matches!(server, Server::Uring(_)) {
            assert_eq!(replies, u64::from(frames), "{server:?}");
        }
        replies as f64 / took.as_secs_f64()
    });
    running.end();
    rate
}

/// Replies a second to a client with sockets that has a window of datagrams under way.
fn ordinary(bed: &Bed, server: Server, packed: u32, round: &mut u64) -> f64 {
    let running = server.start(bed);
    let _peer = bed.in_client(|| pass(CLIENT));
    let socket = client_socket();
    let peer = SocketAddr::new(bed.ip(1), PORT);
    socket.connect(peer).expect("connected");
    socket.set_nonblocking(true).expect("valid");
    let (mut sender, mut receiver) = (Sender::new(WINDOW), Receiver::new(WINDOW, 2048));
    let mut request = next_request(round);
    let (answered, took) = timed(|| {
        let mut answered = 0;
        while answered < DATAGRAMS {
            request += 1;
            let datagrams: Vec<_> = (0..WINDOW as u64)
                .map(|client| {
                    let entries: Vec<_> = (0..packed).map(|lane| grant(lane, request, 1)).collect();
                    let header = Header::request(Kind::Grant, LOG, ClientId(client), entries.len());
                    encode(header, &entries)
                })
                .collect();
            let each = datagrams.iter().map(|bytes| Outgoing {
                peer,
                bytes,
                segment: None,
            });
            let sent = sender.send(socket.as_fd(), each).expect("sent");
            let mut open = sent;
            let patience = now() + Duration::from_millis(100);
            while open > 0 && now() < patience {
                let got = receiver.receive(socket.as_fd()).unwrap_or(0);
                open = open.saturating_sub(got);
            }
            answered += sent - open;
        }
        answered
    });
    running.end();
    answered as f64 / took.as_secs_f64()
}

/// Median of round trips of one datagram, by a client that spins.
fn trip_ns(bed: &Bed, server: Server, round: &mut u64) -> f64 {
    let running = server.start(bed);
    let _peer = bed.in_client(|| pass(CLIENT));
    let socket = client_socket();
    socket
        .connect(SocketAddr::new(bed.ip(1), PORT))
        .expect("connected");
    socket.set_nonblocking(true).expect("valid");
    let base = next_request(round);
    let mut buffer = [0; 2048];
    let mut trips: Vec<_> = (0..TRIPS as u64)
        .map(|number| {
            let header = Header::request(Kind::Grant, LOG, ClientId(1), 1);
            let bytes = encode(header, &[grant(0, base + number, 1)]);
            let ((), took) = timed(|| {
                socket.send(&bytes).expect("sent");
                let patience = now() + Duration::from_millis(50);
                while socket.recv(&mut buffer).is_err() && now() < patience {}
            });
            took.as_nanos() as f64
        })
        .collect();
    running.end();
    median(&mut trips)
}

#[allow(clippy::disallowed_methods, reason = "measures real time")]
fn now() -> Instant {
    Instant::now()
}

fn timed<T>(act: impl FnOnce() -> T) -> (T, Duration) {
    let begin = now();
    let done = act();
    (done, begin.elapsed())
}

fn median(samples: &mut [f64]) -> f64 {
    samples.sort_by(f64::total_cmp);
    samples[samples.len() / 2]
}

/// The best of several servers that are measured in turn, several times over.
fn best<const N: usize>(
    servers: [Server; N],
    better: fn(f64, f64) -> f64,
    mut measure: impl FnMut(Server) -> f64,
) -> [f64; N] {
    let mut found = servers.map(&mut measure);
    for _ in 1..ROUNDS {
        for (server, found) in servers.into_iter().zip(&mut found) {
            *found = better(*found, measure(server));
        }
    }
    found
}

/// One test, as its parts would measure each other.
#[test]
fn rates_and_round_trips() {
    let mut round = 0;
    Bed::run_bare(NATIVE, |bed| {
        let uring = Server::Uring(Wait::Block);
        let servers = [Server::Reflector, Server::Program, uring];
        let [reflector, program, sockets] =
            best(servers, f64::max, |server| live(bed, server, 1, &mut round));
        eprintln!(
            "live frames, 1 request: reflector={reflector:.0} program={program:.0} io_uring={sockets:.0} datagrams/s"
        );
        assert!(program >= 10.0 * sockets);
        assert!(program >= LEAST_SHARE * reflector);
        let servers = [Server::Reflector, Server::Program];
        let [reflector, program] = best(servers, f64::max, |server| {
            live(bed, server, 29, &mut round)
        });
        let requests = program * 29.0;
        eprintln!(
            "live frames, 29 requests: reflector={reflector:.0} program={program:.0} datagrams/s, {requests:.0} requests/s"
        );
        assert!(requests >= LEAST_PACKED);
        let servers = [Server::Program, uring];
        let [program, sockets] = best(servers, f64::max, |server| {
            ordinary(bed, server, 1, &mut round)
        });
        eprintln!("ordinary client: program={program:.0} io_uring={sockets:.0} datagrams/s");
        assert!(program >= 1.5 * sockets);
        let servers = [Server::Program, Server::Uring(Wait::BusyPoll)];
        let [program, sockets] = best(servers, f64::min, |server| trip_ns(bed, server, &mut round));
        eprintln!("round trip p50: program={program:.0} io_uring busy poll={sockets:.0} ns");
        assert!(2.0 * program <= sockets);
        two_queues(bed, &mut round);
    });
}

/// Both queues of the interface at once: every position is granted once, and every datagram is answered.
fn two_queues(bed: &Bed, round: &mut u64) {
    let Running::Sequencer(sequencer, _) = Server::Program.start(bed) else {
        return;
    };
    let request = next_request(round);
    let bytes = request_frame(bed, 3);
    let replies = bed.in_client(|| {
        let sink = sink(HookMode::Native);
        let sources: Vec<_> = (0..2)
            .map(|id| {
                let bytes = bytes.clone();
                thread::spawn(move || {
                    keep_to(&[id]);
                    let socket = UdpSocket::bind("127.0.0.1:0").expect("free port");
                    let index = name_to_index(&socket, CLIENT).expect("there");
                    let mut source =
                        Tool::load(Job::Source, PORT, CLIENTS, request).expect("loads");
                    source.send(&bytes, index, FRAMES).expect("sends");
                })
            })
            .collect();
        sources
            .into_iter()
            .for_each(|source| source.join().expect("sends"));
        came(&sink)
    });
    let counts = sequencer.status().program().expect("there is one");
    let shards = sequencer.status().shards().iter();
    let by_shards: u64 = shards.map(|shard| shard.tokens.get()).sum();
    let reign = sequencer.status().reign().expect("one");
    eprintln!("two queues: replies={replies} {counts:?} by_shards={by_shards}");
    assert_eq!(counts.tokens + by_shards, reign.counter().tail());
    assert!(
        counts.answered > u64::from(FRAMES),
        "both queues: {counts:?}"
    );
    stop(sequencer);
}
