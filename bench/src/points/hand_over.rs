//! Stops the sequencer that reigns in good order, again and again, under load: its standby goes on at the exact tail.

use std::time::Duration;

use anyhow::{Context, Result};
use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};
use tokio::time::sleep;

use super::check;
use super::failover::{progress, tell_pauses};
use crate::arguments::Stops;
use crate::cluster::{Cluster, Daemon, Spec};
use crate::load::Load;
use crate::net::bucket::{Bucket, Pace};
use crate::pair::{Pair, Role};
use crate::pause::Pauses;
use crate::report::Report;

/// Clients that append.
const CLIENTS: usize = 4;

/// Longest time without an acknowledgement, in milliseconds.
const BAR_MS: f64 = 200.0;

/// The same of the short form, which runs on hosts that do other work: there the middle of the rounds is held against
/// the bar above.
const SHORT_BAR_MS: f64 = 500.0;

/// Nothing is filled that a client is late with: a client that stands still leaves no waste either.
const HOLE_TIMEOUT: &str = "writer.hole_timeout_ms=60000";

/// Longest time from the start of a round to the stop, and what a round without one is measured for.
const CALM: Duration = Duration::from_millis(500);

/// How the rounds are run.
pub(crate) type Args = Stops<30, 5>;

/// Runs the rounds and reports.
///
/// # Errors
/// If the daemons cannot be run, or nobody takes over.
pub(crate) async fn run(args: Args) -> Result<Report> {
    let seed = args.seed.draw();
    let (bucket, mut cluster) = args
        .cluster(Spec {
            settings: vec![HOLE_TIMEOUT.to_owned()],
            pair: true,
            ..Spec::default()
        })
        .await?;
    cluster.run(Daemon::Writer)?;
    let outcome = rounds(&args, seed, (&bucket, &cluster)).await;
    cluster.judged(outcome)
}

async fn rounds(args: &Args, seed: u64, (bucket, cluster): (&Bucket, &Cluster)) -> Result<Report> {
    let mut random = StdRng::seed_from_u64(seed);
    let mut pair = Pair::start(cluster).await?;
    let load = Load::start(cluster, CLIENTS, seed).await?;
    let pauses = Pauses::watch(load.counter())?;
    progress(&load, &pair).await?;
    let (mut reigning, mut even, mut all) = (0, Vec::new(), Vec::new());
    for round in 0..args.rounds.count() {
        pauses.take();
        sleep(CALM.mul_f64(random.random_range(0.5..=1.0))).await;
        even.push(pauses.take());
        let next = 1 - reigning;
        let over = async {
            pair.stop(reigning).await?;
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
    let mut report = args.report("hand-over", seed);
    even.sort_by(f64::total_cmp);
    report.figure("pause_ms_without", even.get(even.len() / 2));
    tell_pauses(&mut report, &mut all);
    let longest = all.last().copied().unwrap_or(f64::NAN);
    let middle = all.get(all.len() / 2).copied().unwrap_or(f64::NAN);
    report.at_most("pause_ms_p50", middle, BAR_MS);
    let bar = args.rounds.of_form(BAR_MS, SHORT_BAR_MS);
    report.at_most("pause_ms_max", longest, bar);
    report.figure("appended_again", load.appended_again());
    let (appends, errors) = load.finish().await;
    report.exactly("failed_appends", errors.len(), 0);
    // What was appended is read back as fast as can be.
    bucket.pace(Pace::default());
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
