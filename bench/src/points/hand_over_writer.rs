//! Stops one of several stripe-writers in good order, again and again, under load: the others go on with its stripes.
//! The one that was stopped comes back and gets its stripes back.

use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use rand::SeedableRng;
use rand::rngs::StdRng;
use tokio::time::sleep;
use wire::Layout;

use super::check;
use super::failover_writer::{all_go_on, draw, largest, since};
use crate::arguments::Stops;
use crate::cluster::{Cluster, Daemon, Spec};
use crate::group::Group;
use crate::measure::{median, round as rounded};
use crate::net::bucket::{Bucket, Pace};
use crate::report::Report;
use crate::steady::Steady;

/// Stripe-writers, and clients that append.
const WRITERS: usize = 3;
const CLIENTS: usize = 4;

/// Stripes and unit: small enough that the load goes over all stripes many times a second.
const STRIPES: u32 = 12;
const UNIT: u32 = 4;

/// Longest pause of a stripe whose owner was stopped, and of any other, in milliseconds.
const BAR_MS: f64 = 200.0;

/// Longest pause when a stripe comes home, one at a time from each holder, in milliseconds.
const BACK_BAR_MS: f64 = 500.0;

/// The longest of either in the short form, which runs on hosts that do other work: there the middle of the rounds is held
/// against the bars above.
const SHORT_BAR_MS: f64 = 1000.0;

/// Time without a stop that the pauses are held against.
const CALM: Duration = Duration::from_secs(2);

/// How the rounds are run.
pub(crate) type Args = Stops<8, 5>;

/// Runs the rounds and reports.
///
/// # Errors
/// If the daemons cannot be run, or nobody takes the stripes.
pub(crate) async fn run(args: Args) -> Result<Report> {
    let seed = args.seed.draw();
    let (bucket, mut cluster) = args
        .cluster(Spec {
            stripes: Some(STRIPES),
            unit: Some(UNIT),
            writers: WRITERS,
            ..Spec::default()
        })
        .await?;
    cluster.run(Daemon::Sequencer)?;
    let outcome = rounds(&args, seed, (&bucket, &cluster)).await;
    cluster.judged(outcome)
}

async fn rounds(args: &Args, seed: u64, (bucket, cluster): (&Bucket, &Cluster)) -> Result<Report> {
    let mut random = StdRng::seed_from_u64(seed);
    let mut group = Group::start(cluster)?;
    let log = cluster.client().await?;
    let home = group.become_owned(&log, |owners| group.is_home(owners));
    home.await?;
    let mut clients = Vec::new();
    for _ in 0..CLIENTS {
        clients.push(cluster.client().await?);
    }
    let load = Steady::start(clients, Layout::new(STRIPES, UNIT)?, seed);
    all_go_on(&load, &group).await?;
    load.take();
    sleep(CALM).await;
    let calm = largest(load.take());
    let (mut stops, mut returns) = (Vec::new(), Vec::new());
    for round in 0..args.rounds.count() {
        let both = one_round(&mut group, &load, &log, &mut random).await;
        let (stop, back) = both.with_context(|| format!("round {round}, seed {seed}"))?;
        eprintln!(
            "round {round}: {stop:.0} ms without it, {back:.0} ms while its stripes come home"
        );
        stops.push(stop);
        returns.push(back);
    }
    let mut report = args.report("hand-over-writer", seed);
    report.figure("calm_pause_ms_max", rounded(calm));
    for (name, pauses, bar) in [
        ("pause_ms", stops, BAR_MS),
        ("back_pause_ms", returns, BACK_BAR_MS),
    ] {
        let middle = median(pauses.clone());
        report.at_most(&format!("{name}_p50"), rounded(middle), bar);
        let bar = args.rounds.of_form(bar, SHORT_BAR_MS);
        report.at_most(&format!("{name}_max"), rounded(largest(pauses)), bar);
    }
    report.exactly("held_back", load.held_back(), 0);
    let finished = load.finish().await;
    finished.tell(&mut report);
    // What was appended is read back as fast as can be.
    bucket.pace(Pace::default());
    check::judge(cluster, &finished.appends, &[], &mut report).await?;
    let panics = group.panics() + cluster.panics(Daemon::Sequencer);
    report.exactly("panics", panics, 0);
    Ok(report)
}

/// Stops one, and starts it again when its stripes go on: the longest pauses of a stripe by that, and while they go
/// home, in milliseconds.
#[allow(clippy::disallowed_methods, reason = "measures real time")]
async fn one_round(
    group: &mut Group,
    load: &Steady,
    log: &stripelog::Log,
    random: &mut StdRng,
) -> Result<(f64, f64)> {
    let owners = group.become_owned(log, |_| true).await?;
    let which = draw(&owners, random);
    load.take();
    let stopped_at = Instant::now();
    group.stop(which).await?;
    let without = group.become_owned(log, |owners| owners[which].is_empty());
    without.await?;
    since(load, stopped_at, group).await?;
    all_go_on(load, group).await?;
    let stop = largest(load.take());
    group.run(which)?;
    let home = group.become_owned(log, |owners| group.is_home(owners));
    home.await?;
    all_go_on(load, group).await?;
    Ok((stop, largest(load.take())))
}
