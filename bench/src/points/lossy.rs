//! Requests through a path that loses, doubles and reorders datagrams, some of them never repeated: no
//! position twice, and a hole only where a reply was lost and its request not repeated.

use std::collections::HashSet;
use std::net::{Ipv4Addr, SocketAddr, UdpSocket};
use std::os::fd::AsFd;
use std::time::{Duration, Instant};

use anyhow::{Result, ensure};
use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};
use rustix::event::{PollFd, PollFlags, Timespec};
use sequencer_fast::udp::Receiver;
use wire::ClientId;

use crate::arguments::Seed;
use crate::logic::batch::{Answer, Batch, Identity, Shape, granted};
use crate::logic::ranges::Ranges;
use crate::measure::round;
use crate::net::bed::{End, Place};
use crate::net::emulator::{Emulator, Outcome};
use crate::net::flow::passing;
use crate::net::probe::Probe;
use crate::options::LoadArgs;
use crate::report::Report;
use crate::server::Server;

/// Requests of the long and of the short form.
const REQUESTS: u64 = 10_000_000;
const SHORT_REQUESTS: u64 = 1_000_000;

/// Datagrams under way.
const WINDOW: u32 = 64;

/// Share of the datagrams that are not repeated.
const ABANDONED: f64 = 0.1;

/// Without an answer for so long, a datagram is sent again or given up.
const RETRY: Duration = Duration::from_millis(20);

/// Longest time without any answer.
const STUCK: Duration = Duration::from_secs(20);

/// How bad the path is.
#[derive(Debug, Clone, clap::Args)]
pub(crate) struct Args {
    /// A million requests, not ten
    #[arg(long)]
    short: bool,
    /// Requests
    #[arg(long)]
    requests: Option<u64>,
    /// Requests a datagram
    #[arg(long, default_value_t = 29)]
    packed: usize,
    /// Share of the datagrams, in each direction, that are lost; as many are doubled, and as many reordered
    #[arg(long, default_value_t = 0.01)]
    rate: f64,
    #[command(flatten)]
    seed: Seed,
}

/// Runs the requests and reports.
///
/// # Errors
/// If the sequencer does not run, or no answers come.
pub(crate) async fn run(args: Args) -> Result<Report> {
    ensure!(
        (0.0..=0.5).contains(&args.rate),
        "--rate is a share from 0 to 0.5"
    );
    let seed = args.seed.draw();
    let requests = match args.short {
        true => SHORT_REQUESTS,
        false => REQUESTS,
    };
    let requests = args.requests.unwrap_or(requests);
    let mut spec = LoadArgs::closed(args.packed, 1.0).server(false);
    spec.place = Place {
        end: End::Here,
        cores: Vec::new(),
    };
    spec.cores.clear();
    let server = Server::start(&spec).await?;
    let emulator = Emulator::start(server.address(), args.rate, seed)?;
    let shape = Shape {
        log: server.log(),
        packed: args.packed,
        tokens: 3,
        echo: false,
    };
    let mut client = Client::new(emulator.address(), shape, seed)?;
    client.work(requests)?;
    let path = emulator.finish()?;
    client.receive()?;
    let mut probe = Probe::new(server.address(), server.log(), seed).await?;
    let tail = probe.tail(Duration::from_secs(1)).await?;
    let mut report = Report::new("lossy");
    report.figure("seed", seed);
    client.judge(&path, tail, &mut report);
    Ok(report)
}

struct Client {
    socket: UdpSocket,
    receiver: Receiver,
    batches: Vec<Batch>,
    /// Whether what a batch has under way is not to be repeated.
    marked: Vec<bool>,
    random: StdRng,
    shape: Shape,
    granted: Ranges,
    abandoned: HashSet<Identity>,
    asked: u64,
    answered: u64,
    retries: u64,
    late: u64,
    wrong: u64,
    epoch: Instant,
}

impl Client {
    fn new(server: SocketAddr, shape: Shape, seed: u64) -> Result<Self> {
        let socket = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0))?;
        socket.connect(server)?;
        let batches: Result<Vec<_>> = (0..WINDOW)
            .map(|number| Batch::new(shape, ClientId(seed), number, 1, 0))
            .collect();
        #[allow(clippy::disallowed_methods, reason = "the clock of the client")]
        let epoch = Instant::now();
        Ok(Self {
            socket,
            receiver: Receiver::new(32, 2048),
            batches: batches?,
            marked: vec![false; WINDOW as usize],
            random: StdRng::seed_from_u64(seed.wrapping_add(2)),
            shape,
            granted: Ranges::default(),
            abandoned: HashSet::new(),
            asked: 0,
            answered: 0,
            retries: 0,
            late: 0,
            wrong: 0,
            epoch,
        })
    }

    fn now_ns(&self) -> u64 {
        u64::try_from(self.epoch.elapsed().as_nanos()).unwrap_or(u64::MAX)
    }

    fn work(&mut self, requests: u64) -> Result<()> {
        let retry_ns = u64::try_from(RETRY.as_nanos())?;
        let (mut answer_ns, mut look_ns) = (0, 0);
        loop {
            let now_ns = self.now_ns();
            for index in 0..self.batches.len() {
                if self.asked < requests {
                    self.begin(index, now_ns)?;
                }
            }
            if self.receive()? > 0 {
                answer_ns = now_ns;
            } else {
                let mut watched = [PollFd::new(&self.socket, PollFlags::IN)];
                let wait = Timespec {
                    tv_sec: 0,
                    tv_nsec: 1_000_000,
                };
                let _ = rustix::event::poll(&mut watched, Some(&wait));
            }
            if now_ns > look_ns {
                look_ns = now_ns + retry_ns / 8;
                self.look(now_ns.saturating_sub(retry_ns), now_ns)?;
            }
            let open: usize = self.batches.iter().map(Batch::open).sum();
            if self.asked >= requests && open == 0 {
                return Ok(());
            }
            let silent_ns = u128::from(now_ns - answer_ns);
            ensure!(
                silent_ns < STUCK.as_nanos(),
                "no answers: {} of {requests}",
                self.answered
            );
        }
    }

    fn begin(&mut self, index: usize, now_ns: u64) -> Result<()> {
        let free = self
            .batches
            .get_mut(index)
            .filter(|batch| batch.open() == 0);
        let Some((batch, marked)) = free.zip(self.marked.get_mut(index)) else {
            return Ok(());
        };
        batch.begin(std::iter::once(now_ns), now_ns);
        *marked = self.random.random_bool(ABANDONED);
        self.asked += self.shape.packed as u64;
        passing(self.socket.send(batch.bytes()))?;
        Ok(())
    }

    /// Repeats or gives up what has no answer.
    fn look(&mut self, before_ns: u64, now_ns: u64) -> Result<()> {
        for (batch, marked) in self.batches.iter_mut().zip(&self.marked) {
            if batch.open() == 0 || batch.sent_ns() >= before_ns {
                continue;
            }
            if *marked {
                self.abandoned.extend(batch.abandon());
                continue;
            }
            for datagram in batch.again(now_ns) {
                passing(self.socket.send(datagram))?;
                self.retries += 1;
            }
        }
        Ok(())
    }

    fn receive(&mut self) -> Result<usize> {
        let count = passing(self.receiver.receive(self.socket.as_fd()))?;
        for index in 0..count {
            let Some(received) = self.receiver.get(index) else {
                continue;
            };
            let number = Batch::number_in(received.bytes);
            let batch = number.and_then(|number| self.batches.get_mut(number));
            let answer = batch.map(|batch| batch.accept(received.bytes, Some(&mut self.granted)));
            match answer {
                Some(Answer::Done { .. }) => self.answered += self.shape.packed as u64,
                Some(Answer::Stale) => {
                    // Its token is known, although nobody waits for it any more.
                    let identity = Identity::of(received.bytes);
                    if identity.is_some_and(|identity| self.abandoned.remove(&identity)) {
                        self.late += 1;
                        granted(received.bytes).for_each(|(f, c)| self.granted.add(f, c));
                    }
                }
                Some(Answer::Busy) => {}
                Some(Answer::Wrong) | None => self.wrong += 1,
            }
        }
        Ok(count)
    }

    fn judge(&self, path: &Outcome, tail: u64, report: &mut Report) {
        let mut lost = Ranges::default();
        let mut unanswered = 0;
        for identity in &self.abandoned {
            for (first, count) in path.lost.get(identity).into_iter().flatten() {
                lost.add(*first, *count);
                unanswered += 1;
            }
        }
        let holes = self.granted.holes(tail);
        report.figure("requests", self.asked);
        report.figure("answered", self.answered);
        report.figure("retries", self.retries);
        report.figure("late_answers", self.late);
        report.figure("path_of_requests", path.requests);
        report.figure("path_of_replies", path.replies);
        report.figure("abandoned_datagrams", self.abandoned.len());
        report.figure("tail", tail);
        report.figure("positions_received", self.granted.positions());
        report.figure("seconds", round(self.epoch.elapsed().as_secs_f64()));
        report.exactly("positions_twice", self.granted.twice(), 0);
        report.exactly(
            "positions_past_the_tail",
            self.granted.tail().saturating_sub(tail),
            0,
        );
        report.exactly("hole_positions", holes.positions(), lost.positions());
        report.exactly("holes_not_explained", holes.outside(&lost), 0);
        report.exactly("lost_tokens_not_holes", lost.outside(&holes), 0);
        report.exactly("wrong_answers", self.wrong, 0);
        // Without such a case nothing would be shown.
        report.at_least("requests_lost_for_good", f64::from(unanswered), 1.0);
    }
}
