//! Gives each daemon, the clients and the store a network of their own, and kills daemons, stops them, and cuts them off
//! from one another, in one direction or both, under load: nothing is lost, and everybody goes on after the heal.

mod bars;
mod fault;
mod round;
mod scene;

use std::time::Duration;

use anyhow::{Context, Result};
use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};
use tokio::runtime::Builder;
use tokio::time::sleep;

use self::bars::Costs;
use self::fault::{BESIDE_ETCD, Fault, Kind, NAMED, OF_ETCD, draw};
use self::scene::{CLIENTS, HOSTS, Scene};
use crate::arguments::Seed;
use crate::cluster::Cluster;
use crate::etcd::Etcd;
use crate::net::lan::Lan;
use crate::report::Report;
use crate::stop;

/// How often every fault is drawn where the settings name everybody, and where etcd has them.
const DECKS: usize = 6;
const ETCD_DECKS: usize = 3;

/// Threads of the clients, and longest time for them to end.
const THREADS: usize = 2;
const SHUTDOWN: Duration = Duration::from_secs(5);

/// Time between two looks for a signal to stop.
const SIGNAL_EVERY: Duration = Duration::from_millis(50);

/// How the rounds are run.
#[derive(Debug, Clone, clap::Args)]
pub(crate) struct Args {
    /// Every kind of fault once
    #[arg(long)]
    short: bool,
    /// How often every kind of fault is drawn [default: 6, and 3 with etcd; with --short 1]
    #[arg(long)]
    decks: Option<usize>,
    /// Nothing but faults of this kind
    #[arg(long)]
    only: Option<Kind>,
    #[command(flatten)]
    seed: Seed,
}

/// Runs the rounds and reports.
///
/// # Errors
/// Without root, `ip` or `nft`; if the daemons or etcd cannot be run, or the load does not go on.
pub(crate) async fn run(args: Args) -> Result<Report> {
    let seed = args.seed.draw();
    let lan = Lan::up(&HOSTS).await?;
    let clients = lan.host(CLIENTS);
    let outcome = tokio::task::block_in_place(|| clients.run(|| among_clients(&args, seed, &lan)));
    let left = lan.down().await?;
    if !left.is_nothing() {
        eprintln!("left behind: {left:?}");
    }
    let parts = outcome?;
    let mut report = Report::new("partitions");
    report.figure("seed", seed);
    for part in parts {
        let line = part.line();
        let name = line["point"].as_str().unwrap_or_default().to_owned();
        report.exactly(&format!("{name}_holds"), part.holds(), true);
        report.figure(&name, line);
    }
    report.exactly("left_nothing", left.is_nothing(), true);
    report.figure("left", left);
    Ok(report)
}

/// Runs everything on threads that are in the network of the clients.
fn among_clients(args: &Args, seed: u64, lan: &Lan) -> Result<Vec<Report>> {
    let clients = lan.host(CLIENTS).clone();
    let runtime = Builder::new_multi_thread()
        .worker_threads(THREADS)
        .enable_all()
        .on_thread_start(move || clients.enter().expect("the namespace is there"))
        .build()?;
    let outcome = runtime.block_on(async {
        tokio::select! {
            outcome = both(args, seed, lan) => outcome,
            error = interrupted() => Err(error),
        }
    });
    runtime.shutdown_timeout(SHUTDOWN);
    outcome
}

async fn interrupted() -> anyhow::Error {
    loop {
        if let Err(error) = stop::check() {
            return error;
        }
        sleep(SIGNAL_EVERY).await;
    }
}

/// The rounds where the settings name everybody, and those with etcd.
async fn both(args: &Args, seed: u64, lan: &Lan) -> Result<Vec<Report>> {
    let mut random = StdRng::seed_from_u64(seed);
    let mut parts = Vec::new();
    let with_etcd = [&OF_ETCD[..], if args.short { &[] } else { &BESIDE_ETCD }].concat();
    for (name, kinds, decks) in [
        ("named", NAMED.to_vec(), DECKS),
        ("with_etcd", with_etcd, ETCD_DECKS),
    ] {
        let decks = args.decks.unwrap_or(if args.short { 1 } else { decks });
        let wanted = |kind: &Kind| args.only.is_none_or(|only| only == *kind);
        let kinds: Vec<_> = kinds.into_iter().filter(wanted).collect();
        let faults = draw(&kinds, decks, !args.short, &mut random);
        if faults.is_empty() {
            continue;
        }
        let etcd = match name {
            "with_etcd" => Some(scene::etcd(lan).await?),
            _ => None,
        };
        let random = StdRng::seed_from_u64(random.random());
        let part = part(name, lan, etcd, &faults, (seed, random)).await;
        parts.push(part.with_context(|| format!("{name}, seed {seed}"))?);
    }
    Ok(parts)
}

async fn part(
    name: &'static str,
    lan: &Lan,
    etcd: Option<Etcd>,
    faults: &[Fault],
    chance: (u64, StdRng),
) -> Result<Report> {
    let (bucket, mut cluster) = scene::create(lan, etcd.as_ref()).await?;
    let mut report = Report::new(name);
    let outcome = rounds(lan, &cluster, etcd, (faults, chance), &mut report).await;
    let outcome = cluster.judged(outcome.map(|()| report));
    drop(bucket);
    outcome
}

async fn rounds(
    lan: &Lan,
    cluster: &Cluster,
    etcd: Option<Etcd>,
    (faults, chance): (&[Fault], (u64, StdRng)),
    report: &mut Report,
) -> Result<()> {
    let mut scene = Scene::start(lan, cluster, etcd, chance).await?;
    let mut costs = Costs::default();
    for (round, fault) in faults.iter().enumerate() {
        let name = fault.name();
        let cost = scene.round(fault).await;
        let cost = cost.with_context(|| format!("round {round}: {name}"))?;
        eprintln!(
            "round {round}: {name} for {} ms: {cost:.0?}",
            fault.lasts.as_millis()
        );
        costs.add(fault, cost);
    }
    report.figure("rounds", faults.len());
    costs.tell(report);
    scene.finish(cluster, report).await
}
