//! One turn: a server that is started for it, and a load.

use std::time::Duration;

use anyhow::{Context, Result, ensure};
use serde::Serialize;

use crate::live::Live;
use crate::logic::tally::Latency;
use crate::options::{Backend, LoadArgs, Switch, Wait};
use crate::program::ProgramCounts;
use crate::server::Server;

use super::QUEUES;

/// Clients that frames are of, as many as in the widest cells of `wire`; and more than a core's nearest cache has lines for.
pub(super) const CLIENTS: u32 = 64;
pub(super) const MANY_CLIENTS: u32 = 1024;

/// Datagrams that an ordinary client has under way.
const WINDOW: usize = 32;

/// The least that is asked in a turn, so that it says something.
const LEAST: u64 = 100;

/// Whose turn it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum Of {
    Program,
    /// What only turns packets round.
    Reflector,
    /// The sequencer on `io_uring`, and one that spins.
    Uring,
    Spinning,
}

/// What is measured in a turn.
#[derive(Debug, Clone, Copy, Serialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum Turn {
    /// Frames that the kernel sends for so many clients, in datagrams a second.
    Live { packed: usize, clients: u32 },
    /// Clients with a socket on so many cores each, from the last one on, one request a datagram, in requests a second. Bursts
    /// are not cut by the kernel: between two devices of one host they would not be datagrams on their way.
    Ordinary { cores: usize },
    /// The middle round trip of a client that spins, in microseconds.
    RoundTrip,
}

/// What all turns have in common.
#[derive(Debug, Clone, Copy)]
pub(super) struct Turns {
    pub(super) seconds: f64,
}

/// What came out of a turn.
#[derive(Debug, Clone)]
pub(super) struct Done {
    pub(super) figure: f64,
    /// What the program counted, if it was its turn, and the share of all answers that were its own.
    pub(super) program: Option<ProgramCounts>,
    pub(super) share: f64,
    /// Share of live frames without an answer.
    pub(super) lost: f64,
}

impl Turns {
    /// Starts a server and loads it.
    ///
    /// # Errors
    /// If it does not run, or answers what was not asked.
    pub(super) async fn take(&self, turn: Turn, of: Of) -> Result<Done> {
        let load = self.load(turn, of);
        let server = Server::start(&load.server(of == Of::Reflector)).await?;
        if let Turn::Live { clients, .. } = turn {
            return self.live(&load, clients, &server, of);
        }
        let figure = ordinary(&load, &server, turn, of)?;
        let program = match of {
            Of::Program => Some(ProgramCounts::of(&server.metrics()?)),
            _ => None,
        };
        Ok(Done {
            figure,
            share: program.as_ref().map_or(1.0, ProgramCounts::share),
            program,
            lost: 0.0,
        })
    }

    pub(super) fn load(&self, turn: Turn, of: Of) -> LoadArgs {
        let (packed, window, cores) = match turn {
            Turn::Live { packed, .. } => (packed, None, 1),
            Turn::Ordinary { cores } => (1, Some(WINDOW), cores),
            Turn::RoundTrip => (1, Some(1), 1),
        };
        LoadArgs {
            window,
            flows: cores,
            cores: (0..QUEUES).rev().take(cores).collect(),
            merge: Switch::Off,
            backend: match of {
                Of::Program | Of::Reflector => Backend::Xdp,
                Of::Uring | Of::Spinning => Backend::IoUring,
            },
            wait: match of {
                Of::Spinning => Wait::BusyPoll,
                _ => Wait::Block,
            },
            ..LoadArgs::closed(packed, self.seconds)
        }
    }

    fn live(&self, load: &LoadArgs, clients: u32, server: &Server, of: Of) -> Result<Done> {
        let live = Live {
            shape: load.shape(server.log(), of == Of::Reflector)?,
            clients,
            core: *load.cores.first().context("no core")?,
            time: Duration::from_secs_f64(self.seconds),
        };
        let answered = live.measure(server, load.backend);
        let answered =
            answered.with_context(|| format!("{of:?}: the server said: {}", server.said()))?;
        let right = match of {
            Of::Reflector => 0,
            _ => answered.answered,
        };
        ensure!(
            answered.answered >= LEAST && answered.replies == right,
            "{of:?}: not the answers that were expected: {answered:?}"
        );
        Ok(Done {
            figure: answered.datagrams_per_second,
            share: answered.program_share().unwrap_or(1.0),
            lost: answered.lost_share(),
            program: answered.program,
        })
    }
}

fn ordinary(load: &LoadArgs, server: &Server, turn: Turn, of: Of) -> Result<f64> {
    let measured = load.measure(server, of == Of::Reflector)?;
    let tally = &measured.tally;
    ensure!(
        tally.wrong == 0 && tally.requests >= LEAST,
        "{turn:?}: wrong={} requests={}",
        tally.wrong,
        tally.requests
    );
    Ok(match turn {
        Turn::RoundTrip => Latency::of(&tally.latency).p50_us,
        Turn::Live { .. } | Turn::Ordinary { .. } => measured.rate(),
    })
}
