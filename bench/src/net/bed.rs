//! The bed: two network namespaces with a wire between them, made by `scripts/bed.sh`.

use std::fs::File;
use std::io;
use std::net::{IpAddr, Ipv4Addr};
use std::os::fd::AsFd;
use std::path::{Path, PathBuf};
use std::process::{Child, Command};
use std::thread;

use anyhow::{Context, Result, bail, ensure};
use rustix::thread::{CpuSet, LinkNameSpaceType};

/// Address of the server.
pub(crate) const SERVER_IP: IpAddr = IpAddr::V4(Ipv4Addr::new(10, 99, 0, 1));

/// Addresses of the load.
pub(crate) const CLIENT_IPS: [IpAddr; 2] = [
    IpAddr::V4(Ipv4Addr::new(10, 99, 0, 2)),
    IpAddr::V4(Ipv4Addr::new(10, 99, 0, 3)),
];

/// The device at the server's end.
pub(crate) const SERVER_DEVICE: &str = "srv0";

/// Where namespaces that have a name are.
pub(crate) const NAMESPACES: &str = "/run/netns";

/// Priority of everything that is measured, as `nice` counts.
const HIGHEST_PRIORITY: i32 = -20;

/// One end of the bed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum End {
    /// The namespace of the server.
    Server,
    /// The namespace of the load.
    Client,
    /// Where this program runs.
    Here,
}

/// Where a thread or a process runs.
#[derive(Debug, Clone)]
pub(crate) struct Place {
    /// Its network.
    pub(crate) end: End,
    /// The cores that it may use; all without one.
    pub(crate) cores: Vec<usize>,
}

/// The bed, taken down when this is dropped unless it was up before.
#[derive(Debug)]
pub(crate) struct Bed {
    ours: bool,
}

impl Bed {
    /// Makes the bed if it is not there.
    ///
    /// # Errors
    /// What `scripts/bed.sh` says: it needs root.
    pub(crate) fn up() -> Result<Self> {
        Self::with_queues(1)
    }

    /// The same with at least so many queues at each end.
    ///
    /// # Errors
    /// What `scripts/bed.sh` says: it needs root, and does not change a bed that is up.
    pub(crate) fn with_queues(queues: usize) -> Result<Self> {
        let before =
            [End::Server, End::Client].map(|end| namespace(end).is_some_and(|p| p.exists()));
        script("up", queues)?;
        Ok(Self {
            ours: before == [false, false],
        })
    }
}

impl Drop for Bed {
    fn drop(&mut self) {
        if self.ours
            && let Err(error) = script("down", 1)
        {
            eprintln!("bench: {error:#}");
        }
    }
}

impl Place {
    /// A place at an end of the bed, on one core.
    pub(crate) fn on(end: End, core: usize) -> Self {
        Self {
            end,
            cores: vec![core],
        }
    }

    /// Moves the calling thread to this place, for ever.
    ///
    /// # Errors
    /// What the system says.
    pub(crate) fn enter(&self) -> Result<()> {
        if let Some(path) = namespace(self.end) {
            enter(&path)?;
        }
        pin(&self.cores)
    }

    /// Runs something on a thread of its own at this place, and waits for it.
    ///
    /// # Errors
    /// What it says, or the system.
    pub(crate) fn run<T: Send>(&self, job: impl FnOnce() -> Result<T> + Send) -> Result<T> {
        thread::scope(|scope| {
            let job = || {
                self.enter()?;
                job()
            };
            match scope.spawn(job).join() {
                Ok(result) => result,
                Err(_) => bail!("a thread of the bench has panicked"),
            }
        })
    }

    /// Starts a process at this place: it inherits network and cores of the thread that starts it.
    ///
    /// # Errors
    /// If there is no such program.
    pub(crate) fn spawn(&self, command: &mut Command) -> Result<Child> {
        self.run(|| {
            let child = command.spawn();
            child.with_context(|| format!("cannot start {:?}", command.get_program()))
        })
    }
}

/// Moves the calling thread into a network namespace, for ever.
///
/// # Errors
/// What the system says.
pub(crate) fn enter(namespace: &Path) -> Result<()> {
    let file = File::open(namespace);
    let file = file.with_context(|| format!("no bed: {}", namespace.display()))?;
    let kind = Some(LinkNameSpaceType::Network);
    rustix::thread::move_into_link_name_space(file.as_fd(), kind)
        .context("cannot enter the namespace")
}

/// Pins the calling thread to cores; to none in particular if there are none.
fn pin(cores: &[usize]) -> Result<()> {
    if cores.is_empty() {
        return Ok(());
    }
    // Other work on the machine is to take as little as possible of what is measured. Needs no success.
    let _ = rustix::process::setpriority_process(None, HIGHEST_PRIORITY);
    let mut set = CpuSet::new();
    for core in cores {
        ensure!(*core < CpuSet::MAX_CPU, "there is no core {core}");
        set.set(*core);
    }
    rustix::thread::sched_setaffinity(None, &set)
        .map_err(io::Error::from)
        .with_context(|| format!("cannot pin to the cores {cores:?}"))
}

fn namespace(end: End) -> Option<PathBuf> {
    let name = match end {
        End::Server => "srv",
        End::Client => "cli",
        End::Here => return None,
    };
    Some(Path::new(NAMESPACES).join(format!("{}-{name}", prefix())))
}

/// What the names of all namespaces of this program begin with.
pub(crate) fn prefix() -> String {
    std::env::var("STRIPELOG_BED").unwrap_or_else(|_| "slg".to_owned())
}

fn script(command: &str, queues: usize) -> Result<()> {
    let script = repository()?.join("scripts/bed.sh");
    let mut run = Command::new(&script);
    run.arg(command)
        .env("STRIPELOG_BED_QUEUES", queues.to_string());
    let output = run.output();
    let output = output.with_context(|| format!("cannot run {}", script.display()))?;
    let said = String::from_utf8_lossy(&output.stderr);
    ensure!(output.status.success(), "{}", said.trim());
    Ok(())
}

/// The repository that this program was built in: the nearest folder above the program, or above the
/// current one, that has the scripts.
///
/// # Errors
/// If there is none.
pub(crate) fn repository() -> Result<PathBuf> {
    let starts = [std::env::current_dir()?, std::env::current_exe()?];
    let mut folders = starts.iter().flat_map(|start| start.ancestors());
    let found = folders.find(|folder| folder.join("scripts/bed.sh").is_file());
    let found = found.context("scripts/bed.sh is not above the current directory")?;
    Ok(found.to_owned())
}
