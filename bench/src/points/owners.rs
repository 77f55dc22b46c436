//! Two stripe-writers that both believe they own every stripe, again and again: nothing is lost.

use std::time::Duration;

use anyhow::{Context, Result, ensure};
use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};
use tokio::time::{sleep, timeout};

use super::check;
use super::failover::{HOLE_TIMEOUT, RECOVERY_TIMEOUT};
use crate::arguments::Common;
use crate::cluster::{Cluster, Daemon, Spec};
use crate::load::Load;
use crate::report::Report;

/// How the rounds are run.
#[derive(Debug, Clone, clap::Args)]
pub(crate) struct Args {
    /// Rounds: in each the other process takes all stripes
    #[arg(long, default_value_t = 20)]
    rounds: u32,
    /// Clients of each of the two
    #[arg(long, default_value_t = 2)]
    clients: usize,
    /// Longest time in which both run and believe that they own the stripes, in milliseconds
    #[arg(long, default_value_t = 1000)]
    both_ms: u64,
    #[command(flatten)]
    common: Common,
}

/// Runs the rounds and reports.
///
/// # Errors
/// If the daemons cannot be run, or nobody gets on.
pub(crate) async fn run(args: Args) -> Result<Report> {
    let seed = args.common.seed.draw();
    let mut random = StdRng::seed_from_u64(seed);
    let first = Cluster::start(Spec {
        store: args.common.store.clone(),
        stripes: Some(8),
        unit: Some(16),
        settings: vec![HOLE_TIMEOUT.to_owned()],
        ..Spec::default()
    })
    .await?;
    let second = first.rival()?;
    let load = Load::start(&first, args.clients, seed).await?;
    let beside = load.beside(&second, args.clients, seed ^ 1).await?;
    let loads = [load, beside];
    let mut sides = [first, second];
    progress(&mut sides, &loads, 0).await?;
    let (mut owner, mut frozen, mut fenced) = (0, 0_u32, 0_u32);
    for round in 0..args.rounds {
        let other = 1 - owner;
        // An owner that stands still cannot hear that it is none any more, and goes on where it was.
        let freeze = random.random_bool(0.5);
        if freeze {
            sides[owner].freeze(Daemon::Writer, true).await?;
            frozen += 1;
        }
        sides[other].run(Daemon::Writer)?;
        if freeze {
            progress(&mut sides, &loads, other)
                .await
                .with_context(|| format!("round {round}, seed {seed}"))?;
            sides[owner].freeze(Daemon::Writer, false).await?;
        }
        sleep(Duration::from_millis(random.random_range(0..=args.both_ms))).await;
        if sides[owner].said(Daemon::Writer, "the stripe is this process's no more") {
            fenced += 1;
        }
        // One that was told about every stripe ends by itself.
        sides[owner].end(Daemon::Writer).await?;
        progress(&mut sides, &loads, other)
            .await
            .with_context(|| format!("round {round}, seed {seed}"))?;
        owner = other;
    }
    // Records of the side that has no process wait for one: each gets its own once more.
    let mut report = Report::new("owners");
    let (mut appends, mut errors) = (Vec::new(), Vec::new());
    for (side, load) in loads.into_iter().enumerate() {
        if side != owner {
            sides[owner].kill(Daemon::Writer).await?;
            sides[side].run(Daemon::Writer)?;
            owner = side;
        }
        let (all, failed) = load.finish().await;
        appends.extend(all);
        errors.extend(failed);
    }
    report.figure("seed", seed);
    report.figure("rounds", args.rounds);
    report.figure("store", sides[0].store());
    report.figure("stood_still", frozen);
    report.at_least("fenced", f64::from(fenced), 1.0);
    report.figure("failed_appends", errors.len());
    // The sequencer asks the first one for frontiers.
    if owner != 0 {
        sides[owner].kill(Daemon::Writer).await?;
        sides[0].run(Daemon::Writer)?;
    }
    check::judge(&sides[0], &appends, &[], &mut report).await?;
    let panics: usize = sides.iter().map(|side| side.panics(Daemon::Writer)).sum();
    report.exactly("panics", panics, 0);
    Ok(report)
}

/// Waits until records of one side are acknowledged.
async fn progress(sides: &mut [Cluster; 2], loads: &[Load; 2], side: usize) -> Result<()> {
    let before = loads[side].acknowledged();
    let on = async {
        while loads[side].acknowledged() < before + 100 {
            sleep(Duration::from_millis(10)).await;
        }
    };
    let recovered = timeout(RECOVERY_TIMEOUT, on).await.is_ok();
    ensure!(
        recovered && sides[side].runs(Daemon::Writer)?,
        "appends do not go on: side={side}\n{}\n--- other side\n{}",
        sides[side].last_lines(Daemon::Writer),
        sides[1 - side].last_lines(Daemon::Writer),
    );
    Ok(())
}
