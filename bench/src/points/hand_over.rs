//! Stops the sequencer that reigns in good order, again and again, under load: its standby goes on at the exact tail.

use std::time::Duration;

use anyhow::{Context, Result, ensure};
use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};
use tokio::time::sleep;

use super::check;
use super::failover::{progress, tell_pauses};
use crate::cluster::{Cluster, Daemon, Spec};
use crate::load::Load;
use crate::net::bucket::{Bucket, Pace};
use crate::pair::{Pair, Role};
use crate::pause::Pauses;
use crate::report::Report;

/// Rounds of the long and of the short form.
const ROUNDS: u32 = 30;
const SHORT_ROUNDS: u32 = 5;

/// Clients that append.
const CLIENTS: usize = 4;

/// Longest time without an acknowledgement, in milliseconds.
const BAR_MS: f64 = 200.0;

/// The same of the short form, which runs on hosts that do other work: there the middle of the rounds is held against
/// the bar above.
const SHORT_BAR_MS: f64 = 1000.0;

/// Longest time from the start of a round to the stop, and what a round without one is measured for.
const CALM: Duration = Duration::from_millis(500);

/// How the rounds are run.
#[derive(Debug, Clone, clap::Args)]
pub(crate) struct Args {
    /// Five rounds, not thirty
    #[arg(long)]
    short: bool,
    /// Rounds: in each the sequencer that reigns is stopped by SIGTERM
    #[arg(long)]
    rounds: Option<u32>,
    /// Time that the store takes for each answer, in milliseconds
    #[arg(long, default_value_t = 10)]
    answer_ms: u64,
    /// Longest wait of a record for others before its object closes, in milliseconds
    #[arg(long, default_value_t = 10)]
    linger_ms: u64,
    /// Seed of all that is random; drawn and printed without it
    #[arg(long)]
    seed: Option<u64>,
}

/// Runs the rounds and reports.
///
/// # Errors
/// If the daemons cannot be run, or nobody takes over.
pub(crate) async fn run(args: Args) -> Result<Report> {
    let seed = args.seed.unwrap_or_else(|| rand::rng().random());
    eprintln!("seed {seed}");
    let bucket = Bucket::start().await?;
    bucket.pace(Pace {
        answer: Duration::from_millis(args.answer_ms),
        ..Pace::default()
    });
    let mut cluster = Cluster::create(Spec {
        store: Some(bucket.url()),
        settings: vec![format!("writer.linger_ms={}", args.linger_ms)],
        pair: true,
        environment: bucket.environment(),
        opened: Some(bucket.store()?),
        ..Spec::default()
    })
    .await?;
    cluster.run(Daemon::Writer)?;
    let result = rounds(&args, seed, &cluster).await;
    if result.is_err() {
        eprintln!("kept for a look: {}", cluster.keep().display());
    }
    result
}

async fn rounds(args: &Args, seed: u64, cluster: &Cluster) -> Result<Report> {
    let rounds = if args.short { SHORT_ROUNDS } else { ROUNDS };
    let rounds = args.rounds.unwrap_or(rounds);
    let mut random = StdRng::seed_from_u64(seed);
    let mut pair = Pair::start(cluster).await?;
    let load = Load::start(cluster, CLIENTS, seed).await?;
    let pauses = Pauses::watch(load.counter())?;
    progress(&load, &pair).await?;
    let (mut reigning, mut even, mut all) = (0, Vec::new(), Vec::new());
    for round in 0..rounds {
        pauses.take();
        sleep(CALM.mul_f64(random.random_range(0.5..=1.0))).await;
        even.push(pauses.take());
        let next = 1 - reigning;
        let over = async {
            pair.signal(reigning, "-TERM").await?;
            let stopped = pair.ended(reigning).await?;
            ensure!(stopped.success(), "stopped with {stopped}");
            pair.becomes(next, Role::Reigns).await?;
            progress(&load, &pair).await
        };
        over.await
            .with_context(|| format!("round {round}, seed {seed}"))?;
        all.push(pauses.take());
        pair.run(reigning)?;
        pair.becomes(reigning, Role::Standby).await?;
        reigning = next;
    }
    let mut report = Report::new("hand-over");
    report.figure("seed", seed);
    report.figure("rounds", rounds);
    report.figure("answer_ms", args.answer_ms);
    report.figure("linger_ms", args.linger_ms);
    even.sort_by(f64::total_cmp);
    report.figure("pause_ms_without", even.get(even.len() / 2));
    tell_pauses(&mut report, &mut all);
    let longest = all.last().copied().unwrap_or(f64::NAN);
    let middle = all.get(all.len() / 2).copied().unwrap_or(f64::NAN);
    report.at_most("pause_ms_p50", middle, BAR_MS);
    let bar = if args.short { SHORT_BAR_MS } else { BAR_MS };
    report.at_most("pause_ms_max", longest, bar);
    report.figure("appended_again", load.appended_again());
    let (appends, errors) = load.finish().await;
    report.exactly("failed_appends", errors.len(), 0);
    let (findings, _) = check::judge(cluster, &appends, &[], &mut report).await?;
    let wasted = tail(cluster).await?.saturating_sub(findings.in_log);
    report.exactly("wasted_positions", wasted, 0);
    report.exactly("panics", pair.panics() + cluster.panics(Daemon::Writer), 0);
    Ok(report)
}

async fn tail(cluster: &Cluster) -> Result<u64> {
    let log = cluster.client().await?;
    Ok(log.tail(stripelog::Tail::Linearizable).await?.0)
}
