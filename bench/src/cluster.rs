//! A log served by real processes: the released programs, started and killed as a user would.

mod settings;
mod sites;

use std::net::{Ipv4Addr, SocketAddr, TcpListener, UdpSocket};
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;

use anyhow::{Context, Result, bail};
use catalog::Store;
use serde_json::Value;
use stripelog::{EtcdSettings, Log, Membership, Options, Writer};
use tempfile::TempDir;
use tokio::process::{Child, Command};

use crate::net::lan::Sites;
use crate::net::metrics::Metrics;
use crate::process::{Process, SETTINGS, binary};
use crate::report::Report;

/// Longest time for a helper command such as `stripelog verify`.
const COMMAND_TIMEOUT: Duration = Duration::from_secs(300);

/// Stripes of a log that is created without a number, and most that a log has.
const DEFAULT_STRIPES: u32 = 32;
const MAX_STRIPES: u32 = 1024;

/// What keys in etcd begin with, and the lease of processes there.
pub(crate) const ETCD_PREFIX: &str = "/bench";
const ETCD_LEASE: Duration = Duration::from_secs(3);

/// Which daemon.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) enum Daemon {
    /// `sequencer-fast`.
    Sequencer,
    /// `stripe-writer`.
    Writer,
}

/// What a cluster is like.
#[derive(Debug, Clone, Default)]
pub(crate) struct Spec {
    /// URL of the store; a directory of the cluster's own without it.
    pub(crate) store: Option<String>,
    /// Stripes, K; the default without it.
    pub(crate) stripes: Option<u32>,
    /// Positions of a unit, U; the default without it.
    pub(crate) unit: Option<u32>,
    /// More settings, as `section.key=value`.
    pub(crate) settings: Vec<String>,
    /// Whether the settings name a second sequencer; see [`crate::pair::Pair`].
    pub(crate) pair: bool,
    /// Stripe-writers that the settings name, where it is more than one; see [`crate::group::Group`].
    pub(crate) writers: usize,
    /// Nodes of etcd, if the processes find each other there.
    pub(crate) etcd: Vec<String>,
    /// Environment of the daemons.
    pub(crate) environment: Vec<(String, String)>,
    /// Where a pair of sequencers and several stripe-writers are, if each has a network of its own.
    pub(crate) sites: Option<Sites>,
    /// The store as this program reaches it, where that is not by its own environment.
    pub(crate) opened: Option<Store>,
}

/// A log and the processes that serve it, all killed when this is dropped.
#[derive(Debug)]
pub(crate) struct Cluster {
    directory: TempDir,
    store: String,
    spec: Spec,
    sequencer: SocketAddr,
    second: Option<SocketAddr>,
    writer: SocketAddr,
    other_writers: Vec<SocketAddr>,
    admins: [SocketAddr; 2],
    daemons: [Process; 2],
}

impl Cluster {
    /// Creates a log and starts its daemons.
    ///
    /// # Errors
    /// What keeps it from running.
    pub(crate) async fn start(spec: Spec) -> Result<Self> {
        let mut cluster = Self::create(spec).await?;
        cluster.run(Daemon::Sequencer)?;
        cluster.run(Daemon::Writer)?;
        Ok(cluster)
    }

    /// Creates a log that nobody serves yet.
    ///
    /// # Errors
    /// What keeps it from being created.
    pub(crate) async fn create(spec: Spec) -> Result<Self> {
        let directory = tempfile::Builder::new().prefix("stripelog-").tempdir()?;
        let own = directory.path().join("store");
        std::fs::create_dir(&own)?;
        let local = url_of(&own)?;
        let others = spec.writers.saturating_sub(1);
        let mut cluster = Self {
            store: spec.store.clone().unwrap_or(local),
            daemons: daemons(directory.path(), &spec),
            directory,
            sequencer: free_udp_port()?,
            second: spec.pair.then(free_udp_port).transpose()?,
            writer: free_tcp_port()?,
            other_writers: (0..others)
                .map(|_| free_tcp_port())
                .collect::<Result<_>>()?,
            admins: [free_tcp_port()?, free_tcp_port()?],
            spec,
        };
        cluster.move_to_sites();
        std::fs::write(cluster.config(), cluster.settings())?;
        cluster
            .command(&["create"])
            .await
            .context("cannot create the log")?;
        Ok(cluster)
    }

    /// The settings file.
    #[must_use]
    pub(crate) fn config(&self) -> PathBuf {
        self.directory.path().join(SETTINGS)
    }

    /// URL of the store.
    #[must_use]
    pub(crate) fn store(&self) -> &str {
        &self.store
    }

    /// UDP address of the sequencer.
    #[must_use]
    pub(crate) fn sequencer(&self) -> SocketAddr {
        self.sequencer
    }

    /// UDP addresses of all sequencers.
    #[must_use]
    pub(crate) fn sequencers(&self) -> Vec<SocketAddr> {
        [self.sequencer].into_iter().chain(self.second).collect()
    }

    /// TCP address of the stripe-writer.
    #[must_use]
    pub(crate) fn writer(&self) -> SocketAddr {
        self.writer
    }

    /// A daemon beside the two of the cluster, which does not run yet.
    #[must_use]
    pub(crate) fn member(&self, program: &'static str, log: &str) -> Process {
        Process::new(program, self.directory.path(), log, &self.spec.environment)
    }

    /// The stripe-writers that the settings name, with the stripes of each.
    #[must_use]
    pub(crate) fn writers(&self) -> Vec<Writer> {
        let addresses = [self.writer]
            .into_iter()
            .chain(self.other_writers.iter().copied());
        let count = u32::try_from(1 + self.other_writers.len()).unwrap_or(u32::MAX);
        let stripes = match count {
            1 => MAX_STRIPES,
            _ => self.spec.stripes.unwrap_or(DEFAULT_STRIPES),
        };
        let first = |n: u32| u16::try_from(stripes * n / count).unwrap_or(u16::MAX);
        let writer = |(n, address)| Writer {
            address,
            stripes: first(n)..=first(n + 1) - 1,
        };
        (0..).zip(addresses).map(writer).collect()
    }

    /// The process of a daemon, while it runs.
    #[must_use]
    pub(crate) fn process(&self, daemon: Daemon) -> Option<u32> {
        self.daemons[slot(daemon)].id()
    }

    /// What a daemon shows of itself.
    ///
    /// # Errors
    /// If it does not answer.
    pub(crate) async fn metrics(&self, daemon: Daemon) -> Result<Metrics> {
        let address = self.admins[slot(daemon)];
        tokio::task::spawn_blocking(move || Metrics::ask(address)).await?
    }

    /// The unit of the log's layout.
    ///
    /// # Errors
    /// If the log cannot be looked at.
    pub(crate) async fn unit(&self) -> Result<u32> {
        let status = self.command(&["status"]).await?;
        let unit = status.pointer("/segments/0/unit").and_then(Value::as_u64);
        let unit = unit.with_context(|| format!("no unit in {status}"))?;
        Ok(u32::try_from(unit)?)
    }

    /// Options of a client of this log.
    #[must_use]
    pub(crate) fn options(&self) -> Options {
        if !self.spec.etcd.is_empty() {
            let etcd = EtcdSettings {
                endpoints: self.spec.etcd.clone(),
                prefix: ETCD_PREFIX.to_owned(),
                lease: ETCD_LEASE,
            };
            return Options::in_etcd(&self.store, etcd);
        }
        let membership = Membership {
            sequencers: self.sequencers(),
            writers: self.writers(),
        };
        Options::new(&self.store, membership)
    }

    /// A client of this log.
    ///
    /// # Errors
    /// If it cannot be opened.
    pub(crate) async fn client(&self) -> Result<Log> {
        match &self.spec.opened {
            Some(store) => {
                let log = catalog::Log::open(store.clone()).await?;
                Ok(Log::open_in(log, self.options()).await?)
            }
            None => Ok(Log::open(self.options()).await?),
        }
    }

    /// Starts a daemon that is not running.
    ///
    /// # Errors
    /// If its program is not there.
    pub(crate) fn run(&mut self, daemon: Daemon) -> Result<()> {
        self.daemons[slot(daemon)].run(&[])
    }

    /// Kills a daemon with SIGKILL, and waits until it is gone.
    ///
    /// # Errors
    /// If it had ended by itself: it must not.
    pub(crate) async fn kill(&mut self, daemon: Daemon) -> Result<()> {
        let process = &mut self.daemons[slot(daemon)];
        match process.is_started() {
            true => process.kill().await,
            false => Ok(()),
        }
    }

    /// Kills a daemon with SIGKILL, unless it has ended.
    ///
    /// # Errors
    /// What the system says.
    pub(crate) async fn end(&mut self, daemon: Daemon) -> Result<()> {
        self.daemons[slot(daemon)].end().await
    }

    /// Stops a daemon with SIGTERM, and waits until it is gone.
    ///
    /// # Errors
    /// If it does not end, or not with success.
    pub(crate) async fn stop(&mut self, daemon: Daemon) -> Result<()> {
        let process = &mut self.daemons[slot(daemon)];
        match process.is_started() {
            true => process.stop().await,
            false => Ok(()),
        }
    }

    /// Another cluster of the same log, whose settings name another stripe-writer as the owner of every
    /// stripe. It has no sequencer of its own.
    ///
    /// # Errors
    /// What keeps it from being described.
    pub(crate) fn rival(&self) -> Result<Self> {
        let directory = tempfile::Builder::new().prefix("stripelog-").tempdir()?;
        let rival = Self {
            store: self.store.clone(),
            daemons: daemons(directory.path(), &self.spec),
            directory,
            sequencer: self.sequencer,
            second: self.second,
            writer: free_tcp_port()?,
            other_writers: Vec::new(),
            admins: [self.admins[0], free_tcp_port()?],
            spec: self.spec.clone(),
        };
        std::fs::write(rival.config(), rival.settings())?;
        Ok(rival)
    }

    /// Stops a daemon where it stands, or lets it go on.
    ///
    /// # Errors
    /// If it does not run.
    pub(crate) async fn freeze(&self, daemon: Daemon, frozen: bool) -> Result<()> {
        let signal = if frozen { "-STOP" } else { "-CONT" };
        self.daemons[slot(daemon)].signal(signal).await
    }

    /// Whether a daemon runs.
    ///
    /// # Errors
    /// What the system says.
    pub(crate) fn runs(&mut self, daemon: Daemon) -> Result<bool> {
        let process = &mut self.daemons[slot(daemon)];
        Ok(process.is_started() && process.has_ended()?.is_none())
    }

    /// Runs the command `stripelog` on this log and gives the last line that it prints, as JSON.
    ///
    /// # Errors
    /// If it fails; the error has what it said.
    pub(crate) async fn command(&self, args: &[&str]) -> Result<Value> {
        let asking = self.asking(args)?.wait_with_output();
        let output = tokio::time::timeout(COMMAND_TIMEOUT, asking).await??;
        let stdout = String::from_utf8_lossy(&output.stdout).into_owned();
        if !output.status.success() {
            let stderr = String::from_utf8_lossy(&output.stderr);
            bail!(
                "stripelog {args:?} failed: {} {stdout} {stderr}",
                output.status
            );
        }
        let last = stdout.lines().next_back().unwrap_or("null");
        Ok(serde_json::from_str(last)?)
    }

    /// Starts `stripelog` with these arguments; killed when it is dropped.
    ///
    /// # Errors
    /// If its program is not there.
    pub(crate) fn asking(&self, args: &[&str]) -> Result<Child> {
        let mut command = Command::new(binary("stripelog")?);
        command
            .args(args)
            .arg("--json")
            .arg("--config")
            .arg(self.config())
            .envs(self.spec.environment.iter().cloned())
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .kill_on_drop(true);
        Ok(command.spawn()?)
    }

    /// The last lines that a daemon logged, for error messages.
    #[must_use]
    pub(crate) fn last_lines(&self, daemon: Daemon) -> String {
        self.daemons[slot(daemon)].last_lines()
    }

    /// Whether a daemon has logged a text since it was started first.
    #[must_use]
    pub(crate) fn said(&self, daemon: Daemon, text: &str) -> bool {
        self.daemons[slot(daemon)].said().contains(text)
    }

    /// How many lines of a daemon's log speak of a panic.
    #[must_use]
    pub(crate) fn panics(&self, daemon: Daemon) -> usize {
        self.daemons[slot(daemon)].panics()
    }

    /// Keeps the cluster's directory, for a look at what went wrong, if something did or a bar was missed.
    ///
    /// # Errors
    /// What did.
    pub(crate) fn judged(&mut self, outcome: Result<Report>) -> Result<Report> {
        if !outcome.as_ref().is_ok_and(Report::holds) {
            self.directory.disable_cleanup(true);
            eprintln!("kept for a look: {}", self.directory.path().display());
        }
        outcome
    }
}

fn daemons(directory: &Path, spec: &Spec) -> [Process; 2] {
    let daemon = |program, log| Process::new(program, directory, log, &spec.environment);
    [
        daemon("sequencer-fast", "sequencer.log"),
        daemon("stripe-writer", "writer.log"),
    ]
}

fn slot(daemon: Daemon) -> usize {
    match daemon {
        Daemon::Sequencer => 0,
        Daemon::Writer => 1,
    }
}

fn url_of(directory: &Path) -> Result<String> {
    let path = directory.to_str().context("a path that is not UTF-8")?;
    Ok(format!("file://{path}"))
}

/// A TCP address on the loopback interface that nobody listens on now.
///
/// # Errors
/// What the system says.
pub(crate) fn free_tcp_port() -> Result<SocketAddr> {
    Ok(TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?.local_addr()?)
}

/// A UDP address on the loopback interface that nobody listens on now.
///
/// # Errors
/// What the system says.
pub(crate) fn free_udp_port() -> Result<SocketAddr> {
    Ok(UdpSocket::bind((Ipv4Addr::LOCALHOST, 0))?.local_addr()?)
}
