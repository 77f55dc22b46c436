//! How soon a follower sees what was acknowledged.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use bytes::Bytes;
use stripelog::{Content, Log, Position, Tail};
use tokio::task::JoinSet;
use tokio::time::timeout;

use super::append::LoadArgs;
use crate::cluster::Cluster;
use crate::host::Host;
use crate::logic::tally::{Latency, histogram};
use crate::measure::more;
use crate::report::{Report, slack};
use crate::volume::appends;
use crate::volume::raw::ns;
use crate::volume::stores::StoreArgs;

/// 99 of 100 records are seen so soon after their acknowledgement, in microseconds.
const SEEN_BAR_US: f64 = 5000.0;

/// Longest wait for the follower to see the last record.
const LIMIT: Duration = Duration::from_secs(60);

/// Most times that a run above its bar is measured.
const MOST_ROUNDS: usize = 5;

/// What is appended, and where.
#[derive(Debug, Clone, clap::Args)]
pub(crate) struct Args {
    #[command(flatten)]
    store: StoreArgs,
    #[command(flatten)]
    load: LoadArgs,
    /// Calls a second, of `--call` records each
    #[arg(long, default_value_t = 500)]
    rate: u32,
    /// Records of a call
    #[arg(long, default_value_t = 4)]
    call: usize,
    /// Measured seconds [default: 20, with --short 4]
    #[arg(long)]
    seconds: Option<f64>,
    /// Seconds
    #[arg(long)]
    short: bool,
}

/// When positions were acknowledged, and when seen.
#[derive(Debug, Default)]
struct Times(Mutex<HashMap<Position, Both>>);

/// When a record was acknowledged, and when it was seen.
type Both = (Option<Instant>, Option<Instant>);

/// Measures and reports.
///
/// # Errors
/// If the log does not run, or the follower does not see a record.
pub(crate) async fn run(args: Args) -> Result<Report> {
    let mut report = Report::new("follow");
    report.figure("host", Host::look());
    report.figure("store", &args.store.store);
    report.figures(&args.load);
    report.figure("calls_per_second", args.rate);
    let (bar, mut rounds) = (SEEN_BAR_US / slack(args.short), Vec::new());
    let best = loop {
        let (latency, records, before) = round_of(&args).await?;
        eprintln!("{}", serde_json::to_string(&latency)?);
        rounds.push((latency, records, before));
        let mut sorted = rounds.clone();
        sorted.sort_by(|a, b| a.0.p99_us.total_cmp(&b.0.p99_us));
        let Some(middle) = sorted.get((sorted.len() - 1) / 2) else {
            bail!("nothing was measured");
        };
        let enough = if args.short { 1 } else { 3 };
        let missed = middle.0.p99_us > bar;
        if !more(rounds.len(), enough, MOST_ROUNDS, missed) {
            break *middle;
        }
    };
    let (latency, records, before) = best;
    report.figure("rounds", rounds.len());
    report.figure("records", records);
    report.figure("seen_before_their_acknowledgement", before);
    report.figure("latency", latency);
    report.at_most("seen_p99_us", latency.p99_us, bar);
    Ok(report)
}

#[allow(clippy::disallowed_methods, reason = "it measures")]
async fn round_of(args: &Args) -> Result<(Latency, usize, usize)> {
    let seconds = args.seconds.unwrap_or(if args.short { 4.0 } else { 20.0 });
    let scratch = args.store.scratch()?;
    let cluster = Cluster::start(args.load.spec(scratch.url())).await?;
    let logs = appends::clients(&cluster, 2, args.load.in_flight_bytes()).await?;
    let [writer, reader] = &logs[..] else {
        bail!("two clients were opened");
    };
    // Every stripe is taken before anything is measured.
    let warm = appends::Shape {
        size: args.load.size,
        batch: 1024,
        calls: 8,
    };
    appends::closed(
        std::slice::from_ref(writer),
        warm,
        Duration::from_millis(500),
    )
    .await?;
    let from = writer.tail(Tail::Linearizable).await?;
    let times = Arc::new(Times::default());
    let follower = tokio::spawn(follow(reader.clone(), from, Arc::clone(&times)));
    let time = Duration::from_secs_f64(seconds);
    let record = Bytes::from(vec![7; args.load.size]);
    let records = vec![record; args.call.max(1)];
    let (mut tasks, started) = (JoinSet::new(), Instant::now());
    for call in 0_u32.. {
        let due = Duration::from_secs_f64(f64::from(call) / f64::from(args.rate));
        if due >= time {
            break;
        }
        if let Some(wait) = due.checked_sub(started.elapsed()) {
            tokio::time::sleep(wait).await;
        }
        let (log, records, times) = (writer.clone(), records.clone(), Arc::clone(&times));
        tasks.spawn(async move {
            let positions = log.append(records).await?;
            let now = Instant::now();
            times.note(&positions, |both| both.0 = Some(now));
            anyhow::Ok(positions.last().copied())
        });
    }
    let mut last = None;
    while let Some(one) = tasks.join_next().await {
        last = last.max(one??);
    }
    let last = last.context("nothing was appended")?;
    let wait = async {
        while !times.saw(last) {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    let seen = timeout(LIMIT, wait).await;
    follower.abort();
    seen.context("the follower does not see the last record")?;
    times.latency()
}

#[allow(clippy::disallowed_methods, reason = "it measures")]
async fn follow(log: Log, from: Position, times: Arc<Times>) -> Result<()> {
    let mut scan = log.follow(from);
    while let Some(item) = scan.next().await? {
        if matches!(item.content, Content::Record(_)) {
            let now = Instant::now();
            times.note(&[item.position], |both| both.1 = Some(now));
        }
    }
    Ok(())
}

impl Times {
    fn note(&self, positions: &[Position], set: impl Fn(&mut Both)) {
        let mut times = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        for position in positions {
            set(times.entry(*position).or_default());
        }
    }

    fn saw(&self, position: Position) -> bool {
        let times = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        times.get(&position).is_some_and(|both| both.1.is_some())
    }

    /// The latency, the number of records, and how many were seen before the acknowledgement came.
    fn latency(&self) -> Result<(Latency, usize, usize)> {
        let times = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let (mut latency, mut before) = (histogram()?, 0);
        for both in times.values() {
            let (Some(acknowledged), Some(seen)) = *both else {
                bail!("a record was acknowledged and not seen, or seen and not acknowledged");
            };
            if seen < acknowledged {
                before += 1;
            }
            latency.saturating_record(ns(seen.saturating_duration_since(acknowledged)));
        }
        Ok((Latency::of(&latency), times.len(), before))
    }
}
