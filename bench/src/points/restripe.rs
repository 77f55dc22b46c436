//! Changes the layout of a log under load, again and again, and kills the sequencer in the middle of it.

use std::time::Duration;

use anyhow::{Context, Result, ensure};
use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};
use serde_json::Value;
use tokio::time::sleep;

use super::check;
use super::failover::{HOLE_TIMEOUT, Witness};
use super::rounds::{Follower, progress};
use crate::arguments::Common;
use crate::cluster::{Cluster, Daemon, Spec};
use crate::load::Load;
use crate::pause::Pauses;
use crate::report::Report;

/// Changes of the long and of the short form.
const CHANGES: u32 = 10;
const SHORT_CHANGES: u32 = 2;

/// Changes in the middle of which the sequencer is killed, in the long and the short form.
const KILLS: u32 = 10;
const SHORT_KILLS: u32 = 1;

/// Clients that append.
const CLIENTS: usize = 4;

/// Longest time without an acknowledged append, in milliseconds.
const BAR_MS: f64 = 2000.0;

/// Stripes and unit, one after the other, from those of a new log on: 32 and 1024.
const LAYOUTS: [[u32; 2]; 4] = [[64, 128], [32, 256], [64, 1024], [32, 1024]];

/// Longest time from the command to the kill, in milliseconds.
const KILL_WITHIN_MS: u64 = 400;

/// How the layout is changed.
#[derive(Debug, Clone, clap::Args)]
pub(crate) struct Args {
    /// Two changes and one kill, not ten of each
    #[arg(long)]
    short: bool,
    /// Changes of the layout
    #[arg(long)]
    changes: Option<u32>,
    /// Changes in the middle of which the sequencer is killed
    #[arg(long)]
    kills: Option<u32>,
    /// Longest time from the start of a round to the change, in milliseconds
    #[arg(long, default_value_t = 1000)]
    calm_ms: u64,
    #[command(flatten)]
    common: Common,
}

/// Runs the changes and reports.
///
/// # Errors
/// If the daemons cannot be run, or a change is not made.
pub(crate) async fn run(args: Args) -> Result<Report> {
    let seed = args.common.seed.draw();
    let mut cluster = Cluster::start(Spec {
        store: args.common.store.clone(),
        settings: vec![HOLE_TIMEOUT.to_owned()],
        ..Spec::default()
    })
    .await?;
    let outcome = changes(&args, seed, &mut cluster).await;
    cluster.judged(outcome)
}

async fn changes(args: &Args, seed: u64, cluster: &mut Cluster) -> Result<Report> {
    let [changes, kills] = match args.short {
        true => [SHORT_CHANGES, SHORT_KILLS],
        false => [CHANGES, KILLS],
    };
    let (changes, kills) = (args.changes.unwrap_or(changes), args.kills.unwrap_or(kills));
    let mut random = StdRng::seed_from_u64(seed);
    let log = cluster.client().await?;
    let load = Load::start(cluster, CLIENTS, seed).await?;
    let witness = Witness::start(cluster, &log, seed).await?;
    let follower = Follower::start(&log);
    let pauses = Pauses::watch(load.counter())?;
    progress(&load, cluster).await?;
    let mut calm = Duration::from_millis(random.random_range(0..=args.calm_ms));
    sleep(calm).await;
    let without = pauses.take();
    let (mut all, mut layouts) = (Vec::new(), LAYOUTS.iter().cycle());
    for change in 0..changes {
        let layout = *layouts.next().context("endless")?;
        let made = restripe(cluster, layout).await;
        made.with_context(|| format!("change {change}, seed {seed}"))?;
        progress(&load, cluster).await?;
        all.push(pauses.take());
        calm = Duration::from_millis(random.random_range(0..=args.calm_ms));
        sleep(calm).await;
        all.push(pauses.take());
    }
    let mut made = 0;
    for kill in 0..kills {
        let wanted = *layouts.next().context("endless")?;
        let after = Duration::from_millis(random.random_range(0..=KILL_WITHIN_MS));
        made += u32::from(killed(cluster, wanted, after).await?);
        let on = progress(&load, cluster).await;
        on.with_context(|| format!("kill {kill}, seed {seed}"))?;
    }
    let mut report = Report::new("restripe");
    report.figure("seed", seed);
    report.figure("changes", changes);
    report.figure("kills", kills);
    report.figure("made_though_killed", made);
    report.figure("store", cluster.store());
    report.figure("appended_again", load.appended_again());
    report.figure("pause_ms_without_a_change", without);
    all.sort_by(f64::total_cmp);
    let longest = all.last().copied().unwrap_or(f64::NAN);
    report.at_most("pause_ms_max", longest, BAR_MS);
    let tokens = witness.finish().await?;
    let (appends, errors) = load.finish().await;
    report.exactly("failed_appends", errors.len(), 0);
    for error in errors.iter().take(3) {
        eprintln!("append failed: {error}");
    }
    let (_, scan) = check::judge(cluster, &appends, &tokens, &mut report).await?;
    let last = scan.last().map(|(position, _)| *position);
    let followed = follower.finish(last).await?;
    report.exactly("follower_saw_the_same", followed == scan, true);
    // What a killed process had taken up may have been done.
    let segments = segments(cluster).await?.len();
    let least = changes as usize + made as usize + 1;
    report.figure("segments", segments);
    ensure!(segments >= least, "segments are gone: {segments} {least}");
    let panics = cluster.panics(Daemon::Sequencer) + cluster.panics(Daemon::Writer);
    report.exactly("panics", panics, 0);
    Ok(report)
}

/// Changes the layout, and finds it in the control chain.
async fn restripe(cluster: &Cluster, layout: [u32; 2]) -> Result<()> {
    let [stripes, unit] = layout.map(|number| number.to_string());
    let args = ["restripe", "--stripes", &stripes, "--unit", &unit];
    let told = cluster.command(&args).await?;
    let segments = segments(cluster).await?;
    let newest = segments.last().context("no segment")?;
    for part in ["segment", "start", "stripes", "unit"] {
        let same = told.get(part) == newest.get(part);
        ensure!(same, "another segment than was told: {told} {newest}");
    }
    let found = ["stripes", "unit"].map(|part| newest.get(part).and_then(Value::as_u64));
    ensure!(
        found == layout.map(|number| Some(number.into())),
        "another layout: {newest}"
    );
    Ok(())
}

/// Asks for a layout and kills the sequencer a moment later. Gives whether the command says that it was done.
async fn killed(cluster: &mut Cluster, layout: [u32; 2], after: Duration) -> Result<bool> {
    let [stripes, unit] = layout.map(|number| number.to_string());
    let args = [
        "restripe",
        "--stripes",
        &stripes,
        "--unit",
        &unit,
        "--timeout",
        "20",
    ];
    let asking = cluster.asking(&args)?;
    sleep(after).await;
    cluster.kill(Daemon::Sequencer).await?;
    cluster.run(Daemon::Sequencer)?;
    let output = asking.wait_with_output().await?;
    let code = output.status.code();
    // It goes on asking, and the next reign does it, unless it was too late to find one that reigns.
    ensure!(
        matches!(code, Some(0 | 1)),
        "the command ended with {code:?}: {}",
        String::from_utf8_lossy(&output.stderr)
    );
    Ok(code == Some(0))
}

async fn segments(cluster: &Cluster) -> Result<Vec<Value>> {
    let status = cluster.command(&["status"]).await?;
    let segments = status.get("segments").and_then(Value::as_array);
    Ok(segments.context("no segments")?.clone())
}
