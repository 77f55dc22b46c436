//! Reports to the sequencer, signed: they are, and only answers that are signed count.

use std::net::SocketAddr;
use std::sync::Mutex;
use std::time::Duration;

use catalog::Store;
use prometheus_client::encoding::text::encode;
use prometheus_client::registry::Registry;
use stripe_writer::{Options, StripeWriter};
use tokio::net::UdpSocket;
use tokio::time::{sleep, timeout};
use wire::datagram::{Datagram, MAX_DATAGRAM_BYTES, Reply, Report, Status, write};
use wire::mac::Key;
use wire::{Epoch, Lane, Layout, LogId, Position};

const TAIL: Position = Position(77);

/// A stripe-writer with a key, and the socket of its sequencer.
async fn start(registry: &Mutex<Registry>) -> (StripeWriter, UdpSocket, LogId) {
    let store = Store::open("memory:///").expect("valid URL");
    let layout = Layout::new(2, 4).expect("valid");
    let log = catalog::Log::create(store.clone(), layout);
    let log = log.await.expect("created").id();
    let sequencer = UdpSocket::bind("127.0.0.1:0").await.expect("free port");
    let options = Options {
        listen: SocketAddr::from(([127, 0, 0, 1], 0)),
        sequencers: vec![sequencer.local_addr().expect("bound")],
        stripes: 0..=1,
        linger: Duration::from_millis(1),
        hole_timeout: Duration::from_secs(1),
        puts_in_flight: 2,
        memory_bytes: 64 << 20,
        max_commit_age: Duration::from_secs(60),
        key: Some(Key::new(&[7; 32])),
        takeover: None,
        changes: None,
    };
    let writer = StripeWriter::start(store, &options, registry);
    (writer.await.expect("starts"), sequencer, log)
}

/// Waits for a report and answers it, signed with a key or not at all.
async fn answer(socket: &UdpSocket, log: LogId, key: Option<&Key>) {
    let mut bytes = [0; MAX_DATAGRAM_BYTES];
    let received = timeout(Duration::from_secs(10), socket.recv_from(&mut bytes));
    let (len, from) = received.await.expect("in time").expect("received");
    let report = &bytes[..len];
    assert!(Key::new(&[7; 32]).verify(report), "reports are signed");
    let datagram = Datagram::parse(report, log).expect("valid");
    let reports: Vec<Report> = datagram.entries().map(|r| r.expect("valid")).collect();
    let told = |report: &Report| Reply::new(report.request, Lane(0), Status::Ok, TAIL, 0);
    let replies: Vec<Reply> = reports.iter().map(told).collect();
    let mut out = [0; MAX_DATAGRAM_BYTES];
    let len = write(datagram.header.reply(Epoch(1)), &replies, &mut out).expect("room");
    if let Some(key) = key {
        key.sign(&mut out[..len]);
    }
    socket.send_to(&out[..len], from).await.expect("sent");
}

/// Waits until a metric has a value.
async fn wait_for(registry: &Mutex<Registry>, line: &str) {
    let shown = || {
        let mut text = String::new();
        encode(&mut text, &registry.lock().expect("not poisoned")).expect("a string takes it");
        text
    };
    for _ in 0..500 {
        if shown().lines().any(|shown| shown == line) {
            return;
        }
        sleep(Duration::from_millis(10)).await;
    }
    panic!("no line {line} in\n{}", shown());
}

#[tokio::test]
async fn reports_are_signed_and_only_signed_answers_count() {
    let registry = Mutex::new(Registry::default());
    let (_writer, sequencer, log) = start(&registry).await;
    answer(&sequencer, log, None).await;
    wait_for(&registry, "stripe_writer_wrong_macs_total 1").await;
    answer(&sequencer, log, Some(&Key::new(&[8; 32]))).await;
    wait_for(&registry, "stripe_writer_wrong_macs_total 2").await;
    wait_for(&registry, "stripe_writer_issued_tail 0").await;
    answer(&sequencer, log, Some(&Key::new(&[7; 32]))).await;
    wait_for(&registry, "stripe_writer_issued_tail 77").await;
    wait_for(&registry, "stripe_writer_wrong_macs_total 2").await;
}
