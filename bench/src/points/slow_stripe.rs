//! One stripe whose puts are slow, and what that does to the others.

use std::time::Duration;

use anyhow::Result;
use hdrhistogram::Histogram;
use serde::Serialize;
use stripelog::Log;
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep, sleep_until};

use super::cost::client;
use crate::cluster::{Cluster, Spec};
use crate::host::Host;
use crate::logic::tally::{Latency, histogram};
use crate::measure::{median, more, round};
use crate::net::bucket::{Bucket, Pace};
use crate::report::{Report, slack};
use crate::volume::appends::{self, Shape};
use crate::volume::raw::ns;

/// The slow one.
const SLOW: u64 = 3;

/// By how much the p99 of the others may change.
const CHANGE_BAR: f64 = 0.2;

/// Most rounds of a run above its bar.
const MOST_ROUNDS: usize = 7;

/// How slow it is, and what is appended meanwhile.
#[derive(Debug, Clone, clap::Args)]
pub(crate) struct Args {
    /// How long a put takes
    #[arg(long, value_name = "MS", default_value_t = 20)]
    put_ms: u64,
    /// How many times as long one of the slow stripe takes
    #[arg(long, default_value_t = 20)]
    times: u32,
    /// Appends a second, of one record each
    #[arg(long, default_value_t = 2000)]
    rate: u32,
    /// Bytes of a record
    #[arg(long, value_name = "BYTES", default_value_t = 1024)]
    size: usize,
    /// Stripes
    #[arg(long, value_name = "K", default_value_t = 16)]
    stripes: u32,
    /// Positions of a unit
    #[arg(long, value_name = "U", default_value_t = 16)]
    unit: u32,
    /// Seconds of a stretch [default: 10, with --short 3]
    #[arg(long)]
    seconds: Option<f64>,
    /// Seconds
    #[arg(long)]
    short: bool,
}

/// One stretch with the slow stripe as fast as the others, one with it slow.
#[derive(Debug, Clone, Serialize)]
struct Round {
    others_even: Latency,
    others: Latency,
    slow: Latency,
    change: f64,
}

/// Latencies of the slow stripe and of the others.
type Two = (Histogram<u64>, Histogram<u64>);

/// Measures and reports.
///
/// # Errors
/// If the log does not run.
pub(crate) async fn run(args: Args) -> Result<Report> {
    let mut report = Report::new("slow-stripe");
    report.figure("host", Host::look());
    let bucket = Bucket::start().await?;
    let cluster = Cluster::start(Spec {
        store: Some(bucket.url()),
        stripes: Some(args.stripes),
        unit: Some(args.unit),
        environment: bucket.environment(),
        ..Spec::default()
    })
    .await?;
    let log = client(&bucket, cluster.options()).await?;
    // Every stripe is taken before anything is measured.
    let warm = Shape {
        size: args.size,
        batch: 64,
        calls: 8,
    };
    appends::closed(std::slice::from_ref(&log), warm, Duration::from_millis(500)).await?;
    let (least, mut rounds) = (if args.short { 3 } else { 5 }, Vec::<Round>::new());
    let change = |rounds: &[Round]| median(rounds.iter().map(|round| round.change).collect());
    let bar = CHANGE_BAR / slack(args.short);
    while more(rounds.len(), least, MOST_ROUNDS, change(&rounds) > bar) {
        let put = Duration::from_millis(args.put_ms);
        let named = format!("/{SLOW:04x}/");
        let mut both = Vec::new();
        for slow in [false, true] {
            bucket.pace(Pace {
                put,
                named: slow.then(|| (named.clone(), put * args.times)),
                ..Pace::default()
            });
            both.push(stretch(&args, &log).await?);
            sleep(put * args.times * 4).await;
        }
        if let [even, slow] = &both[..] {
            let (before, now) = (Latency::of(&even.1), Latency::of(&slow.1));
            let one = Round {
                change: round(now.p99_us / before.p99_us.max(0.01) - 1.0),
                others_even: before,
                others: now,
                slow: Latency::of(&slow.0),
            };
            eprintln!("{}", serde_json::to_string(&one)?);
            rounds.push(one);
        }
    }
    report.figure("stripes", args.stripes);
    report.figure("unit", args.unit);
    report.figure("rate", args.rate);
    report.figure("put_ms", args.put_ms);
    report.figure("times", args.times);
    let middle = |value: fn(&Round) -> f64| median(rounds.iter().map(value).collect());
    report.figure("others_p99_us_even", middle(|r| r.others_even.p99_us));
    report.figure("others_p99_us", middle(|r| r.others.p99_us));
    report.at_least(
        "slow_p50_us",
        middle(|r| r.slow.p50_us),
        ns(Duration::from_millis(args.put_ms) * args.times) as f64 / 1000.0,
    );
    report.at_most("change_of_p99", change(&rounds), bar);
    report.figure("each", rounds);
    Ok(report)
}

#[allow(clippy::disallowed_methods, reason = "it measures")]
async fn stretch(args: &Args, log: &Log) -> Result<Two> {
    let seconds = args.seconds.unwrap_or(if args.short { 3.0 } else { 10.0 });
    let time = Duration::from_secs_f64(seconds);
    let (started, mut tasks) = (Instant::now(), JoinSet::new());
    let shape = Shape {
        size: args.size,
        batch: 1,
        calls: 1,
    };
    let records = appends::records(shape);
    for call in 0_u32.. {
        let after = Duration::from_secs_f64(f64::from(call) / f64::from(args.rate));
        if after >= time {
            break;
        }
        let due = started + after;
        sleep_until(due).await;
        let (log, records) = (log.clone(), records.clone());
        tasks.spawn(async move {
            let positions = log.append(records).await?;
            anyhow::Ok((positions.first().map_or(0, |first| first.0), due.elapsed()))
        });
    }
    let (mut slow, mut others) = (histogram()?, histogram()?);
    while let Some(one) = tasks.join_next().await {
        let (position, took) = one??;
        let stripe = position / u64::from(args.unit) % u64::from(args.stripes);
        let latency = if stripe == SLOW {
            &mut slow
        } else {
            &mut others
        };
        latency.saturating_record(ns(took));
    }
    Ok((slow, others))
}
