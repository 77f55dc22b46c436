//! Kills the daemons, again and again, under load.

use std::time::Duration;

use anyhow::{Context, Result, ensure};
use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};
use stripelog::{Content, Log, Position};
use tokio::sync::oneshot;
use tokio::task::JoinHandle;
use tokio::time::{sleep, timeout};

use super::check;
use super::failover::{HOLE_TIMEOUT, RECOVERY_TIMEOUT, Witness};
use crate::arguments::Common;
use crate::cluster::{Cluster, Daemon, Spec};
use crate::load::Load;
use crate::logic::history::Found;
use crate::report::Report;

/// Longest time for a follower to come to the end after the load has stopped.
const FOLLOWER_TIMEOUT: Duration = Duration::from_secs(120);

/// Number of the target that stops both in good order; the ones below it kill the sequencer, the
/// stripe-writer, or both.
const STOP: usize = 3;

/// How the rounds are run.
#[derive(Debug, Clone, clap::Args)]
pub(crate) struct Args {
    /// Rounds: in each one daemon, or both, are killed and started again
    #[arg(long, default_value_t = 50)]
    rounds: u32,
    /// Clients that append meanwhile
    #[arg(long, default_value_t = 4)]
    clients: usize,
    #[command(flatten)]
    common: Common,
    /// Longest time from the start of a round to the kill, in milliseconds
    #[arg(long, default_value_t = 500)]
    calm_ms: u64,
}

/// Runs the rounds and reports.
///
/// # Errors
/// If the daemons cannot be run, or do not recover.
pub(crate) async fn run(args: Args) -> Result<Report> {
    let seed = args.common.seed.draw();
    let mut cluster = Cluster::start(Spec {
        store: args.common.store.clone(),
        settings: vec![HOLE_TIMEOUT.to_owned()],
        ..Spec::default()
    })
    .await?;
    let outcome = rounds(&args, seed, &mut cluster).await;
    cluster.judged(outcome)
}

async fn rounds(args: &Args, seed: u64, cluster: &mut Cluster) -> Result<Report> {
    let mut random = StdRng::seed_from_u64(seed);
    let log = cluster.client().await?;
    let load = Load::start(cluster, args.clients, seed).await?;
    let witness = Witness::start(cluster, &log, seed).await?;
    let follower = Follower::start(&log);
    progress(&load, cluster).await?;
    let mut kills = [0_u32; STOP + 1];
    for round in 0..args.rounds {
        // A stop in good order now and then, besides the kills: what it writes has to be right as well.
        if random.random_ratio(1, 5) {
            one_round(cluster, STOP, &mut random)
                .await
                .with_context(|| format!("stop before round {round}"))?;
            kills[STOP] += 1;
            progress(&load, cluster)
                .await
                .with_context(|| format!("stop before round {round}, seed {seed}"))?;
        }
        let target = random.random_range(0..STOP);
        sleep(Duration::from_millis(random.random_range(0..=args.calm_ms))).await;
        one_round(cluster, target, &mut random)
            .await
            .with_context(|| format!("round {round}"))?;
        kills[target] += 1;
        progress(&load, cluster)
            .await
            .with_context(|| format!("round {round}, seed {seed}"))?;
    }
    let mut report = Report::new("kill-9");
    report.figure("seed", seed);
    report.figure("rounds", args.rounds);
    report.figure("store", cluster.store());
    report.figure("killed_sequencer", kills[0]);
    report.figure("killed_writer", kills[1]);
    report.figure("killed_both", kills[2]);
    report.figure("stopped_both", kills[STOP]);
    report.figure("appended_again", load.appended_again());
    let tokens = witness.finish().await?;
    let (appends, errors) = load.finish().await;
    report.figure("failed_appends", errors.len());
    for error in errors.iter().take(3) {
        eprintln!("append failed: {error}");
    }
    let (_, scan) = check::judge(cluster, &appends, &tokens, &mut report).await?;
    let followed = follower
        .finish(scan.last().map(|(position, _)| *position))
        .await?;
    report.exactly("follower_saw_the_same", followed == scan, true);
    let panics = cluster.panics(Daemon::Sequencer) + cluster.panics(Daemon::Writer);
    report.exactly("panics", panics, 0);
    Ok(report)
}

async fn one_round(cluster: &mut Cluster, target: usize, random: &mut StdRng) -> Result<()> {
    let mut targets: Vec<_> = match target {
        0 => vec![Daemon::Sequencer],
        1 => vec![Daemon::Writer],
        _ => vec![Daemon::Sequencer, Daemon::Writer],
    };
    if random.random() {
        targets.reverse();
    }
    for daemon in &targets {
        match target {
            STOP => cluster.stop(*daemon).await?,
            _ => cluster.kill(*daemon).await?,
        }
    }
    sleep(Duration::from_millis(random.random_range(0..300))).await;
    if random.random() {
        targets.reverse();
    }
    for daemon in targets {
        cluster.run(daemon)?;
    }
    Ok(())
}

/// Waits until records are acknowledged that were appended after this call began, most likely.
pub(super) async fn progress(load: &Load, cluster: &mut Cluster) -> Result<()> {
    let before = load.acknowledged();
    let on = async {
        while load.acknowledged() < before + 200 {
            sleep(Duration::from_millis(10)).await;
        }
    };
    let recovered = timeout(RECOVERY_TIMEOUT, on).await.is_ok();
    for daemon in [Daemon::Sequencer, Daemon::Writer] {
        ensure!(
            recovered && cluster.runs(daemon)?,
            "appends do not go on: acknowledged={before} now={}\n{}{}",
            load.acknowledged(),
            cluster.last_lines(Daemon::Sequencer),
            cluster.last_lines(Daemon::Writer),
        );
    }
    Ok(())
}

/// Follows the log from its start through all rounds.
pub(super) struct Follower {
    until: oneshot::Sender<Option<Position>>,
    task: JoinHandle<Result<Vec<Found>>>,
}

impl Follower {
    pub(super) fn start(log: &Log) -> Self {
        let (until, mut told) = oneshot::channel();
        let mut scan = log.follow(Position(0));
        let task = tokio::spawn(async move {
            let mut found = Vec::<Found>::new();
            let mut last: Option<Option<Position>> = None;
            loop {
                let mut next = std::pin::pin!(scan.next());
                let item = loop {
                    let seen = found.last().map(|(position, _)| *position);
                    if last.is_some_and(|last| seen >= last) {
                        return Ok(found);
                    }
                    tokio::select! {
                        until = &mut told, if last.is_none() => last = Some(until?),
                        item = &mut next => break item?,
                    }
                };
                let Some(item) = item else {
                    return Ok(found);
                };
                if let Content::Record(record) = item.content {
                    found.push((item.position, record));
                }
            }
        });
        Self { until, task }
    }

    pub(super) async fn finish(self, last: Option<Position>) -> Result<Vec<Found>> {
        let _ = self.until.send(last);
        let followed = timeout(FOLLOWER_TIMEOUT, self.task).await;
        followed.context("the follower does not come to the end")??
    }
}
