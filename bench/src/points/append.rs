//! Appends in volume, turn by turn with raw puts of the same store.

use std::time::Duration;

use anyhow::{Context, Result};
use serde::Serialize;

use crate::cluster::{Cluster, Daemon, Spec};
use crate::host::{self, Host};
use crate::logic::tally::Latency;
use crate::measure::{median, more, round};
use crate::report::{Report, slack};
use crate::volume::appends::{self, Appended, Shape};
use crate::volume::raw::{self, Moved, PutArgs};
use crate::volume::stores::{Kind, StoreArgs};

/// Records of this size are held against raw puts.
const LARGE_BYTES: usize = 1024;

/// Records of this size are counted.
const SMALL_BYTES: usize = 100;

/// Share of the raw puts that appends have to reach, where the store is not in the memory of this machine.
const SHARE_BAR: f64 = 0.85;

/// In memory, one of these: client, daemons and store share the cores there.
const MEMORY_SHARE_BAR: f64 = 0.6;
const MEMORY_GB_BAR: f64 = 1.0;

/// Small records a second, in memory.
const RECORDS_BAR: f64 = 3e6;

/// Most rounds of a run that is below its bar.
const MOST_ROUNDS: usize = 7;

/// Time before a stretch in which owners take their stripes.
const WARM_UP: Duration = Duration::from_millis(300);

/// The log, its clients and what they append.
#[derive(Debug, Clone, Serialize, clap::Args)]
pub(crate) struct LoadArgs {
    /// Bytes of a record
    #[arg(long, value_name = "BYTES", default_value_t = LARGE_BYTES)]
    pub(crate) size: usize,
    /// Records of one call [default: 1 MiB of them, at most 4,096]
    #[arg(long, value_name = "RECORDS")]
    pub(crate) batch: Option<usize>,
    /// Clients, each with a connection of its own
    #[arg(long, default_value_t = 1)]
    pub(crate) clients: usize,
    /// MiB that each client has under way in a closed loop
    #[arg(long, value_name = "MIB", default_value_t = 128)]
    pub(crate) in_flight_mib: usize,
    /// Stripes
    #[arg(long, value_name = "K", default_value_t = 64)]
    pub(crate) stripes: u32,
    /// Positions of a unit [default: the product's]
    #[arg(long, value_name = "U")]
    pub(crate) unit: Option<u32>,
    /// How long a record waits for others [default: the product's]
    #[arg(long, value_name = "MS")]
    pub(crate) linger_ms: Option<u64>,
    /// More settings, as section.key=value
    #[arg(long = "set", value_name = "SETTING")]
    pub(crate) settings: Vec<String>,
}

impl LoadArgs {
    /// Calls and records.
    #[must_use]
    pub(crate) fn shape(&self) -> Shape {
        let size = self.size.max(1);
        let batch = self.batch.unwrap_or((1 << 20) / size).clamp(1, 4096);
        let calls = (self.in_flight_mib << 20) / (batch * (size + 64));
        Shape {
            size,
            batch,
            calls: calls.max(1),
        }
    }

    /// The log.
    #[must_use]
    pub(crate) fn spec(&self, url: &str) -> Spec {
        let mut settings = self.settings.clone();
        settings.extend(self.linger_ms.map(|ms| format!("writer.linger_ms={ms}")));
        Spec {
            store: Some(url.to_owned()),
            stripes: Some(self.stripes),
            unit: self.unit,
            settings,
            ..Spec::default()
        }
    }

    /// Bytes that a client may have under way, with room for what records cost beside their bytes.
    #[must_use]
    pub(crate) fn in_flight_bytes(&self) -> usize {
        let shape = self.shape();
        let call = shape.batch * (shape.size + 192);
        (call * shape.calls).max(self.in_flight_mib << 20)
    }
}

/// What is appended, and where.
#[derive(Debug, Clone, clap::Args)]
pub(crate) struct Args {
    #[command(flatten)]
    store: StoreArgs,
    #[command(flatten)]
    puts: PutArgs,
    #[command(flatten)]
    load: LoadArgs,
    /// Records a second of all clients, whether earlier ones are acknowledged or not
    #[arg(long, value_name = "RECORDS")]
    rate: Option<f64>,
    /// Seconds of a stretch
    #[arg(long, default_value_t = 3.0)]
    seconds: f64,
    /// Rounds of raw puts, appends, raw puts
    #[arg(long, default_value_t = 3)]
    rounds: usize,
    /// One round where the bars are met at once
    #[arg(long)]
    short: bool,
    /// Prints each round
    #[arg(long, short)]
    verbose: bool,
}

/// One round.
#[derive(Debug, Clone, Serialize)]
struct Round {
    gb_per_second: f64,
    records_per_second: f64,
    raw_before_gb: f64,
    raw_after_gb: f64,
    ratio: f64,
    failed: u64,
    object_mb: f64,
    puts_per_second: f64,
    writer_cores: f64,
    sequencer_cores: f64,
    writer_ns_per_record: f64,
    client_ns_per_record: f64,
    raw_ns_per_record: f64,
    writer_peak_mib: f64,
    #[serde(flatten)]
    latency: Latency,
}

/// Measures and reports.
///
/// # Errors
/// If the log or the store does not do what it should.
pub(crate) async fn run(args: Args) -> Result<Report> {
    let mut report = Report::new("append");
    report.figure("host", Host::look());
    let (least, mut rounds) = (if args.short { 1 } else { args.rounds }, Vec::new());
    while more(rounds.len(), least, MOST_ROUNDS, !holds(&args, &rounds)) {
        let one = round_of(&args).await?;
        if args.verbose {
            eprintln!("{}", serde_json::to_string(&one)?);
        }
        rounds.push(one);
    }
    report.figure("store", &args.store.store);
    report.figures(&args.puts);
    report.figures(&args.load);
    report.figure("shape", args.load.shape());
    report.figure("rate", args.rate);
    report.figure("rounds", rounds.len());
    let middle = |value: fn(&Round) -> f64| median(rounds.iter().map(value).collect());
    let (gb, records) = (
        middle(|r| r.gb_per_second),
        middle(|r| r.records_per_second),
    );
    let ratio = middle(|r| r.ratio);
    report.figure("gb_per_second", gb);
    report.figure("records_per_second", records);
    report.figure(
        "raw_gb_per_second",
        middle(|r| (r.raw_before_gb + r.raw_after_gb) / 2.0),
    );
    let slack = slack(args.short);
    match bar(&args) {
        Bar::None => report.figure("ratio", ratio),
        Bar::Share => report.at_least("ratio", ratio, SHARE_BAR * slack),
        Bar::ShareOrRate => {
            report.figure("ratio", ratio);
            let best = (ratio / MEMORY_SHARE_BAR).max(gb / MEMORY_GB_BAR);
            report.at_least("gb_or_ratio_of_bar", round(best), slack);
        }
        Bar::Records => {
            report.figure("ratio", ratio);
            report.at_least("small_records_per_second", records, RECORDS_BAR * slack);
        }
    }
    report.exactly("failed", rounds.iter().map(|r| r.failed).sum::<u64>(), 0);
    report.figure("each", &rounds);
    Ok(report)
}

/// What a run is held against.
enum Bar {
    None,
    Share,
    ShareOrRate,
    Records,
}

fn bar(args: &Args) -> Bar {
    match (args.store.kind(), args.load.size) {
        _ if args.rate.is_some() => Bar::None,
        (Kind::Memory, LARGE_BYTES) => Bar::ShareOrRate,
        (Kind::Remote, LARGE_BYTES) => Bar::Share,
        (Kind::Memory, SMALL_BYTES) => Bar::Records,
        _ => Bar::None,
    }
}

fn holds(args: &Args, rounds: &[Round]) -> bool {
    let middle = |value: fn(&Round) -> f64| median(rounds.iter().map(value).collect());
    let (ratio, gb) = (middle(|r| r.ratio), middle(|r| r.gb_per_second));
    let of_bar = match bar(args) {
        Bar::None => return true,
        Bar::Share => ratio / SHARE_BAR,
        Bar::ShareOrRate => (ratio / MEMORY_SHARE_BAR).max(gb / MEMORY_GB_BAR),
        Bar::Records => middle(|r| r.records_per_second) / RECORDS_BAR,
    };
    of_bar >= slack(args.short)
}

async fn round_of(args: &Args) -> Result<Round> {
    let time = Duration::from_secs_f64(args.seconds);
    let scratch = args.store.scratch()?;
    let before = raw_puts(args, time / 2).await?;
    let cluster = Cluster::start(args.load.spec(scratch.url())).await?;
    let shape = args.load.shape();
    let logs = appends::clients(&cluster, args.load.clients, args.load.in_flight_bytes()).await?;
    appends::closed(&logs, Shape { calls: 8, ..shape }, WARM_UP).await?;
    let cost = Cost::begin(&cluster).await?;
    let appended = match args.rate {
        Some(rate) => appends::open(&logs, shape, rate, time).await?,
        None => appends::closed(&logs, shape, time).await?,
    };
    let mut round_of = cost.end(&cluster, &appended).await?;
    drop((logs, cluster));
    let spent = host::cpu_ns(std::process::id())?;
    let store = scratch.open()?;
    raw::clear(&store, "").await?;
    let after = raw_puts(args, time / 2).await?;
    let spent = host::cpu_ns(std::process::id())?.saturating_sub(spent) as f64;
    let of_record = args.load.size as f64 / (after.bytes as f64).max(1.0);
    round_of.raw_ns_per_record = round(spent * of_record);
    let (before, after) = (before.rate(), after.rate());
    round_of.raw_before_gb = round(before);
    round_of.raw_after_gb = round(after);
    round_of.ratio = round(appended.rate() / ((before + after) / 2.0));
    Ok(round_of)
}

async fn raw_puts(args: &Args, time: Duration) -> Result<Moved> {
    let scratch = args.store.scratch()?;
    let store = scratch.open()?;
    let moved = raw::puts(&store, "raw", args.puts, time).await?;
    raw::clear(&store, "raw").await?;
    Ok(moved)
}

/// What daemons had spent when a stretch began.
pub(crate) struct Cost {
    cpu_ns: [u64; 2],
    client_ns: u64,
    puts: f64,
    bytes: f64,
}

impl Cost {
    async fn begin(cluster: &Cluster) -> Result<Self> {
        let metrics = cluster.metrics(Daemon::Writer).await?;
        Ok(Self {
            cpu_ns: cpu_ns(cluster)?,
            client_ns: host::cpu_ns(std::process::id())?,
            puts: metrics.get("stripe_writer_puts_total"),
            bytes: metrics.get("stripe_writer_put_bytes_total"),
        })
    }

    async fn end(self, cluster: &Cluster, appended: &Appended) -> Result<Round> {
        let metrics = cluster.metrics(Daemon::Writer).await?;
        let [sequencer, writer] = cpu_ns(cluster)?;
        let puts = metrics.get("stripe_writer_puts_total") - self.puts;
        let bytes = metrics.get("stripe_writer_put_bytes_total") - self.bytes;
        let writer_ns = writer.saturating_sub(self.cpu_ns[1]) as f64;
        let client_ns = host::cpu_ns(std::process::id())?.saturating_sub(self.client_ns) as f64;
        let sequencer_ns = sequencer.saturating_sub(self.cpu_ns[0]) as f64;
        let process = cluster.process(Daemon::Writer).context("it has ended")?;
        let (_, peak) = host::memory(process)?;
        Ok(Round {
            gb_per_second: round(appended.rate()),
            records_per_second: appended.records_per_second().round(),
            raw_before_gb: 0.0,
            raw_after_gb: 0.0,
            ratio: 0.0,
            failed: appended.failed,
            object_mb: round(bytes / puts.max(1.0) / 1e6),
            puts_per_second: round(puts / appended.seconds),
            writer_cores: round(writer_ns / 1e9 / appended.seconds),
            sequencer_cores: round(sequencer_ns / 1e9 / appended.seconds),
            writer_ns_per_record: round(writer_ns / (appended.records as f64).max(1.0)),
            client_ns_per_record: round(client_ns / (appended.records as f64).max(1.0)),
            raw_ns_per_record: 0.0,
            writer_peak_mib: round(peak as f64 / f64::from(1 << 20)),
            latency: Latency::of(&appended.latency),
        })
    }
}

fn cpu_ns(cluster: &Cluster) -> Result<[u64; 2]> {
    let spent = |daemon| host::cpu_ns(cluster.process(daemon).context("a daemon has ended")?);
    Ok([spent(Daemon::Sequencer)?, spent(Daemon::Writer)?])
}
