//! A follower and a stripe that moves from one process to another (C-6), with real clients' eyes.

mod answers;

use std::net::SocketAddr;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use bytes::Bytes;
use catalog::faults::{Faults, FaultyStore};
use catalog::{Log, Membership, Store, Writer};
use object_store::memory::InMemory;
use prometheus_client::registry::Registry;
use stripe_writer::{Options, StripeWriter};
use stripelog::{Content, Position, Scan};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::timeout;
use wire::frame::{AckStatus, Append, Frame, Hello, PREFIX_BYTES, Place, Prefix};
use wire::{ClientId, Identity, Layout, RequestId, RunBody, Slot, StripeId};

const SOON: Duration = Duration::from_secs(20);

/// Nobody answers there.
const NOBODY: ([u8; 4], u16) = ([127, 0, 0, 1], 9);

async fn writer(store: &Store, linger: Duration) -> StripeWriter {
    let options = Options {
        listen: SocketAddr::from(([127, 0, 0, 1], 0)),
        sequencers: vec![NOBODY.into()],
        stripes: 0..=0,
        linger,
        hole_timeout: Duration::from_secs(60),
        puts_in_flight: 4,
        memory_bytes: 64 << 20,
        max_commit_age: Duration::from_secs(60),
        key: None,
        takeover: None,
        changes: None,
    };
    let registry = Mutex::new(Registry::default());
    let writer = StripeWriter::start(store.clone(), &options, &registry).await;
    writer.expect("starts")
}

/// Appends one record at a time, at slots that are chosen.
struct Appender {
    socket: TcpStream,
    log: Log,
}

impl Appender {
    async fn new(writer: &StripeWriter, log: &Log) -> Self {
        let socket = TcpStream::connect(writer.address()).await.expect("listens");
        let mut appender = Self {
            socket,
            log: log.clone(),
        };
        let (log, client) = (log.id(), ClientId(7));
        let hello = Frame::Hello(Hello { log, client });
        appender.send(&hello.encode(0).expect("valid")).await;
        assert!(matches!(appender.read().await, Frame::Welcome(_)));
        appender
    }

    async fn send(&mut self, bytes: &[u8]) {
        self.socket.write_all(bytes).await.expect("sent");
    }

    async fn read(&mut self) -> Frame {
        let mut prefix = [0; PREFIX_BYTES];
        let read = timeout(SOON, self.socket.read_exact(&mut prefix)).await;
        read.expect("in time").expect("read");
        let prefix = Prefix::decode(&prefix).expect("valid");
        let mut rest = vec![0; prefix.head_len + prefix.body_len];
        self.socket.read_exact(&mut rest).await.expect("read");
        Frame::decode(&prefix, &rest[..prefix.head_len]).expect("valid")
    }

    async fn append(&mut self, slot: u64) -> AckStatus {
        let entry = self.log.last().await.expect("last");
        let body = RunBody::new(&[format!("record {slot}")]).expect("valid");
        let append = Append {
            place: Place {
                segment: entry.last_segment().expect("segment").id,
                stripe: StripeId(0),
                first: Slot(slot),
            },
            epoch: entry.epoch,
            identity: Identity {
                client: ClientId(7),
                request: RequestId(slot),
            },
            count: 1,
            crc: body.crc(),
        };
        let head = Frame::Append(append).encode(body.len()).expect("valid");
        let frame: Bytes = [head, body.bytes().clone()].concat().into();
        self.send(&frame).await;
        answers::answer(async || self.read().await).await
    }

    async fn append_all(&mut self, slots: std::ops::Range<u64>) {
        for slot in slots {
            assert_eq!(self.append(slot).await, AckStatus::Committed, "{slot}");
        }
    }
}

/// A log of one stripe, a client of it that has a store that counts, and the settings of two writers.
struct Scene {
    store: Store,
    log: Log,
    of_client: Log,
    faults: Faults,
}

async fn scene() -> Scene {
    let memory = Arc::new(InMemory::new());
    let store = Store::new(memory.clone(), "");
    let layout = Layout::new(1, 1).expect("valid");
    let log = Log::create(store.clone(), layout).await.expect("created");
    let faulty = FaultyStore::new(memory, 1);
    let faults = faulty.faults();
    let of_client = Log::open(Store::new(Arc::new(faulty), "")).await;
    Scene {
        store,
        log,
        of_client: of_client.expect("opened"),
        faults,
    }
}

impl Scene {
    /// A client whose settings say that the first of these owns the stripe.
    async fn client(&self, writers: [SocketAddr; 2]) -> stripelog::Log {
        let [first, second] = writers;
        let membership = Membership {
            sequencers: vec![NOBODY.into()],
            writers: vec![
                Writer {
                    address: first,
                    stripes: 0..=0,
                },
                Writer {
                    address: second,
                    stripes: 1..=9,
                },
            ],
        };
        let options = stripelog::Options::new("", membership);
        let opened = stripelog::Log::open_in(self.of_client.clone(), options).await;
        opened.expect("opens")
    }

    fn reads(&self) -> u64 {
        let requests = self.faults.counts().requests;
        requests.gets + requests.lists
    }
}

async fn sees(scan: &mut Scan, slots: std::ops::Range<u64>) {
    for slot in slots {
        let next = timeout(SOON, scan.next()).await.expect("never parked");
        let item = next.expect("reads").expect("there");
        assert_eq!(item.position, Position(slot));
        let expected = format!("record {slot}");
        assert_eq!(item.content, Content::Record(expected.into()));
    }
}

/// Waits for a record before it is appended.
async fn awaits(scan: &mut Scan, appender: &mut Appender, slot: u64) {
    let append = async {
        tokio::time::sleep(Duration::from_millis(5)).await;
        appender.append_all(slot..slot + 1).await;
    };
    tokio::join!(sees(scan, slot..slot + 1), append);
}

/// Appends records for which the scan waits. Once it has found the owner they take nothing from the store, but
/// for a look at the control chain now and then.
async fn is_live(scene: &Scene, scan: &mut Scan, appender: &mut Appender, from: u64) {
    for slot in from..from + 4 {
        awaits(scan, appender, slot).await;
    }
    let before = scene.reads();
    for slot in from + 4..from + 100 {
        awaits(scan, appender, slot).await;
    }
    let reads = scene.reads() - before;
    assert!(
        reads < 48,
        "from the store, not from the owner: {reads} reads"
    );
}

/// Another process takes the stripe over; the first one learns of it when it is asked to write.
#[tokio::test(flavor = "multi_thread")]
async fn c6_a_follower_follows_a_stripe_to_its_new_owner() {
    let scene = scene().await;
    let linger = Duration::from_millis(1);
    let first = writer(&scene.store, linger).await;
    let second = writer(&scene.store, linger).await;
    let client = scene.client([first.address(), second.address()]).await;
    let mut scan = client.follow(Position(0));
    let (mut former, mut owner) = (
        Appender::new(&first, &scene.log).await,
        Appender::new(&second, &scene.log).await,
    );
    former.append_all(0..5).await;
    sees(&mut scan, 0..5).await;
    is_live(&scene, &mut scan, &mut former, 5).await;
    // The second one was taken over from, too, before it has put anything: a third one owns the stripe.
    drop(owner);
    second.stop().await;
    let third = writer(&scene.store, linger).await;
    owner = Appender::new(&third, &scene.log).await;
    let client = scene.client([first.address(), third.address()]).await;
    let mut scan = client.follow(Position(100));
    sees(&mut scan, 100..105).await;
    let moves = async {
        tokio::time::sleep(Duration::from_millis(50)).await;
        owner.append_all(105..106).await;
        assert_eq!(former.append(105).await, AckStatus::NotOwner);
    };
    tokio::join!(sees(&mut scan, 105..106), moves);
    is_live(&scene, &mut scan, &mut owner, 106).await;
}

/// The first one never learns that it has lost the stripe: nobody asks it to write.
#[tokio::test(flavor = "multi_thread")]
async fn c6_a_follower_leaves_an_owner_that_does_not_know_that_it_is_none() {
    let scene = scene().await;
    let linger = Duration::from_millis(1);
    let first = writer(&scene.store, linger).await;
    Appender::new(&first, &scene.log)
        .await
        .append_all(0..5)
        .await;
    let second = writer(&scene.store, linger).await;
    let mut owner = Appender::new(&second, &scene.log).await;
    let client = scene.client([first.address(), second.address()]).await;
    let mut scan = client.follow(Position(0));
    sees(&mut scan, 0..5).await;
    owner.append_all(5..8).await;
    sees(&mut scan, 5..8).await;
    owner.append_all(8..10).await;
    sees(&mut scan, 8..10).await;
    is_live(&scene, &mut scan, &mut owner, 10).await;
}

/// The first one is gone.
#[tokio::test(flavor = "multi_thread")]
async fn c6_a_follower_that_loses_its_owner_finds_the_next() {
    let scene = scene().await;
    let linger = Duration::from_millis(1);
    let first = writer(&scene.store, linger).await;
    let second = writer(&scene.store, linger).await;
    let client = scene.client([first.address(), second.address()]).await;
    let mut former = Appender::new(&first, &scene.log).await;
    former.append_all(0..5).await;
    let mut scan = client.follow(Position(0));
    sees(&mut scan, 0..5).await;
    first.stop().await;
    drop(former);
    let third = writer(&scene.store, linger).await;
    let client = scene.client([first_gone(), third.address()]).await;
    let mut scan = client.follow(Position(3));
    sees(&mut scan, 3..5).await;
    let mut owner = Appender::new(&third, &scene.log).await;
    owner.append_all(5..8).await;
    sees(&mut scan, 5..8).await;
    is_live(&scene, &mut scan, &mut owner, 8).await;
    second.stop().await;
}

/// An address at which nobody listens.
fn first_gone() -> SocketAddr {
    SocketAddr::from(([127, 0, 0, 1], 1))
}
