//! Kills the sequencer that reigns and one of several stripe-writers at the same moment, under load; and once more
//! while the store refuses everything: the log waits, within its memory, and goes on when the store does.

use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};
use stripelog::Log;
use tokio::time::{sleep, timeout};
use wire::Layout;

use super::check;
use super::cost::client;
use super::failover::{HOLE_TIMEOUT, RECOVERY_TIMEOUT, Witness, tell_pauses};
use super::failover_writer::{all_go_on, draw, since};
use crate::arguments::{Rounds, Seed};
use crate::cluster::{Cluster, Spec};
use crate::group::Group;
use crate::measure::round as rounded;
use crate::net::bucket::Bucket;
use crate::pair::{Pair, Role};
use crate::pause::Pauses;
use crate::report::Report;
use crate::steady::Steady;

/// Seconds for which the store refuses everything, of the long and of the short form.
const OUTAGE_SECONDS: f64 = 30.0;
const SHORT_OUTAGE_SECONDS: f64 = 8.0;

/// Longest pause after a kill of both, in milliseconds: each finds out within a second, side by side, and then the
/// stripes of the dead have to be sealed.
const BAR_MS: f64 = 4000.0;

/// Longest time from the end of the outage until every stripe goes on, in milliseconds.
const RESUMED_BAR_MS: f64 = 15_000.0;

/// Clients that append at a steady rate, and those that press while the store refuses everything.
const CLIENTS: usize = 4;
const PRESSING: usize = 4;

/// What one that presses has under way: together more than the memory of all stripe-writers.
const IN_FLIGHT_BYTES: usize = 64 << 20;

/// Bound on the memory of a stripe-writer, and what it takes beside that for its program, buffers and threads.
const MEMORY_MIB: u64 = 64;
const MEMORY_BESIDE_MIB: f64 = 64.0;

/// So much longer than the outage an append waits without a sign of progress.
const PATIENCE: Duration = Duration::from_secs(60);

const STRIPES: u32 = 12;
const UNIT: u32 = 16;
const WRITERS: usize = 3;

/// How it is run.
#[derive(Debug, Clone, clap::Args)]
pub(crate) struct Args {
    #[command(flatten)]
    rounds: Rounds<10, 1>,
    /// Seconds for which the store refuses everything [default: 30, with --short 8]
    #[arg(long)]
    outage_seconds: Option<f64>,
    /// Longest time from the start of a round to the kill, in milliseconds
    #[arg(long, default_value_t = 500)]
    calm_ms: u64,
    #[command(flatten)]
    seed: Seed,
}

/// Runs the rounds and reports.
///
/// # Errors
/// If the daemons cannot be run, or nobody takes over.
pub(crate) async fn run(args: Args) -> Result<Report> {
    let seed = args.seed.draw();
    let bucket = Bucket::start().await?;
    let mut cluster = Cluster::create(Spec {
        store: Some(bucket.url()),
        stripes: Some(STRIPES),
        unit: Some(UNIT),
        settings: vec![
            HOLE_TIMEOUT.to_owned(),
            format!("writer.memory_mib={MEMORY_MIB}"),
        ],
        pair: true,
        writers: WRITERS,
        environment: bucket.environment(),
        ..Spec::default()
    })
    .await?;
    let outcome = scene(&args, seed, &cluster, &bucket).await;
    cluster.judged(outcome)
}

/// All that runs.
struct Scene<'a> {
    cluster: &'a Cluster,
    bucket: &'a Bucket,
    patience: Duration,
    pair: Pair,
    reigning: usize,
    group: Group,
    log: Log,
    load: Steady,
    random: StdRng,
}

async fn scene(args: &Args, seed: u64, cluster: &Cluster, bucket: &Bucket) -> Result<Report> {
    let rounds = args.rounds.count();
    let outage = args.rounds.of_form(OUTAGE_SECONDS, SHORT_OUTAGE_SECONDS);
    let outage = Duration::from_secs_f64(args.outage_seconds.unwrap_or(outage));
    let patience = outage + PATIENCE;
    // The stripe-writers first: they wait for nobody.
    let group = Group::start(cluster)?;
    let pair = Pair::start(cluster).await?;
    let options = cluster.options().append_timeout(patience);
    let log = client(bucket, options.clone()).await?;
    group
        .become_owned(&log, |owners| group.is_home(owners))
        .await?;
    let mut clients = Vec::new();
    for _ in 0..CLIENTS {
        clients.push(client(bucket, options.clone()).await?);
    }
    let load = Steady::start(clients, Layout::new(STRIPES, UNIT)?, seed);
    let witness = Witness::start(cluster, &log, seed).await?;
    let (random, reigning) = (StdRng::seed_from_u64(seed), 0);
    let mut scene = Scene {
        cluster,
        bucket,
        patience,
        pair,
        reigning,
        group,
        log,
        load,
        random,
    };
    let pauses = Pauses::watch(scene.load.counter())?;
    let (mut all, mut whole) = (Vec::new(), 0.0_f64);
    for round in 0..rounds {
        let wait = scene.random.random_range(0..=args.calm_ms);
        sleep(Duration::from_millis(wait)).await;
        let paused = scene.kill_both(&pauses).await;
        let (pause, every) = paused.with_context(|| format!("round {round}, seed {seed}"))?;
        all.push(pause);
        whole = whole.max(every);
    }
    let mut report = Report::new("failover-both");
    report.figure("seed", seed);
    report.figure("rounds", rounds);
    report.figure("writers", WRITERS);
    tell_pauses(&mut report, &mut all);
    report.at_most(
        "pause_ms_max",
        all.last().copied().unwrap_or(f64::NAN),
        BAR_MS,
    );
    report.at_most("every_stripe_ms_max", rounded(whole), BAR_MS);
    scene
        .outage(outage, &mut report)
        .await
        .with_context(|| format!("outage, seed {seed}"))?;
    scene.finish(witness, &mut report).await?;
    Ok(report)
}

impl Scene<'_> {
    /// Kills the sequencer that reigns and a stripe-writer that owns something.
    async fn kill(&mut self, victim: usize) -> Result<()> {
        let (sequencer, writer) =
            tokio::join!(self.pair.kill(self.reigning), self.group.kill(victim),);
        sequencer.and(writer)
    }

    /// Waits until the standby reigns and every stripe is owned by another than the victim, and starts both again.
    async fn recover(&mut self, victim: usize) -> Result<()> {
        let next = 1 - self.reigning;
        self.pair.becomes(next, Role::Reigns).await?;
        let left = |owners: &Vec<Vec<u16>>| owners.get(victim).is_some_and(Vec::is_empty);
        self.group.become_owned(&self.log, left).await?;
        self.group.run(victim)?;
        self.pair.run(self.reigning)?;
        self.pair.becomes(self.reigning, Role::Standby).await?;
        self.reigning = next;
        Ok(())
    }

    /// A round: for how many milliseconds nothing is acknowledged, and how many after the kill every stripe has
    /// acknowledged something.
    #[allow(clippy::disallowed_methods, reason = "measures real time")]
    async fn kill_both(&mut self, pauses: &Pauses) -> Result<(f64, f64)> {
        all_go_on(&self.load, &self.group).await?;
        let owners = self.group.become_owned(&self.log, |_| true).await?;
        let victim = draw(&owners, &mut self.random);
        pauses.take();
        let killed_at = Instant::now();
        self.kill(victim).await?;
        // What was on its way to the client comes in yet.
        sleep(Duration::from_millis(100)).await;
        let counter = self.load.counter();
        let before = counter();
        let on = async {
            while counter() == before {
                sleep(Duration::from_millis(1)).await;
            }
        };
        let recovered = timeout(RECOVERY_TIMEOUT, on).await;
        recovered.with_context(|| {
            let (pair, group) = (self.pair.last_lines(), self.group.last_lines());
            format!("appends do not go on\n{pair}{group}")
        })?;
        let on = since(&self.load, Instant::now(), &self.group);
        on.await?;
        let (pause, every) = (pauses.take(), killed_at.elapsed());
        self.recover(victim).await?;
        Ok((pause, every.as_secs_f64() * 1000.0))
    }

    /// The store refuses everything for a while, in which both are killed.
    #[allow(clippy::disallowed_methods, reason = "measures real time")]
    async fn outage(&mut self, time: Duration, report: &mut Report) -> Result<()> {
        all_go_on(&self.load, &self.group).await?;
        let owners = self.group.become_owned(&self.log, |_| true).await?;
        let victim = draw(&owners, &mut self.random);
        let options = self.cluster.options().append_timeout(self.patience);
        let options = options.max_in_flight_bytes(IN_FLIGHT_BYTES);
        let mut pressing = Vec::new();
        for _ in 0..PRESSING {
            pressing.push(client(self.bucket, options.clone()).await?);
        }
        let (counter, refused) = (self.load.counter(), self.bucket.refused());
        self.bucket.refuse(true);
        let before = counter();
        self.load.press(pressing, IN_FLIGHT_BYTES);
        sleep(time / 2).await;
        let peak = self.group.peak_memory()?;
        self.kill(victim).await?;
        sleep(time / 2).await;
        let meanwhile = counter() - before;
        let peak = peak.max(self.group.peak_memory()?);
        self.bucket.refuse(false);
        let ended = Instant::now();
        self.load.relieve();
        since(&self.load, ended, &self.group).await?;
        let resumed = ended.elapsed().as_secs_f64() * 1000.0;
        self.recover(victim).await?;
        let peak = peak.max(self.group.peak_memory()?);
        let refused = self.bucket.refused() - refused;
        report.figure("outage_seconds", time.as_secs_f64());
        report.figure("append_timeout_seconds", self.patience.as_secs_f64());
        report.at_least("requests_refused", refused as f64, 1.0);
        report.figure("acknowledged_meanwhile", meanwhile);
        report.at_most("resumed_ms", rounded(resumed), RESUMED_BAR_MS);
        let mib = |bytes: u64| rounded(bytes as f64 / f64::from(1 << 20));
        let bound = MEMORY_MIB as f64;
        report.at_least("writer_peak_least_mib", mib(peak), bound * FULL_SHARE);
        report.at_most("writer_peak_mib", mib(peak), bound + MEMORY_BESIDE_MIB);
        Ok(())
    }

    async fn finish(self, witness: Witness, report: &mut Report) -> Result<()> {
        all_go_on(&self.load, &self.group).await?;
        let owners = self.group.become_owned(&self.log, |_| true).await?;
        report.figure("owned", owners.iter().map(Vec::len).collect::<Vec<_>>());
        let tokens = witness.finish().await?;
        let finished = self.load.finish().await;
        finished.tell(report);
        check::judge_by(&self.log, self.cluster, &finished.appends, &tokens, report).await?;
        report.exactly("panics", self.pair.panics() + self.group.panics(), 0);
        Ok(())
    }
}

/// Share of the bound that has to be in use in the outage: otherwise nothing is shown.
const FULL_SHARE: f64 = 0.8;
