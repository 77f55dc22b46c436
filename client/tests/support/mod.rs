//! A small log to test against: a sequencer and a stripe-writer in this process, which do as they are
//! told, over a store in memory.
#![allow(
    dead_code,
    unreachable_pub,
    unused_imports,
    reason = "each test program uses a part of the support"
)]

pub mod sequencer;
pub mod writer;

use std::time::Duration;

use bytes::Bytes;
use catalog::{Membership, Store};
use stripelog::{Log, Options, Position};
use wire::Layout;

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
        let store = Store::open("memory:///").expect("valid URL");
        Self::in_store(store, stripes, unit).await
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

    pub fn membership(&self) -> Membership {
        Membership {
            sequencer: self.sequencer.address,
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

pub fn record(text: impl ToString) -> Bytes {
    text.to_string().into()
}

pub fn records(range: std::ops::Range<usize>) -> Vec<Bytes> {
    range.map(|i| record(format!("record {i}"))).collect()
}

pub fn positions(range: std::ops::Range<u64>) -> Vec<Position> {
    range.map(Position).collect()
}
