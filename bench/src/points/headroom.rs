//! A billion tokens a second while every answer of the store is late: grants never wait for the checkpoint.

use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::Duration;

use anyhow::{Context, Result, bail};
use rand::Rng;

use crate::host::Host;
use crate::logic::tally::Latency;
use crate::measure::{measure, round};
use crate::net::bed::{End, Place};
use crate::net::metrics::Metrics;
use crate::net::proxy::Proxy;
use crate::options::LoadArgs;
use crate::report::Report;
use crate::server::Server;

/// Between two looks at the headroom.
const LOOK: Duration = Duration::from_millis(50);

/// Tokens a second that have to be granted.
const TOKENS_BAR: f64 = 1e9;

/// Positions that may be reserved ahead.
const MAX_AHEAD: u64 = 1 << 33;

/// Time in which the reservation grows to what the load takes: several answers of the store.
const GROWTH: Duration = Duration::from_secs(12);

/// How late the store is, and how much is asked of the sequencer meanwhile.
#[derive(Debug, Clone, clap::Args)]
pub(crate) struct Args {
    /// Seconds, not a minute
    #[arg(long)]
    short: bool,
    /// Endpoint of an honest S3 server, as http://127.0.0.1:5000
    #[arg(long, value_name = "URL", env = "AWS_ENDPOINT")]
    endpoint: String,
    /// Bucket and prefix on it
    #[arg(long, value_name = "URL", default_value = "s3://stripelog/headroom")]
    store: String,
    /// How late every answer of the store is
    #[arg(long, value_name = "MS", default_value_t = 900)]
    late_ms: u64,
    /// Requests a second
    #[arg(long, value_name = "REQUESTS", default_value_t = 1_200_000.0)]
    rate: f64,
    /// Positions a request
    #[arg(long, value_name = "POSITIONS", default_value_t = 1000)]
    tokens: u32,
    /// Prints what each look shows
    #[arg(long, short)]
    verbose: bool,
    /// Measured seconds
    #[arg(long)]
    seconds: Option<f64>,
}

/// Runs the load and reports.
///
/// # Errors
/// If the store is not there, or the sequencer does not run.
pub(crate) async fn run(args: Args) -> Result<Report> {
    let host = Host::look();
    let proxy = Proxy::start(&args.endpoint, 0).await?;
    let seconds = args.seconds.unwrap_or(if args.short { 14.0 } else { 40.0 });
    let load = LoadArgs {
        open: true,
        closed: false,
        rate: Some(args.rate),
        tokens: args.tokens,
        flows: 2,
        window: Some(1024),
        run: Some(32),
        ..LoadArgs::closed(29, seconds)
    };
    // Not in the bed: the store is reached from here only.
    let place = |core| Place::on(End::Here, core);
    let mut spec = load.server(false);
    spec.place = place(0);
    spec.store = Some(format!(
        "{}-{:016x}",
        args.store,
        rand::rng().random::<u64>()
    ));
    // No more than a few seconds ahead, so that checkpoints have to follow one another all the time.
    spec.settings
        .push(format!("sequencer.reservation_max={MAX_AHEAD}"));
    spec.environment = vec![("AWS_ENDPOINT".to_owned(), proxy.url())];
    let server = Server::start(&spec).await?;
    proxy.delay(Duration::from_millis(args.late_ms));
    let mut load = load.load_on(server.address(), server.log(), false)?;
    load.places = vec![place(1)];
    load.warm_up = GROWTH;
    let work = move || watched(&server, &load);
    // The proxy answers on the threads that this one would block.
    let (measured, seen) = tokio::task::spawn_blocking(work).await??;
    if args.verbose {
        show(&seen);
    }
    let mut report = Report::new("headroom");
    report.figure("host", &host);
    report.figure("store_late_ms", args.late_ms);
    let figures = measured.figures(false);
    report.at_least("tokens_per_second", figures.tokens_per_second, TOKENS_BAR);
    report.figure("requests_per_second", figures.requests_per_second);
    report.figure("latency", Latency::of(&measured.tally.latency));
    let (Some(first), Some(last)) = (seen.first(), seen.last()) else {
        bail!("no metrics were seen");
    };
    let grown = |name| last.since(first, name);
    report.exactly("held", grown("sequencer_held_total"), 0.0);
    report.exactly("busy", grown("sequencer_busy_total"), 0.0);
    report.exactly("busy_answers", figures.busy, 0);
    report.exactly("unanswered", figures.unanswered + figures.unsent, 0);
    let headrooms = seen.iter().map(|metrics| metrics.get("sequencer_headroom"));
    let lowest = headrooms.fold(f64::INFINITY, f64::min);
    report.at_least("lowest_headroom", lowest, 1.0);
    report.figure(
        "lowest_headroom_ms",
        round(lowest / figures.tokens_per_second.max(1.0) * 1e3),
    );
    let mut reservations: Vec<_> = seen
        .iter()
        .map(|m| m.get("sequencer_reservation"))
        .collect();
    reservations.dedup();
    report.at_least("checkpoints_seen", (reservations.len() - 1) as f64, 2.0);
    report.figure("looks", seen.len());
    Ok(report)
}

fn show(seen: &[Metrics]) {
    let names = ["reservation", "taken_tail", "headroom", "held_now"];
    eprintln!("{}", names.join(" "));
    for metrics in seen {
        let values = names.map(|name| metrics.get(&format!("sequencer_{name}")).to_string());
        eprintln!("{}", values.join(" "));
    }
}

/// Runs a load, and looks at the server all the while that is measured.
fn watched(
    server: &Server,
    load: &crate::net::generator::Load,
) -> Result<(crate::measure::Measured, Vec<Metrics>)> {
    let ended = AtomicBool::new(false);
    thread::scope(|scope| {
        let watch = scope.spawn(|| {
            pause(load.warm_up);
            let mut seen = Vec::new();
            while !ended.load(Ordering::Acquire) {
                seen.push(server.metrics()?);
                pause(LOOK);
            }
            anyhow::Ok(seen)
        });
        let measured = measure(load, Some(server.process()));
        ended.store(true, Ordering::Release);
        let seen = watch
            .join()
            .unwrap_or_else(|_| bail!("the watcher has panicked"))?;
        let measured = measured.with_context(|| format!("the server said: {}", server.said()))?;
        Ok((measured, seen))
    })
}

#[allow(clippy::disallowed_methods, reason = "it only looks now and then")]
fn pause(time: Duration) {
    thread::sleep(time);
}
