//! Kills the sequencer that reigns, again and again, under load: its standby takes over, and the one that was
//! killed becomes the standby.

use std::time::Duration;

use anyhow::{Context, Result};
use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};
use stripelog::Log;
use tokio::sync::oneshot;
use tokio::task::JoinHandle;
use tokio::time::{sleep, timeout};

use super::check;
use crate::arguments::{Common, Rounds};
use crate::cluster::{Cluster, Daemon, Spec};
use crate::load::Load;
use crate::logic::history::{Append, Token};
use crate::net::probe::Probe;
use crate::pair::{Pair, Role};
use crate::pause::Pauses;
use crate::report::Report;

/// Clients that append.
const CLIENTS: usize = 4;

/// Time that a takeover may take besides its detection, in milliseconds.
const BAR_MS: f64 = 1000.0;

/// Longest time until appends go on after a round.
pub(super) const RECOVERY_TIMEOUT: Duration = Duration::from_secs(60);

/// Records that are acknowledged before a round counts as over.
const PROGRESS: u64 = 200;

/// Age at which a hole becomes junk. Short, as the witness makes holes all the time.
pub(super) const HOLE_TIMEOUT: &str = "writer.hole_timeout_ms=200";

/// Longest pause between two tokens of the witness, and its wait for one, in milliseconds.
const WITNESS_PAUSE_MS: u64 = 1000;
const WITNESS_TIMEOUT: Duration = Duration::from_millis(50);

/// How the rounds are run.
#[derive(Debug, Clone, clap::Args)]
pub(crate) struct Args {
    #[command(flatten)]
    rounds: Rounds<100, 3>,
    /// Time without a sign after which the standby takes over, in milliseconds
    #[arg(long, default_value_t = 1000)]
    detect_ms: u32,
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
    let detect = format!("sequencer.detect_ms={}", args.detect_ms);
    let mut cluster = start(args.common.store.clone(), vec![detect]).await?;
    let outcome = rounds(&args, seed, &cluster).await;
    cluster.judged(outcome)
}

/// A cluster with a stripe-writer that runs, for a pair of sequencers.
pub(super) async fn start(store: Option<String>, more: Vec<String>) -> Result<Cluster> {
    let mut settings = more;
    settings.push(HOLE_TIMEOUT.to_owned());
    let mut cluster = Cluster::create(Spec {
        store,
        settings,
        pair: true,
        ..Spec::default()
    })
    .await?;
    cluster.run(Daemon::Writer)?;
    Ok(cluster)
}

async fn rounds(args: &Args, seed: u64, cluster: &Cluster) -> Result<Report> {
    let rounds = args.rounds.count();
    let mut random = StdRng::seed_from_u64(seed);
    let mut pair = Pair::start(cluster).await?;
    let load = Load::start(cluster, CLIENTS, seed).await?;
    let log = cluster.client().await?;
    let witness = Witness::start(cluster, &log, seed).await?;
    let pauses = Pauses::watch(load.counter())?;
    progress(&load, &pair).await?;
    let (mut reigning, mut all) = (0, Vec::new());
    for round in 0..rounds {
        sleep(Duration::from_millis(random.random_range(0..=args.calm_ms))).await;
        pauses.take();
        pair.kill(reigning).await?;
        let next = 1 - reigning;
        let over = async {
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
    let mut report = Report::new("failover");
    report.figure("seed", seed);
    report.figure("rounds", rounds);
    report.figure("store", cluster.store());
    report.figure("detect_ms", args.detect_ms);
    tell_pauses(&mut report, &mut all);
    let longest = all.last().copied().unwrap_or(f64::NAN);
    report.at_most("pause_ms_max", longest, BAR_MS + f64::from(args.detect_ms));
    finish(cluster, (load, Vec::new()), witness, &mut report).await?;
    report.exactly("panics", pair.panics() + cluster.panics(Daemon::Writer), 0);
    Ok(report)
}

/// Sorts the pauses and tells the least and the middle one.
pub(super) fn tell_pauses(report: &mut Report, all: &mut [f64]) {
    all.sort_by(f64::total_cmp);
    report.figure("pause_ms_min", all.first());
    report.figure("pause_ms_p50", all.get(all.len() / 2));
}

/// Ends the load and holds the log against its history, and that of another load that has ended.
pub(super) async fn finish(
    cluster: &Cluster,
    (load, more): (Load, Vec<Append>),
    witness: Witness,
    report: &mut Report,
) -> Result<()> {
    report.figure("appended_again", load.appended_again());
    let tokens = witness.finish().await?;
    let (mut appends, errors) = load.finish().await;
    appends.extend(more);
    report.exactly("failed_appends", errors.len(), 0);
    for error in errors.iter().take(3) {
        eprintln!("append failed: {error}");
    }
    check::judge(cluster, &appends, &tokens, report).await?;
    Ok(())
}

/// Waits until records are acknowledged that were appended after this call began, most likely.
pub(super) async fn progress(load: &Load, pair: &Pair) -> Result<()> {
    let before = load.acknowledged();
    let on = async {
        while load.acknowledged() < before + PROGRESS {
            sleep(Duration::from_millis(5)).await;
        }
    };
    let recovered = timeout(RECOVERY_TIMEOUT, on).await;
    recovered.with_context(|| format!("appends do not go on\n{}", pair.last_lines()))
}

/// Takes tokens that are never used, of whichever sequencer gives them, all the time.
pub(super) struct Witness {
    stop: oneshot::Sender<()>,
    task: JoinHandle<Result<Vec<Token>>>,
}

impl Witness {
    pub(super) async fn start(cluster: &Cluster, log: &Log, seed: u64) -> Result<Self> {
        let mut random = StdRng::seed_from_u64(seed ^ 1);
        let mut probes = Vec::new();
        for (client, address) in (7..).zip(cluster.sequencers()) {
            probes.push(Probe::new(address, log.id(), client).await?);
        }
        let (stop, mut stopped) = oneshot::channel();
        let task = tokio::spawn(async move {
            let mut tokens = Vec::new();
            while stopped.try_recv().is_err() {
                for probe in &mut probes {
                    tokens.extend(probe.grant(3, WITNESS_TIMEOUT).await?);
                }
                let pause = random.random_range(0..WITNESS_PAUSE_MS);
                sleep(Duration::from_millis(pause)).await;
            }
            Ok(tokens)
        });
        Ok(Self { stop, task })
    }

    pub(super) async fn finish(self) -> Result<Vec<Token>> {
        let _ = self.stop.send(());
        self.task.await?
    }
}
