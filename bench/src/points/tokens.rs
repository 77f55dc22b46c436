//! How many requests and tokens a second, at what cost and latency: of the sequencer, and of the floor.

use std::fs;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, ensure};
use catalog::{Log, Store};
use serde_json::json;

use crate::chart;
use crate::host::Host;
use crate::measure::{Measured, measure};
use crate::net::bed::Bed;
use crate::options::{LoadArgs, Wait};
use crate::report::Report;
use crate::server::Server;

/// What is measured, and where the figures go.
#[derive(Debug, Clone, clap::Args)]
pub(crate) struct Args {
    #[command(flatten)]
    load: LoadArgs,
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
    let _bed = Bed::up()?;
    let measured = match (&args.server, &args.store) {
        (Some(server), Some(store)) if !echo => {
            let log = Log::open(Store::open(store)?).await?.id();
            measure(&load.load_on(*server, log, false)?, None)?
        }
        _ => {
            let server = Server::start(&load.server(echo)).await?;
            load.measure(&server, echo)?
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
    explain(figures.limited_by, figures.server_core_share);
    write_files(&args, &measured, name, &report)?;
    Ok(report)
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

fn write_files(args: &Args, measured: &Measured, name: &str, report: &Report) -> Result<()> {
    if let Some(path) = &args.json {
        let line = json!({ "unix_time": chart::unix_time(), "report": report.line() });
        write_file(path, &format!("{line}\n"))?;
    }
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
