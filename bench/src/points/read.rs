//! Sequential reads, turn by turn with raw parallel gets of the same objects.
//!
//! With a cache the scans are those of clients that find in a directory what an earlier one has left there.
//! The objects are never in the cache of the system when the store is asked for them; what the client's cache
//! has is in a first scan read from its disk, in a second one out of memory.

use std::path::Path;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use catalog::Store;
use serde::Serialize;
use stripelog::{Content, Log, Position, Tail};
use tempfile::TempDir;

use super::append::LoadArgs;
use crate::cluster::Cluster;
use crate::host::Host;
use crate::measure::{median, more, round};
use crate::report::{Report, slack};
use crate::volume::appends;
use crate::volume::raw::{self, GetArgs};
use crate::volume::stores::{Scratch, StoreArgs};

/// Share of the raw gets that a scan has to reach.
const SHARE_BAR: f64 = 0.85;

/// Times the raw gets that a scan from a warm cache has to reach.
const CACHE_BAR: f64 = 2.0;

/// Most rounds of a run that is below its bar.
const MOST_ROUNDS: usize = 9;

/// Least size of a cache.
const LEAST_CACHE_BYTES: usize = 64 << 20;

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
    /// MiB that a scan reads ahead [default: the product's]
    #[arg(long, value_name = "MIB", value_parser = clap::value_parser!(u64).range(1..=65_536))]
    read_ahead_mib: Option<u64>,
    /// Scan once into a cache in --disk, and then measure scans of clients that have this cache
    #[arg(long)]
    cache: bool,
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
    /// Of the scan whose cache is read from its disk, where there is one.
    #[serde(skip_serializing_if = "Option::is_none")]
    from_disk: Option<Scanned>,
}

/// What a scan was.
#[derive(Debug, Clone, Copy, Serialize)]
struct Scanned {
    records: u64,
    bytes: u64,
    seconds: f64,
    /// Time to open the log, with what the cache has to look through.
    open_seconds: f64,
}

impl Scanned {
    fn rate(&self) -> f64 {
        self.bytes as f64 / 1e9 / self.seconds
    }
}

/// What is read.
struct Bed {
    scratch: Scratch,
    store: Store,
    cluster: Cluster,
    objects: Vec<(String, u64)>,
    end: Position,
    cache: Option<TempDir>,
    read_ahead_bytes: Option<usize>,
}

/// Measures and reports.
///
/// # Errors
/// If the log or the store does not do what it should.
pub(crate) async fn run(args: Args) -> Result<Report> {
    let mut report = Report::new("read");
    report.figure("host", Host::look());
    let bed = Bed::new(&args).await?;
    let bar = slack(args.short) * if args.cache { CACHE_BAR } else { SHARE_BAR };
    if args.cache {
        let cold = bed.scan().await?;
        report.figure("cold_gb_per_second", round(cold.rate()));
    }
    let (least, mut rounds) = (if args.short { 2 } else { 5 }, Vec::<Round>::new());
    let ratio = |rounds: &[Round]| median(rounds.iter().map(|round| round.ratio).collect());
    while more(rounds.len(), least, MOST_ROUNDS, ratio(&rounds) < bar) {
        let one = bed.round_of(args.gets).await?;
        eprintln!("{}", serde_json::to_string(&one)?);
        rounds.push(one);
    }
    raw::clear(&bed.store, "").await?;
    report.figure("store", &args.store.store);
    report.figures(&args.gets);
    report.figures(&args.load);
    report.figure("cache", args.cache);
    report.figure("read_ahead_mib", args.read_ahead_mib);
    report.figure("objects", bed.objects.len());
    let bytes: u64 = bed.objects.iter().map(|(_, size)| size).sum();
    report.figure("object_bytes", bytes);
    report.figure("positions", bed.end.0);
    let middle = |value: fn(&Round) -> f64| median(rounds.iter().map(value).collect());
    report.figure("raw_gb_per_second", middle(|r| r.raw_gb_per_second));
    report.figure("gb_per_second", middle(|r| r.gb_per_second));
    report.figure("records_per_second", middle(|r| r.records_per_second));
    if args.cache {
        let from_disk = |r: &Round| r.from_disk.map_or(0.0, |scanned| scanned.rate());
        let of_raw = |r: &Round| from_disk(r) / r.raw_gb_per_second;
        let rates = rounds.iter().map(from_disk).collect();
        report.figure("from_disk_gb_per_second", round(median(rates)));
        let ratios = rounds.iter().map(of_raw).collect();
        report.figure("from_disk_ratio", round(median(ratios)));
    }
    report.at_least("ratio", middle(|r| r.ratio), bar);
    report.figure("each", rounds);
    Ok(report)
}

impl Bed {
    async fn new(args: &Args) -> Result<Self> {
        let scratch = args.store.scratch()?;
        let cluster = Cluster::start(args.load.spec(scratch.url())).await?;
        let end = write(args, &cluster).await?;
        let store = scratch.open()?;
        let mut objects = raw::objects(&store, "").await?;
        objects.retain(|(name, _)| name.contains("/stripes/"));
        let cache = args.cache.then(|| {
            let mut name = tempfile::Builder::new();
            name.prefix("stripelog-cache-").tempdir_in(&args.store.disk)
        });
        Ok(Self {
            scratch,
            store,
            cluster,
            objects,
            end,
            cache: cache.transpose()?,
            read_ahead_bytes: args
                .read_ahead_mib
                .and_then(|mib| usize::try_from(mib << 20).ok()),
        })
    }

    async fn round_of(&self, gets: GetArgs) -> Result<Round> {
        self.forget_store()?;
        let raw = raw::gets(&self.store, &self.objects, gets, Duration::ZERO).await?;
        let from_disk = match &self.cache {
            None => None,
            Some(cache) => {
                forget_below(cache.path())?;
                Some(self.scan().await?)
            }
        };
        let scanned = self.scan().await?;
        Ok(Round {
            raw_gb_per_second: round(raw.rate()),
            gb_per_second: round(scanned.rate()),
            records_per_second: (scanned.records as f64 / scanned.seconds).round(),
            ratio: round(scanned.rate() / raw.rate()),
            from_disk,
        })
    }

    /// Reads all of the log by a client of its own: nothing is left of what an earlier one knew.
    #[allow(clippy::disallowed_methods, reason = "it measures")]
    async fn scan(&self) -> Result<Scanned> {
        self.forget_store()?;
        let opening = Instant::now();
        let mut options = self.cluster.options();
        if let Some(bytes) = self.read_ahead_bytes {
            options = options.read_ahead_bytes(bytes);
        }
        if let Some(cache) = &self.cache {
            // Room for all of it, for what a block leaves unused, and for entries that were written twice.
            let bytes: u64 = self.objects.iter().map(|(_, size)| size).sum();
            let bytes = usize::try_from(bytes)?.saturating_mul(3);
            options = options.cache(cache.path(), bytes.max(LEAST_CACHE_BYTES));
        }
        let log = Log::open(options).await?;
        let (mut records, mut bytes, mut junk) = (0, 0, 0);
        let started = Instant::now();
        let mut scan = log.read(Position(0)..self.end).with_junk(true);
        while let Some(item) = scan.next().await? {
            match item.content {
                Content::Record(record) => {
                    records += 1;
                    bytes += record.len() as u64;
                }
                Content::Junk { count } => junk += count,
            }
        }
        let seconds = started.elapsed().as_secs_f64();
        ensure!(records + junk == self.end.0, "positions are missing");
        drop(scan);
        log.close_cache().await;
        Ok(Scanned {
            records,
            bytes,
            seconds,
            open_seconds: round((started - opening).as_secs_f64()),
        })
    }

    /// Takes what was read out of the cache of the system, so that a disk is read again. In memory it stays.
    fn forget_store(&self) -> Result<()> {
        let Some(directory) = self.scratch.directory() else {
            return Ok(());
        };
        for (name, _) in &self.objects {
            forget(&directory.join(name))?;
        }
        Ok(())
    }
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

fn forget_below(directory: &Path) -> Result<()> {
    for entry in std::fs::read_dir(directory)? {
        let entry = entry?;
        match entry.file_type()?.is_dir() {
            true => forget_below(&entry.path())?,
            false => forget(&entry.path())?,
        }
    }
    Ok(())
}

/// Takes a file out of the cache of the system: what is not on the disk yet is written first.
fn forget(path: &Path) -> Result<()> {
    let file = std::fs::File::open(path)?;
    file.sync_data()?;
    rustix::fs::fadvise(&file, 0, None, rustix::fs::Advice::DontNeed)?;
    Ok(())
}
