//! A network of several hosts on this machine: a switch and the hosts are namespaces of their own, so that nothing but
//! their names is seen outside, and everything in them goes with them.

use std::net::{Ipv4Addr, SocketAddr, TcpListener};
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::{fs, thread};

use anyhow::{Context, Result, bail, ensure};
use tokio::io::AsyncWriteExt;
use tokio::process::Command;
use tokio::runtime::Handle;

use super::bed;
use super::left::{Before, Left};

/// The network of all hosts; the first has 1 as its last number.
const NETWORK: [u8; 3] = [10, 98, 0];
const PREFIX_BITS: u8 = 24;

/// Most hosts.
const HOSTS_MAX: usize = 32;

/// Name of the namespace that is the switch.
const SWITCH: &str = "sw";

/// A host: a namespace with one address.
#[derive(Debug, Clone)]
pub(crate) struct Site {
    namespace: PathBuf,
    ip: Ipv4Addr,
}

/// Where the daemons of a cluster are.
#[derive(Debug, Clone)]
pub(crate) struct Sites {
    /// The sequencers.
    pub(crate) sequencers: Vec<Site>,
    /// The stripe-writers.
    pub(crate) writers: Vec<Site>,
}

/// The network, taken away when this is dropped.
#[derive(Debug)]
pub(crate) struct Lan {
    switch: Site,
    hosts: Vec<Site>,
    before: Before,
    is_up: bool,
}

impl Site {
    /// Its address in the network.
    #[must_use]
    pub(crate) fn ip(&self) -> Ipv4Addr {
        self.ip
    }

    /// A port of its address.
    #[must_use]
    pub(crate) fn address(&self, port: u16) -> SocketAddr {
        (self.ip, port).into()
    }

    /// Moves the calling thread there, for ever.
    ///
    /// # Errors
    /// What the system says.
    pub(crate) fn enter(&self) -> Result<()> {
        bed::enter(&self.namespace)
    }

    /// Runs something on a thread of its own there, and waits for it. Within a runtime that is the thread's as well.
    ///
    /// # Errors
    /// What it says, or the system.
    pub(crate) fn run<T: Send>(&self, job: impl FnOnce() -> Result<T> + Send) -> Result<T> {
        let runtime = Handle::try_current().ok();
        thread::scope(|scope| {
            let job = || {
                let _within = runtime.as_ref().map(Handle::enter);
                self.enter()?;
                job()
            };
            match scope.spawn(job).join() {
                Ok(result) => result,
                Err(_) => bail!("a thread of the bench has panicked"),
            }
        })
    }

    /// A socket that listens there.
    ///
    /// # Errors
    /// What the system says.
    pub(crate) fn listen(&self) -> Result<TcpListener> {
        self.run(|| Ok(TcpListener::bind((self.ip, 0))?))
    }

    fn named(name: &str, number: usize) -> Result<Self> {
        ensure!(number <= HOSTS_MAX, "more than {HOSTS_MAX} hosts");
        let [a, b, c] = NETWORK;
        let name = format!("{}-{name}", bed::prefix());
        Ok(Self {
            namespace: Path::new(bed::NAMESPACES).join(name),
            ip: Ipv4Addr::new(a, b, c, u8::try_from(number)?),
        })
    }

    fn name(&self) -> String {
        let name = self.namespace.file_name().unwrap_or_default();
        name.to_string_lossy().into_owned()
    }
}

/// Runs something at a site, or where this is called.
///
/// # Errors
/// What it says, or the system.
pub(crate) fn run<T: Send>(
    site: Option<&Site>,
    job: impl FnOnce() -> Result<T> + Send,
) -> Result<T> {
    match site {
        Some(site) => site.run(job),
        None => job(),
    }
}

impl Lan {
    /// Makes a network of hosts with these names.
    ///
    /// # Errors
    /// Without root, `ip` and `nft`; if processes of another run are still there.
    pub(crate) async fn up(names: &[&str]) -> Result<Self> {
        ensure!(
            rustix::process::geteuid().is_root(),
            "namespaces need root: run it with sudo"
        );
        for (program, package) in [("ip", "iproute2"), ("nft", "nftables")] {
            let there = Command::new(program)
                .arg("-V")
                .stdout(Stdio::null())
                .status()
                .await;
            there.with_context(|| format!("{program} is needed (Debian: {package})"))?;
        }
        let numbered = names.iter().zip(1..);
        let mut lan = Self {
            switch: Site::named(SWITCH, 0)?,
            hosts: numbered
                .map(|(name, number)| Site::named(name, number))
                .collect::<Result<_>>()?,
            before: Before::default(),
            is_up: false,
        };
        let stale = Left::processes(&lan.namespaces());
        ensure!(
            stale.is_empty(),
            "another run is not over: its processes {stale:?} are in namespaces of {}",
            bed::prefix()
        );
        lan.delete();
        lan.before = Before::look().await?;
        lan.is_up = true;
        lan.make().await?;
        Ok(lan)
    }

    /// The host of this number, in the order of the names.
    #[must_use]
    pub(crate) fn host(&self, number: usize) -> &Site {
        &self.hosts[number]
    }

    /// Gives `nft` in the switch something to read.
    ///
    /// # Errors
    /// What it says.
    pub(crate) async fn filter(&self, text: &str) -> Result<()> {
        fed(Some(&self.switch), "nft", &["-f", "-"], text).await
    }

    /// Takes everything away, and gives what stayed all the same.
    ///
    /// # Errors
    /// What the system says.
    pub(crate) async fn down(mut self) -> Result<Left> {
        let namespaces = self.namespaces();
        let processes = Left::processes_after_a_while(&namespaces).await;
        self.delete();
        self.is_up = false;
        Left::look(&self.before, &namespaces, processes).await
    }

    async fn make(&self) -> Result<()> {
        let mut outside = String::new();
        for site in [&self.switch].into_iter().chain(&self.hosts) {
            outside += &format!("netns add {}\n", site.name());
        }
        let mut switch = String::from("link add br0 type bridge\nlink set br0 up\n");
        for (number, site) in self.hosts.iter().enumerate() {
            let (host, middle) = (site.name(), self.switch.name());
            outside += &format!(
                "link add eth0 netns {host} type veth peer name host{number} netns {middle}\n"
            );
            switch += &format!("link set host{number} master br0 up\n");
        }
        fed(None, "ip", &["-batch", "-"], &outside).await?;
        let name = self.switch.name();
        fed(None, "ip", &["-n", &name, "-batch", "-"], &switch).await?;
        for site in &self.hosts {
            let ip_address = site.ip;
            let text = format!(
                "link set lo up\naddr add {ip_address}/{PREFIX_BITS} dev eth0\nlink set eth0 up\n"
            );
            fed(None, "ip", &["-n", &site.name(), "-batch", "-"], &text).await?;
        }
        Ok(())
    }

    fn namespaces(&self) -> Vec<PathBuf> {
        let all = [&self.switch].into_iter().chain(&self.hosts);
        all.map(|site| site.namespace.clone()).collect()
    }

    /// Deletes what is there of it. The devices and tables go with their namespaces.
    fn delete(&self) {
        for site in [&self.switch].into_iter().chain(&self.hosts) {
            if fs::exists(&site.namespace).unwrap_or(true) {
                let mut ip = std::process::Command::new("ip");
                let deleted = ip.args(["netns", "del", &site.name()]).status();
                if !deleted.is_ok_and(|status| status.success()) {
                    eprintln!("bench: cannot delete the namespace {}", site.name());
                }
            }
        }
    }
}

impl Drop for Lan {
    fn drop(&mut self) {
        if self.is_up {
            self.delete();
        }
    }
}

/// Runs a program on lines of text, at a site or where this one is.
async fn fed(site: Option<&Site>, program: &str, args: &[&str], text: &str) -> Result<()> {
    let mut command = Command::new(program);
    command
        .args(args)
        .stdin(Stdio::piped())
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .kill_on_drop(true);
    let mut child = run(site, || Ok(command.spawn()?))?;
    let mut input = child.stdin.take().context("no standard input")?;
    input.write_all(text.as_bytes()).await?;
    drop(input);
    let output = child.wait_with_output().await?;
    let said = String::from_utf8_lossy(&output.stderr);
    ensure!(
        output.status.success(),
        "{program}: {}\n{text}",
        said.trim()
    );
    Ok(())
}
