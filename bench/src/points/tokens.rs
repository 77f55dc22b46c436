//! How many requests and tokens a second, at what cost and latency: of the sequencer, and of the floor.

use std::fs;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use catalog::{Log, Store};
use serde_json::json;

use crate::chart;
use crate::host::Host;
use crate::live::Live;
use crate::measure::{Measured, measure, round};
use crate::net::bed::Bed;
use crate::net::hook;
use crate::options::{Backend, LoadArgs, Wait};
use crate::program::{PROGRAM_SHARE, ProgramCounts};
use crate::report::Report;
use crate::server::Server;

/// What is measured, and where the figures go.
#[derive(Debug, Clone, clap::Args)]
pub(crate) struct Args {
    #[command(flatten)]
    load: LoadArgs,
    /// In the place of clients with sockets, frames that the kernel sends by itself, as fast as one core can; needs a
    /// build with the feature xdp, and root
    #[arg(long, conflicts_with_all = [
        "open", "closed", "rate", "flows", "run", "window", "merge", "retry_ms", "check", "key_file", "server", "store",
        "plot", "hgrm",
    ])]
    live: bool,
    /// Clients that these frames are of, a power of two
    #[arg(long, value_name = "CLIENTS", default_value_t = 1024, requires = "live", value_parser = power_of_two)]
    clients: u32,
    /// Uses this running sequencer, as the namespace slg-cli reaches it
    #[arg(long, value_name = "ADDRESS", requires = "store")]
    server: Option<SocketAddr>,
    /// URL of the log of that sequencer
    #[arg(long, value_name = "URL")]
    store: Option<String>,
    /// Writes the line of JSON to a file as well, as 'report' beside the time of the run
    #[arg(long, value_name = "FILE")]
    json: Option<PathBuf>,
    /// Draws the latencies
    #[arg(long, value_name = "FILE.svg")]
    plot: Option<PathBuf>,
    /// Writes the distribution of latencies, in microseconds, as text
    #[arg(long, value_name = "FILE.hgrm")]
    hgrm: Option<PathBuf>,
}

/// Measures the sequencer, or with `echo` the floor.
///
/// # Errors
/// If the bed cannot be made, or the server does not run.
pub(crate) async fn run(args: Args, echo: bool) -> Result<Report> {
    ensure!(
        args.server.is_none() || !echo,
        "--server is for 'tokens': the floor is an echo of its own"
    );
    let host = Host::look();
    for path in [&args.json, &args.plot, &args.hgrm].into_iter().flatten() {
        write_file(path, "")?;
    }
    let load = &args.load;
    load.window()?;
    check(&args)?;
    let _bed = Bed::up()?;
    if args.live {
        return live(&args, echo, &host).await;
    }
    let mut program = None;
    let measured = match (&args.server, &args.store) {
        (Some(server), Some(store)) if !echo => {
            let log = Log::open(Store::open(store)?).await?.id();
            let _peer = load.peer(*server)?;
            measure(&load.load_on(*server, log, false)?, None)?
        }
        _ => {
            let server = Server::start(&load.server(echo)).await?;
            let measured = load.measure(&server, echo)?;
            if load.backend == Backend::Xdp && !echo {
                program = Some(ProgramCounts::of(&server.metrics()?));
            }
            measured
        }
    };
    let mut figures = measured.figures(load.wait != Wait::Block);
    ensure!(figures.requests > 0, "no answer: nothing was measured");
    if load.open && figures.unsent == 0 && figures.unanswered == 0 {
        figures.limited_by = "rate";
    }
    let name = if echo { "floor" } else { "tokens" };
    let mut report = Report::new(name);
    let (run, batches) = load.window()?;
    report.figures(&figures);
    report.figure("run", run);
    report.figure("window", run * batches);
    report.figure("load", load);
    report.figure("host", &host);
    report.exactly("wrong", figures.wrong, 0);
    if let Some(twice) = figures.granted_twice {
        report.exactly("granted_twice", twice, 0);
    }
    if let Some(program) = program {
        report.figure("program_share", round(program.share()));
        report.figure("program", program);
    }
    if load.backend != Backend::Xdp {
        explain(figures.limited_by, figures.server_core_share);
    }
    write_json(&args, &report)?;
    write_files(&args, &measured, name)?;
    Ok(report)
}

/// Frames that the kernel sends. With the program all of them have to be answered by it: what sockets answer is another
/// figure.
async fn live(args: &Args, echo: bool, host: &Host) -> Result<Report> {
    let load = &args.load;
    let server = Server::start(&load.server(echo)).await?;
    let live = Live {
        shape: load.shape(server.log(), echo)?,
        clients: args.clients,
        core: *load.cores.first().context("no core for the load")?,
        time: Duration::from_secs_f64(load.seconds),
    };
    let answered = live.measure(&server, load.backend);
    let answered = answered.with_context(|| format!("the server said: {}", server.said()))?;
    ensure!(answered.answered > 0, "no answer: nothing was measured");
    let mut report = Report::new(if echo { "floor" } else { "tokens" });
    let requests = answered.datagrams_per_second * load.packed as f64;
    report.figure("requests_per_second", requests.round());
    report.figures(&answered);
    report.figure("load", load);
    report.figure("clients", args.clients);
    report.figure("host", host);
    if let Some(share) = answered.program_share() {
        report.at_least("program_share", share, PROGRAM_SHARE);
    }
    write_json(args, &report)?;
    Ok(report)
}

/// Whether this can do it: frames take the whole of a core, and so does what answers them.
fn check(args: &Args) -> Result<()> {
    let load = &args.load;
    if args.live || load.backend == Backend::Xdp {
        hook::built_in()?;
    }
    ensure!(
        load.backend != Backend::Xdp || load.key_file.is_none(),
        "--backend xdp grants nothing where datagrams are signed: without --key-file, or another backend"
    );
    if !args.live {
        return Ok(());
    }
    let of_server = load.server_core..load.server_core + load.shards;
    ensure!(
        matches!(load.cores[..], [core] if !of_server.contains(&core)),
        "--live sends from one core (--cores), and none of the server's (--server-core, --shards)"
    );
    let there = std::thread::available_parallelism()?.get();
    ensure!(
        there >= 2,
        "--live needs a core beside that of the server: here is only {there}"
    );
    Ok(())
}

fn power_of_two(text: &str) -> Result<u32, String> {
    let number = text.parse::<u32>().ok();
    let fits = number.filter(|number| number.is_power_of_two() && *number <= 1 << 20);
    fits.ok_or_else(|| "allowed: a power of two, at most 1048576".to_owned())
}

fn explain(limited_by: &str, share: Option<f64>) {
    match (limited_by, share) {
        ("generator", Some(share)) => eprintln!(
            "bench: the generator is the limit, not the server: the server used {:.0}% of its core",
            share * 100.0
        ),
        ("unknown", _) => eprintln!(
            "bench: the generator has no time to spare; whether the server has, a server that spins does not show"
        ),
        _ => {}
    }
}

fn write_json(args: &Args, report: &Report) -> Result<()> {
    if let Some(path) = &args.json {
        let line = json!({ "unix_time": chart::unix_time(), "report": report.line() });
        write_file(path, &format!("{line}\n"))?;
    }
    Ok(())
}

fn write_files(args: &Args, measured: &Measured, name: &str) -> Result<()> {
    if let Some(path) = &args.hgrm {
        write_file(path, &chart::hgrm(&measured.tally.latency))?;
    }
    if let Some(path) = &args.plot {
        let title = format!(
            "{name}: {:.0} requests/s, packed {}",
            measured.rate(),
            args.load.packed
        );
        write_file(path, &chart::svg(&measured.tally.latency, &title))?;
    }
    Ok(())
}

fn write_file(path: &Path, text: &str) -> Result<()> {
    fs::write(path, text).with_context(|| format!("cannot write {}", path.display()))
}
