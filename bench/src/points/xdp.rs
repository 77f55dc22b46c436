//! The program in the driver hook, held against a program that only turns packets round and against `io_uring`.
//!
//! As in `wire` two servers take turns of less than a second, and what counts is the middle of the ratios of neighbouring
//! turns. Only one program can be in a hook: every turn has a server of its own, on the same bed.

mod queues;
mod turns;

use anyhow::{Result, ensure};
use serde::Serialize;

use crate::host::Host;
use crate::measure::{median, more, round};
use crate::net::bed::Bed;
use crate::net::hook;
use crate::program::{PROGRAM_SHARE, ProgramCounts};
use crate::report::{Report, slack};

use turns::{CLIENTS, MANY_CLIENTS, Of, Turn, Turns};

/// Share of the floor that the program has to reach with one request a datagram.
const LIVE_BAR: f64 = 0.8;

/// How many times as fast as `io_uring` it has to be with frames that the kernel sends, and with an ordinary client.
const OVER_URING_BAR: f64 = 10.0;
const ORDINARY_BAR: f64 = 2.0;

/// With 29 requests a datagram: requests a second, or a share of the floor.
const PACKED_REQUESTS: f64 = 100e6;
const PACKED_RATIO: f64 = 0.8;

/// Unloaded round trip, against that of `io_uring` that spins.
const ROUND_TRIP_BAR: f64 = 0.5;

/// Queues of the bed.
const QUEUES: usize = 2;

/// How long it is measured.
#[derive(Debug, Clone, clap::Args)]
pub(crate) struct Args {
    /// Fewer and shorter turns, for seconds
    #[arg(long)]
    short: bool,
    /// Seconds of a turn [default: 0.6, with --short 0.3]
    #[arg(long, value_parser = crate::options::seconds)]
    seconds: Option<f64>,
    /// Prints every turn as it is done
    #[arg(long, short)]
    verbose: bool,
}

/// What came out of turns of the program and of another server.
#[derive(Debug, Clone, Serialize)]
struct Against {
    /// What was measured, and against whom.
    load: Turn,
    against: Of,
    /// The middle of the ratios of neighbouring turns: the program to the other.
    ratio: f64,
    /// The middle ones of all turns.
    program: f64,
    other: f64,
    rounds: usize,
    /// The least share of the answers of a turn that were the program's, and the largest one of its live frames that found
    /// a full queue.
    least_share: f64,
    most_lost: f64,
    counts: ProgramCounts,
}

/// Measures all of it.
///
/// # Errors
/// If the bed cannot be made, or a server does not run.
pub(crate) async fn run(args: Args) -> Result<Report> {
    let host = Host::look();
    hook::built_in()?;
    ensure!(
        host.cores >= QUEUES,
        "it takes a core for the server and one for the load: here is only {}",
        host.cores
    );
    let _bed = Bed::with_queues(QUEUES)?;
    let slack = slack(args.short);
    let mut report = Report::new("xdp");
    report.figure("host", &host);
    live(&args, slack, &mut report).await?;
    ordinary(&args, slack, &mut report).await?;
    queues::run(&turns(&args), &mut report).await?;
    Ok(report)
}

/// Frames that the kernel sends: whatever the program does not answer itself would be a figure of the sockets.
async fn live(args: &Args, slack: f64, report: &mut Report) -> Result<()> {
    let one = Turn::Live {
        packed: 1,
        clients: CLIENTS,
    };
    let bar = LIVE_BAR * slack;
    let floor = against(args, one, Of::Reflector, |so_far| so_far.ratio < bar).await?;
    report.at_least("live_ratio", floor.ratio, round(bar));
    let bar = OVER_URING_BAR * slack;
    let uring = against(args, one, Of::Uring, |so_far| so_far.ratio < bar).await?;
    report.at_least("live_over_uring", uring.ratio, round(bar));
    let many = Turn::Live {
        packed: 1,
        clients: MANY_CLIENTS,
    };
    let many = against(args, many, Of::Reflector, |_| false).await?;
    report.figure("live_ratio_1024_clients", many.ratio);
    let all = Turn::Live {
        packed: 29,
        clients: CLIENTS,
    };
    let reached = |so_far: &Against| {
        let requests = so_far.program * 29.0 / PACKED_REQUESTS;
        requests.max(so_far.ratio / PACKED_RATIO)
    };
    let packed = against(args, all, Of::Reflector, |so_far| reached(so_far) < slack).await?;
    report.at_least("packed", round(reached(&packed)), slack);
    report.figure("packed_ratio", packed.ratio);
    report.figure(
        "packed_requests_per_second",
        (packed.program * 29.0).round(),
    );
    let shares = [&floor, &uring, &many, &packed].map(|turns| turns.least_share);
    let least = shares.into_iter().fold(1.0, f64::min);
    report.at_least("live_program_share", least, PROGRAM_SHARE);
    report.figure("live", [floor, uring, many, packed]);
    Ok(())
}

/// A client with a socket.
async fn ordinary(args: &Args, slack: f64, report: &mut Report) -> Result<()> {
    let bar = ORDINARY_BAR * slack;
    let all = Turn::Ordinary { cores: QUEUES };
    let rates = against(args, all, Of::Uring, |so_far| so_far.ratio < bar).await?;
    report.at_least("ordinary_over_uring", rates.ratio, round(bar));
    // The sockets have a core to themselves then, which the program leaves alone.
    let one = Turn::Ordinary { cores: 1 };
    let alone = against(args, one, Of::Uring, |_| false).await?;
    report.figure("ordinary_one_core_over_uring", alone.ratio);
    // What such a client would get from a program that takes no time.
    let floor = against(args, one, Of::Reflector, |_| false).await?;
    report.figure("ordinary_one_core_ratio", floor.ratio);
    let bar = ROUND_TRIP_BAR / slack;
    let trips = against(args, Turn::RoundTrip, Of::Spinning, |so_far| {
        so_far.ratio > bar
    })
    .await?;
    report.at_most("round_trip_ratio", trips.ratio, round(bar));
    let share = rates.least_share.min(trips.least_share);
    report.figure("ordinary_program_share", share);
    report.figure("ordinary", [rates, alone, floor]);
    report.figure("round_trip_us", trips);
    Ok(())
}

fn turns(args: &Args) -> Turns {
    let seconds = args.seconds.unwrap_or(if args.short { 0.3 } else { 0.6 });
    Turns { seconds }
}

/// Turns of the program and of another server. Who goes first changes, so that a drift in one direction does not favour
/// one of them.
async fn against(
    args: &Args,
    turn: Turn,
    other: Of,
    misses: impl Fn(&Against) -> bool,
) -> Result<Against> {
    // Of two ratios the middle is the lower one.
    let (least, most) = if args.short { (2, 5) } else { (5, 9) };
    let turns = turns(args);
    let (mut programs, mut others, mut ratios) = (Vec::new(), Vec::new(), Vec::new());
    let (mut least_share, mut most_lost) = (1.0_f64, 0.0_f64);
    let mut counts = ProgramCounts::default();
    loop {
        let order = match ratios.len() % 2 {
            0 => [other, Of::Program],
            _ => [Of::Program, other],
        };
        let mut figures = [0.0; 2];
        for of in order {
            let done = turns.take(turn, of).await?;
            figures[usize::from(of != Of::Program)] = done.figure;
            if let Some(program) = done.program {
                least_share = least_share.min(done.share);
                most_lost = most_lost.max(done.lost);
                counts.add(&program);
            }
        }
        let [program, other_figure] = figures;
        if args.verbose {
            eprintln!("{turn:?} program={program} {other:?}={other_figure}");
        }
        ratios.push(program / other_figure.max(f64::MIN_POSITIVE));
        programs.push(program);
        others.push(other_figure);
        let so_far = Against {
            load: turn,
            against: other,
            ratio: round(median(ratios.clone())),
            program: round(median(programs.clone())),
            other: round(median(others.clone())),
            rounds: ratios.len(),
            least_share: (least_share * 1e6).floor() / 1e6,
            most_lost: round(most_lost),
            counts: counts.clone(),
        };
        if !more(ratios.len(), least, most, misses(&so_far)) {
            return Ok(so_far);
        }
    }
}
