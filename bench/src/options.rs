//! Arguments that the commands about load have in common.

use std::fs;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use clap::ValueEnum;
use clap::builder::RangedU64ValueParser;
use rand::Rng;
use serde::Serialize;
use wire::LogId;
use wire::limits::MAX_GRANT;
use wire::mac::Key;

use crate::logic::batch::Shape;
use crate::measure::{Measured, WARM_UP, measure};
use crate::net::bed::{End, Place};
use crate::net::flow::Wire;
use crate::net::generator::Load;
use crate::net::hook::{Job, Program};
use crate::server::{Server, Spec};

/// Bytes under way in a closed loop that sockets hold without loss, and most in one send.
const UNDER_WAY_BYTES: usize = 256 << 10;
const SEND_BYTES: usize = 65_000;

/// Most datagrams of one send.
const LONGEST_RUN: usize = 64;

/// How datagrams are received and sent.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum, Serialize)]
#[serde(rename_all = "snake_case")]
#[value(rename_all = "snake_case")]
pub(crate) enum Backend {
    /// `io_uring` where it is allowed
    Auto,
    IoUring,
    Poll,
    /// A program in the driver hook, which grants by itself; the floor is one that only turns packets round
    Xdp,
}

/// How a server waits for datagrams.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum, Serialize)]
#[serde(rename_all = "snake_case")]
#[value(rename_all = "snake_case")]
pub(crate) enum Wait {
    Block,
    BusyPoll,
    Sqpoll,
}

/// On or off.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum, Serialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Switch {
    On,
    Off,
}

/// What is asked, how often, from where to where.
#[derive(Debug, Clone, clap::Args, Serialize)]
pub(crate) struct LoadArgs {
    /// Requests at a fixed rate; latency counts from when each was due
    #[arg(long, requires = "rate", conflicts_with = "closed")]
    pub(crate) open: bool,
    /// Every client keeps its window under way; this is the default
    #[arg(long)]
    pub(crate) closed: bool,
    /// Requests a second, of all clients together; they are due by the datagram
    #[arg(long, value_name = "REQUESTS", requires = "open")]
    pub(crate) rate: Option<f64>,
    /// Requests a datagram, 1 to 29
    #[arg(long, value_name = "REQUESTS", default_value_t = 16, value_parser = at(1, 29))]
    pub(crate) packed: usize,
    /// Positions a request
    #[arg(long, value_name = "POSITIONS", default_value_t = 1, value_parser = clap::value_parser!(u32).range(1..=i64::from(MAX_GRANT)))]
    pub(crate) tokens: u32,
    /// Clients, each with a socket of its own
    #[arg(long, value_name = "CLIENTS", default_value_t = 1, value_parser = at(1, 4096))]
    pub(crate) flows: usize,
    /// Most datagrams that are sent together [default: what 64 KiB and the window hold, at most 64]
    #[arg(long, value_name = "DATAGRAMS", value_parser = at(1, 128))]
    pub(crate) run: Option<usize>,
    /// Datagrams that a client has under way [default: four runs where sockets hold them]
    #[arg(long, value_name = "DATAGRAMS", value_parser = at(1, 65536))]
    pub(crate) window: Option<usize>,
    /// Measured seconds
    #[arg(long, default_value_t = 2.0, value_parser = seconds)]
    pub(crate) seconds: f64,
    /// Cores of the load, a thread on each
    #[arg(long, value_name = "CORES", value_delimiter = ',', default_value = "1")]
    pub(crate) cores: Vec<usize>,
    /// First core of the server; its shards use the following ones
    #[arg(long, value_name = "CORE", default_value_t = 0)]
    pub(crate) server_core: usize,
    /// How the server receives and sends
    #[arg(long, value_enum, default_value = "auto")]
    pub(crate) backend: Backend,
    /// How the server waits
    #[arg(long, value_enum, default_value = "block")]
    pub(crate) wait: Wait,
    /// Whether both ends let the kernel merge and cut datagrams
    #[arg(long, value_enum, default_value = "on")]
    pub(crate) merge: Switch,
    /// Threads of the server
    #[arg(long, value_name = "THREADS", default_value_t = 1, value_parser = at(1, 64))]
    pub(crate) shards: usize,
    /// File with the key that signs datagrams
    #[arg(long, value_name = "FILE")]
    pub(crate) key_file: Option<PathBuf>,
    /// Milliseconds without an answer after which a datagram is sent again
    #[arg(long, value_name = "MS", default_value_t = 50)]
    pub(crate) retry_ms: u64,
    /// Keeps all granted ranges, and checks that no position was granted twice
    #[arg(long)]
    pub(crate) check: bool,
}

impl LoadArgs {
    /// A closed loop with one client, with the defaults of the command line.
    #[must_use]
    pub(crate) fn closed(packed: usize, seconds: f64) -> Self {
        Self {
            open: false,
            closed: true,
            rate: None,
            packed,
            tokens: 1,
            flows: 1,
            run: None,
            window: None,
            seconds,
            cores: vec![1],
            server_core: 0,
            backend: Backend::Auto,
            wait: Wait::Block,
            merge: Switch::On,
            shards: 1,
            key_file: None,
            retry_ms: 50,
            check: false,
        }
    }

    /// Whether datagrams are cut and merged by the kernel.
    #[must_use]
    pub(crate) fn merges(&self) -> bool {
        self.merge == Switch::On
    }

    /// Datagrams of a run, and runs that a client has under way.
    ///
    /// # Errors
    /// If the arguments contradict each other.
    pub(crate) fn window(&self) -> Result<(usize, usize)> {
        ensure!(
            self.flows > 0 && !self.cores.is_empty(),
            "no client, or no core for it"
        );
        let bytes = 64 + 48 * self.packed;
        let fits = (UNDER_WAY_BYTES / bytes / self.flows).max(1);
        let longest = LONGEST_RUN.min(SEND_BYTES / bytes);
        let run = self.run.unwrap_or_else(|| longest.min(fits));
        let run = self.window.map_or(run, |window| run.min(window)).max(1);
        ensure!(
            run * bytes <= SEND_BYTES && run <= 128,
            "--run: at most 128 datagrams and 65,000 bytes"
        );
        let runs = match self.window {
            Some(window) => window / run,
            None => (fits / run).clamp(1, 4),
        };
        Ok((run, runs.max(1)))
    }

    /// What the server is like.
    #[must_use]
    pub(crate) fn server(&self, echo: bool) -> Spec {
        let cores: Vec<_> = (self.server_core..self.server_core + self.shards).collect();
        Spec {
            echo,
            backend: name(self.backend),
            wait: name(self.wait),
            merge: self.merges(),
            place: Place {
                end: End::Server,
                cores: cores.clone(),
            },
            cores,
            key_file: self.key_file.clone(),
            settings: Vec::new(),
            store: None,
            environment: Vec::new(),
        }
    }

    /// What the load's end needs, so that it gets what a program at the other end sends back.
    ///
    /// # Errors
    /// If this was built without it, or may not.
    pub(crate) fn peer(&self, server: SocketAddr) -> Result<Option<Program>> {
        let needed = self.backend == Backend::Xdp;
        let program = needed.then(|| Program::attach(Job::Pass, server.port(), End::Client));
        program.transpose()
    }

    /// Runs the load on a server that this program has started.
    ///
    /// # Errors
    /// If the arguments contradict each other, or the load cannot send or receive.
    pub(crate) fn measure(&self, server: &Server, echo: bool) -> Result<Measured> {
        let load = self.load_on(server.address(), server.log(), echo)?;
        let _peer = self.peer(server.address())?;
        // A program in the driver hook runs on the time of nobody.
        let process = (self.backend != Backend::Xdp).then(|| server.process());
        let measured = measure(&load, process);
        measured.with_context(|| format!("the server said: {}", server.said()))
    }

    /// What each datagram asks.
    ///
    /// # Errors
    /// If it does not fit into one.
    pub(crate) fn shape(&self, log: LogId, echo: bool) -> Result<Shape> {
        let shape = Shape {
            log,
            packed: self.packed,
            tokens: self.tokens,
            echo,
        };
        shape.check()?;
        Ok(shape)
    }

    /// The load on a server.
    ///
    /// # Errors
    /// If the arguments contradict each other.
    pub(crate) fn load_on(&self, server: SocketAddr, log: LogId, echo: bool) -> Result<Load> {
        let (run, batches) = self.window()?;
        let shape = self.shape(log, echo)?;
        ensure!(
            self.seconds > 0.0 && self.seconds <= 3600.0,
            "--seconds: at most an hour"
        );
        ensure!(
            self.rate.is_none_or(|rate| rate >= 1.0),
            "--rate: at least 1"
        );
        Ok(Load {
            wire: Wire {
                server,
                from: None,
                merge: self.merges(),
                key: self.key_file.as_deref().map(key).transpose()?,
            },
            shape,
            flows: self.flows,
            run,
            batches,
            rate: self.rate,
            warm_up: WARM_UP,
            time: Duration::from_secs_f64(self.seconds),
            retry: Duration::from_millis(self.retry_ms),
            keep_ranges: self.check && !echo,
            places: self
                .cores
                .iter()
                .map(|core| Place::on(End::Client, *core))
                .collect(),
            // Unlike every other run's: a server may remember those.
            first_client: rand::rng().random(),
        })
    }
}

/// A number from `least` to `most`.
fn at(least: u64, most: u64) -> RangedU64ValueParser<usize> {
    RangedU64ValueParser::new().range(least..=most)
}

/// A time that a run may take.
pub(crate) fn seconds(text: &str) -> Result<f64, String> {
    let allowed = || "allowed: above 0, at most 3600".to_owned();
    let seconds = text.parse().map_err(|_| allowed())?;
    let fits = seconds > 0.0 && seconds <= 3600.0;
    fits.then_some(seconds).ok_or_else(allowed)
}

/// The key in a file.
fn key(file: &Path) -> Result<Key> {
    let text = fs::read_to_string(file);
    let text = text.with_context(|| format!("cannot read {}", file.display()))?;
    Key::parse(&text).with_context(|| format!("{}", file.display()))
}

/// An argument as it is written.
pub(crate) fn name(value: impl ValueEnum) -> String {
    let value = value.to_possible_value();
    value.map_or_else(String::new, |value| value.get_name().to_owned())
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;

    #[derive(Debug, Parser)]
    struct Only {
        #[command(flatten)]
        load: LoadArgs,
    }

    fn window(line: &str) -> (usize, usize) {
        let args = Only::parse_from(std::iter::once("bench").chain(line.split_whitespace()));
        args.load.window().expect("valid")
    }

    #[test]
    fn windows_fit_into_sockets() {
        assert_eq!(window("--packed 1"), (64, 4));
        assert_eq!(window("--packed 29"), (44, 4));
        assert_eq!(window("--packed 29 --flows 64"), (2, 1));
        assert_eq!(window("--packed 29 --flows 1 --window 1"), (1, 1));
        assert_eq!(window("--packed 1 --run 8 --window 64"), (8, 8));
    }
}
