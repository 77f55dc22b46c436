//! The sequencer beside what one would otherwise take for a counter, on the same cores in the same minute.

use std::net::SocketAddr;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use serde::Serialize;
use tempfile::TempDir;

use crate::host::{self, Host};
use crate::measure::{WARM_UP, median, more, round};
use crate::net::bed::{Bed, End, Place, SERVER_IP, repository};
use crate::net::peers::{Connections, Kind};
use crate::options::{LoadArgs, Switch};
use crate::report::{Report, slack};
use crate::server::{self, Server};

/// How many times as many tokens as Redis.
const BAR: f64 = 20.0;

/// Additions under way on a connection, and requests a datagram.
const BATCH: usize = 16;

/// Connections of a peer, and clients of the sequencer.
const CONNECTIONS: usize = 16;

/// Datagrams that a client of the sequencer has under way, all in one send.
const RUN: usize = 64;

/// Most rounds if the bar is missed.
const MOST_ROUNDS: usize = 7;

/// Longest wait for a peer to answer.
const READY_STEPS: u32 = 300;
const STEP: Duration = Duration::from_millis(100);

/// Which peers are measured.
#[derive(Debug, Clone, clap::Args)]
pub(crate) struct Args {
    /// Only the comparison with Redis that has a bar, and one figure of each other peer
    #[arg(long)]
    short: bool,
    /// Only these, with commas between
    #[arg(
        long,
        value_enum,
        value_delimiter = ',',
        default_value = "redis,memcached,postgresql"
    )]
    only: Vec<Kind>,
    /// Seconds of a turn
    #[arg(long)]
    seconds: Option<f64>,
}

/// What a peer did.
#[derive(Debug, Clone, Serialize)]
struct Row {
    peer: Kind,
    batch: usize,
    tokens_per_second: f64,
    server_cpu_ns_per_token: f64,
}

/// Measures everything.
///
/// # Errors
/// If the bed cannot be made, or a server does not run.
pub(crate) async fn run(args: Args) -> Result<Report> {
    let host = Host::look();
    install()?;
    let _bed = Bed::up()?;
    let seconds = args.seconds.unwrap_or(if args.short { 0.5 } else { 2.0 });
    let time = Duration::from_secs_f64(seconds);
    let load = LoadArgs {
        flows: CONNECTIONS,
        window: Some(RUN),
        run: Some(RUN),
        ..LoadArgs::closed(BATCH, seconds)
    };
    let sequencer = Server::start(&load.server(false)).await?;
    let mut report = Report::new("peers");
    report.figure("host", &host);
    report.figure("connections", CONNECTIONS);
    let mut rows = Vec::new();
    for kind in &args.only {
        let peer = Peer::start(*kind).await?;
        for batch in batches(*kind, args.short) {
            let (rate, ns) = peer.measure(batch, time)?;
            rows.push(Row {
                peer: *kind,
                batch,
                tokens_per_second: rate.round(),
                server_cpu_ns_per_token: round(ns),
            });
        }
        if *kind == Kind::Redis {
            compare(&args, &load, &sequencer, &peer, &mut report)?;
        }
    }
    report.figure("peers", rows);
    drop(sequencer);
    if !args.short {
        unmerged(load, &mut report).await?;
    }
    Ok(report)
}

fn batches(kind: Kind, short: bool) -> Vec<usize> {
    match (kind, short) {
        (Kind::Redis, true) => Vec::new(),
        (_, true) => vec![BATCH],
        (_, false) => vec![1, BATCH, 64],
    }
}

/// Redis and the sequencer, turn by turn.
fn compare(
    args: &Args,
    load: &LoadArgs,
    sequencer: &Server,
    redis: &Peer,
    report: &mut Report,
) -> Result<()> {
    let time = Duration::from_secs_f64(load.seconds);
    let least = if args.short { 2 } else { 5 };
    let (mut ratios, mut theirs, mut ours, mut ns) =
        (Vec::new(), Vec::new(), Vec::new(), Vec::new());
    while more(
        ratios.len(),
        least,
        MOST_ROUNDS,
        median(ratios.clone()) < BAR,
    ) {
        let (rate, _) = redis.measure(BATCH, time)?;
        let measured = load.measure(sequencer, false)?;
        ensure!(measured.tally.wrong == 0, "wrong answers");
        ratios.push(measured.rate() / rate.max(1.0));
        theirs.push(rate);
        ours.push(measured.rate());
        ns.extend(measured.figures(false).server_cpu_ns_per_request);
    }
    report.figure("redis_tokens_per_second", median(theirs).round());
    report.figure("tokens_per_second", median(ours).round());
    report.figure("server_cpu_ns_per_token", median(ns));
    let bar = BAR * slack(args.short);
    report.at_least("times_redis", round(median(ratios)), bar);
    Ok(())
}

/// The same without the kernel's merging, as over a network that does not do that.
async fn unmerged(load: LoadArgs, report: &mut Report) -> Result<()> {
    let load = LoadArgs {
        merge: Switch::Off,
        ..load
    };
    let server = Server::start(&load.server(false)).await?;
    let measured = load.measure(&server, false)?;
    report.figure("tokens_per_second_not_merged", measured.rate().round());
    Ok(())
}

/// A running peer, killed when this is dropped.
#[derive(Debug)]
struct Peer {
    kind: Kind,
    child: Child,
    address: SocketAddr,
    directory: TempDir,
}

impl Peer {
    async fn start(kind: Kind) -> Result<Self> {
        let (name, port) = match kind {
            Kind::Redis => ("redis", 6379),
            Kind::Memcached => ("memcached", 11211),
            Kind::Postgresql => ("postgresql", 5432),
        };
        let directory = server::directory()?;
        let log = std::fs::File::create(directory.path().join("log"))?;
        let mut command = Command::new(repository()?.join("scripts/peers.sh"));
        let data = directory.path().join("data");
        command
            .args(["serve", name])
            .arg(&data)
            .args([&SERVER_IP.to_string(), &port.to_string()])
            .stdin(Stdio::null())
            .stdout(log.try_clone()?)
            .stderr(log);
        let mut peer = Self {
            kind,
            child: Place::on(End::Server, 0).spawn(&mut command)?,
            address: SocketAddr::new(SERVER_IP, port),
            directory,
        };
        peer.ready().await?;
        Ok(peer)
    }

    async fn ready(&mut self) -> Result<()> {
        let at = Place::on(End::Client, 1);
        let (kind, address) = (self.kind, self.address);
        for _ in 0..READY_STEPS {
            if let Some(status) = self.child.try_wait()? {
                bail!("{:?} ended: {status}\n{}", self.kind, self.said());
            }
            let answers = || {
                let mut one = Connections::open(kind, address, 1, 1)?;
                one.work(Duration::ZERO, Duration::from_millis(1))
            };
            if at.run(answers).is_ok() {
                return Ok(());
            }
            tokio::time::sleep(STEP).await;
        }
        bail!("{:?} does not answer\n{}", self.kind, self.said())
    }

    /// Additions a second, and CPU time of the server for each.
    fn measure(&self, batch: usize, time: Duration) -> Result<(f64, f64)> {
        let work = || {
            let mut load = Connections::open(self.kind, self.address, CONNECTIONS, batch)?;
            let before = host::tree_cpu_ns(self.child.id())?;
            let rate = load.work(WARM_UP, time)?;
            let spent = host::tree_cpu_ns(self.child.id())?.saturating_sub(before);
            ensure!(load.last() > 0, "{:?} did not count", self.kind);
            let seconds = (WARM_UP + time).as_secs_f64();
            Ok((rate, spent as f64 / (rate * seconds).max(1.0)))
        };
        let measured = Place::on(End::Client, 1).run(work);
        measured.with_context(|| self.said())
    }

    fn said(&self) -> String {
        std::fs::read_to_string(self.directory.path().join("log")).unwrap_or_default()
    }
}

impl Drop for Peer {
    fn drop(&mut self) {
        // PostgreSQL ends its other processes itself, but only if it is asked to end.
        let id = self.child.id().to_string();
        let _ = Command::new("kill").args(["-TERM", &id]).status();
        for _ in 0..50 {
            if matches!(self.child.try_wait(), Ok(Some(_))) {
                return;
            }
            pause();
        }
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

#[allow(clippy::disallowed_methods, reason = "nothing else runs by then")]
fn pause() {
    std::thread::sleep(STEP);
}

fn install() -> Result<()> {
    let script = repository()?.join("scripts/peers.sh");
    let status = Command::new(script)
        .arg("install")
        .stdout(Stdio::null())
        .status()?;
    ensure!(status.success(), "the peers cannot be installed");
    Ok(())
}
