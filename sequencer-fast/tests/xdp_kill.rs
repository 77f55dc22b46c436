//! A sequencer with a program in the driver hook that is stopped or killed: no position twice, nothing left behind.

mod common;

use std::collections::BTreeSet;
use std::io::{BufRead, BufReader, ErrorKind, Read};
use std::net::{SocketAddr, UdpSocket};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread;
use std::time::Duration;

use catalog::{Log, Store};
use common::bed::{Bed, NATIVE, SERVER, attached, client_socket};
use common::writer::{Seals, Writer, stripes};
use common::{encode, eventually, grant};
use tempfile::TempDir;
use tokio::runtime::Runtime;
use wire::datagram::{Datagram, Header, Kind, Reply, Status};
use wire::{ClientId, Layout, LogId};

const ROUNDS: u64 = 20;

/// Clients of a round.
const CLIENTS: u64 = 3;

/// Positions that are reserved at once: few, so that a sequencer that stands still comes to their end.
const RESERVED: u64 = 20_000;

const REIGN_TTL: Duration = Duration::from_secs(3);

/// First position and end of a token.
type Token = (u64, u64);

struct Daemon(Child);

impl Drop for Daemon {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

impl Daemon {
    /// Starts it in the namespace of this thread, and waits until it grants.
    fn start(store: &str, listen: SocketAddr, writer: SocketAddr) -> Self {
        let mut child = Command::new(env!("CARGO_BIN_EXE_sequencer-fast"))
            .args(["--store", store, "--listen", &listen.to_string()])
            .args(["--backend", "xdp", "--interface", SERVER])
            .args(["--reservation-min", &RESERVED.to_string()])
            .args(["--reservation-max", &RESERVED.to_string()])
            .args(["--reign-ttl-ms", &REIGN_TTL.as_millis().to_string()])
            .args(["--set", &format!("membership.writers={writer}=0-1")])
            .env_remove("RUST_LOG")
            .env_remove("STRIPELOG_CONFIG")
            .stderr(Stdio::piped())
            .spawn()
            .expect("runs");
        let mut stderr = BufReader::new(child.stderr.take().expect("piped"));
        let (mut line, mut told) = (String::new(), String::new());
        while !line.contains("granting") {
            line.clear();
            let read = stderr.read_line(&mut line).expect("text");
            told.push_str(&line);
            assert_ne!(read, 0, "it ended: {told}");
        }
        assert!(told.contains("a veth"), "it warns: {told}");
        // Read on, so that the daemon is never held up by a full pipe.
        thread::spawn(move || stderr.read_to_end(&mut Vec::new()));
        Self(child)
    }

    fn signal(&self, name: &str) {
        let pid = self.0.id().to_string();
        let sent = Command::new("kill").args([name, &pid]).status();
        assert!(sent.expect("kill is there").success());
    }
}

/// A client that asks until it is told to end, or for a while without an answer.
struct Asking {
    ends: Arc<AtomicBool>,
    /// Datagrams that were answered with tokens.
    granted: Arc<AtomicU64>,
    thread: thread::JoinHandle<Vec<Token>>,
}

impl Asking {
    fn start(log: LogId, client: u64, server: SocketAddr) -> Self {
        let socket = client_socket();
        socket.connect(server).expect("connected");
        let timeout = Some(Duration::from_millis(20));
        socket.set_read_timeout(timeout).expect("valid");
        let ends = Arc::<AtomicBool>::default();
        let granted = Arc::<AtomicU64>::default();
        let (over, count) = (Arc::clone(&ends), Arc::clone(&granted));
        let thread = thread::spawn(move || ask(log, client, &socket, &over, &count));
        Self {
            ends,
            granted,
            thread,
        }
    }

    fn end(self) -> Vec<Token> {
        self.ends.store(true, Ordering::Relaxed);
        self.thread.join().expect("went well")
    }
}

fn ask(
    log: LogId,
    client: u64,
    socket: &UdpSocket,
    over: &AtomicBool,
    answered: &AtomicU64,
) -> Vec<Token> {
    let mut tokens = Vec::new();
    let mut request = 0;
    while !over.load(Ordering::Relaxed) {
        request += 1;
        let lanes = u32::try_from(request % 4).expect("small");
        let count = u32::try_from(request % 7 + 1).expect("small");
        let entries: Vec<_> = (0..=lanes)
            .map(|lane| grant(lane, request, count))
            .collect();
        let header = Header::request(Kind::Grant, log, ClientId(client), entries.len());
        let bytes = encode(header, &entries);
        while !over.load(Ordering::Relaxed) {
            // Nobody may be there any more.
            let _ = socket.send(&bytes);
            if let Some(granted) = receive(log, socket, request) {
                tokens.extend(granted);
                answered.fetch_add(1, Ordering::Relaxed);
                break;
            }
        }
    }
    tokens
}

/// The tokens of a request, if they come in time. What comes twice is the same.
fn receive(log: LogId, socket: &UdpSocket, request: u64) -> Option<Vec<Token>> {
    let mut buffer = [0; 2048];
    loop {
        let len = match socket.recv(&mut buffer) {
            Err(error) if error.kind() == ErrorKind::Interrupted => continue,
            received => received.ok()?,
        };
        let datagram = Datagram::parse(&buffer[..len], log).expect("valid");
        let replies: Vec<Reply> = datagram
            .entries()
            .map(|reply| reply.expect("valid"))
            .collect();
        if replies.iter().any(|reply| reply.request.0 != request) {
            continue;
        }
        let granted = |reply: &Reply| reply.status() == Ok(Status::Ok);
        let token = |reply: &Reply| (reply.first.0, reply.first.0 + u64::from(reply.count));
        return replies
            .iter()
            .all(granted)
            .then(|| replies.iter().map(token).collect());
    }
}

/// Programs and maps of the kernel that have the names of ours.
fn left_behind() -> BTreeSet<(&'static str, u32)> {
    let programs = aya::programs::loaded_programs().map(|info| info.expect("readable"));
    let ours = programs.filter(|info| {
        info.name_as_str()
            .is_some_and(|name| name.starts_with("grant_ip"))
    });
    let mut found: BTreeSet<_> = ours.map(|info| ("program", info.id())).collect();
    let maps = aya::maps::loaded_maps().map(|info| info.expect("readable"));
    let ours = maps.filter(|info| {
        info.name_as_str()
            .is_some_and(|name| matches!(name, "STATE" | "TABLE" | "COUNTS"))
    });
    // The program at the other end counts as well.
    let ours = ours.filter(|info| info.name_as_str() != Some("COUNTS"));
    found.extend(ours.map(|info| ("map", info.id())));
    found
}

fn pinned() -> bool {
    let found = Path::new("/sys/fs/bpf").read_dir();
    found.is_ok_and(|mut entries| entries.next().is_some())
}

#[allow(clippy::disallowed_methods, reason = "waits for real time")]
fn pause(milliseconds: u64) {
    thread::sleep(Duration::from_millis(milliseconds));
}

#[test]
fn s1_twenty_rounds_of_kills() {
    let runtime = Runtime::new().expect("runtime");
    let place = TempDir::new().expect("a directory");
    let url = format!("file://{}", place.path().display());
    let store = Store::open(&url).expect("opens");
    let layout = Layout::new(2, 8).expect("valid");
    let log = runtime
        .block_on(Log::create(store, layout))
        .expect("created");
    Bed::run(NATIVE, |bed| {
        let writer = Writer::start_for(log.id(), Seals::Well, stripes(0, 0..2));
        let listen = SocketAddr::new(bed.ip(1), 7400);
        // What others leave to the kernel may be among it, and go meanwhile.
        let (before, pins) = (left_behind(), pinned());
        let (mut tokens, mut stopped, mut above) = (Vec::new(), 0, 0);
        for round in 0..ROUNDS {
            let daemon = Daemon::start(&url, listen, writer.address);
            assert!(attached());
            let mut clients: Vec<_> = (0..CLIENTS)
                .map(|client| Asking::start(log.id(), round * CLIENTS + client, listen))
                .collect();
            let all_are_served = || {
                clients
                    .iter()
                    .all(|client| client.granted.load(Ordering::Relaxed) > 20)
            };
            eventually("grants", all_are_served);
            pause(round * 13 % 100);
            let mut granted = Vec::new();
            if round % 4 == 3 {
                granted.extend(clients.drain(..).flat_map(Asking::end));
                let reserved = || {
                    runtime
                        .block_on(log.last())
                        .expect("readable")
                        .reservation
                        .0
                };
                above += stands_still(&daemon, log.id(), listen, reserved, &mut granted);
                stopped += 1;
            }
            daemon.signal("-KILL");
            granted.extend(clients.into_iter().flat_map(Asking::end));
            tokens.extend(granted);
            drop(daemon);
            // In every other round the next one may come before the kernel has taken the program off.
            if round % 2 == 0 {
                eventually("the program goes with its process", || !attached());
                eventually("nothing is left behind", || {
                    left_behind().is_subset(&before)
                });
            }
        }
        eventually("nothing is left behind", || {
            left_behind().is_subset(&before)
        });
        assert_eq!(pinned(), pins);
        let (count, twice) = (tokens.len(), twice(tokens));
        let left = left_behind().difference(&before).count();
        eprintln!(
            "rounds={ROUNDS} stopped_before={stopped} tokens={count} granted_twice={twice} above_the_reservation={above} left_behind={left}"
        );
        assert_eq!((twice, above, left), (0, 0, 0));
    });
}

/// Its user space stands still: the program goes on, at most to the reservation, and until the reign has run out. Gives
/// how many tokens were above the reservation.
fn stands_still(
    daemon: &Daemon,
    log: LogId,
    listen: SocketAddr,
    reserved: impl Fn() -> u64,
    tokens: &mut Vec<Token>,
) -> usize {
    daemon.signal("-STOP");
    // An extension may have been under way.
    pause(50);
    let limit = reserved();
    let client = Asking::start(log, u64::MAX - limit, listen);
    pause(u64::try_from(REIGN_TTL.as_millis()).expect("small") + 300);
    let granted = client.end();
    assert!(!granted.is_empty(), "the program goes on by itself");
    let above = granted.iter().filter(|(_, end)| *end > limit).count();
    if above > 0 {
        eprintln!("limit={limit} {:?}", granted.last());
    }
    tokens.extend(granted);
    let late = Asking::start(log, u64::MAX / 2 - limit, listen);
    pause(200);
    assert_eq!(late.end(), [], "the reign is over");
    above
}

/// Tokens that begin below the end of the one before.
fn twice(mut tokens: Vec<Token>) -> usize {
    tokens.sort_unstable();
    let pairs = tokens.windows(2).filter(|pair| pair[0].1 > pair[1].0);
    let twice: Vec<_> = pairs.collect();
    if let Some(first) = twice.first() {
        eprintln!("twice: {first:?}");
    }
    twice.len()
}
