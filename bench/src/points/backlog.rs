//! A store that is ten times slower than the load: memory stays within its bound, clients wait, nothing is lost.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use bytes::{BufMut, Bytes, BytesMut};
use stripelog::{Content, Log, Position, Tail};
use tokio::task::JoinSet;
use tokio::time::sleep;

use super::cost::client;
use crate::cluster::{Cluster, Daemon, Spec};
use crate::host::{self, Host};
use crate::logic::digest::Digest;
use crate::measure::round;
use crate::net::bucket::{Bucket, Pace};
use crate::report::Report;

/// Between two looks at the memory of the stripe-writer.
const LOOK: Duration = Duration::from_millis(100);

/// Resident memory beside the bound.
const MEMORY_BESIDE_GIB: f64 = 0.3;

/// Share of the records that may lose their positions and be appended again.
const AGAIN_BAR: f64 = 0.01;

/// Bytes of a record, of which the first 16 make it unlike every other.
const RECORD_BYTES: usize = 1024;

/// Records of a call.
const CALL: usize = 512;

/// Least time, least records and longest time in which it is found out what the load is.
const PROBE: Duration = Duration::from_secs(3);
const PROBE_RECORDS: u64 = 512 << 10;
const PROBE_LIMIT: Duration = Duration::from_secs(120);

/// Share of the bound that has to be in use while the store is slow: otherwise nothing is shown.
const FULL_SHARE: f64 = 0.8;

/// Time in which the log has to catch up once the store is fast again.
const CATCH_UP_BAR_SECONDS: f64 = 60.0;

/// How slow it is, and for how long.
#[derive(Debug, Clone, clap::Args)]
pub(crate) struct Args {
    /// Seconds of the slow store [default: 60, with --short 12]
    #[arg(long)]
    seconds: Option<f64>,
    /// Clients
    #[arg(long, default_value_t = 2)]
    clients: usize,
    /// MiB that each client has under way: together more than the bound
    #[arg(long, value_name = "MIB", default_value_t = 768)]
    in_flight_mib: usize,
    /// How many times slower than the load the store is
    #[arg(long, default_value_t = 10.0)]
    times: f64,
    /// Bound on the memory of the stripe-writer
    #[arg(long, value_name = "MIB", default_value_t = 1024)]
    memory_mib: u64,
    /// Seconds that an append waits without a sign of progress [default: 30, with --short 4]
    #[arg(long)]
    append_timeout: Option<f64>,
    /// Seconds
    #[arg(long)]
    short: bool,
}

#[derive(Debug, Default)]
struct Shared {
    stop: AtomicBool,
    acknowledged: AtomicU64,
    calls: AtomicU64,
}

/// Measures and reports.
///
/// # Errors
/// If the log does not run.
#[allow(clippy::disallowed_methods, reason = "it measures")]
pub(crate) async fn run(args: Args) -> Result<Report> {
    let mut report = Report::new("backlog");
    report.figure("host", Host::look());
    let bucket = Bucket::start().await?;
    let cluster = Cluster::start(Spec {
        store: Some(bucket.url()),
        settings: vec![format!("writer.memory_mib={}", args.memory_mib)],
        environment: bucket.environment(),
        ..Spec::default()
    })
    .await?;
    let shared = Arc::new(Shared::default());
    let patience = args
        .append_timeout
        .unwrap_or(if args.short { 4.0 } else { 30.0 });
    let patience = Duration::from_secs_f64(patience);
    let (mut tasks, logs) = appenders(&args, patience, &bucket, &cluster, &shared).await?;
    let fast = probe(&shared).await?;
    bucket.pace(Pace {
        bytes_per_second: Some(fast / args.times),
        ..Pace::default()
    });
    let seconds = args.seconds.unwrap_or(if args.short { 12.0 } else { 60.0 });
    let slow = watch(&cluster, &shared, Duration::from_secs_f64(seconds)).await?;
    bucket.pace(Pace::default());
    shared.stop.store(true, Ordering::Release);
    let caught_up = Instant::now();
    let (mut acknowledged, mut failed) = (Digest::default(), 0);
    while let Some(one) = tasks.join_next().await {
        let (digest, failures) = one?;
        acknowledged.join(digest);
        failed += failures;
    }
    let caught_up = caught_up.elapsed().as_secs_f64();
    let process = cluster.process(Daemon::Writer).context("it has ended")?;
    let (_, peak) = host::memory(process)?;
    report.figure("seconds", seconds);
    report.figure("load_gb_per_second", round(fast / 1e9));
    report.figure("slow_store_gb_per_second", round(fast / args.times / 1e9));
    report.figure(
        "acknowledged_gb_per_second_meanwhile",
        round(slow.rate / 1e9),
    );
    let bound = args.memory_mib as f64 / 1024.0;
    report.figure("append_timeout_seconds", patience.as_secs_f64());
    report.at_most("writer_peak_gib", gib(peak), bound + MEMORY_BESIDE_GIB);
    report.at_least("writer_held_gib", gib(slow.held), bound * FULL_SHARE);
    report.at_most("caught_up_seconds", round(caught_up), CATCH_UP_BAR_SECONDS);
    report.exactly("failed", failed, 0);
    let again: u64 = logs.iter().map(|log| log.stats().records_reappended).sum();
    let put_off: u64 = logs.iter().map(|log| log.stats().frames_put_off).sum();
    report.figure("frames_put_off", put_off);
    let again = again as f64 / acknowledged.records.max(1) as f64;
    report.at_most("appended_again_share", round(again), AGAIN_BAR);
    let log = client(&bucket, cluster.options()).await?;
    let read = read(&log).await?;
    report.figure("records", acknowledged.records);
    report.exactly("records_read", read.records, acknowledged.records);
    report.exactly("digest_of_read", read.text(), acknowledged.text());
    Ok(report)
}

/// Clients that append without a pause, each as much as it may have under way.
async fn appenders(
    args: &Args,
    patience: Duration,
    bucket: &Bucket,
    cluster: &Cluster,
    shared: &Arc<Shared>,
) -> Result<(JoinSet<(Digest, u64)>, Vec<Log>)> {
    let (mut tasks, mut logs) = (JoinSet::new(), Vec::new());
    for _ in 0..args.clients {
        let bytes = args.in_flight_mib << 20;
        let options = cluster.options().max_in_flight_bytes(bytes);
        let options = options.append_timeout(patience);
        let log = client(bucket, options).await?;
        for _ in 0..bytes / (CALL * (RECORD_BYTES + 64)) {
            tasks.spawn(append_all(log.clone(), Arc::clone(shared)));
        }
        logs.push(log);
    }
    Ok((tasks, logs))
}

/// What the load is when nothing holds it back, in bytes a second.
#[allow(clippy::disallowed_methods, reason = "it measures")]
async fn probe(shared: &Shared) -> Result<f64> {
    let began = Instant::now();
    while began.elapsed() < PROBE || shared.acknowledged.load(Ordering::Relaxed) < PROBE_RECORDS {
        sleep(LOOK).await;
        ensure!(began.elapsed() < PROBE_LIMIT, "the load does not get on");
    }
    let fast = shared.acknowledged.load(Ordering::Relaxed) as f64 * RECORD_BYTES as f64;
    Ok(fast / began.elapsed().as_secs_f64())
}

/// What was seen while the store was slow.
struct Seen {
    held: u64,
    rate: f64,
}

#[allow(clippy::disallowed_methods, reason = "it measures")]
async fn watch(cluster: &Cluster, shared: &Shared, time: Duration) -> Result<Seen> {
    let (began, from) = (Instant::now(), shared.acknowledged.load(Ordering::Relaxed));
    let mut held = 0;
    while began.elapsed() < time {
        let process = cluster.process(Daemon::Writer).context("it has ended")?;
        held = held.max(host::memory(process)?.0);
        sleep(LOOK).await;
    }
    let records = shared.acknowledged.load(Ordering::Relaxed) - from;
    Ok(Seen {
        held,
        rate: records as f64 * RECORD_BYTES as f64 / began.elapsed().as_secs_f64(),
    })
}

async fn append_all(log: Log, shared: Arc<Shared>) -> (Digest, u64) {
    let (mut digest, mut failed) = (Digest::default(), 0);
    while !shared.stop.load(Ordering::Acquire) {
        let records = records(shared.calls.fetch_add(1, Ordering::Relaxed));
        match log.append(records.clone()).await {
            Ok(positions) => {
                for (position, record) in positions.iter().zip(&records) {
                    digest.add(*position, record);
                }
                let count = positions.len() as u64;
                shared.acknowledged.fetch_add(count, Ordering::Relaxed);
            }
            Err(error) => {
                eprintln!("append failed: {error}");
                failed += 1;
            }
        }
    }
    (digest, failed)
}

/// Records of a call, each unlike every other.
fn records(call: u64) -> Vec<Bytes> {
    let mut block = BytesMut::with_capacity(CALL * RECORD_BYTES);
    for record in 0..CALL as u64 {
        block.put_u64_le(call);
        block.put_u64_le(record);
        block.put_bytes(0x5a, RECORD_BYTES - 16);
    }
    let block = block.freeze();
    (0..CALL)
        .map(|index| block.slice(index * RECORD_BYTES..(index + 1) * RECORD_BYTES))
        .collect()
}

async fn read(log: &Log) -> Result<Digest> {
    let tail = log.tail(Tail::Linearizable).await?;
    let (mut scan, mut digest) = (log.read(Position(0)..tail), Digest::default());
    while let Some(item) = scan.next().await? {
        if let Content::Record(record) = item.content {
            digest.add(item.position, &record);
        }
    }
    Ok(digest)
}

fn gib(bytes: u64) -> f64 {
    round(bytes as f64 / f64::from(1 << 30))
}
