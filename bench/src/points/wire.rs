//! The sequencer held against the floor: the same load, turn by turn, on an echo with the same mechanism.
//!
//! Other work on the machine makes every figure worse, and changes from second to second. So the two take
//! turns of less than a second, and what counts is the middle of the ratios of neighbouring turns.

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use anyhow::{Result, ensure};
use serde::Serialize;

use crate::host::Host;
use crate::logic::tally::Latency;
use crate::measure::{median, more, round};
use crate::net::bed::Bed;
use crate::options::{Backend, LoadArgs, Switch, Wait, name};
use crate::process::binary;
use crate::report::{Report, slack};
use crate::server::Server;

/// Share of the floor that the sequencer has to reach, and that with a key.
const BAR: f64 = 0.9;
const KEYED_BAR: f64 = 0.8;

/// Share of the floor with 29 requests a datagram, merged: 25 million of 38.
const PACKED_BAR: f64 = 25.0 / 38.0;

/// Tokens a second with 1,000 a request.
const TOKENS_BAR: f64 = 1e9;

/// Unloaded round trip of a sequencer that spins, against the floor's.
const ROUND_TRIP_BAR: f64 = 1.15;

/// Rounds that a cell gets that is below its bar: the middle of more of them is less of an accident.
const MOST_ROUNDS: usize = 9;

/// Which cells are measured.
#[derive(Debug, Clone, clap::Args)]
pub(crate) struct Args {
    /// A few cells, for seconds
    #[arg(long)]
    short: bool,
    /// Only with this key [default: without key, and a few cells with one]
    #[arg(long, value_name = "FILE")]
    key_file: Option<PathBuf>,
    /// Only this backend
    #[arg(long, value_enum)]
    backend: Option<Backend>,
    /// Seconds of a turn
    #[arg(long)]
    seconds: Option<f64>,
    /// Prints every cell as it is done
    #[arg(long, short)]
    verbose: bool,
}

/// One shape of load.
#[derive(Debug, Clone, Copy, Serialize)]
struct Shape {
    backend: Backend,
    merge: Switch,
    packed: usize,
    flows: usize,
}

/// What came out of it.
#[derive(Debug, Clone, Serialize)]
struct Cell {
    #[serde(flatten)]
    shape: Shape,
    key: bool,
    floor_per_second: f64,
    per_second: f64,
    ratio: f64,
    floor_cpu_ns: f64,
    cpu_ns: f64,
    /// Share of its core that the sequencer used. Well below 1 the load is the limit, and what it pays for
    /// waking the server up.
    core_share: f64,
    retries: u64,
    wrong: u64,
    rounds: usize,
}

/// Measures all cells.
///
/// # Errors
/// If the bed cannot be made, or a server does not run.
pub(crate) async fn run(args: Args) -> Result<Report> {
    refuse_xdp(&args)?;
    let host = Host::look();
    let _bed = Bed::up()?;
    let directory = tempfile::tempdir()?;
    let keyed = Args {
        key_file: Some(
            args.key_file
                .clone()
                .map_or_else(|| key(directory.path()), Ok)?,
        ),
        ..args.clone()
    };
    let mut cells = Vec::new();
    for backend in backends(&args) {
        for merge in [Switch::On, Switch::Off] {
            if args.key_file.is_none() {
                cells.extend(pair(&args, backend, merge, BAR).await?);
            }
            cells.extend(pair(&keyed, backend, merge, KEYED_BAR).await?);
        }
    }
    let slack = slack(args.short);
    let mut report = Report::new("wire");
    report.figure("host", &host);
    for (name, key, bar) in [
        ("worst_ratio", false, BAR),
        ("worst_ratio_with_key", true, KEYED_BAR),
    ] {
        let ratios = cells
            .iter()
            .filter(|cell| cell.key == key)
            .map(|cell| cell.ratio);
        if let Some(worst) = ratios.min_by(f64::total_cmp) {
            report.at_least(name, worst, bar * slack);
        }
    }
    let wrong: u64 = cells.iter().map(|cell| cell.wrong).sum();
    report.exactly("wrong", wrong, 0);
    for cell in cells
        .iter()
        .filter(|cell| is_packed(&cell.shape) && !cell.key)
    {
        let name = name(cell.shape.backend);
        report.figure(&format!("packed_29_per_second_{name}"), cell.per_second);
        report.at_least(
            &format!("packed_29_ratio_{name}"),
            cell.ratio,
            round(PACKED_BAR * slack),
        );
    }
    for backend in backends(&args) {
        let name = name(backend);
        let rate = tokens_per_second(&args, backend).await?;
        report.at_least(
            &format!("tokens_per_second_{name}"),
            rate,
            TOKENS_BAR * slack,
        );
        let trip = round_trip(&args, backend).await?;
        report.at_most(
            &format!("round_trip_ratio_{name}"),
            trip.ratio,
            ROUND_TRIP_BAR / slack,
        );
        report.figure(&format!("round_trip_{name}"), trip);
    }
    report.figure("cells", cells);
    Ok(report)
}

/// A key of its own.
fn key(directory: &Path) -> Result<PathBuf> {
    let file = directory.join("key");
    let status = Command::new(binary("stripelog")?)
        .arg("key")
        .arg(&file)
        .stdout(Stdio::null())
        .status()?;
    ensure!(status.success(), "no key was made");
    Ok(file)
}

fn refuse_xdp(args: &Args) -> Result<()> {
    let reason = "the program in the driver hook is held against its floor by 'bench xdp'";
    ensure!(args.backend != Some(Backend::Xdp), reason);
    Ok(())
}

fn backends(args: &Args) -> Vec<Backend> {
    match args.backend {
        Some(backend) => vec![backend],
        None => vec![Backend::IoUring, Backend::Poll],
    }
}

fn is_packed(shape: &Shape) -> bool {
    shape.packed == 29 && shape.merge == Switch::On && shape.flows == 1
}

fn seconds(args: &Args) -> f64 {
    args.seconds.unwrap_or(if args.short { 0.4 } else { 0.6 })
}

fn load(args: &Args, shape: Shape) -> LoadArgs {
    LoadArgs {
        flows: shape.flows,
        backend: shape.backend,
        merge: shape.merge,
        key_file: args.key_file.clone(),
        ..LoadArgs::closed(shape.packed, seconds(args))
    }
}

/// All cells of a backend, merged or not. Both servers run all the while; who is not asked sleeps.
async fn pair(args: &Args, backend: Backend, merge: Switch, bar: f64) -> Result<Vec<Cell>> {
    // The key costs a datagram the same, whoever sends it.
    let (packed, flows): (&[usize], &[usize]) = match (args.short, args.key_file.is_some()) {
        (true, false) => (&[1, 29], &[8]),
        (true, true) => (&[29], &[8]),
        (false, true) => (&[1, 16, 29], &[8]),
        (false, false) => (&[1, 16, 29], &[1, 8, 64]),
    };
    let shape = |packed, flows| Shape {
        backend,
        merge,
        packed,
        flows,
    };
    let any = load(args, shape(1, 1));
    let floor = Server::start(&any.server(true)).await?;
    let sequencer = Server::start(&any.server(false)).await?;
    let mut shapes: Vec<_> = packed
        .iter()
        .flat_map(|packed| flows.iter().map(|flows| shape(*packed, *flows)))
        .collect();
    if !shapes.iter().any(is_packed) && merge == Switch::On && args.key_file.is_none() {
        shapes.push(shape(29, 1));
    }
    let mut cells = Vec::new();
    for shape in shapes {
        let cell = cell(
            &load(args, shape),
            shape,
            [&floor, &sequencer],
            args.short,
            bar,
        )?;
        if args.verbose {
            eprintln!("{}", serde_json::to_string(&cell)?);
        }
        cells.push(cell);
    }
    Ok(cells)
}

fn cell(
    load: &LoadArgs,
    shape: Shape,
    servers: [&Server; 2],
    short: bool,
    bar: f64,
) -> Result<Cell> {
    let [floor, sequencer] = servers;
    let least = if short { 2 } else { 3 };
    let (mut floors, mut rates, mut ratios) = (Vec::new(), Vec::new(), Vec::new());
    let mut shares = Vec::new();
    let (mut floor_ns, mut ns, mut retries, mut wrong) = (Vec::new(), Vec::new(), 0, 0);
    while more(
        ratios.len(),
        least,
        MOST_ROUNDS,
        median(ratios.clone()) < bar,
    ) {
        // Who goes first changes, so that a drift in one direction does not favour one of them.
        let (below, above) = match ratios.len() % 2 {
            0 => {
                let below = load.measure(floor, true)?;
                (below, load.measure(sequencer, false)?)
            }
            _ => {
                let above = load.measure(sequencer, false)?;
                (load.measure(floor, true)?, above)
            }
        };
        ratios.push(above.rate() / below.rate().max(1.0));
        floors.push(below.rate());
        rates.push(above.rate());
        floor_ns.extend(below.figures(false).server_cpu_ns_per_request);
        ns.extend(above.figures(false).server_cpu_ns_per_request);
        shares.extend(above.server_share());
        retries += above.tally.retries;
        wrong += above.tally.wrong + below.tally.wrong;
    }
    Ok(Cell {
        shape,
        key: load.key_file.is_some(),
        rounds: ratios.len(),
        floor_per_second: median(floors).round(),
        per_second: median(rates).round(),
        ratio: round(median(ratios)),
        floor_cpu_ns: median(floor_ns),
        cpu_ns: median(ns),
        core_share: round(median(shares)),
        retries,
        wrong,
    })
}

/// The rate of tokens with 29 requests a datagram, each for 1,000.
async fn tokens_per_second(args: &Args, backend: Backend) -> Result<f64> {
    let load = LoadArgs {
        tokens: 1000,
        backend,
        key_file: args.key_file.clone(),
        ..LoadArgs::closed(29, seconds(args))
    };
    let server = Server::start(&load.server(false)).await?;
    let mut rates = Vec::new();
    for _ in 0..3 {
        let measured = load.measure(&server, false)?;
        rates.push(measured.figures(false).tokens_per_second);
    }
    Ok(median(rates))
}

#[derive(Debug, Clone, Serialize)]
struct RoundTrip {
    floor: Latency,
    sequencer: Latency,
    ratio: f64,
}

/// One request under way, and both ends spin. They cannot do that side by side, so each starts anew.
async fn round_trip(args: &Args, backend: Backend) -> Result<RoundTrip> {
    let load = LoadArgs {
        window: Some(1),
        backend,
        wait: Wait::BusyPoll,
        key_file: args.key_file.clone(),
        ..LoadArgs::closed(1, seconds(args))
    };
    let (mut floors, mut trips, mut ratios) = (Vec::new(), Vec::new(), Vec::new());
    while more(
        ratios.len(),
        3,
        MOST_ROUNDS,
        median(ratios.clone()) > ROUND_TRIP_BAR,
    ) {
        let mut latencies = Vec::new();
        for echo in [true, false] {
            let server = Server::start(&load.server(echo)).await?;
            latencies.push(Latency::of(&load.measure(&server, echo)?.tally.latency));
        }
        if let [floor, trip] = latencies[..] {
            ratios.push(trip.p50_us / floor.p50_us.max(0.01));
            floors.push(floor);
            trips.push(trip);
        }
    }
    Ok(RoundTrip {
        floor: middle(floors),
        sequencer: middle(trips),
        ratio: round(median(ratios)),
    })
}

/// The one with the middle p50.
fn middle(mut all: Vec<Latency>) -> Latency {
    all.sort_by(|a, b| a.p50_us.total_cmp(&b.p50_us));
    let index = all.len().saturating_sub(1) / 2;
    let nothing = Latency {
        p50_us: f64::NAN,
        p99_us: f64::NAN,
        p999_us: f64::NAN,
        max_us: f64::NAN,
    };
    all.get(index).copied().unwrap_or(nothing)
}
