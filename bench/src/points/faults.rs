//! A store that fails, is late, loses answers and says "exists" of what it has just written.

use std::collections::HashSet;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use serde::Serialize;
use tokio::time::sleep;

use super::check;
use crate::arguments::Seed;
use crate::cluster::{Cluster, Daemon, Spec};
use crate::load::Load;
use crate::logic::digest::Digest;
use crate::logic::history::{Append, Found, Outcome};
use crate::net::proxy::Proxy;
use crate::report::Report;

/// Faults of a round without which it shows nothing.
const LEAST_FAULTS: f64 = 20.0;

/// How the faults are injected.
#[derive(Debug, Clone, clap::Args)]
pub(crate) struct Args {
    /// Endpoint of an honest S3 server, as http://127.0.0.1:5000
    #[arg(long, value_name = "URL", env = "AWS_ENDPOINT")]
    endpoint: String,
    /// Bucket and prefix on it
    #[arg(long, value_name = "URL", default_value = "s3://stripelog/faults")]
    store: String,
    /// Rounds, each on a log of its own
    #[arg(long, default_value_t = 1)]
    rounds: u32,
    /// Seconds of load with faults in each round
    #[arg(long, default_value_t = 60)]
    seconds: u64,
    /// Share of the requests that meet a fault
    #[arg(long, default_value_t = 0.1)]
    rate: f64,
    #[command(flatten)]
    seed: Seed,
}

/// Runs the rounds and reports. A round that misses a bar is the last one.
///
/// # Errors
/// If the server is not there, or the daemons do not run.
pub(crate) async fn run(args: Args) -> Result<Report> {
    ensure!(
        (0.0..=0.9).contains(&args.rate),
        "--rate is a share from 0 to 0.9"
    );
    ensure!(args.rounds > 0, "--rounds: at least one");
    let seed = args.seed.draw();
    let mut totals = Totals::default();
    let mut round = 0;
    loop {
        let mut report = one(&args, seed.wrapping_add(round), &mut totals).await?;
        round += 1;
        if round == u64::from(args.rounds) || !report.holds() {
            report.figure("seed", seed);
            report.figure("rounds", round);
            report.figure("all_rounds", totals);
            return Ok(report);
        }
        eprintln!("round {round}: {}", report.line());
    }
}

/// Of all rounds together.
#[derive(Debug, Clone, Copy, Default, Serialize)]
struct Totals {
    faults: u64,
    acknowledged: u64,
}

async fn one(args: &Args, seed: u64, totals: &mut Totals) -> Result<Report> {
    let proxy = Proxy::start(&args.endpoint, seed).await?;
    let store = format!("{}-{seed:016x}", args.store);
    let mut cluster = Cluster::start(Spec {
        store: Some(store),
        environment: vec![("AWS_ENDPOINT".to_owned(), proxy.url())],
        ..Spec::default()
    })
    .await?;
    let load = Load::start(&cluster, 4, seed).await?;
    while load.acknowledged() == 0 {
        sleep(Duration::from_millis(20)).await;
    }
    proxy.rate(args.rate);
    sleep(Duration::from_secs(args.seconds)).await;
    // The writer starts anew while the store fails: take-over and recovery meet the faults as well.
    cluster.kill(Daemon::Writer).await?;
    cluster.run(Daemon::Writer)?;
    cluster.kill(Daemon::Sequencer).await?;
    cluster.run(Daemon::Sequencer)?;
    sleep(Duration::from_secs(args.seconds / 4)).await;
    for daemon in [Daemon::Writer, Daemon::Sequencer] {
        if !cluster.runs(daemon)? {
            cluster.run(daemon)?;
        }
    }
    proxy.rate(0.0);
    let (appends, errors) = load.finish().await;
    let mut report = Report::new("store-faults");
    report.figure("rate", args.rate);
    report.figure("injected", proxy.injected());
    report.at_least("faults", proxy.injected().total() as f64, LEAST_FAULTS);
    report.figure("failed_appends", errors.len());
    let (findings, scan) = check::judge(&cluster, &appends, &[], &mut report)
        .await
        .context("the log cannot be read back")?;
    let (told, found) = digests(&appends, &scan);
    report.exactly("digest_of_read", found.text(), told.text());
    let panics = cluster.panics(Daemon::Sequencer) + cluster.panics(Daemon::Writer);
    report.exactly("panics", panics, 0);
    totals.faults += proxy.injected().total();
    totals.acknowledged += findings.acknowledged;
    Ok(report)
}

/// Of what was acknowledged, and of what was read at those positions.
fn digests(appends: &[Append], scan: &[Found]) -> (Digest, Digest) {
    let (mut told, mut found) = (Digest::default(), Digest::default());
    let mut positions = HashSet::new();
    for append in appends {
        if let Outcome::Committed(at) = &append.outcome {
            for (position, record) in at.iter().zip(&append.records) {
                told.add(*position, record);
                positions.insert(*position);
            }
        }
    }
    for (position, record) in scan {
        // Records whose outcome nobody was told may be there as well.
        if positions.contains(position) {
            found.add(*position, record);
        }
    }
    (told, found)
}
