//! Reports where there are two sequencers: they reach the one that reigns, and only what it tells counts.

use std::net::SocketAddr;
use std::sync::Mutex;
use std::time::Duration;

use catalog::{Membership, Store};
use prometheus_client::encoding::text::encode;
use prometheus_client::registry::Registry;
use stripe_writer::{Options, StripeWriter};
use tokio::net::UdpSocket;
use tokio::sync::watch;
use tokio::time::{Instant, sleep, timeout};
use wire::datagram::{Datagram, MAX_DATAGRAM_BYTES, Reply, Report, Status, write};
use wire::{Epoch, Lane, Layout, LogId, Position};

/// Far more than a reporter needs to find out who reigns.
const SOON: Duration = Duration::from_secs(20);

struct Sequencer {
    socket: UdpSocket,
    log: LogId,
}

impl Sequencer {
    /// Waits for a report and answers it for a reign; gives whether one came in time.
    async fn answer(&self, epoch: u64, status: Status, tail: u64) -> bool {
        let mut bytes = [0; MAX_DATAGRAM_BYTES];
        let Ok(received) = timeout(SOON, self.socket.recv_from(&mut bytes)).await else {
            return false;
        };
        let (len, from) = received.expect("received");
        let datagram = Datagram::parse(&bytes[..len], self.log).expect("valid");
        let reports = datagram.entries().map(|r| r.expect("valid"));
        let told = |report: Report| Reply::new(report.request, Lane(0), status, Position(tail), 0);
        let replies: Vec<Reply> = reports.map(told).collect();
        let mut out = [0; MAX_DATAGRAM_BYTES];
        let header = datagram.header.reply(Epoch(epoch));
        let len = write(header, &replies, &mut out).expect("room");
        self.socket.send_to(&out[..len], from).await.expect("sent");
        true
    }

    /// Takes what has come so far.
    fn drain(&self) -> usize {
        let mut bytes = [0; MAX_DATAGRAM_BYTES];
        let received = |_: &usize| self.socket.try_recv(&mut bytes).is_ok();
        (0..10_000).take_while(received).count()
    }
}

async fn start(registry: &Mutex<Registry>) -> (StripeWriter, [Sequencer; 2]) {
    start_told(registry, |_| None).await
}

/// Where the list says something else than the settings.
async fn start_told(
    registry: &Mutex<Registry>,
    changes: impl FnOnce(&[SocketAddr]) -> Option<watch::Receiver<Membership>>,
) -> (StripeWriter, [Sequencer; 2]) {
    let store = Store::open("memory:///").expect("valid URL");
    let layout = Layout::new(2, 4).expect("valid");
    let created = catalog::Log::create(store.clone(), layout).await;
    let log = created.expect("created").id();
    let any = || UdpSocket::bind("127.0.0.1:0");
    let sockets = [any().await.expect("free"), any().await.expect("free")];
    let sequencers = sockets.map(|socket| Sequencer { socket, log });
    let address = |of: &Sequencer| of.socket.local_addr().expect("bound");
    let addresses: Vec<_> = sequencers.iter().map(address).collect();
    let changes = changes(&addresses);
    let told = changes
        .as_ref()
        .map(|told| told.borrow().sequencers.clone());
    let options = Options {
        listen: SocketAddr::from(([127, 0, 0, 1], 0)),
        sequencers: told.unwrap_or(addresses),
        stripes: 0..=1,
        linger: Duration::from_millis(1),
        hole_timeout: Duration::from_secs(60),
        puts_in_flight: 2,
        memory_bytes: 64 << 20,
        max_commit_age: Duration::from_secs(60),
        key: None,
        takeover: None,
        changes,
    };
    let writer = StripeWriter::start(store, &options, registry).await;
    (writer.expect("starts"), sequencers)
}

fn tail(registry: &Mutex<Registry>) -> Option<u64> {
    let mut text = String::new();
    encode(&mut text, &registry.lock().expect("not poisoned")).expect("a string takes it");
    let line = text
        .lines()
        .find_map(|line| line.strip_prefix("stripe_writer_issued_tail "));
    line?.parse().ok()
}

async fn told(registry: &Mutex<Registry>, expected: u64) {
    #[allow(clippy::disallowed_methods, reason = "waits for real tasks")]
    let end = Instant::now() + SOON;
    while tail(registry) != Some(expected) {
        #[allow(clippy::disallowed_methods, reason = "waits for real tasks")]
        let now = Instant::now();
        assert!(now < end, "tail={:?} expected={expected}", tail(registry));
        sleep(Duration::from_millis(5)).await;
    }
}

#[tokio::test]
async fn reports_reach_the_sequencer_that_reigns() {
    let registry = Mutex::new(Registry::default());
    let (_writer, [first, second]) = start(&registry).await;
    // The first is silent: both are reported to, until the second answers.
    assert!(second.answer(1, Status::Ok, 77).await);
    told(&registry, 77).await;
    sleep(Duration::from_millis(100)).await;
    first.drain();
    assert!(second.answer(1, Status::Ok, 78).await);
    told(&registry, 78).await;
    // The second is asked alone. It does not reign any more, and the first is found at once.
    assert!(second.answer(1, Status::NotReigning, 0).await);
    assert!(first.answer(2, Status::Ok, 90).await);
    told(&registry, 90).await;
}

/// Anybody may have written the list: one of it to which no socket can be opened keeps nobody from the others.
#[tokio::test]
async fn reports_reach_a_sequencer_beside_one_to_which_there_is_no_way() {
    let registry = Mutex::new(Registry::default());
    let nowhere = SocketAddr::from(([255, 255, 255, 255], 9));
    let mut tell = None;
    let (_writer, [first, second]) = start_told(&registry, |sequencers| {
        let sequencers = vec![nowhere, sequencers[1]];
        let (told, changes) = watch::channel(Membership {
            sequencers,
            ..Membership::default()
        });
        tell = Some(told);
        Some(changes)
    })
    .await;
    assert!(second.answer(1, Status::Ok, 77).await);
    told(&registry, 77).await;
    let address = first.socket.local_addr().expect("bound");
    let sequencers = vec![nowhere, address];
    tell.expect("called").send_replace(Membership {
        sequencers,
        ..Membership::default()
    });
    assert!(second.answer(1, Status::NotReigning, 0).await);
    assert!(first.answer(2, Status::Ok, 90).await);
    told(&registry, 90).await;
}

#[tokio::test]
async fn s7_what_a_former_reign_tells_is_not_the_tail() {
    let registry = Mutex::new(Registry::default());
    let (_writer, [first, second]) = start(&registry).await;
    assert!(first.answer(2, Status::Ok, 90).await);
    told(&registry, 90).await;
    assert!(first.answer(2, Status::NotReigning, 0).await);
    // A reign before the one that was heard of: its tail is that of nobody.
    for _ in 0..3 {
        assert!(second.answer(1, Status::Ok, 1 << 40).await);
    }
    assert_eq!(tail(&registry), Some(90));
    assert!(first.answer(3, Status::Ok, 100).await);
    told(&registry, 100).await;
}
