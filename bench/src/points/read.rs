//! Sequential reads, turn by turn with raw parallel gets of the same objects.

use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use serde::Serialize;
use stripelog::{Content, Log, Position, Tail};

use super::append::LoadArgs;
use crate::cluster::Cluster;
use crate::host::Host;
use crate::measure::{median, round};
use crate::report::{Report, slack};
use crate::volume::appends;
use crate::volume::raw::{self, GetArgs};
use crate::volume::stores::{Scratch, StoreArgs};

/// Share of the raw gets that a scan has to reach.
const SHARE_BAR: f64 = 0.85;

/// Most rounds of a run that is below its bar.
const MOST_ROUNDS: usize = 9;

/// What is read, and from where.
#[derive(Debug, Clone, clap::Args)]
pub(crate) struct Args {
    #[command(flatten)]
    store: StoreArgs,
    #[command(flatten)]
    gets: GetArgs,
    #[command(flatten)]
    load: LoadArgs,
    /// Megabytes of records that are written first, about
    #[arg(long, value_name = "MB", default_value_t = 2000)]
    megabytes: u64,
    /// Fewer rounds, and a fifth of the records
    #[arg(long)]
    short: bool,
}

/// One round.
#[derive(Debug, Clone, Serialize)]
struct Round {
    raw_gb_per_second: f64,
    gb_per_second: f64,
    records_per_second: f64,
    ratio: f64,
}

/// Measures and reports.
///
/// # Errors
/// If the log or the store does not do what it should.
pub(crate) async fn run(args: Args) -> Result<Report> {
    let mut report = Report::new("read");
    report.figure("host", Host::look());
    let scratch = args.store.scratch()?;
    let cluster = Cluster::start(args.load.spec(scratch.url())).await?;
    let end = write(&args, &cluster).await?;
    let store = scratch.open()?;
    let objects = raw::objects(&store, "").await?;
    let objects: Vec<_> = objects
        .into_iter()
        .filter(|(name, _)| name.contains("/stripes/"))
        .collect();
    let bar = SHARE_BAR * slack(args.short);
    let (least, mut rounds) = (if args.short { 2 } else { 5 }, Vec::<Round>::new());
    let ratio = |rounds: &[Round]| median(rounds.iter().map(|round| round.ratio).collect());
    while rounds.len() < least || (rounds.len() < MOST_ROUNDS && ratio(&rounds) < bar) {
        forget(&scratch, &objects)?;
        let raw = raw::gets(&store, &objects, args.gets, Duration::ZERO).await?;
        forget(&scratch, &objects)?;
        // A client of its own: nothing is left of what an earlier one knew.
        let log = cluster.client().await?;
        let (records, bytes, seconds) = scan(&log, end).await?;
        let rate = bytes as f64 / 1e9 / seconds;
        let one = Round {
            raw_gb_per_second: round(raw.rate()),
            gb_per_second: round(rate),
            records_per_second: (records as f64 / seconds).round(),
            ratio: round(rate / raw.rate()),
        };
        eprintln!("{}", serde_json::to_string(&one)?);
        rounds.push(one);
    }
    raw::clear(&store, "").await?;
    report.figure("store", &args.store.store);
    report.figures(&args.gets);
    report.figures(&args.load);
    report.figure("objects", objects.len());
    let bytes: u64 = objects.iter().map(|(_, size)| size).sum();
    report.figure("object_bytes", bytes);
    report.figure("positions", end.0);
    let middle = |value: fn(&Round) -> f64| median(rounds.iter().map(value).collect());
    report.figure("raw_gb_per_second", middle(|r| r.raw_gb_per_second));
    report.figure("gb_per_second", middle(|r| r.gb_per_second));
    report.figure("records_per_second", middle(|r| r.records_per_second));
    report.at_least("ratio", middle(|r| r.ratio), bar);
    report.figure("each", rounds);
    Ok(report)
}

#[allow(clippy::disallowed_methods, reason = "it measures")]
async fn write(args: &Args, cluster: &Cluster) -> Result<Position> {
    let logs = appends::clients(cluster, args.load.clients, args.load.in_flight_bytes()).await?;
    let wanted = match args.short {
        true => args.megabytes * 200_000,
        false => args.megabytes * 1_000_000,
    };
    let (mut bytes, started) = (0, Instant::now());
    while bytes < wanted {
        let stretch = Duration::from_millis(250);
        bytes += appends::closed(&logs, args.load.shape(), stretch)
            .await?
            .bytes;
        ensure!(
            started.elapsed() < Duration::from_secs(600),
            "the store is too slow"
        );
    }
    let log = logs.first().context("no client")?;
    Ok(log.tail(Tail::Linearizable).await?)
}

#[allow(clippy::disallowed_methods, reason = "it measures")]
async fn scan(log: &Log, end: Position) -> Result<(u64, u64, f64)> {
    let started = Instant::now();
    let (mut scan, mut records, mut bytes) = (log.read(Position(0)..end), 0, 0);
    while let Some(item) = scan.next().await? {
        if let Content::Record(record) = item.content {
            records += 1;
            bytes += record.len() as u64;
        }
    }
    Ok((records, bytes, started.elapsed().as_secs_f64()))
}

/// Takes what was read out of the cache of the system, so that a disk is read again. In memory it stays.
fn forget(scratch: &Scratch, objects: &[(String, u64)]) -> Result<()> {
    let Some(directory) = scratch.directory() else {
        return Ok(());
    };
    for (name, _) in objects {
        let file = std::fs::File::open(directory.join(name))?;
        rustix::fs::fadvise(&file, 0, None, rustix::fs::Advice::DontNeed)?;
    }
    Ok(())
}
