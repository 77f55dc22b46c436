//! A log whose processes find each other through etcd alone, under load, while etcd loses a node, stands still and is
//! restored from an old backup; meanwhile a sequencer and a stripe-writer die.

use std::time::Duration;

use anyhow::{Context, Result};
use tokio::time::{sleep, timeout};

use super::failover::{HOLE_TIMEOUT, Witness, finish, progress};
use crate::arguments::Common;
use crate::cluster::{Cluster, Daemon, ETCD_PREFIX, Spec, free_tcp_port, free_udp_port};
use crate::etcd::Etcd;
use crate::load::Load;
use crate::pair::{Pair, Role};
use crate::pause::Pauses;
use crate::report::{Report, slack};

/// Nodes of etcd, and clients that append.
const NODES: usize = 3;
const CLIENTS: usize = 4;

/// Time for which all nodes stand still, and for which the load is watched after other faults, in seconds.
const STOPPED_S: u64 = 10;
const WATCHED_S: u64 = 8;
const SHORT_WATCHED_S: u64 = 2;

/// Longest pause of the load by a fault of etcd, in milliseconds: none is its doing, and other programs run here.
const CALM_MS: f64 = 1000.0;

/// Longest pause when a sequencer dies: the time of detection, and as long again.
const TAKEOVER_MS: f64 = 2000.0;

/// Longest pause when a stripe-writer dies: until clients leave it, and its stripes have another owner.
const WRITER_MS: f64 = 8000.0;

/// Longest time until whoever is alive is registered, or found.
const FOUND: Duration = Duration::from_secs(20);

/// How it is run.
/// Time for everybody to register again once etcd answers, at most two seconds where nothing else is wrong.
const SETTLED: Duration = Duration::from_secs(4);

#[derive(Debug, Clone, clap::Args)]
pub(crate) struct Args {
    /// Less time between the faults
    #[arg(long)]
    short: bool,
    #[command(flatten)]
    common: Common,
}

/// Runs it and reports.
///
/// # Errors
/// If the daemons or etcd cannot be run, or the load does not go on.
pub(crate) async fn run(args: Args) -> Result<Report> {
    let seed = args.common.seed.draw();
    let etcd = Etcd::start(NODES).await?;
    let mut cluster = Cluster::create(Spec {
        store: args.common.store.clone(),
        settings: vec![HOLE_TIMEOUT.to_owned()],
        pair: true,
        etcd: etcd.endpoints(),
        ..Spec::default()
    })
    .await?;
    let mut second = cluster.rival()?;
    let outcome = faults(&args, seed, etcd, &mut cluster, &mut second).await;
    second.judged(cluster.judged(outcome))
}

async fn faults(
    args: &Args,
    seed: u64,
    etcd: Etcd,
    cluster: &mut Cluster,
    second: &mut Cluster,
) -> Result<Report> {
    let watched = if args.short {
        SHORT_WATCHED_S
    } else {
        WATCHED_S
    };
    cluster.run(Daemon::Writer)?;
    let pair = Pair::start(cluster).await?;
    let root = root(&etcd).await?;
    let ghosts = Ghosts::put(&etcd, &root).await?;
    let backup = etcd.backup().await?;
    ghosts.delete(&etcd).await?;
    second.run(Daemon::Writer)?;
    registered(&etcd, &root, &[second.writer().to_string()]).await?;
    let load = Load::start(cluster, CLIENTS, seed).await?;
    let witness = Witness::start(cluster, &cluster.client().await?, seed).await?;
    let pauses = Pauses::watch(load.counter())?;
    let mut stage = Stage {
        etcd,
        pair,
        load,
        pauses,
        watched: Duration::from_secs(watched),
        calm_ms: CALM_MS / slack(args.short),
        reigning: 0,
        report: Report::new("etcd"),
    };
    stage.report.figure("seed", seed);
    stage.report.figure("store", cluster.store());
    progress(&stage.load, &stage.pair).await?;
    stage.lose_a_node().await?;
    stage.stand_still(second).await?;
    let writers = [cluster.writer().to_string(), second.writer().to_string()];
    // Leases have run out meanwhile. A stripe-writer that starts while its peers are in no list takes their stripes.
    sleep(SETTLED).await;
    second.run(Daemon::Writer)?;
    registered(&stage.etcd, &root, &writers).await?;
    let late = stage.go_back(&backup, cluster, &root, &writers).await?;
    let Stage {
        pair,
        load,
        mut report,
        ..
    } = stage;
    let (more, errors) = late.finish().await;
    report.exactly("failed_late_appends", errors.len(), 0);
    finish(cluster, (load, more), witness, &mut report).await?;
    let panics = pair.panics() + cluster.panics(Daemon::Writer) + second.panics(Daemon::Writer);
    report.exactly("panics", panics, 0);
    Ok(report)
}

/// The log under load, and what is known of it.
struct Stage {
    etcd: Etcd,
    pair: Pair,
    load: Load,
    pauses: Pauses,
    watched: Duration,
    /// Longest pause by a fault of etcd alone.
    calm_ms: f64,
    reigning: usize,
    report: Report,
}

impl Stage {
    /// One node of three is killed, and comes back.
    async fn lose_a_node(&mut self) -> Result<()> {
        self.pauses.take();
        self.etcd.kill(0).await?;
        sleep(self.watched).await;
        progress(&self.load, &self.pair).await?;
        let pause = self.pauses.take();
        self.report
            .at_most("pause_ms_node_killed", pause, self.calm_ms);
        self.etcd.run(0)
    }

    /// All nodes stand still. A sequencer and a stripe-writer die meanwhile, and nobody can read that anywhere.
    async fn stand_still(&mut self, second: &mut Cluster) -> Result<()> {
        let stopped = Duration::from_secs(STOPPED_S);
        self.pauses.take();
        self.etcd.signal("-STOP").await?;
        sleep(stopped / 2).await;
        progress(&self.load, &self.pair).await?;
        let pause = self.pauses.take();
        self.report
            .at_most("pause_ms_all_stopped", pause, self.calm_ms);
        self.take_over("pause_ms_takeover_while_stopped").await?;
        second.kill(Daemon::Writer).await?;
        sleep(stopped / 2).await;
        progress(&self.load, &self.pair).await?;
        let pause = self.pauses.take();
        self.report
            .at_most("pause_ms_writer_while_stopped", pause, WRITER_MS);
        self.etcd.signal("-CONT").await?;
        self.pair.run(1 - self.reigning)?;
        self.pair.becomes(1 - self.reigning, Role::Standby).await
    }

    /// Etcd is restored from a backup with addresses of nobody and without some of those that are there.
    async fn go_back(
        &mut self,
        backup: &std::path::Path,
        cluster: &Cluster,
        root: &str,
        writers: &[String],
    ) -> Result<Load> {
        self.pauses.take();
        self.etcd.restore(backup).await?;
        // A client that knows nothing but the old list.
        let late = self.load.beside(cluster, 1, 1).await?;
        registered(&self.etcd, root, writers).await?;
        sleep(self.watched).await;
        progress(&self.load, &self.pair).await?;
        let pause = self.pauses.take();
        self.report
            .at_most("pause_ms_restored", pause, self.calm_ms);
        self.take_over("pause_ms_takeover_after_restore").await?;
        let late_acknowledged = late.acknowledged();
        self.report
            .exactly("late_client_appends", late_acknowledged > 0, true);
        Ok(late)
    }

    /// Kills the sequencer that reigns.
    async fn take_over(&mut self, name: &str) -> Result<()> {
        self.pauses.take();
        self.pair.kill(self.reigning).await?;
        self.reigning = 1 - self.reigning;
        self.pair.becomes(self.reigning, Role::Reigns).await?;
        progress(&self.load, &self.pair).await?;
        let pause = self.pauses.take();
        self.report.at_most(name, pause, TAKEOVER_MS);
        Ok(())
    }
}

/// What all keys of the log begin with. A sequencer that reigns is registered, or is about to be.
async fn root(etcd: &Etcd) -> Result<String> {
    let looking = async {
        loop {
            let keys = etcd
                .control(&["get", ETCD_PREFIX, "--prefix", "--keys-only"])
                .await?;
            let root = keys.lines().find_map(|key| key.split_once("sequencers/"));
            if let Some((root, _)) = root {
                return Ok(root.to_owned());
            }
            sleep(Duration::from_millis(50)).await;
        }
    };
    timeout(FOUND, looking)
        .await
        .context("no sequencer is registered")?
}

/// Waits until stripe-writers are registered.
async fn registered(etcd: &Etcd, root: &str, writers: &[String]) -> Result<()> {
    let looking = async {
        loop {
            // A cluster that was restored, or stood still, may have no leader for a while.
            let keys = etcd
                .control(&["get", root, "--prefix", "--keys-only"])
                .await;
            let keys = keys.unwrap_or_default();
            let is_there = |writer: &String| keys.contains(&format!("{root}writers/{writer}"));
            if writers.iter().all(is_there) {
                return;
            }
            sleep(Duration::from_millis(50)).await;
        }
    };
    let found = timeout(FOUND, looking).await;
    found.with_context(|| format!("not all of {writers:?} are registered"))
}

/// Addresses at which nobody is.
struct Ghosts(Vec<String>);

impl Ghosts {
    async fn put(etcd: &Etcd, root: &str) -> Result<Self> {
        let sequencer = format!("{root}sequencers/{}", free_udp_port()?);
        let writer = format!("{root}writers/{}", free_tcp_port()?);
        etcd.control(&["put", &sequencer, "{}"]).await?;
        etcd.control(&["put", &writer, "{}"]).await?;
        Ok(Self(vec![sequencer, writer]))
    }

    async fn delete(&self, etcd: &Etcd) -> Result<()> {
        for key in &self.0 {
            etcd.control(&["del", key]).await?;
        }
        Ok(())
    }
}
