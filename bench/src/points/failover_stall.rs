//! A to B to A: a sequencer that stood still for longer than its reign lasts is woken when its standby has taken
//! over, and grants nothing.

use std::net::{Ipv4Addr, SocketAddr, UdpSocket};
use std::ops::Range;
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use tokio::time::{sleep, sleep_until};
use wire::datagram::{self, Datagram, Grant, Header, Kind, MAX_DATAGRAM_BYTES, Reply, Status};
use wire::{ClientId, Lane, LogId, RequestId};

use super::failover::{Witness, finish, progress, start, tell_pauses};
use crate::arguments::{Common, Rounds};
use crate::cluster::{Cluster, Daemon};
use crate::load::Load;
use crate::pair::{Pair, Role};
use crate::pause::Pauses;
use crate::report::Report;

/// Clients that append.
const CLIENTS: usize = 4;

/// How long a reign lasts that is not renewed, and how much longer it is stopped at least, in milliseconds.
const REIGN_TTL_MS: u64 = 2000;
const LONGER_MS: u64 = 500;

/// Requests of a round: those to the sequencer while it reigns, until one is granted; those that wait in its socket when
/// it is woken; and those that follow.
const REIGNING: Range<u64> = 0..10;
const QUEUED: Range<u64> = 10..50;
const LATER: Range<u64> = 50..80;

/// Time between two of those that follow, and for the last answer.
const LATER_EVERY: Duration = Duration::from_millis(10);
const LAST_ANSWER: Duration = Duration::from_millis(300);

/// Exit code of a sequencer that was fenced.
const FENCED: i32 = 3;

/// How the rounds are run.
#[derive(Debug, Clone, clap::Args)]
pub(crate) struct Args {
    #[command(flatten)]
    rounds: Rounds<20, 2>,
    #[command(flatten)]
    common: Common,
}

/// Runs the rounds and reports.
///
/// # Errors
/// If the daemons cannot be run, or nobody takes over.
pub(crate) async fn run(args: Args) -> Result<Report> {
    let seed = args.common.seed.draw();
    let ttl = format!("sequencer.reign_ttl_ms={REIGN_TTL_MS}");
    let mut cluster = start(args.common.store.clone(), vec![ttl]).await?;
    let outcome = rounds(&args, seed, &cluster).await;
    cluster.judged(outcome)
}

/// What was seen in all rounds.
#[derive(Debug, Default)]
struct Seen {
    stale: Answers,
    granted_before: u32,
    fenced: u32,
    takeovers: Vec<f64>,
    handovers: Vec<f64>,
}

async fn rounds(args: &Args, seed: u64, cluster: &Cluster) -> Result<Report> {
    let rounds = args.rounds.count();
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
    // Without it the question was none that a sequencer grants.
    report.exactly("granted_before_the_stop", seen.granted_before, rounds);
    let asked = QUEUED.count() + LATER.count();
    report.figure("asked_when_woken", asked * rounds as usize);
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
    seen.granted_before += u32::from(asking.is_granted().await?);
    pauses.take();
    pair.signal(first, "-STOP").await?;
    #[allow(clippy::disallowed_methods, reason = "a stop of real time")]
    let until = Instant::now() + Duration::from_millis(REIGN_TTL_MS + LONGER_MS);
    pair.becomes(second, Role::Reigns).await?;
    progress(load, pair).await?;
    seen.takeovers.push(pauses.take());
    sleep_until(until.into()).await;
    asking.ask(QUEUED)?;
    pair.signal(first, "-CONT").await?;
    for request in LATER {
        asking.ask(request..request + 1)?;
        sleep(LATER_EVERY).await;
    }
    sleep(LAST_ANSWER).await;
    // An answer of before that was late is none of the woken one.
    seen.stale.add(asking.count(QUEUED.start..LATER.end));
    seen.fenced += u32::from(pair.ended(first).await?.code() == Some(FENCED));
    pair.run(first)?;
    pair.becomes(first, Role::Standby).await?;
    progress(load, pair).await?;
    pauses.take();
    pair.stop(second).await?;
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

impl Answers {
    fn add(&mut self, other: Self) {
        self.all += other.all;
        self.grants += other.grants;
    }
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

    /// Whether the same question is answered with a token while the sequencer reigns.
    async fn is_granted(&self) -> Result<bool> {
        for request in REIGNING {
            self.ask(request..request + 1)?;
            sleep(LAST_ANSWER).await;
            if self.count(REIGNING).grants > 0 {
                return Ok(true);
            }
        }
        Ok(false)
    }

    fn ask(&self, requests: Range<u64>) -> Result<()> {
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

    /// What has come in answer to these requests; other answers are thrown away.
    fn count(&self, of: Range<u64>) -> Answers {
        let mut answers = Answers::default();
        let mut buffer = [0; MAX_DATAGRAM_BYTES];
        for _ in 0..2 * LATER.end {
            let Ok(len) = self.socket.recv(&mut buffer) else {
                // Nothing more, or the news of a port that was closed.
                continue;
            };
            let bytes = buffer.get(..len).unwrap_or(&[]);
            let Ok(datagram) = Datagram::parse(bytes, self.log) else {
                continue;
            };
            let replies = datagram.entries::<Reply>().flatten();
            for reply in replies.filter(|reply| of.contains(&reply.request.0.wrapping_sub(1))) {
                answers.all += 1;
                answers.grants += u64::from(reply.status() == Ok(Status::Ok) && reply.count > 0);
            }
        }
        answers
    }
}
