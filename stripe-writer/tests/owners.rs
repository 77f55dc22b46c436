//! Two processes that both believe that they own a stripe (C-1, C-5, C-6).

use std::net::SocketAddr;
use std::sync::Mutex;
use std::time::Duration;

use bytes::Bytes;
use catalog::{Log, Store};
use prometheus_client::registry::Registry;
use stripe_writer::{Options, StripeWriter};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::timeout;
use wire::frame::{Ack, AckStatus, Append, Frame, Hello, PREFIX_BYTES, Place, Prefix};
use wire::{ClientId, Identity, Layout, LogId, RequestId, RunBody, Slot, StripeId};

const SOON: Duration = Duration::from_secs(20);

/// Appends that each of the two gets.
const APPENDS: u64 = 60;

async fn writer(store: &Store) -> StripeWriter {
    let options = Options {
        listen: SocketAddr::from(([127, 0, 0, 1], 0)),
        // Nobody answers there: no hole ripens.
        sequencers: vec![SocketAddr::from(([127, 0, 0, 1], 9))],
        stripes: 0..=0,
        linger: Duration::from_millis(1),
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

async fn read(socket: &mut TcpStream) -> Option<Frame> {
    let mut prefix = [0; PREFIX_BYTES];
    timeout(SOON, socket.read_exact(&mut prefix))
        .await
        .expect("in time")
        .ok()?;
    let prefix = Prefix::decode(&prefix).expect("valid");
    let mut rest = vec![0; prefix.head_len + prefix.body_len];
    socket.read_exact(&mut rest).await.ok()?;
    Some(Frame::decode(&prefix, &rest[..prefix.head_len]).expect("valid"))
}

async fn connect(writer: &StripeWriter, log: LogId) -> TcpStream {
    let mut socket = TcpStream::connect(writer.address()).await.expect("listens");
    let client = ClientId(7);
    let hello = Frame::Hello(Hello { log, client })
        .encode(0)
        .expect("valid");
    socket.write_all(&hello).await.expect("sent");
    assert!(matches!(read(&mut socket).await, Some(Frame::Welcome(_))));
    socket
}

fn body(client: u64, slot: u64) -> RunBody {
    RunBody::new(&[format!("{client} {slot}")]).expect("valid")
}

/// Appends record after record; gives the slots at which a record of this client is committed.
async fn load(mut socket: TcpStream, log: Log, client: u64) -> (Vec<u64>, bool) {
    let entry = log.last().await.expect("last");
    let segment = entry.last_segment().expect("segment").id;
    let (mut committed, mut fenced) = (Vec::new(), false);
    for slot in 0..APPENDS {
        let body = body(client, slot);
        let append = Append {
            place: Place {
                segment,
                stripe: StripeId(0),
                first: Slot(slot),
            },
            epoch: entry.epoch,
            identity: Identity {
                client: ClientId(client),
                request: RequestId(slot),
            },
            count: 1,
            crc: body.crc(),
        };
        let head = Frame::Append(append).encode(body.len()).expect("valid");
        let frame: Bytes = [head, body.bytes().clone()].concat().into();
        socket.write_all(&frame).await.expect("sent");
        let status = loop {
            let Some(Frame::Ack(ack)) = read(&mut socket).await else {
                panic!("no answer for slot {slot}");
            };
            let status = Ack::status(&ack).expect("known");
            // Signs of life answer nothing.
            if !matches!(status, AckStatus::Waiting | AckStatus::Unheard) {
                break status;
            }
        };
        match status {
            AckStatus::Committed => committed.push(slot),
            AckStatus::NotOwner => fenced = true,
            AckStatus::Conflict => {}
            other => panic!("{other:?} for slot {slot}"),
        }
    }
    (committed, fenced)
}

/// Both get other records for the same slots at the same time. Each slot is decided once: what was
/// acknowledged is there, at most one of the two goes on, and the other knows and says so.
#[tokio::test(flavor = "multi_thread")]
async fn c6_two_that_believe_that_they_own_a_stripe_lose_nothing() {
    let store = Store::open("memory:///").expect("valid URL");
    let layout = Layout::new(1, 1).expect("valid");
    let log = Log::create(store.clone(), layout).await.expect("created");
    let (one, other) = (writer(&store).await, writer(&store).await);
    let tasks = [(&one, 1), (&other, 2)].map(|(writer, client)| {
        let log = log.clone();
        let id = log.id();
        async move { load(connect(writer, id).await, log, client).await }
    });
    let [first, second] = tasks;
    let (first, second) = tokio::join!(first, second);
    let entry = log.last().await.expect("last");
    let chain = log.chain(entry.last_segment().expect("segment"), StripeId(0));
    let walk = chain.walk(chain.first_slot()).await.expect("walks");
    let mut found = Vec::new();
    for header in &walk.headers {
        let object = chain.read_object(header.start).await.expect("reads");
        for run in object.expect("there").1 {
            let (identity, body) = run.content.expect("no junk here");
            for (slot, record) in (run.first.0..).zip(body.records()) {
                let expected = format!("{} {slot}", identity.client.0);
                assert_eq!(record, expected.as_bytes());
                found.push((identity.client.0, slot));
            }
        }
    }
    for (client, slots) in [(1, &first.0), (2, &second.0)] {
        for slot in slots {
            let record = (client, *slot);
            assert!(
                found.contains(&record),
                "acknowledged and not there: {record:?}"
            );
        }
    }
    assert!(
        first.1 != second.1,
        "one is fenced and says so: {first:?} {second:?}"
    );
    let (loser, winner) = if first.1 {
        (&one, &other)
    } else {
        (&other, &one)
    };
    assert!(loser.health()().is_err() && winner.health()().is_ok());
    timeout(SOON, loser.all_fenced()).await.expect("it knows");
}

/// A record behind a hole, which nobody fills since no sequencer answers: who waits for it is told why.
#[tokio::test]
async fn who_waits_for_a_hole_is_told_that_the_sequencer_is_silent() {
    let store = Store::open("memory:///").expect("valid URL");
    let layout = Layout::new(1, 1).expect("valid");
    let log = Log::create(store.clone(), layout).await.expect("created");
    let writer = writer(&store).await;
    let mut socket = connect(&writer, log.id()).await;
    let entry = log.last().await.expect("last");
    let body = body(1, 5);
    let append = Append {
        place: Place {
            segment: entry.last_segment().expect("segment").id,
            stripe: StripeId(0),
            first: Slot(5),
        },
        epoch: entry.epoch,
        identity: Identity {
            client: ClientId(1),
            request: RequestId(1),
        },
        count: 1,
        crc: body.crc(),
    };
    let head = Frame::Append(append).encode(body.len()).expect("valid");
    socket.write_all(&head).await.expect("sent");
    socket.write_all(body.bytes()).await.expect("sent");
    let Some(Frame::Ack(ack)) = read(&mut socket).await else {
        panic!("no sign");
    };
    assert_eq!(ack, Ack::sign(AckStatus::Unheard));
}
