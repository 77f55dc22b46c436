//! A to B to A: a sequencer that stood still for longer than its reign lasts is woken when its standby has taken
//! over, and grants nothing.

use std::net::{Ipv4Addr, SocketAddr, UdpSocket};
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use rand::Rng;
use tokio::time::{sleep, sleep_until};
use wire::datagram::{self, Datagram, Grant, Header, Kind, MAX_DATAGRAM_BYTES, Reply, Status};
use wire::{ClientId, Lane, LogId, RequestId};

use super::failover::{Witness, finish, progress, start, tell_pauses};
use crate::cluster::{Cluster, Daemon};
use crate::load::Load;
use crate::pair::{Pair, Role};
use crate::pause::Pauses;
use crate::report::Report;

/// Rounds of the long and of the short form.
const ROUNDS: u32 = 20;
const SHORT_ROUNDS: u32 = 2;

/// Clients that append.
const CLIENTS: usize = 4;

/// How long a reign lasts that is not renewed, and how much longer it is stopped at least, in milliseconds.
const REIGN_TTL_MS: u64 = 2000;
const LONGER_MS: u64 = 500;

/// Requests that wait in the socket of a sequencer when it is woken, and those that follow.
const QUEUED: u64 = 40;
const LATER: u64 = 30;

/// Time between two of those that follow, and for the last answer.
const LATER_EVERY: Duration = Duration::from_millis(10);
const LAST_ANSWER: Duration = Duration::from_millis(300);

/// Exit code of a sequencer that was fenced.
const FENCED: i32 = 3;

/// How the rounds are run.
#[derive(Debug, Clone, clap::Args)]
pub(crate) struct Args {
    /// Two rounds, not twenty
    #[arg(long)]
    short: bool,
    /// Rounds: in each the sequencer that reigns is stopped and woken
    #[arg(long)]
    rounds: Option<u32>,
    /// Seed of all that is random; drawn and printed without it
    #[arg(long)]
    seed: Option<u64>,
    /// URL of the store; a local directory without it
    #[arg(long, value_name = "URL")]
    store: Option<String>,
}

/// Runs the rounds and reports.
///
/// # Errors
/// If the daemons cannot be run, or nobody takes over.
pub(crate) async fn run(args: Args) -> Result<Report> {
    let seed = args.seed.unwrap_or_else(|| rand::rng().random());
    eprintln!("seed {seed}");
    let ttl = format!("sequencer.reign_ttl_ms={REIGN_TTL_MS}");
    let mut cluster = start(args.store.clone(), vec![ttl]).await?;
    let result = rounds(&args, seed, &cluster).await;
    if result.is_err() {
        eprintln!("kept for a look: {}", cluster.keep().display());
    }
    result
}

/// What was seen in all rounds.
#[derive(Debug, Default)]
struct Seen {
    reigning: Answers,
    stale: Answers,
    fenced: u32,
    takeovers: Vec<f64>,
    handovers: Vec<f64>,
}

async fn rounds(args: &Args, seed: u64, cluster: &Cluster) -> Result<Report> {
    let rounds = if args.short { SHORT_ROUNDS } else { ROUNDS };
    let rounds = args.rounds.unwrap_or(rounds);
    let mut pair = Pair::start(cluster).await?;
    let load = Load::start(cluster, CLIENTS, seed).await?;
    let log = cluster.client().await?;
    let witness = Witness::start(cluster, &log, seed).await?;
    let pauses = Pauses::watch(load.counter())?;
    progress(&load, &pair).await?;
    let mut seen = Seen::default();
    for round in 0..rounds {
        let backend = if round % 2 == 0 { "poll" } else { "auto" };
        pair.set_backend(0, backend);
        one_round(&mut pair, &load, &pauses, log.id(), &mut seen)
            .await
            .with_context(|| format!("round {round}, seed {seed}"))?;
    }
    let mut report = Report::new("failover-stall");
    report.figure("seed", seed);
    report.figure("rounds", rounds);
    report.figure("store", cluster.store());
    report.exactly(
        "grants_before_the_stop",
        seen.reigning.grants,
        u64::from(rounds),
    );
    report.figure("asked_when_woken", (QUEUED + LATER - 1) * u64::from(rounds));
    // A sequencer may be gone before it reads what waits in its socket: no bar.
    report.figure("answers_when_woken", seen.stale.all);
    report.exactly("grants_when_woken", seen.stale.grants, 0);
    report.exactly("ended_with_3", seen.fenced, rounds);
    tell_pauses(&mut report, &mut seen.takeovers);
    report.figure("pause_ms_max", seen.takeovers.last());
    seen.handovers.sort_by(f64::total_cmp);
    report.figure("handover_pause_ms_max", seen.handovers.last());
    finish(cluster, (load, Vec::new()), witness, &mut report).await?;
    report.exactly("panics", pair.panics() + cluster.panics(Daemon::Writer), 0);
    Ok(report)
}

/// The first sequencer stands still, the second takes over, the first is woken and ends; then it is the standby,
/// and takes over from the second, which is stopped in good order.
async fn one_round(
    pair: &mut Pair,
    load: &Load,
    pauses: &Pauses,
    log: LogId,
    seen: &mut Seen,
) -> Result<()> {
    let (first, second) = (0, 1);
    let asking = Asking::new(pair.address(first), log)?;
    // The same question is answered with tokens as long as it reigns.
    asking.ask(0..1)?;
    sleep(LAST_ANSWER).await;
    asking.count(&mut seen.reigning);
    pauses.take();
    pair.signal(first, "-STOP").await?;
    #[allow(clippy::disallowed_methods, reason = "a stop of real time")]
    let until = Instant::now() + Duration::from_millis(REIGN_TTL_MS + LONGER_MS);
    pair.becomes(second, Role::Reigns).await?;
    progress(load, pair).await?;
    seen.takeovers.push(pauses.take());
    sleep_until(until.into()).await;
    asking.ask(1..QUEUED)?;
    pair.signal(first, "-CONT").await?;
    for request in QUEUED..QUEUED + LATER {
        asking.ask(request..request + 1)?;
        sleep(LATER_EVERY).await;
    }
    sleep(LAST_ANSWER).await;
    asking.count(&mut seen.stale);
    seen.fenced += u32::from(pair.ended(first).await?.code() == Some(FENCED));
    pair.run(first)?;
    pair.becomes(first, Role::Standby).await?;
    progress(load, pair).await?;
    pauses.take();
    pair.signal(second, "-TERM").await?;
    let stopped = pair.ended(second).await?;
    anyhow::ensure!(stopped.success(), "stopped with {stopped}");
    pair.becomes(first, Role::Reigns).await?;
    progress(load, pair).await?;
    seen.handovers.push(pauses.take());
    pair.run(second)?;
    pair.becomes(second, Role::Standby).await
}

/// Answers of a sequencer.
#[derive(Debug, Default)]
struct Answers {
    all: u64,
    grants: u64,
}

/// Asks a sequencer for tokens, each request once.
struct Asking {
    socket: UdpSocket,
    log: LogId,
}

impl Asking {
    fn new(sequencer: SocketAddr, log: LogId) -> Result<Self> {
        let socket = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0))?;
        socket.connect(sequencer)?;
        socket.set_nonblocking(true)?;
        Ok(Self { socket, log })
    }

    fn ask(&self, requests: std::ops::Range<u64>) -> Result<()> {
        for request in requests {
            let entry = Grant::new(Lane(0), RequestId(request + 1), 1);
            // A client each, so that no request is that of a lane that has gone on.
            let client = ClientId(1000 + request);
            let header = Header::request(Kind::Grant, self.log, client, 1);
            let mut buffer = [0; MAX_DATAGRAM_BYTES];
            let len = datagram::write(header, &[entry], &mut buffer)?;
            // It may have ended by now.
            let _ = self.socket.send(buffer.get(..len).unwrap_or(&[]));
        }
        Ok(())
    }

    fn count(&self, answers: &mut Answers) {
        let mut buffer = [0; MAX_DATAGRAM_BYTES];
        for _ in 0..2 * (QUEUED + LATER) {
            let Ok(len) = self.socket.recv(&mut buffer) else {
                // Nothing more, or the news of a port that was closed.
                continue;
            };
            let bytes = buffer.get(..len).unwrap_or(&[]);
            let Ok(datagram) = Datagram::parse(bytes, self.log) else {
                continue;
            };
            for reply in datagram.entries::<Reply>().flatten() {
                answers.all += 1;
                answers.grants += u64::from(reply.status() == Ok(Status::Ok) && reply.count > 0);
            }
        }
    }
}
