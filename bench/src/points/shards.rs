//! Two shards against one: they share one counter, which each touches once a batch.
//!
//! Both have the core of the one, so that all else is equal: the load keeps its own. A figure beside it tells of
//! the second shard on the core of the load, where it takes from the load what it gives to the server, and a
//! microbenchmark of the counter between two cores.

use std::sync::Barrier;
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread;
use std::time::Instant;

use anyhow::Result;
use serde::Serialize;

use crate::host::Host;
use crate::measure::{median, more, round};
use crate::net::bed::{Bed, End, Place};
use crate::net::metrics::Metrics;
use crate::options::{LoadArgs, Switch, Wait};
use crate::report::{Report, slack};
use crate::server::Server;

/// Share of one shard's rate that two have to reach.
const BAR: f64 = 0.9;

/// Rounds of the long and of the short form, and most if the bar is missed.
const ROUNDS: usize = 5;
const SHORT_ROUNDS: usize = 2;
const MOST_ROUNDS: usize = 9;

/// Additions of each thread of the microbenchmark.
const ADDITIONS: u64 = 20_000_000;

/// What is measured.
#[derive(Debug, Clone, clap::Args)]
pub(crate) struct Args {
    /// Fewer rounds
    #[arg(long)]
    short: bool,
    /// Requests a datagram
    #[arg(long, default_value_t = 29)]
    packed: usize,
    /// Clients, which the kernel spreads over the shards
    #[arg(long, default_value_t = 8)]
    flows: usize,
    /// Whether datagrams are merged: without, the stack is the limit, not the shard
    #[arg(long, value_enum, default_value = "on")]
    merge: Switch,
}

/// Nanoseconds of an addition to a shared number.
#[derive(Debug, Clone, Copy, Serialize)]
struct Additions {
    alone_ns: f64,
    shared_ns: f64,
}

/// Measures and reports.
///
/// # Errors
/// If the bed cannot be made, or the sequencer does not run.
pub(crate) async fn run(args: Args) -> Result<Report> {
    let host = Host::look();
    let _bed = Bed::up()?;
    let load = LoadArgs {
        flows: args.flows,
        merge: args.merge,
        wait: Wait::Block,
        ..LoadArgs::closed(args.packed, if args.short { 0.5 } else { 1.0 })
    };
    let least = if args.short { SHORT_ROUNDS } else { ROUNDS };
    let (mut ratios, mut ones, mut twos) = (Vec::new(), Vec::new(), Vec::new());
    let mut counts = Vec::new();
    while more(
        ratios.len(),
        least,
        MOST_ROUNDS,
        median(ratios.clone()) < BAR,
    ) {
        let one = turn(&load, Layout::One).await?;
        let two = turn(&load, Layout::Two).await?;
        ratios.push(two.rate / one.rate.max(1.0));
        ones.push(one.rate);
        twos.push(two.rate);
        counts.push(two);
    }
    let mut report = Report::new("shards");
    report.figure("host", &host);
    report.figure("one_shard_per_second", median(ones).round());
    report.figure("two_shards_per_second", median(twos).round());
    report.figure("rounds", ratios.len());
    let bar = BAR * slack(args.short);
    report.at_least("two_against_one", round(median(ratios)), bar);
    let sum = |count: fn(&Turn) -> f64| counts.iter().map(count).sum::<f64>();
    let (batches, additions) = (sum(|turn| turn.batches), sum(|turn| turn.additions));
    report.figure("batches", batches);
    report.exactly(
        "additions_more_than_batches",
        (additions - batches).max(0.0),
        0.0,
    );
    report.at_least(
        "additions_a_batch",
        round(additions / batches.max(1.0)),
        0.99,
    );
    report.figure(
        "requests_an_addition",
        round(sum(|turn| turn.granted) / additions.max(1.0)),
    );
    report.figure(
        "busiest_shards_share",
        round(sum(|turn| turn.uneven) / counts.len() as f64),
    );
    if !args.short {
        let apart = turn(&load, Layout::Apart).await?;
        report.figure("second_shard_on_the_core_of_the_load", apart.rate.round());
    }
    let cost = microbenchmark()?;
    report.figure("addition", cost);
    Ok(report)
}

struct Turn {
    rate: f64,
    batches: f64,
    additions: f64,
    granted: f64,
    /// Share of the requests that the busiest shard answered.
    uneven: f64,
}

/// Where the shards are.
#[derive(Debug, Clone, Copy)]
enum Layout {
    One,
    Two,
    Apart,
}

async fn turn(load: &LoadArgs, layout: Layout) -> Result<Turn> {
    let mut spec = load.server(false);
    match layout {
        Layout::One => {}
        Layout::Two => {
            // Not pinned one by one: the process has this core alone.
            spec.cores.clear();
            spec.settings.push("sequencer.shards=2".to_owned());
        }
        Layout::Apart => {
            spec.cores.extend(load.cores.first());
            spec.place.cores.extend(load.cores.first());
        }
    }
    let server = Server::start(&spec).await?;
    let measured = load.measure(&server, false)?;
    let metrics = server.metrics()?;
    let granted = metrics.get("sequencer_granted_total");
    Ok(Turn {
        rate: measured.rate(),
        batches: metrics.get("sequencer_batches_total"),
        additions: metrics.get("sequencer_fetch_adds_total"),
        granted,
        uneven: busiest(&metrics) / granted.max(1.0),
    })
}

fn busiest(metrics: &Metrics) -> f64 {
    metrics.largest("sequencer_granted_total")
}

/// An addition to a number that nobody else touches, and to one that another core touches all the time.
fn microbenchmark() -> Result<Additions> {
    let alone = AtomicU64::new(0);
    let alone_ns = Place::on(End::Here, 0).run(|| Ok(add(&alone, &Barrier::new(1))))?;
    let (shared, start) = (AtomicU64::new(0), Barrier::new(2));
    let shared_ns = thread::scope(|scope| {
        let (shared, start) = (&shared, &start);
        let on = move |core| Place::on(End::Here, core).run(|| Ok(add(shared, start)));
        let other = scope.spawn(move || on(1));
        let mine = on(0)?;
        let other = other.join().unwrap_or(Ok(mine))?;
        anyhow::Ok(mine.max(other))
    })?;
    Ok(Additions {
        alone_ns: round(alone_ns),
        shared_ns: round(shared_ns),
    })
}

fn add(number: &AtomicU64, start: &Barrier) -> f64 {
    start.wait();
    #[allow(clippy::disallowed_methods, reason = "what is measured is time")]
    let start = Instant::now();
    for count in 0..ADDITIONS {
        std::hint::black_box(number.fetch_add(count & 0xff, Ordering::SeqCst));
    }
    start.elapsed().as_nanos() as f64 / ADDITIONS as f64
}
