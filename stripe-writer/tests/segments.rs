//! Segments: the stripes of a new one are taken when a reign opens it, those of the one before are finished, and
//! what is complete is answered from the store.

mod answers;

use std::collections::BTreeSet;
use std::net::{SocketAddr, TcpListener};
use std::sync::Mutex;
use std::time::Duration;

use catalog::{Log, Membership, Store, Writer};
use prometheus_client::registry::Registry;
use stripe_writer::{Options, StripeWriter, Takeover};
use stripelog::{Content, Position, Verify};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::timeout;
use wire::control::ControlEntry;
use wire::frame::{
    AckStatus, Append, Frame, Hello, PREFIX_BYTES, Place, Prefix, Seal, SealedStripe,
};
use wire::{
    ClientId, Epoch, Fixed, Identity, Layout, LogId, RequestId, RunBody, Segment, SegmentId,
};

const SOON: Duration = Duration::from_secs(20);

/// Nobody answers there.
const NOBODY: ([u8; 4], u16) = ([127, 0, 0, 1], 9);

async fn writer(store: &Store) -> StripeWriter {
    start(store, ([127, 0, 0, 1], 0).into(), None).await
}

async fn start(store: &Store, listen: SocketAddr, takeover: Option<Takeover>) -> StripeWriter {
    let options = Options {
        listen,
        sequencers: vec![NOBODY.into()],
        stripes: 0..=9,
        linger: Duration::from_millis(1),
        hole_timeout: Duration::from_secs(60),
        puts_in_flight: 4,
        memory_bytes: 64 << 20,
        max_commit_age: Duration::from_secs(60),
        key: None,
        takeover,
        changes: None,
    };
    let registry = Mutex::new(Registry::default());
    let writer = StripeWriter::start(store.clone(), &options, &registry).await;
    writer.expect("starts")
}

/// The end of the control chain with a reign of `epoch` that starts at a position, in a segment of its own.
async fn opens(log: &Log, epoch: u64, start: u64, stripes: u32, unit: u32) -> ControlEntry {
    let mut entry = log.last().await.expect("last");
    entry.number += 1;
    entry.epoch = Epoch(epoch);
    entry.epoch_start = Position(start);
    entry.reservation = Position(start + 1000);
    entry.segments.push(Segment {
        id: SegmentId(u32::try_from(epoch).expect("small")),
        epoch: Epoch(epoch),
        start: Position(start),
        layout: Layout::new(stripes, unit).expect("valid"),
    });
    log.append(&entry).await.expect("appended");
    entry
}

struct Peer(TcpStream);

impl Peer {
    async fn new(writer: &StripeWriter, log: LogId) -> Self {
        let socket = TcpStream::connect(writer.address()).await;
        let mut peer = Self(socket.expect("listens"));
        let client = ClientId(7);
        let hello = Frame::Hello(Hello { log, client });
        peer.send(&hello.encode(0).expect("valid")).await;
        assert!(matches!(peer.read().await, Frame::Welcome(_)));
        peer
    }

    async fn send(&mut self, bytes: &[u8]) {
        self.0.write_all(bytes).await.expect("sent");
    }

    async fn read(&mut self) -> Frame {
        self.read_all().await.0
    }

    async fn read_all(&mut self) -> (Frame, Vec<u8>) {
        let mut prefix = [0; PREFIX_BYTES];
        let read = timeout(SOON, self.0.read_exact(&mut prefix)).await;
        read.expect("in time").expect("read");
        let prefix = Prefix::decode(&prefix).expect("valid");
        let mut rest = vec![0; prefix.head_len + prefix.body_len];
        self.0.read_exact(&mut rest).await.expect("read");
        let body = rest.split_off(prefix.head_len);
        (Frame::decode(&prefix, &rest).expect("valid"), body)
    }

    /// The stripes that the process says to have sealed, as segment and stripe.
    async fn sealed(&mut self, entry: &ControlEntry) -> Vec<(u32, u16)> {
        let seal = Seal {
            epoch: entry.epoch,
            position: entry.epoch_start,
        };
        let frame = Frame::Seal(seal).encode(0).expect("valid");
        self.send(&frame).await;
        let (frame, body) = self.read_all().await;
        assert_eq!(frame, Frame::Sealed(seal));
        let stripes = body.chunks(SealedStripe::SIZE).map(SealedStripe::read);
        let stripes = stripes.map(|stripe| stripe.expect("valid"));
        stripes.map(|s| (s.segment.0, s.stripe.0)).collect()
    }

    async fn seal(&mut self, entry: &ControlEntry) {
        let seal = Seal {
            epoch: entry.epoch,
            position: entry.epoch_start,
        };
        let frame = Frame::Seal(seal).encode(0).expect("valid");
        self.send(&frame).await;
        assert_eq!(self.read().await, Frame::Sealed(seal));
    }

    /// Appends a record at a position of a segment, with a token of an epoch.
    async fn append(&mut self, segment: &Segment, epoch: u64, position: u64) -> AckStatus {
        let text = format!("record {position}");
        self.append_text(segment, epoch, position, &text).await
    }

    async fn append_text(
        &mut self,
        segment: &Segment,
        epoch: u64,
        position: u64,
        text: &str,
    ) -> AckStatus {
        let (layout, at) = (segment.layout, Position(position));
        let body = RunBody::new(&[text]).expect("valid");
        let append = Append {
            place: Place {
                segment: segment.id,
                stripe: layout.stripe(at),
                first: layout.slot(at),
            },
            epoch: Epoch(epoch),
            identity: Identity {
                client: ClientId(7),
                request: RequestId(position + text.len() as u64),
            },
            count: 1,
            crc: body.crc(),
        };
        let head = Frame::Append(append).encode(body.len()).expect("valid");
        self.send(&[head, body.bytes().clone()].concat()).await;
        answers::answer(async || self.read().await).await
    }
}

async fn client(log: &Log, writer: &StripeWriter) -> stripelog::Log {
    let membership = Membership {
        sequencers: vec![NOBODY.into()],
        writers: vec![Writer {
            address: writer.address(),
            stripes: 0..=9,
        }],
    };
    let options = stripelog::Options::new("", membership);
    let opened = stripelog::Log::open_in(log.clone(), options).await;
    opened.expect("opens")
}

async fn created(stripes: u32, unit: u32) -> (Store, Log) {
    let store = Store::open("memory:///").expect("opened");
    let layout = Layout::new(stripes, unit).expect("valid");
    let log = Log::create(store.clone(), layout).await.expect("created");
    (store, log)
}

/// What a scan from the start has, as positions of records and counts of junk.
async fn scanned(client: &stripelog::Log, end: u64) -> Vec<(u64, u64)> {
    let mut scan = client.read(Position(0)..Position(end)).with_junk(true);
    let mut found = Vec::new();
    while let Some(item) = timeout(SOON, scan.next())
        .await
        .expect("no wait")
        .expect("reads")
    {
        match item.content {
            Content::Record(record) => {
                assert_eq!(record, format!("record {}", item.position.0));
                found.push((item.position.0, 0));
            }
            Content::Junk { count } => found.push((item.position.0, count)),
        }
    }
    found
}

#[tokio::test(flavor = "multi_thread")]
async fn h5_the_old_segment_is_sealed_to_its_end_and_the_new_one_goes_on() {
    let (store, log) = created(2, 2).await;
    let writer = writer(&store).await;
    let mut peer = Peer::new(&writer, log.id()).await;
    let first = log.last().await.expect("last").segments[0];
    for position in [0, 1, 2, 4] {
        let status = peer.append(&first, 0, position).await;
        assert_eq!(status, AckStatus::Committed, "{position}");
    }
    let entry = opens(&log, 2, 7, 3, 1).await;
    let second = entry.segments[1];
    peer.seal(&entry).await;
    for position in [7, 8] {
        let status = peer.append(&second, 2, position).await;
        assert_eq!(status, AckStatus::Committed, "{position}");
    }
    // [H-3] What was decided stays so, and nothing of the old reign comes in any more.
    assert_eq!(peer.append(&first, 0, 2).await, AckStatus::Committed);
    assert_eq!(peer.append(&first, 0, 5).await, AckStatus::Junk);
    assert_eq!(peer.append(&first, 2, 7).await, AckStatus::Invalid);
    assert_eq!(peer.append(&second, 0, 11).await, AckStatus::Sealed);
    let client = client(&log, &writer).await;
    let found = scanned(&client, 9).await;
    let records = [(0, 0), (1, 0), (2, 0), (3, 1), (4, 0)];
    assert_eq!(found[..5], records);
    assert_eq!(found[5..], [(5, 2), (7, 0), (8, 0)]);
    let report = client.verify(Verify::All, |_| ()).await.expect("verifies");
    assert!(report.is_clean(), "{report:?}");
}

/// The reign that opened the segment is over before anything of the old one is sealed; the process that has
/// stripes of both is a new one.
#[tokio::test(flavor = "multi_thread")]
async fn h5_a_process_that_starts_later_finishes_the_segment_before_the_newest() {
    let (store, log) = created(2, 2).await;
    let former = writer(&store).await;
    let mut peer = Peer::new(&former, log.id()).await;
    let first = log.last().await.expect("last").segments[0];
    assert_eq!(peer.append(&first, 0, 0).await, AckStatus::Committed);
    drop(peer);
    former.stop().await;
    let opened = opens(&log, 2, 7, 3, 1).await;
    let mut entry = log.last().await.expect("last");
    entry.number += 1;
    entry.epoch = Epoch(3);
    entry.epoch_start = opened.reservation;
    entry.reservation = opened.reservation.plus(1000);
    log.append(&entry).await.expect("appended");
    let writer = writer(&store).await;
    let mut peer = Peer::new(&writer, log.id()).await;
    peer.seal(&entry).await;
    let client = client(&log, &writer).await;
    let end = entry.epoch_start.0;
    let found = scanned(&client, end).await;
    let junk: u64 = found.iter().map(|(_, count)| count).sum();
    assert_eq!((found[0], junk), ((0, 0), end - 1));
    let second = entry.segments[1];
    assert_eq!(peer.append(&second, 3, end).await, AckStatus::Committed);
}

/// Whoever comes back after two more segments is told what became of its records, by any process.
#[tokio::test(flavor = "multi_thread")]
async fn h5_h2_a_complete_segment_is_answered_from_the_store() {
    let (store, log) = created(2, 2).await;
    let writer = writer(&store).await;
    let mut peer = Peer::new(&writer, log.id()).await;
    let first = log.last().await.expect("last").segments[0];
    assert_eq!(peer.append(&first, 0, 0).await, AckStatus::Committed);
    let (mut starts, mut entry) = (vec![4, 9, 12], log.last().await.expect("last"));
    for (epoch, start) in (2..).zip(starts.drain(..)) {
        entry = opens(&log, epoch, start, 3, 1).await;
        peer.seal(&entry).await;
    }
    assert_eq!(entry.open_segments()[0].start, Position(9));
    let late = [
        (0, "record 0", AckStatus::Committed),
        (0, "another", AckStatus::Conflict),
        (2, "record 2", AckStatus::Junk),
        (5, "record 5", AckStatus::Invalid),
    ];
    for (position, text, status) in late {
        let told = peer.append_text(&first, 0, position, text).await;
        assert_eq!(told, status, "{position} {text}");
    }
    let unknown = Segment {
        id: SegmentId(77),
        ..first
    };
    assert_eq!(peer.append(&unknown, 0, 0).await, AckStatus::NotOwner);
    let client = client(&log, &writer).await;
    let mut scan = client.follow(Position(0));
    let item = timeout(SOON, scan.next()).await.expect("not parked");
    assert_eq!(item.expect("reads").expect("there").position, Position(0));
    // From the first segment through two that have nothing but junk into the newest.
    let newest = *entry.last_segment().expect("one");
    let (next, status) = tokio::join!(timeout(SOON, scan.next()), peer.append(&newest, 4, 12));
    assert_eq!(status, AckStatus::Committed);
    let item = next.expect("not parked").expect("reads").expect("there");
    assert_eq!(item.position, Position(12));
}

/// A client has a token of a segment of which the process has not heard yet.
#[tokio::test(flavor = "multi_thread")]
async fn h5_a_segment_is_learnt_of_by_an_append_too() {
    let (store, log) = created(2, 2).await;
    let writer = writer(&store).await;
    let mut peer = Peer::new(&writer, log.id()).await;
    let entry = opens(&log, 2, 7, 3, 1).await;
    let second = entry.segments[1];
    assert_eq!(peer.append(&second, 2, 7).await, AckStatus::Committed);
    let client = client(&log, &writer).await;
    assert_eq!(scanned(&client, 8).await.last(), Some(&(7, 0)));
}

/// Asks all of them until together they have sealed what is expected.
async fn sealed_by(writers: &[&StripeWriter], log: &Log, entry: &ControlEntry, all: &[(u32, u16)]) {
    let seals = async {
        let mut sealed = BTreeSet::new();
        while !all.iter().all(|stripe| sealed.contains(stripe)) {
            for writer in writers {
                let mut peer = Peer::new(writer, log.id()).await;
                sealed.extend(peer.sealed(entry).await);
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    timeout(SOON, seals)
        .await
        .expect("every stripe has an owner");
}

/// The segment before the newest has stripes that are not complete as well: who takes a dead process's stripes over takes
/// those of both.
#[tokio::test(flavor = "multi_thread")]
async fn h5_c6_the_stripes_of_a_dead_process_move_in_all_open_segments() {
    let (store, log) = created(2, 2).await;
    let free = || {
        TcpListener::bind("127.0.0.1:0")
            .expect("a port")
            .local_addr()
    };
    let addresses = [free().expect("bound"), free().expect("bound")];
    let writers: Vec<_> = addresses
        .iter()
        .zip([0..=0, 1..=9])
        .map(|(address, stripes)| Writer {
            address: *address,
            stripes,
        })
        .collect();
    let member = |own| Takeover {
        writers: writers.clone(),
        own,
        timeout: Duration::from_millis(200),
        changes: None,
    };
    let one = start(&store, addresses[0], Some(member(0))).await;
    let other = start(&store, addresses[1], Some(member(1))).await;
    let first = log.last().await.expect("last").segments[0];
    let opened = opens(&log, 2, 7, 3, 1).await;
    let second = opened.segments[1];
    let of = |segment: &Segment| {
        let id = segment.id.0;
        segment.layout.all().map(move |stripe| (id, stripe.0))
    };
    let all: Vec<_> = of(&first).chain(of(&second)).collect();
    sealed_by(&[&one, &other], &log, &opened, &all).await;
    other.stop().await;
    let mut entry = log.last().await.expect("last");
    entry.number += 1;
    entry.epoch = Epoch(3);
    entry.epoch_start = opened.reservation;
    entry.reservation = opened.reservation.plus(1000);
    log.append(&entry).await.expect("appended");
    sealed_by(&[&one], &log, &entry, &all).await;
    let end = entry.epoch_start.0;
    let mut peer = Peer::new(&one, log.id()).await;
    for position in end..end + 3 {
        let status = peer.append(&second, 3, position).await;
        assert_eq!(status, AckStatus::Committed, "{position}");
    }
    // [H-5] A third segment: nobody has to own stripes of the first any more.
    let entry = opens(&log, 4, end + 3, 2, 1).await;
    let third = entry.segments[2];
    let all: Vec<_> = of(&second).chain(of(&third)).collect();
    sealed_by(&[&one], &log, &entry, &all).await;
    let mut sealed = peer.sealed(&entry).await;
    sealed.sort_unstable();
    assert_eq!(sealed, all);
    assert_eq!(peer.append(&first, 0, 3).await, AckStatus::Junk);
    let client = client(&log, &one).await;
    let report = client.verify(Verify::All, |_| ()).await.expect("verifies");
    assert!(report.is_clean(), "{report:?}");
}
