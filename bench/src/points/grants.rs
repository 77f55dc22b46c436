//! What a grant costs without sockets: the logic of a shard on buffers in memory.

use std::hint::black_box;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use anyhow::Result;
use sequencer_fast::logic::{Limits, Outbox, Packet, Packets, Peer, Reign, Shard, ShardCounters};
use serde::Serialize;
use wire::control::ControlEntry;
use wire::datagram::{self, ENTRY_BYTES, Grant, HEADER_BYTES, Header, Kind};
use wire::mac::Key;
use wire::{
    ClientId, Epoch, Lane, Layout, LogId, Position, RequestId, Segment, SegmentId, WriterId,
};

use crate::options::seconds;
use crate::report::Report;

/// Arguments of the command.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// Measured seconds of each figure
    #[arg(long, default_value_t = 1.0, value_parser = seconds)]
    seconds: f64,
    /// Requests a datagram, 1 to 29
    #[arg(long, value_name = "REQUESTS", default_values_t = [1, 16, 29], value_delimiter = ',',
          value_parser = clap::value_parser!(u32).range(1..=29))]
    packed: Vec<u32>,
}

/// Datagrams of a batch: what one buffer of 64 KiB brings.
const DATAGRAMS: u32 = 44;

const LOG: LogId = LogId([7; 16]);

#[derive(Debug, Serialize)]
struct Cost {
    packed: u32,
    ns_per_request: f64,
    ns_per_request_signed: f64,
    fetch_adds_per_batch: f64,
}

/// Measures.
///
/// # Errors
/// None that are expected.
pub(crate) fn run(args: &Args) -> Result<Report> {
    let mut report = Report::new("grants");
    let time = Duration::from_secs_f64(args.seconds);
    let mut costs = Vec::new();
    for packed in args.packed.iter().copied() {
        let (plain, adds) = measure(packed, None, time)?;
        let key = Key::new(&[3; 32]);
        let (signed, _) = measure(packed, Some(key), time)?;
        costs.push(Cost {
            packed,
            ns_per_request: round(plain),
            ns_per_request_signed: round(signed),
            fetch_adds_per_batch: adds,
        });
    }
    let most = costs.iter().map(|cost| cost.fetch_adds_per_batch);
    let most = most.fold(0.0, f64::max);
    report.figure("costs", &costs);
    report.at_most("fetch_adds_per_batch", most, 1.0);
    report.figure("fetch_add_ns", round(fetch_add(time)));
    Ok(report)
}

fn round(value: f64) -> f64 {
    (value * 100.0).round() / 100.0
}

/// Nanoseconds a request, and additions to the counter a batch.
#[allow(clippy::disallowed_methods, reason = "time is what is measured")]
fn measure(packed: u32, key: Option<Key>, time: Duration) -> Result<(f64, f64)> {
    let reign = reign()?;
    let counters = Arc::new(ShardCounters::default());
    let limits = Limits {
        retry_memory: 1 << 14,
        held_replies: 1 << 16,
        rate: None,
        key: key.clone(),
        seed: 5,
    };
    let mut shard = Shard::new(reign, Arc::clone(&counters), limits);
    let mut batch = Batch::new(packed)?;
    let (mut spent, mut request) = (Duration::ZERO, 0);
    while spent < time {
        request += 1;
        batch.refill(request, key.as_ref());
        let start = Instant::now();
        shard.serve(black_box(&mut batch), 0, &mut Nowhere);
        spent += start.elapsed();
    }
    let requests = counters.granted.get();
    let per_batch = counters.fetch_adds.get() as f64 / counters.batches.get() as f64;
    Ok((spent.as_nanos() as f64 / requests as f64, per_batch))
}

fn reign() -> Result<Arc<Reign>> {
    let entry = ControlEntry {
        log: LOG,
        number: 1,
        epoch: Epoch(1),
        owner: WriterId::default(),
        epoch_start: Position(0),
        reservation: Position(1 << 61),
        clean: false,
        trim: Position(0),
        segments: vec![Segment {
            id: SegmentId(0),
            epoch: Epoch(1),
            start: Position(0),
            layout: Layout::new(1, 1)?,
        }],
    };
    let reign = Arc::new(Reign::new(&entry)?);
    reign.renew(u64::MAX);
    reign.grant();
    Ok(reign)
}

/// Nanoseconds of an addition to a counter that nobody else uses.
#[allow(clippy::disallowed_methods, reason = "time is what is measured")]
fn fetch_add(time: Duration) -> f64 {
    const TURNS: u32 = 1 << 16;
    let counter = AtomicU64::new(0);
    let (mut turns, start) = (0.0, Instant::now());
    while start.elapsed() < time.min(Duration::from_millis(200)) {
        for _ in 0..TURNS {
            black_box(&counter).fetch_add(1, Ordering::SeqCst);
        }
        turns += f64::from(TURNS);
    }
    start.elapsed().as_nanos() as f64 / turns
}

#[derive(Debug, Clone, Copy)]
struct One;

impl Peer for One {
    fn address(&self) -> u128 {
        1
    }
}

struct Nowhere;

impl Outbox<One> for Nowhere {
    fn send(&mut self, _peer: One, _datagram: &[u8]) {}
}

/// Datagrams of one client, as a buffer brings them.
#[derive(Debug)]
struct Batch {
    template: Vec<u8>,
    bytes: Vec<u8>,
    segment: usize,
    kept: usize,
}

impl Batch {
    fn new(packed: u32) -> Result<Self> {
        let mut template = Vec::new();
        for number in 0..DATAGRAMS {
            let lanes = number * packed..(number + 1) * packed;
            let grants: Vec<_> = lanes
                .map(|lane| Grant::new(Lane(lane), RequestId(0), 1))
                .collect();
            let header = Header::request(Kind::Grant, LOG, ClientId(1), grants.len());
            let mut place = vec![0; header.datagram_len()];
            datagram::write(header, &grants, &mut place)?;
            template.extend(place);
        }
        Ok(Self {
            segment: template.len() / DATAGRAMS as usize,
            bytes: template.clone(),
            kept: 0,
            template,
        })
    }

    /// Puts the requests with this number into the buffer.
    fn refill(&mut self, request: u64, key: Option<&Key>) {
        for datagram in self.template.chunks_mut(self.segment) {
            let entries = datagram.get_mut(HEADER_BYTES..).unwrap_or_default();
            for entry in entries.chunks_mut(ENTRY_BYTES) {
                if let Some(place) = entry.first_chunk_mut() {
                    *place = request.to_le_bytes();
                }
            }
            if let Some(key) = key {
                key.sign(datagram);
            }
        }
        self.bytes.copy_from_slice(&self.template);
        self.kept = self.bytes.len();
    }
}

impl Packets<One> for Batch {
    fn count(&self) -> usize {
        1
    }

    fn packet(&mut self, _index: usize) -> Option<Packet<'_, One>> {
        Some(Packet {
            peer: One,
            bytes: self.bytes.get_mut(..self.kept)?,
            segment: self.segment,
        })
    }

    fn keep(&mut self, _index: usize, len: usize) {
        self.kept = len;
    }
}
