//! Latency of appends at a tenth of the load that the log takes.

use std::time::Duration;

use anyhow::Result;

use super::append::LoadArgs;
use crate::cluster::{Cluster, Daemon};
use crate::host::Host;
use crate::logic::tally::Latency;
use crate::measure::{median, more, round, whole};
use crate::report::{Report, slack};
use crate::volume::appends;
use crate::volume::raw::{self, PutArgs};
use crate::volume::stores::StoreArgs;

/// What an append may take beside the linger and the put, in microseconds.
const REST_US: f64 = 2000.0;

/// Share of the highest rate.
const SHARE: f64 = 0.1;

/// Most rounds of a run that is above its bar.
const MOST_ROUNDS: usize = 7;

/// What is appended, and where.
#[derive(Debug, Clone, clap::Args)]
pub(crate) struct Args {
    #[command(flatten)]
    store: StoreArgs,
    #[command(flatten)]
    load: LoadArgs,
    /// Records of a call of the measured load
    #[arg(long, default_value_t = 100)]
    call: usize,
    /// Seconds of a stretch
    #[arg(long, default_value_t = 5.0)]
    seconds: f64,
    /// One round where the bar is met at once
    #[arg(long)]
    short: bool,
}

struct Round {
    rate: f64,
    append: Latency,
    put: Latency,
    object_bytes: f64,
    over_us: f64,
    failed: u64,
}

/// Measures and reports.
///
/// # Errors
/// If the log or the store does not do what it should.
pub(crate) async fn run(args: Args) -> Result<Report> {
    let linger_ms = args.load.linger_ms.unwrap_or(DEFAULT_LINGER_MS);
    let mut report = Report::new("latency");
    report.figure("host", Host::look());
    let (least, mut rounds) = (if args.short { 1 } else { 3 }, Vec::new());
    let over = |rounds: &[Round]| median(rounds.iter().map(|r| r.over_us).collect());
    let bar = REST_US / slack(args.short);
    while more(rounds.len(), least, MOST_ROUNDS, over(&rounds) > bar) {
        let one = round_of(&args, linger_ms).await?;
        eprintln!(
            "rate {:.0}, append p50 {} us, put of {:.0} bytes p50 {} us",
            one.rate, one.append.p50_us, one.object_bytes, one.put.p50_us
        );
        rounds.push(one);
    }
    let middle = |value: fn(&Round) -> f64| round(median(rounds.iter().map(value).collect()));
    report.figure("store", &args.store.store);
    report.figures(&args.load);
    report.figure("linger_us", linger_ms * 1000);
    report.figure("rounds", rounds.len());
    report.figure("rate", middle(|r| r.rate));
    report.figure("append_p50_us", middle(|r| r.append.p50_us));
    report.figure("append_p99_us", middle(|r| r.append.p99_us));
    report.figure("put_p50_us", middle(|r| r.put.p50_us));
    report.figure("put_p99_us", middle(|r| r.put.p99_us));
    report.figure("object_bytes", middle(|r| r.object_bytes));
    report.at_most("over_linger_and_put_us", round(over(&rounds)), bar);
    report.exactly("failed", rounds.iter().map(|r| r.failed).sum::<u64>(), 0);
    Ok(report)
}

/// The default of `writer.linger_ms`.
const DEFAULT_LINGER_MS: u64 = 50;

async fn round_of(args: &Args, linger_ms: u64) -> Result<Round> {
    let time = Duration::from_secs_f64(args.seconds);
    let scratch = args.store.scratch()?;
    let mut load = args.load.clone();
    load.linger_ms = Some(linger_ms);
    let cluster = Cluster::start(load.spec(scratch.url())).await?;
    let logs = appends::clients(&cluster, load.clients, load.in_flight_bytes()).await?;
    let full = appends::closed(&logs, load.shape(), time / 3).await?;
    let rate = full.records_per_second() * SHARE;
    let before = cluster.metrics(Daemon::Writer).await?;
    let mut shape = load.shape();
    shape.batch = args.call.max(1);
    let appended = appends::open(&logs, shape, rate, time).await?;
    let metrics = cluster.metrics(Daemon::Writer).await?;
    let puts = metrics.since(&before, "stripe_writer_puts_total");
    let object_bytes = metrics.since(&before, "stripe_writer_put_bytes_total") / puts.max(1.0);
    drop((logs, cluster));
    let store = scratch.open()?;
    raw::clear(&store, "").await?;
    // One at a time: what a put takes where nothing else is under way.
    let alone = PutArgs {
        object_bytes: whole(object_bytes),
        puts: 1,
    };
    let moved = raw::puts(&store, "raw", alone, time / 3).await?;
    raw::clear(&store, "raw").await?;
    let (append, put) = (Latency::of(&appended.latency), Latency::of(&moved.latency));
    Ok(Round {
        rate,
        over_us: append.p50_us - put.p50_us - linger_ms as f64 * 1000.0,
        append,
        put,
        object_bytes,
        failed: appended.failed,
    })
}
