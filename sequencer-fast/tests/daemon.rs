//! The program: its exit codes, its one line on standard error, its signals.

mod common;

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::path::Path;
use std::process::{Child, Command, Output, Stdio};

use catalog::{Log, Store};
use common::{encode, eventually, grant};
use sequencer_fast::logic;
use tempfile::TempDir;
use tokio::runtime::Runtime;
use wire::datagram::{Datagram, Header, Kind, Reply, Status};
use wire::{ClientId, Layout, Position, WriterId};

fn sequencer(arguments: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_sequencer-fast"));
    command.args(arguments).stderr(Stdio::piped());
    command
        .env_remove("RUST_LOG")
        .env_remove("STRIPELOG_CONFIG");
    command
}

fn outcome(arguments: &[&str]) -> (Option<i32>, String) {
    let Output { status, stderr, .. } = sequencer(arguments).output().expect("runs");
    (status.code(), String::from_utf8(stderr).expect("text"))
}

/// An error is exit code 1 and its last line on standard error.
fn assert_error(arguments: &[&str], text: &str) {
    assert_ends(arguments, 1, text);
}

/// Wrong settings are exit code 2 and a line on standard error.
fn assert_refused(arguments: &[&str], text: &str) {
    assert_ends(arguments, 2, text);
}

fn assert_ends(arguments: &[&str], expected: i32, text: &str) {
    let (code, stderr) = outcome(arguments);
    let last = stderr.lines().last().unwrap_or_default();
    assert_eq!(code, Some(expected), "{stderr}");
    assert!(
        last.starts_with("sequencer-fast: ") && last.contains(text),
        "{stderr}"
    );
    assert!(!stderr.contains("panicked"), "{stderr}");
}

fn url(path: &Path) -> String {
    format!("file://{}", path.display())
}

fn free_port() -> String {
    let socket = UdpSocket::bind("127.0.0.1:0").expect("free port");
    socket.local_addr().expect("bound").to_string()
}

/// A directory with a log in it.
fn log(runtime: &Runtime) -> (TempDir, Log) {
    let place = TempDir::new().expect("a directory");
    let store = Store::open(&url(place.path())).expect("opens");
    let layout = Layout::new(2, 8).expect("valid");
    let log = runtime
        .block_on(Log::create(store, layout))
        .expect("created");
    (place, log)
}

/// A daemon that is killed at the end, whatever happens.
struct Daemon(Child);

impl Drop for Daemon {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

impl Daemon {
    fn start(arguments: &[&str]) -> Self {
        let mut child = sequencer(arguments).spawn().expect("runs");
        let mut stderr = BufReader::new(child.stderr.take().expect("piped"));
        let mut line = String::new();
        while !line.contains("granting") {
            line.clear();
            assert_ne!(stderr.read_line(&mut line).expect("text"), 0, "it ended");
        }
        // Read on, so that the daemon is never held up by a full pipe.
        std::thread::spawn(move || stderr.read_to_end(&mut Vec::new()));
        Self(child)
    }

    fn signal(&mut self, name: &str) -> Option<i32> {
        let pid = self.0.id().to_string();
        let sent = Command::new("kill").args([name, &pid]).status();
        assert!(sent.expect("kill is there").success());
        self.0.wait().expect("ends").code()
    }
}

fn ask(address: &str, log: &Log, request: u64, count: u32) -> Reply {
    let socket = UdpSocket::bind("127.0.0.1:0").expect("free port");
    let timeout = Some(std::time::Duration::from_secs(20));
    socket.set_read_timeout(timeout).expect("valid");
    let header = Header::request(Kind::Grant, log.id(), ClientId(1), 1);
    let bytes = encode(header, &[grant(0, request, count)]);
    socket.send_to(&bytes, address).expect("sent");
    let mut buffer = [0; 2048];
    let len = socket.recv(&mut buffer).expect("answered");
    let datagram = Datagram::parse(&buffer[..len], log.id()).expect("valid");
    datagram.entries().next().expect("one").expect("valid")
}

#[test]
fn errors_are_one_clear_line_and_exit_code_1_or_2() {
    let runtime = Runtime::new().expect("runtime");
    let empty = TempDir::new().expect("a directory");
    let (place, _log) = log(&runtime);
    let taken = UdpSocket::bind("127.0.0.1:0").expect("free port");
    let taken = taken
        .local_addr()
        .map(|address| (taken, address.to_string()));
    let (_socket, taken) = taken.expect("bound");
    let web = TcpListener::bind("127.0.0.1:0").expect("free port");
    let web = web.local_addr().map(|address| (web, address.to_string()));
    let (_listener, web) = web.expect("bound");
    let (store, nothing) = (url(place.path()), url(empty.path()));
    let missing = format!("{nothing}/missing");
    let free = free_port();
    assert_error(
        &["--store", &store, "--listen", &taken],
        "address=127.0.0.1:",
    );
    assert_error(&["--store", &store, "--listen", &taken], "in use");
    assert_error(&["--store", &nothing, "--listen", &free], "no log here");
    assert_error(&["--store", &missing, "--listen", &free], "missing");
    assert_error(
        &["--store", &store, "--listen", &free, "--admin", &web],
        "in use",
    );
    assert_refused(
        &["--store", &store, "--set", "sequencer.nonsense=1"],
        "nonsense",
    );
    assert_refused(&["--store", &store, "--shards", "0"], "sequencer.shards");
    assert_refused(
        &["--store", &store, "--backend", "xdp"],
        "sequencer.backend",
    );
    assert_refused(
        &["--store", &store, "--key-file", "/nowhere/key"],
        "bad key file",
    );
    let few = "membership.writers=127.0.0.1:7500=0-0";
    assert_error(
        &["--store", &store, "--listen", &free, "--set", few],
        "owner",
    );
}

#[test]
fn bad_usage_is_exit_code_2() {
    let (code, stderr) = outcome(&["--no-such-flag"]);
    assert_eq!(code, Some(2), "{stderr}");
}

#[test]
fn signals_stop_it_at_the_exact_tail() {
    let runtime = Runtime::new().expect("runtime");
    for signal in ["-TERM", "-INT"] {
        let (place, log) = log(&runtime);
        let (address, store) = (free_port(), url(place.path()));
        let mut daemon = Daemon::start(&["--store", &store, "--listen", &address]);
        let reply = ask(&address, &log, 1, 42);
        assert_eq!(reply.status(), Ok(Status::Ok));
        assert_eq!(daemon.signal(signal), Some(0));
        let last = runtime.block_on(log.last()).expect("reads");
        assert_eq!((last.clean, last.reservation), (true, Position(42)));
    }
}

#[test]
fn a_fenced_sequencer_ends_with_exit_code_3() {
    let runtime = Runtime::new().expect("runtime");
    let (place, log) = log(&runtime);
    let (address, store) = (free_port(), url(place.path()));
    let arguments = [
        "--store",
        &store,
        "--listen",
        &address,
        "--reign-ttl-ms",
        "300",
    ];
    let mut daemon = Daemon::start(&arguments);
    let last = runtime.block_on(log.last()).expect("reads");
    let other = logic::begin(&last, WriterId([9; 16]), 10);
    runtime.block_on(log.append(&other)).expect("taken over");
    let mut ended = None;
    eventually("the end", || {
        ended = daemon.0.try_wait().expect("may be asked");
        ended.is_some()
    });
    assert_eq!(ended.and_then(|status| status.code()), Some(3));
}

/// A standby that finds a reign which nobody ends begins its own, and ends with exit code 3 as any other when it is
/// fenced.
#[test]
fn a_standby_says_so_takes_over_and_ends_with_exit_code_3_when_fenced() {
    let runtime = Runtime::new().expect("runtime");
    let (place, log) = log(&runtime);
    let (address, store) = (free_port(), url(place.path()));
    let last = runtime.block_on(log.last()).expect("reads");
    let dead = logic::begin(&last, WriterId([9; 16]), 500);
    runtime.block_on(log.append(&dead)).expect("begun");
    let admin = {
        let listener = TcpListener::bind("127.0.0.1:0").expect("free port");
        listener.local_addr().expect("bound")
    };
    // Of two addresses of the membership one is its own, and at the other is nobody. Nobody seals, either: it has
    // begun and waits for that.
    let (others, text) = (format!("{address},{}", free_port()), admin.to_string());
    let members = format!("membership.sequencer={others}");
    let arguments = [
        "--standby",
        "--store",
        &store,
        "--listen",
        &address,
        "--admin",
        &text,
        "--set",
        &members,
        "--detect-ms",
        "2000",
        "--reign-ttl-ms",
        "3000",
    ];
    let mut daemon = Daemon(
        sequencer(&arguments)
            .stderr(Stdio::null())
            .spawn()
            .expect("runs"),
    );
    eventually("standing by", || {
        TcpStream::connect(admin).is_ok() && get(admin, "/healthz").contains("standby")
    });
    assert!(get(admin, "/healthz").starts_with("HTTP/1.1 200"));
    let shows = |line: &str| get(admin, "/metrics").lines().any(|found| found == line);
    assert!(shows("sequencer_standby 1") && shows("sequencer_takeovers_total 0"));
    assert_eq!(ask(&address, &log, 1, 1).status(), Ok(Status::NotReigning));
    for line in [
        "sequencer_takeovers_total 1",
        "sequencer_standby 0",
        "sequencer_epoch 2",
    ] {
        eventually(line, || shows(line));
    }
    assert_eq!(ask(&address, &log, 2, 1).status(), Ok(Status::Sealing));
    let last = runtime.block_on(log.last()).expect("reads");
    assert_eq!(last.epoch_start, Position(500));
    let other = logic::begin(&last, WriterId([8; 16]), 10);
    runtime.block_on(log.append(&other)).expect("taken over");
    let mut ended = None;
    eventually("the end", || {
        ended = daemon.0.try_wait().expect("may be asked");
        ended.is_some()
    });
    assert_eq!(ended.and_then(|status| status.code()), Some(3));
}

#[test]
fn metrics_and_health_are_served() {
    let runtime = Runtime::new().expect("runtime");
    let (place, log) = log(&runtime);
    let (address, store) = (free_port(), url(place.path()));
    let admin = {
        let listener = TcpListener::bind("127.0.0.1:0").expect("free port");
        listener.local_addr().expect("bound")
    };
    let text = admin.to_string();
    let arguments = ["--store", &store, "--listen", &address, "--admin", &text];
    let _daemon = Daemon::start(&arguments);
    ask(&address, &log, 1, 10);
    eventually("health", || {
        get(admin, "/healthz").starts_with("HTTP/1.1 200")
    });
    let metrics = get(admin, "/metrics");
    for line in [
        "sequencer_granted_total{shard=\"0\"} 1",
        "sequencer_tokens_total{shard=\"0\"} 10",
        "sequencer_dropped_total{shard=\"0\",reason=\"magic\"} 0",
        "sequencer_headroom 65526",
        "sequencer_reservation 65536",
        "sequencer_issued_tail 10",
        "sequencer_epoch 1",
        "sequencer_granting 1",
        "sequencer_standby 0",
        "sequencer_takeovers_total 0",
    ] {
        assert!(
            metrics.lines().any(|found| found == line),
            "{line}\n{metrics}"
        );
    }
}

fn get(address: SocketAddr, path: &str) -> String {
    let mut stream = TcpStream::connect(address).expect("connected");
    let request = format!("GET {path} HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n");
    stream.write_all(request.as_bytes()).expect("sent");
    let mut answer = String::new();
    stream.read_to_string(&mut answer).expect("answered");
    answer
}
