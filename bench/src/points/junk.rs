//! What a sequencer had reserved and not granted when it died: one run of junk a stripe, however many positions
//! it was, and nothing that a reader waits for.

use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use bytes::Bytes;
use catalog::Store;
use stripelog::{Content, Log, Position, Tail};
use tokio::time::timeout;
use wire::limits::MAX_SNAPSHOT_OBJECTS;

use crate::cluster::{Cluster, Daemon, Spec};
use crate::report::Report;

/// How large the hole is.
#[derive(Debug, Clone, clap::Args)]
pub(crate) struct Args {
    /// Positions that each reign reserves and does not grant
    #[arg(long, default_value_t = 70_000_000)]
    reserved: u64,
    /// Times that the sequencer is killed
    #[arg(long, default_value_t = 3)]
    kills: u32,
    /// Records that are appended in each reign
    #[arg(long, default_value_t = 3000)]
    records: u64,
    /// Scans, of which the slowest counts
    #[arg(long, default_value_t = 3)]
    scans: u32,
    /// URL of the store; a local directory without it
    #[arg(long, value_name = "URL")]
    store: Option<String>,
}

/// Longest time of each step.
const LIMIT: Duration = Duration::from_secs(60);

/// Junk that a scan has to go over in this time.
const JUNK_BAR: f64 = 200e6;
const SECONDS_BAR: f64 = 1.0;

/// Records of one append.
const CALL: u64 = 500;

/// What the chains of all stripes hold.
#[derive(Debug, Default)]
struct Chains {
    stripes: u64,
    /// Runs of junk of the stripe that has most of them, and of the one that has fewest.
    most: u64,
    least: u64,
    objects: u64,
    /// Bytes of the largest object without a record.
    junk_object_bytes: u64,
}

/// Runs the point and reports.
///
/// # Errors
/// If the daemons do not run, or do not recover.
pub(crate) async fn run(args: Args) -> Result<Report> {
    let mut cluster = Cluster::start(Spec {
        store: args.store.clone(),
        settings: vec![format!("sequencer.reservation_min={}", args.reserved)],
        ..Spec::default()
    })
    .await?;
    let log = cluster.client().await?;
    let mut appended = append(&log, args.records).await?;
    for kill in 0..args.kills {
        cluster.kill(Daemon::Sequencer).await?;
        cluster.run(Daemon::Sequencer)?;
        let went_on = append(&log, args.records).await;
        appended += went_on.with_context(|| format!("after kill {kill}"))?;
    }
    let tail = timeout(LIMIT, log.tail(Tail::Linearizable)).await;
    let tail = tail.context("the tail does not become durable")??;
    let chains = Chains::look(cluster.store()).await?;
    let mut report = Report::new("junk");
    report.figure("store", cluster.store());
    report.figure("kills", args.kills);
    report.figure("stripes", chains.stripes);
    report.figure("objects", chains.objects);
    report.figure("junk_object_bytes", chains.junk_object_bytes);
    let seals = f64::from(args.kills);
    let runs = [chains.least, chains.most].map(|runs| runs as f64 / seals);
    report.exactly("runs_a_stripe_and_seal", runs, [1.0, 1.0]);
    let (mut slowest, mut junk) = (0.0_f64, 0);
    for _ in 0..args.scans {
        // Each by a client that knows nothing yet.
        let seen = Seen::by(&cluster.client().await?, tail).await?;
        slowest = slowest.max(seen.seconds);
        junk = seen.junk;
        report.exactly("records", seen.records, appended);
        ensure!(
            seen.junk + seen.records == tail.0,
            "the scan left out positions: {seen:?} tail={tail}"
        );
    }
    report.at_least("junk_positions", junk as f64, JUNK_BAR);
    report.at_most("scan_seconds", slowest, SECONDS_BAR);
    let verified = cluster.command(&["verify"]).await;
    report.exactly("verify_clean", verified.is_ok(), true);
    Ok(report)
}

/// Appends records and waits for each: no position is a hole but those that nobody was granted.
async fn append(log: &Log, records: u64) -> Result<u64> {
    let mut left = records;
    while left > 0 {
        let count = left.min(CALL);
        let call = (0..count).map(|n| Bytes::from(format!("record {n}")));
        let appended = timeout(LIMIT, log.append(call.collect())).await;
        appended.context("an append does not end")??;
        left -= count;
    }
    Ok(records)
}

/// What a scan found.
#[derive(Debug)]
struct Seen {
    seconds: f64,
    records: u64,
    junk: u64,
}

impl Seen {
    #[allow(clippy::disallowed_methods, reason = "how long a scan takes")]
    async fn by(log: &Log, tail: Position) -> Result<Self> {
        let began = Instant::now();
        let mut scan = log.read(Position(0)..tail).with_junk(true);
        let (mut records, mut junk) = (0, 0);
        while let Some(item) = timeout(LIMIT, scan.next()).await.context("too slow")?? {
            match item.content {
                Content::Record(_) => records += 1,
                Content::Junk { count } => junk += count,
            }
        }
        let seconds = began.elapsed().as_secs_f64();
        Ok(Self {
            seconds,
            records,
            junk,
        })
    }
}

impl Chains {
    /// Counts what the store has.
    async fn look(url: &str) -> Result<Self> {
        let log = catalog::Log::open(Store::open(url)?).await?;
        let entry = log.last().await?;
        let segment = entry.last_segment()?;
        let mut chains = Self {
            least: u64::MAX,
            ..Self::default()
        };
        for stripe in segment.layout.all() {
            let chain = log.chain(segment, stripe);
            let walk = chain.walk(chain.first_slot()).await?;
            ensure!(
                walk.headers.len() < MAX_SNAPSHOT_OBJECTS,
                "too many objects"
            );
            let mut runs = 0;
            for header in &walk.headers {
                let index = chain.index_at(header.start).await?;
                let index = index.context("an object is gone")?;
                let junk = index.runs.iter().filter(|run| run.records.is_none());
                let junk = junk.count() as u64;
                runs += junk;
                if junk == u64::from(header.runs) {
                    chains.junk_object_bytes = chains.junk_object_bytes.max(header.object_len);
                }
            }
            chains.stripes += 1;
            chains.objects += walk.headers.len() as u64;
            (chains.most, chains.least) = (chains.most.max(runs), chains.least.min(runs));
        }
        Ok(chains)
    }
}
