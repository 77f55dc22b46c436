//! Load, fault rounds and reports for Stripelog.

#![forbid(unsafe_code)]

mod arguments;
mod chart;
mod cluster;
mod etcd;
mod group;
mod host;
mod live;
mod load;
mod logic;
mod measure;
mod net;
mod options;
mod pair;
mod pause;
mod points;
mod process;
mod program;
mod report;
mod server;
mod steady;
mod stop;
mod volume;

use std::process::ExitCode;

use anyhow::Result;
use clap::{Parser, Subcommand};

/// Measures what Stripelog promises. Each command prints one line of JSON, with the bar beside each
/// figure, and ends with 0 only if every bar is met.
#[derive(Debug, Parser)]
#[command(version)]
struct Args {
    #[command(subcommand)]
    point: Point,
}

#[derive(Debug, Subcommand)]
enum Point {
    /// Kills the daemons with SIGKILL, again and again, under load
    Rounds(points::rounds::Args),
    /// Kills the sequencer that reigns, again and again, under load, and lets its standby take over
    Failover(points::failover::Args),
    /// Stops the sequencer that reigns for longer than its reign lasts, and wakes it when its standby has taken over
    FailoverStall(points::failover_stall::Args),
    /// Stops one of several stripe-writers in good order, again and again, under load: the others go on with its stripes
    HandOverWriter(points::hand_over_writer::Args),
    /// Kills one of several stripe-writers, again and again, under load, and lets the others take its stripes over
    FailoverWriter(points::failover_writer::Args),
    /// Kills the sequencer and a stripe-writer at the same moment, and lets the store refuse everything for a while
    FailoverBoth(points::failover_both::Args),
    /// Takes etcd away in every way while a log is found through it, and lets a standby take over meanwhile
    Etcd(points::etcd::Args),
    /// Gives each daemon a network of its own, and kills, stops and cuts them off from one another
    Partitions(points::partitions::Args),
    /// Stops the sequencer that reigns in good order, again and again, under load: its standby goes on at the exact tail
    HandOver(points::hand_over::Args),
    /// Lets a client die between token and write, and another write too late
    Hole(points::hole::Args),
    /// Kills a sequencer that has reserved much: what the hole costs in the store, and how soon it is read over
    Junk(points::junk::Args),
    /// Changes the layout of a log under load, and kills the sequencer in the middle of it
    Restripe(points::restripe::Args),
    /// Sends bad input of every kind to every program
    Input(points::input::Args),
    /// Runs a log on an S3 server whose answers are late, lost or wrong
    Faults(points::faults::Args),
    /// Loads a sequencer: requests and tokens a second, cost of a request, latencies
    Tokens(points::tokens::Args),
    /// The same load on an echo: what the machine allows
    Floor(points::tokens::Args),
    /// The raw store, by the client and with the settings of all programs: puts and range gets
    FloorStore(points::floor_store::Args),
    /// Appends in volume, turn by turn with raw puts of the same store
    Append(points::append::Args),
    /// Latency of appends at a tenth of the load that the log takes
    Latency(points::latency::Args),
    /// Sequential reads, turn by turn with raw parallel gets of the same objects
    Read(points::read::Args),
    /// How soon a follower sees what was acknowledged
    Follow(points::follow::Args),
    /// Requests to the store, counted, and what they cost
    Cost(points::cost::Args),
    /// A store ten times slower than the load: memory, waiting clients, nothing lost
    Backlog(points::backlog::Args),
    /// One stripe whose puts are slow, and what that does to the others
    SlowStripe(points::slow_stripe::Args),
    /// Two stripe-writers that both believe they own every stripe
    Owners(points::owners::Args),
    /// Holds the sequencer against the floor: datagrams large and small, merged or not, of few and many clients
    Wire(points::wire::Args),
    /// Holds the program in the driver hook against one that only turns packets round, and against `io_uring`
    Xdp(points::xdp::Args),
    /// Sends requests through a path that loses, doubles and reorders datagrams
    Lossy(points::lossy::Args),
    /// Two shards against one, and what the counter that they share costs
    Shards(points::shards::Args),
    /// A billion tokens a second while every answer of the store is late
    Headroom(points::headroom::Args),
    /// What a client that floods does to a polite one
    Flood(points::flood::Args),
    /// The sequencer beside Redis, memcached and PostgreSQL
    Peers(points::peers::Args),
    /// Measures the logic of a grant without sockets
    Grants(points::grants::Args),
    /// Serves the echo
    #[command(hide = true)]
    Echo(net::echo::Args),
}

#[tokio::main]
async fn main() -> ExitCode {
    let args = Args::parse();
    // Points that keep no namespaces end at once, as they always did.
    let loads = matches!(
        args.point,
        Point::Tokens(_)
            | Point::Floor(_)
            | Point::Wire(_)
            | Point::Xdp(_)
            | Point::Peers(_)
            | Point::Shards(_)
            | Point::Flood(_)
            | Point::Partitions(_)
    );
    if loads && let Err(error) = stop::watch() {
        eprintln!("bench: {error:#}");
        return ExitCode::FAILURE;
    }
    match run(args.point).await {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => {
            eprintln!("bench: {error:#}");
            ExitCode::FAILURE
        }
    }
}

async fn run(point: Point) -> Result<bool> {
    let report = match point {
        Point::Rounds(args) => points::rounds::run(args).await?,
        Point::Failover(args) => points::failover::run(args).await?,
        Point::FailoverStall(args) => points::failover_stall::run(args).await?,
        Point::HandOverWriter(args) => points::hand_over_writer::run(args).await?,
        Point::FailoverWriter(args) => points::failover_writer::run(args).await?,
        Point::FailoverBoth(args) => points::failover_both::run(args).await?,
        Point::Etcd(args) => points::etcd::run(args).await?,
        Point::Partitions(args) => points::partitions::run(args).await?,
        Point::HandOver(args) => points::hand_over::run(args).await?,
        Point::Hole(args) => points::hole::run(args).await?,
        Point::Junk(args) => points::junk::run(args).await?,
        Point::Restripe(args) => points::restripe::run(args).await?,
        Point::Input(args) => points::input::run(args).await?,
        Point::Faults(args) => points::faults::run(args).await?,
        Point::Tokens(args) => points::tokens::run(args, false).await?,
        Point::Floor(args) => points::tokens::run(args, true).await?,
        Point::FloorStore(args) => points::floor_store::run(args).await?,
        Point::Append(args) => points::append::run(args).await?,
        Point::Latency(args) => points::latency::run(args).await?,
        Point::Read(args) => points::read::run(args).await?,
        Point::Follow(args) => points::follow::run(args).await?,
        Point::Cost(args) => points::cost::run(args).await?,
        Point::Backlog(args) => points::backlog::run(args).await?,
        Point::SlowStripe(args) => points::slow_stripe::run(args).await?,
        Point::Owners(args) => points::owners::run(args).await?,
        Point::Wire(args) => points::wire::run(args).await?,
        Point::Xdp(args) => points::xdp::run(args).await?,
        Point::Lossy(args) => points::lossy::run(args).await?,
        Point::Shards(args) => points::shards::run(args).await?,
        Point::Headroom(args) => points::headroom::run(args).await?,
        Point::Flood(args) => points::flood::run(args).await?,
        Point::Peers(args) => points::peers::run(args).await?,
        Point::Grants(args) => points::grants::run(&args)?,
        Point::Echo(args) => return net::echo::serve(&args).map(|()| true),
    };
    Ok(report.print()?)
}
