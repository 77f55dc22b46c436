//! A client that sends as fast as it can beside a polite one: how much later the polite one has its answers.
//!
//! Both are in one thread. What is measured is the sequencer, not how the system shares the load's core.

use std::time::{Duration, Instant};

use anyhow::Result;
use rand::Rng;
use sequencer_fast::udp::{Receiver, Sender};
use serde::Serialize;
use wire::ClientId;

use crate::host::Host;
use crate::logic::batch::{Answer, Shape};
use crate::logic::tally::{Latency, Tally};
use crate::logic::whole;
use crate::measure::{median, more, round};
use crate::net::bed::{Bed, CLIENT_IPS, End, Place};
use crate::net::flow::{Flow, Wire};
use crate::options::{LoadArgs, Wait};
use crate::report::{Report, slack};
use crate::server::Server;

/// How much later the polite client may have its answers.
const BAR: f64 = 3.0;

/// Most rounds if the bar is missed.
const MOST_ROUNDS: usize = 9;

/// Without an answer for so long, the polite client asks again.
const RETRY_NS: u64 = 50_000_000;

/// Datagrams that the polite client may have under way.
const POLITE_WINDOW: usize = 256;

/// Datagrams of one send of the flood.
const FLOOD_RUN: usize = 16;

/// Runs of the flood that may have no answer before it goes on all the same.
const FLOOD_RUNS: usize = 8;

/// What is sent.
#[derive(Debug, Clone, clap::Args)]
pub(crate) struct Args {
    /// Fewer rounds
    #[arg(long)]
    short: bool,
    /// Datagrams a second of the polite client, one request each
    #[arg(long, default_value_t = 10_000.0)]
    polite_rate: f64,
    /// What the sequencer allows each address, in requests a second; 0: everything
    #[arg(long, default_value_t = 100_000)]
    client_rate: u64,
    /// Requests a datagram of the flood
    #[arg(long, default_value_t = 1)]
    packed: usize,
    /// How the sequencer waits
    #[arg(long, value_enum, default_value = "block")]
    wait: Wait,
}

#[derive(Debug, Clone, Copy, Serialize)]
struct Turn {
    #[serde(flatten)]
    latency: Latency,
    flood_per_second: f64,
    retries: u64,
}

/// Measures turns with and without flood.
///
/// # Errors
/// If the bed cannot be made, or the sequencer does not run.
pub(crate) async fn run(args: Args) -> Result<Report> {
    let host = Host::look();
    let _bed = Bed::up()?;
    let load = LoadArgs {
        wait: args.wait,
        ..LoadArgs::closed(1, 1.0)
    };
    let mut spec = load.server(false);
    if args.client_rate > 0 {
        spec.settings = vec![format!("sequencer.client_rate={}", args.client_rate)];
    }
    let server = Server::start(&spec).await?;
    let time = Duration::from_millis(if args.short { 700 } else { 2000 });
    let least = if args.short { 3 } else { 5 };
    let (mut quiet, mut flooded) = (Vec::<Turn>::new(), Vec::<Turn>::new());
    let bar = BAR / slack(args.short);
    let later = |quiet: &[Turn], flooded: &[Turn]| match args.short {
        true => least_p99(flooded) / least_p99(quiet).max(0.01),
        false => median(ratios(quiet, flooded)),
    };
    while more(
        quiet.len(),
        least,
        MOST_ROUNDS,
        later(&quiet, &flooded) > bar,
    ) {
        let turn = |flood| {
            let place = Place::on(End::Client, 1);
            place.run(|| Desk::new(&args, &server, flood, time)?.work())
        };
        if quiet.is_empty() {
            // The first one of a server is of caches and windows.
            turn(true)?;
        }
        let (without, with) = (turn(false)?, turn(true)?);
        quiet.push(without);
        flooded.push(with);
    }
    let metrics = server.metrics()?;
    let mut report = Report::new("flood");
    report.figure("host", &host);
    report.figure("client_rate", args.client_rate);
    report.figure("polite_rate", args.polite_rate);
    report.figure("rounds", quiet.len());
    let p99 = |turns: &[Turn]| round(median(turns.iter().map(|t| t.latency.p99_us).collect()));
    report.figure("quiet_p99_us", p99(&quiet));
    report.figure("flooded_p99_us", p99(&flooded));
    report.at_most("p99_ratio", round(later(&quiet, &flooded)), bar);
    let sent = flooded.iter().map(|turn| turn.flood_per_second).collect();
    // A flood that the polite client would not notice anyway shows nothing.
    let much = args.client_rate as f64 * 2.0;
    report.at_least("flood_requests_per_second", median(sent).round(), much);
    let dropped = metrics.get("sequencer_dropped_total");
    // However the host shares its cores: what one address may not have it has not got.
    let least = if args.client_rate > 0 {
        much * time.as_secs_f64()
    } else {
        0.0
    };
    report.at_least("dropped", dropped, least);
    report.figure("quiet", quiet);
    report.figure("flooded", flooded);
    Ok(report)
}

/// How much later the polite client had its answers, for each pair of turns.
fn ratios(quiet: &[Turn], flooded: &[Turn]) -> Vec<f64> {
    let pairs = quiet.iter().zip(flooded);
    pairs
        .map(|(without, with)| with.latency.p99_us / without.latency.p99_us.max(0.01))
        .collect()
}

/// Of short turns the p99 is that of one or two moments in which the host did something else: the best turn has the least of
/// that, and all of what a flood does.
fn least_p99(turns: &[Turn]) -> f64 {
    let all = turns.iter().map(|turn| turn.latency.p99_us);
    all.fold(f64::INFINITY, f64::min)
}

/// Both clients.
struct Desk {
    polite: Flow,
    flood: Option<Flow>,
    receiver: Receiver,
    sender: Sender,
    tally: Tally,
    interval_ns: f64,
    flooded: u64,
    time: Duration,
    packed: u64,
}

impl Desk {
    fn new(args: &Args, server: &Server, flood: bool, time: Duration) -> Result<Self> {
        let [polite_ip, flood_ip] = CLIENT_IPS;
        let wire = |ip| Wire {
            server: server.address(),
            from: Some(ip),
            merge: true,
            key: None,
        };
        let shape = |packed| Shape {
            log: server.log(),
            packed,
            tokens: 1,
            echo: false,
        };
        let client = |flow: u64| ClientId(rand::rng().random::<u64>().wrapping_add(flow));
        let flood = match flood {
            true => Some(Flow::new(
                &wire(flood_ip),
                shape(args.packed),
                client(1),
                FLOOD_RUNS,
                FLOOD_RUN,
            )?),
            false => None,
        };
        Ok(Self {
            polite: Flow::new(&wire(polite_ip), shape(1), client(0), POLITE_WINDOW, 1)?,
            flood,
            receiver: Receiver::new(4, 1 << 16),
            sender: Sender::new(32),
            tally: Tally::new(false)?,
            interval_ns: 1e9 / args.polite_rate.max(1.0),
            flooded: 0,
            time,
            packed: args.packed as u64,
        })
    }

    fn work(mut self) -> Result<Turn> {
        #[allow(clippy::disallowed_methods, reason = "the clock of the load")]
        let epoch = Instant::now();
        let (mut due_ns, mut look_ns) = (0.0, 0);
        loop {
            let now_ns = u64::try_from(epoch.elapsed().as_nanos())?;
            if now_ns >= u64::try_from(self.time.as_nanos())? {
                break;
            }
            while due_ns <= now_ns as f64 && self.polite.has_free() {
                let due = whole(due_ns);
                self.polite
                    .send(&mut self.sender, std::iter::once(due), now_ns)?;
                due_ns += self.interval_ns;
            }
            let tally = &mut self.tally;
            self.polite.receive(&mut self.receiver, None, |_, answer| {
                if let Answer::Done { due_ns, .. } = answer {
                    let now_ns = u64::try_from(epoch.elapsed().as_nanos()).unwrap_or(u64::MAX);
                    tally
                        .latency
                        .saturating_record(now_ns.saturating_sub(due_ns));
                }
            })?;
            if now_ns > look_ns {
                look_ns = now_ns + RETRY_NS / 10;
                let before_ns = now_ns.saturating_sub(RETRY_NS);
                tally.retries += self.polite.retry(&mut self.sender, before_ns, now_ns)? as u64;
            }
            self.pour(now_ns)?;
        }
        Ok(Turn {
            latency: Latency::of(&self.tally.latency),
            flood_per_second: round(self.flooded as f64 / self.time.as_secs_f64()),
            retries: self.tally.retries,
        })
    }

    /// One more run of the flood, whether the one before it was answered or not.
    fn pour(&mut self, now_ns: u64) -> Result<()> {
        let Some(flood) = &mut self.flood else {
            return Ok(());
        };
        flood.receive(&mut self.receiver, None, |_, _| {})?;
        if !flood.has_free() {
            flood.abandon();
        }
        let due = std::iter::repeat_n(now_ns, FLOOD_RUN);
        let sent = flood.send(&mut self.sender, due, now_ns)?;
        self.flooded += sent as u64 * self.packed;
        Ok(())
    }
}
