//! Two queues at once, each served by a core: frames that the kernel sends come in by both, and clients with sockets ask
//! in between. Every position that anybody was told is looked at: none was granted twice.

use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;

use anyhow::{Result, bail, ensure};

use super::QUEUES;
use super::turns::{CLIENTS, Of, Turn, Turns};
use crate::live::drained;
use crate::logic::batch::Shape;
use crate::measure::{Measured, measure};
use crate::net::bed::{End, Place};
use crate::net::hook::{CHECKED, Job, Program, Source};
use crate::net::metrics::Metrics;
use crate::options::LoadArgs;
use crate::report::Report;
use crate::server::Server;
use crate::stop;

/// Cores that frames are sent on: what comes from one of them takes a queue of its own.
const CORES: [usize; 2] = [0, 1];

/// Requests of a frame.
const PACKED: usize = 3;

/// Frames of one call of the kernel, and all frames of a core: their positions have to be below what can be looked at,
/// with those of the clients.
const FRAMES: u32 = 400_000;
const MOST_FRAMES: u64 = 6_000_000;

/// Clients with a socket each, half of them on each core: chance gives each socket its queue, and all of them the same one
/// only once in 32,768 runs.
const FLOWS: usize = 16;
const WINDOW: usize = 8;

/// Part of the answers that has to come by each queue, and the fewest requests of clients in between.
const LEAST_SHARE: f64 = 0.1;
const LEAST_REQUESTS: f64 = 1000.0;

/// Loads both queues, and reports.
///
/// # Errors
/// If the server does not run, or the load cannot send or receive.
pub(super) async fn run(turns: &Turns, report: &mut Report) -> Result<()> {
    let load = LoadArgs {
        flows: FLOWS,
        window: Some(WINDOW),
        cores: CORES.to_vec(),
        check: true,
        ..turns.load(Turn::Ordinary { cores: QUEUES }, Of::Program)
    };
    let server = Server::start(&load.server(false)).await?;
    let port = server.address().port();
    let check = Program::attach(Job::Check, port, End::Client)?;
    let (measured, made) = both(&load, &server)?;
    let counts = drained(&check);
    let metrics = server.metrics()?;
    let Some(mut told) = measured.tally.ranges.clone() else {
        bail!("no ranges were kept");
    };
    let of_clients = told.positions();
    told.append(&check.granted()?);
    let tail = metrics.get("sequencer_taken_tail");
    ensure!(
        tail < CHECKED as f64,
        "more positions than can be looked at"
    );
    report.exactly("two_queues_granted_twice", told.twice() + counts.twice, 0);
    report.exactly("two_queues_beyond_tail", told.tail() as f64 > tail, false);
    let by_program = metrics.get("sequencer_program_tokens_total");
    let by_shards = metrics.get("sequencer_tokens_total");
    report.exactly("two_queues_tokens", by_program + by_shards, tail);
    report.exactly("two_queues_unchecked", counts.unchecked, 0);
    report.exactly("two_queues_wrong", measured.tally.wrong, 0);
    let [first, second, ..] = counts.queues;
    let least = first.min(second) as f64 / counts.replies.max(1) as f64;
    report.at_least("two_queues_least_share", least, LEAST_SHARE);
    let requests = measured.tally.requests as f64;
    report.at_least("two_queues_client_requests", requests, LEAST_REQUESTS);
    report.figure("two_queues_frames", made);
    report.figure("two_queues_replies_by_queue", [first, second]);
    report.figure("two_queues_positions_of_clients", of_clients);
    report.figure("two_queues_untold", tail - told.positions() as f64);
    report.figure("two_queues_by_shards", by_shards);
    report.figure("two_queues_passed_up", passed_up(&metrics));
    Ok(())
}

fn passed_up(metrics: &Metrics) -> std::collections::BTreeMap<String, f64> {
    crate::program::ProgramCounts::of(metrics).passed_up
}

/// Clients, and frames on both cores for as long as they ask; gives how many frames each core has made.
fn both(load: &LoadArgs, server: &Server) -> Result<(Measured, Vec<u64>)> {
    let clients = load.load_on(server.address(), server.log(), false)?;
    let shape = Shape {
        packed: PACKED,
        ..load.shape(server.log(), false)?
    };
    let port = server.address().port();
    let over = AtomicBool::new(false);
    thread::scope(|scope| {
        let sources = CORES.map(|core| {
            let over = &over;
            scope.spawn(move || {
                let place = Place::on(End::Client, core);
                place.run(|| send(shape, port, over))
            })
        });
        let measured = measure(&clients, None);
        over.store(true, Ordering::Release);
        let mut made = Vec::new();
        for source in sources {
            match source.join() {
                Ok(frames) => made.push(frames?),
                Err(_) => bail!("a thread of the load has panicked"),
            }
        }
        Ok((measured?, made))
    })
}

fn send(shape: Shape, port: u16, over: &AtomicBool) -> Result<u64> {
    let mut source = Source::load(shape, port, CLIENTS)?;
    while !over.load(Ordering::Acquire) && source.made() < MOST_FRAMES {
        stop::check()?;
        source.send(FRAMES)?;
    }
    Ok(source.made())
}
