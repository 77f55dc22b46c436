//! A small log to test against: a sequencer and a stripe-writer in this process, which do as they are
//! told, over a store in memory.
#![allow(dead_code, reason = "each test uses a part")]
#![allow(unreachable_pub, reason = "each test uses a part")]
#![allow(unused_imports, reason = "each test uses a part")]

pub mod scans;
pub mod sequencer;
pub mod setup;
pub mod writer;

use std::net::Ipv4Addr;
use std::time::Duration;

use bytes::Bytes;
use catalog::faults::suite_store;
use catalog::{Membership, Store};
use stripelog::{Content, Log, Options, Position};
use tokio::net::TcpSocket;
use wire::{Epoch, Layout, Segment, SegmentId};

pub use sequencer::{Answer, FakeSequencer};
pub use writer::{FakeWriter, Fault, Live};

/// A log with its two servers.
pub struct Fixture {
    pub catalog: catalog::Log,
    pub sequencer: FakeSequencer,
    pub writer: FakeWriter,
}

impl Fixture {
    pub async fn new(stripes: u32, unit: u32) -> Self {
        Self::in_store(suite_store().expect("a store"), stripes, unit).await
    }

    pub async fn in_store(store: Store, stripes: u32, unit: u32) -> Self {
        let layout = Layout::new(stripes, unit).expect("valid layout");
        let catalog = catalog::Log::create(store, layout).await.expect("created");
        let writer = FakeWriter::start(catalog.clone()).await;
        let sequencer = FakeSequencer::start(catalog.id(), writer.clone()).await;
        Self {
            catalog,
            sequencer,
            writer,
        }
    }

    /// Begins the reign of epoch 9, with another layout from the start of a segment on. The sequencer is not told.
    pub async fn begin_reign(&self, epoch_start: Position, segment_start: Position) {
        let mut entry = self.catalog.last().await.expect("reads");
        entry.segments.push(Segment {
            id: SegmentId(9),
            epoch: Epoch(9),
            start: segment_start,
            layout: Layout::new(1, 1).expect("valid layout"),
        });
        entry.number += 1;
        entry.epoch = Epoch(9);
        entry.epoch_start = epoch_start;
        entry.reservation = Position(100);
        self.catalog.append(&entry).await.expect("appends");
    }

    pub fn membership(&self) -> Membership {
        Membership {
            sequencers: vec![self.sequencer.address],
            writers: vec![catalog::Writer {
                address: self.writer.address(),
                stripes: 0..=1023,
            }],
        }
    }

    pub fn options(&self) -> Options {
        Options::new("", self.membership()).append_timeout(Duration::from_secs(10))
    }

    pub async fn open(&self) -> Log {
        self.open_with(self.options()).await
    }

    pub async fn open_with(&self, options: Options) -> Log {
        Log::open_in(self.catalog.clone(), options)
            .await
            .expect("opens")
    }
}

/// A port that nobody else is given, with or without somebody who listens there.
pub fn port() -> std::io::Result<TcpSocket> {
    let socket = TcpSocket::new_v4()?;
    socket.set_reuseaddr(true)?;
    socket.bind((Ipv4Addr::LOCALHOST, 0).into())?;
    Ok(socket)
}

pub fn record(text: impl ToString) -> Bytes {
    text.to_string().into()
}

pub fn records(range: std::ops::Range<usize>) -> Vec<Bytes> {
    range.map(|i| record(format!("record {i}"))).collect()
}

pub fn positions(range: std::ops::Range<u64>) -> Vec<Position> {
    range.map(Position).collect()
}

/// All records of the log in order, junk left out, with what is missing made junk first.
pub async fn contents(fixture: &Fixture, log: &Log) -> Vec<(u64, Bytes)> {
    let end = Position(fixture.sequencer.state.lock().expect("not poisoned").next);
    fixture.writer.fill_to(end).await;
    let mut scan = log.read(Position(0)..end);
    let mut all = Vec::new();
    while let Some(item) = scan.next().await.expect("reads") {
        if let Content::Record(record) = item.content {
            all.push((item.position.0, record));
        }
    }
    all
}

/// Every acknowledged record is where it was said to be, and nothing else is in the log.
pub async fn assert_exactly(fixture: &Fixture, log: &Log, acked: &[(Position, Bytes)]) {
    let mut expected: Vec<_> = acked.iter().map(|(p, r)| (p.0, r.clone())).collect();
    expected.sort();
    assert_eq!(contents(fixture, log).await, expected);
}

pub async fn append(log: &Log, records: Vec<Bytes>) -> Vec<(Position, Bytes)> {
    let got = log.append(records.clone()).await.expect("appends");
    got.into_iter().zip(records).collect()
}
