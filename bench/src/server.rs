//! The server of a load, on its core at its end of the bed: the real sequencer on a log of its own, or the
//! echo that is the floor.

use std::fs::File;
use std::net::{Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use anyhow::{Context, Result, bail};
use catalog::{Log, Store};
use tempfile::TempDir;
use wire::{Layout, LogId};

use crate::cluster::{free_tcp_port, free_udp_port};
use crate::net::bed::{End, Place, SERVER_DEVICE, SERVER_IP};
use crate::net::metrics::Metrics;
use crate::process::binary;

/// Ports, all free: nobody else is in the namespace. Sequencer and echo may run side by side.
const PORT: u16 = 7400;
const ADMIN_PORT: u16 = 7401;
const ECHO_PORT: u16 = 7402;

/// Longest wait for a server to be ready.
const READY: Duration = Duration::from_secs(20);
const STEP: Duration = Duration::from_millis(20);

/// What a server is like.
#[derive(Debug, Clone)]
pub(crate) struct Spec {
    /// The echo, not the sequencer.
    pub(crate) echo: bool,
    /// How datagrams are received and sent: auto, `io_uring`, poll or xdp.
    pub(crate) backend: String,
    /// How it waits: block, `busy_poll` or sqpoll.
    pub(crate) wait: String,
    /// Whether the kernel merges what is received.
    pub(crate) merge: bool,
    /// Cores of the shards, one each; the process stays on these.
    pub(crate) cores: Vec<usize>,
    /// Where it runs.
    pub(crate) place: Place,
    /// File with the key that signs datagrams.
    pub(crate) key_file: Option<PathBuf>,
    /// More settings, as `section.key=value`.
    pub(crate) settings: Vec<String>,
    /// URL of the store; a directory in memory without it.
    pub(crate) store: Option<String>,
    /// Environment of the process.
    pub(crate) environment: Vec<(String, String)>,
}

/// A running server, killed when this is dropped.
#[derive(Debug)]
pub(crate) struct Server {
    child: Child,
    place: Place,
    address: SocketAddr,
    admin: SocketAddr,
    log: LogId,
    log_file: PathBuf,
    /// Removed behind the process.
    _directory: TempDir,
}

impl Server {
    /// Starts it, and waits until it serves.
    ///
    /// # Errors
    /// What keeps it from serving, with its last lines.
    pub(crate) async fn start(spec: &Spec) -> Result<Self> {
        let directory = directory()?;
        let log_file = directory.path().join("server.log");
        let (address, admin) = addresses(spec)?;
        let (log, mut command) = match spec.echo {
            true => (LogId([0; 16]), echo(spec, address)?),
            false => sequencer(spec, directory.path(), address, admin).await?,
        };
        command
            .envs(spec.environment.iter().cloned())
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(File::create(&log_file)?);
        let child = spec.place.spawn(&mut command)?;
        let mut server = Self {
            child,
            place: spec.place.clone(),
            address,
            admin,
            log,
            log_file,
            _directory: directory,
        };
        server.ready().await?;
        Ok(server)
    }

    /// Where it serves.
    #[must_use]
    pub(crate) fn address(&self) -> SocketAddr {
        self.address
    }

    /// Log that it serves.
    #[must_use]
    pub(crate) fn log(&self) -> LogId {
        self.log
    }

    /// Its process.
    #[must_use]
    pub(crate) fn process(&self) -> u32 {
        self.child.id()
    }

    /// What it shows of itself.
    ///
    /// # Errors
    /// If it does not answer, as an echo.
    pub(crate) fn metrics(&self) -> Result<Metrics> {
        let place = Place {
            end: self.place.end,
            cores: Vec::new(),
        };
        place.run(|| Metrics::ask(self.admin))
    }

    /// Everything that it has written, for error messages.
    #[must_use]
    pub(crate) fn said(&self) -> String {
        std::fs::read_to_string(&self.log_file).unwrap_or_default()
    }

    async fn ready(&mut self) -> Result<()> {
        for _ in 0..READY.as_millis() / STEP.as_millis() {
            if let Some(status) = self.child.try_wait()? {
                bail!("the server ended: {status}\n{}", self.said());
            }
            if self.said().contains("granting") {
                return Ok(());
            }
            tokio::time::sleep(STEP).await;
        }
        bail!("the server is not ready\n{}", self.said())
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Where datagrams and questions go. In the bed these are known; elsewhere others may use them.
fn addresses(spec: &Spec) -> Result<(SocketAddr, SocketAddr)> {
    Ok(match spec.place.end {
        End::Here => (free_udp_port()?, free_tcp_port()?),
        End::Server | End::Client => {
            let port = if spec.echo { ECHO_PORT } else { PORT };
            let admin = SocketAddr::from((Ipv4Addr::LOCALHOST, ADMIN_PORT));
            (SocketAddr::new(SERVER_IP, port), admin)
        }
    })
}

/// A directory in memory, where there is one: the disk is not what is measured.
///
/// # Errors
/// What the system says.
pub(crate) fn directory() -> Result<TempDir> {
    let memory = Path::new("/dev/shm");
    let mut builder = tempfile::Builder::new();
    builder.prefix("stripelog-bench-");
    Ok(match memory.is_dir() {
        true => builder.tempdir_in(memory)?,
        false => builder.tempdir()?,
    })
}

fn echo(spec: &Spec, listen: SocketAddr) -> Result<Command> {
    let mut command = Command::new(std::env::current_exe()?);
    let (listen, merge) = (listen.to_string(), spec.merge.to_string());
    command.args(["echo", "--listen", &listen, "--merge", &merge]);
    command.args(["--backend", &spec.backend, "--wait", &spec.wait]);
    if let Some(core) = spec.cores.first() {
        command.args(["--core", &core.to_string()]);
    }
    Ok(command)
}

async fn sequencer(
    spec: &Spec,
    directory: &Path,
    listen: SocketAddr,
    admin: SocketAddr,
) -> Result<(LogId, Command)> {
    let own = directory.join("store");
    std::fs::create_dir(&own)?;
    let url = match &spec.store {
        Some(url) => url.clone(),
        None => format!(
            "file://{}",
            own.to_str().context("a path that is not UTF-8")?
        ),
    };
    let log = Log::create(Store::open(&url)?, Layout::new(4, 1024)?).await?;
    let mut command = Command::new(binary("sequencer-fast")?);
    let cores: Vec<_> = spec.cores.iter().map(usize::to_string).collect();
    let mut settings = vec![
        format!("sequencer.listen={listen}"),
        format!("membership.sequencer={listen}"),
        format!("sequencer.admin={admin}"),
        format!("sequencer.backend={}", spec.backend),
        format!("sequencer.shards={}", spec.cores.len().max(1)),
        format!("sequencer.cores={}", cores.join(",")),
    ];
    // As a sequencer without these settings behaves by default.
    if spec.wait != "block" {
        settings.push(format!("sequencer.wait={}", spec.wait));
    }
    if !spec.merge {
        settings.push("sequencer.merge=off".to_owned());
    }
    if spec.backend == "xdp" {
        settings.push(format!("sequencer.interface={SERVER_DEVICE}"));
    }
    settings.extend(spec.settings.iter().cloned());
    command.args(["--store", &url]).current_dir(directory);
    for setting in settings {
        command.args(["--set", &setting]);
    }
    if let Some(key_file) = &spec.key_file {
        command.arg("--key-file").arg(key_file);
    }
    for name in ["RUST_LOG", "STRIPELOG_CONFIG"] {
        command.env_remove(name);
    }
    Ok((log.id(), command))
}
