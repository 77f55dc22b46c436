//! Kills one of several stripe-writers, again and again, under load: the others take its stripes over, and those that
//! were not its own do not stop. The one that was killed comes back and gets its stripes back.

use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};
use stripelog::Log;
use tokio::time::{sleep, timeout};
use wire::Layout;

use super::check;
use super::failover::RECOVERY_TIMEOUT;
use crate::arguments::{Common, Rounds};
use crate::cluster::{Cluster, Daemon, Spec};
use crate::group::{Group, Owners};
use crate::measure::round as rounded;
use crate::report::Report;
use crate::steady::Steady;

/// Time without a kill that the others are held against, of the long and of the short form.
const CALM: Duration = Duration::from_secs(10);
const SHORT_CALM: Duration = Duration::from_secs(3);

/// Clients that append.
const CLIENTS: usize = 4;

/// Stripes and unit: small enough that the load goes over all stripes many times a second.
const STRIPES: u32 = 12;
const UNIT: u32 = 16;

/// Longest pause of the stripes whose owner was killed, and of all others, in milliseconds.
const BAR_MS: f64 = 3000.0;
const OTHERS_BAR_MS: f64 = 1000.0;

/// How the rounds are run.
#[derive(Debug, Clone, clap::Args)]
pub(crate) struct Args {
    #[command(flatten)]
    rounds: Rounds<20, 2>,
    /// Stripe-writers
    #[arg(long, default_value_t = 3, value_parser = clap::value_parser!(u8).range(2..=12))]
    writers: u8,
    /// Time without an answer after which a stripe-writer is dead for the others, in milliseconds [default: as
    /// writer.takeover_ms]
    #[arg(long)]
    takeover_ms: Option<u32>,
    /// Longest time from the start of a round to the kill, in milliseconds
    #[arg(long, default_value_t = 500)]
    calm_ms: u64,
    #[command(flatten)]
    common: Common,
}

/// Runs the rounds and reports.
///
/// # Errors
/// If the daemons cannot be run, or nobody takes over.
pub(crate) async fn run(args: Args) -> Result<Report> {
    let seed = args.common.seed.draw();
    let takeover = args
        .takeover_ms
        .map(|ms| format!("writer.takeover_ms={ms}"));
    let mut cluster = Cluster::create(Spec {
        store: args.common.store.clone(),
        stripes: Some(STRIPES),
        unit: Some(UNIT),
        settings: takeover.into_iter().collect(),
        writers: usize::from(args.writers),
        ..Spec::default()
    })
    .await?;
    cluster.run(Daemon::Sequencer)?;
    let outcome = rounds(&args, seed, &cluster).await;
    cluster.judged(outcome)
}

/// Longest pauses of each round, in milliseconds.
#[derive(Debug, Default)]
struct Pauses {
    killed: Vec<f64>,
    others: Vec<f64>,
}

async fn rounds(args: &Args, seed: u64, cluster: &Cluster) -> Result<Report> {
    let rounds = args.rounds.count();
    let mut random = StdRng::seed_from_u64(seed);
    let mut group = Group::start(cluster)?;
    let log = cluster.client().await?;
    group
        .become_owned(&log, |owners| group.is_home(owners))
        .await?;
    let layout = Layout::new(STRIPES, UNIT)?;
    let mut clients = Vec::new();
    for _ in 0..CLIENTS {
        clients.push(cluster.client().await?);
    }
    let load = Steady::start(clients, layout, seed);
    all_go_on(&load, &group).await?;
    load.take();
    sleep(args.rounds.of_form(CALM, SHORT_CALM)).await;
    let calm = largest(load.take());
    let (mut pauses, mut returned) = (Pauses::default(), None);
    for round in 0..rounds {
        let wait = random.random_range(0..=args.calm_ms);
        sleep(Duration::from_millis(wait)).await;
        let victim = one_round(&mut group, &load, &log, &mut random, &mut pauses)
            .await
            .with_context(|| format!("round {round}, seed {seed}"))?;
        group.run(victim)?;
        if returned.is_none() {
            returned = Some(returns(&group, &load, &log).await?);
        }
    }
    let mut report = Report::new("failover-writer");
    report.figure("seed", seed);
    report.figure("rounds", rounds);
    report.figure("store", cluster.store());
    report.figure("writers", group.len());
    let (back_seconds, back_ms) = returned.unwrap_or((f64::NAN, f64::NAN));
    tell(&mut report, calm, &mut pauses);
    report.figure("stripes_back_seconds", rounded(back_seconds));
    report.at_most("back_pause_ms_max", rounded(back_ms), OTHERS_BAR_MS);
    report.exactly("held_back", load.held_back(), 0);
    let owners = group.become_owned(&log, |_| true).await?;
    report.figure("owned", owners.iter().map(Vec::len).collect::<Vec<_>>());
    let finished = load.finish().await;
    finished.tell(&mut report);
    check::judge(cluster, &finished.appends, &[], &mut report).await?;
    let panics = group.panics() + cluster.panics(Daemon::Sequencer);
    report.exactly("panics", panics, 0);
    Ok(report)
}

fn tell(report: &mut Report, calm: f64, pauses: &mut Pauses) {
    report.figure("calm_pause_ms_max", rounded(calm));
    for (all, middle, most, bar) in [
        (&mut pauses.killed, "pause_ms_p50", "pause_ms_max", BAR_MS),
        (
            &mut pauses.others,
            "others_pause_ms_p50",
            "others_pause_ms_max",
            OTHERS_BAR_MS,
        ),
    ] {
        all.sort_by(f64::total_cmp);
        report.figure(middle, all.get(all.len() / 2).copied().map(rounded));
        report.at_most(most, all.last().copied().map_or(f64::NAN, rounded), bar);
    }
}

/// Kills one that owns something, and waits until all stripes go on. Gives which.
#[allow(clippy::disallowed_methods, reason = "measures real time")]
async fn one_round(
    group: &mut Group,
    load: &Steady,
    log: &Log,
    random: &mut StdRng,
    pauses: &mut Pauses,
) -> Result<usize> {
    all_go_on(load, group).await?;
    let owners = group.become_owned(log, |_| true).await?;
    let victim = draw(&owners, random);
    load.take();
    group.kill(victim).await?;
    let killed_at = Instant::now();
    let others = |owners: &Owners| owners.get(victim).is_some_and(Vec::is_empty);
    group.become_owned(log, others).await?;
    since(load, killed_at, group).await?;
    let (mut of_killed, mut of_others) = (Vec::new(), Vec::new());
    for (stripe, pause) in (0_u16..).zip(load.take()) {
        match owners[victim].contains(&stripe) {
            true => of_killed.push(pause),
            false => of_others.push(pause),
        }
    }
    pauses.killed.push(largest(of_killed));
    // Of two, one may have owned everything.
    pauses
        .others
        .extend((!of_others.is_empty()).then(|| largest(of_others)));
    Ok(victim)
}

/// One of the stripe-writers that own something.
pub(super) fn draw(owners: &Owners, random: &mut StdRng) -> usize {
    let some = |(which, owned): (usize, &Vec<u16>)| (!owned.is_empty()).then_some(which);
    let owning: Vec<_> = owners.iter().enumerate().filter_map(some).collect();
    owning[random.random_range(0..owning.len())]
}

/// Waits until all stripes are home again: in how many seconds, and with which longest pause of a stripe in
/// milliseconds.
#[allow(clippy::disallowed_methods, reason = "measures real time")]
async fn returns(group: &Group, load: &Steady, log: &Log) -> Result<(f64, f64)> {
    let began = Instant::now();
    load.take();
    group
        .become_owned(log, |owners| group.is_home(owners))
        .await?;
    let seconds = began.elapsed().as_secs_f64();
    all_go_on(load, group).await?;
    Ok((seconds, largest(load.take())))
}

/// Waits until every stripe has acknowledged something after this call.
#[allow(clippy::disallowed_methods, reason = "measures real time")]
pub(super) async fn all_go_on(load: &Steady, group: &Group) -> Result<()> {
    since(load, Instant::now(), group).await
}

/// Waits until every stripe has acknowledged something since.
pub(super) async fn since(load: &Steady, at: Instant, group: &Group) -> Result<()> {
    let on = async {
        while !load.all_since(at) {
            sleep(Duration::from_millis(5)).await;
        }
    };
    let recovered = timeout(RECOVERY_TIMEOUT, on).await;
    recovered.with_context(|| format!("stripes do not go on\n{}", group.last_lines()))
}

pub(super) fn largest(all: Vec<f64>) -> f64 {
    all.into_iter().fold(0.0, f64::max)
}
