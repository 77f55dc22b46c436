//! A cluster of etcd on this machine, killed, stopped and restored as points need it. Its data is in memory.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use tempfile::TempDir;
use tokio::process::{Child, Command};
use tokio::time::{sleep, timeout};

use crate::cluster::free_tcp_port;
use crate::net::lan::Site;
use crate::process::{signal, spawn};
use crate::server::directory;

/// Longest time until the nodes have a leader, and for each command.
const READY: Duration = Duration::from_secs(30);
const STEP: Duration = Duration::from_millis(200);

/// Ports of a node that has a network of its own.
const CLIENT_PORT: u16 = 2379;
const PEER_PORT: u16 = 2380;

/// The nodes of a cluster, all killed when this is dropped.
#[derive(Debug)]
pub(crate) struct Etcd {
    directory: TempDir,
    nodes: Vec<Node>,
    /// How often the cluster was restored: its data is in a place of its own each time.
    restored: u32,
}

#[derive(Debug)]
struct Node {
    name: String,
    client: SocketAddr,
    peer: SocketAddr,
    site: Option<Site>,
    child: Option<Child>,
}

impl Etcd {
    /// Starts so many nodes, and waits until they answer.
    ///
    /// # Errors
    /// If etcd is not installed, or does not answer.
    pub(crate) async fn start(count: usize) -> Result<Self> {
        Self::at(vec![None; count]).await
    }

    /// The same, each node in a network of its own where there is one for it.
    ///
    /// # Errors
    /// If etcd is not installed, or does not answer.
    pub(crate) async fn at(sites: Vec<Option<Site>>) -> Result<Self> {
        let mut nodes = Vec::new();
        for (number, site) in sites.into_iter().enumerate() {
            let (client, peer) = match &site {
                Some(site) => (site.address(CLIENT_PORT), site.address(PEER_PORT)),
                None => (free_tcp_port()?, free_tcp_port()?),
            };
            nodes.push(Node {
                name: format!("node{number}"),
                client,
                peer,
                site,
                child: None,
            });
        }
        let directory = directory()?;
        let mut etcd = Self {
            directory,
            nodes,
            restored: 0,
        };
        etcd.run_all()?;
        etcd.ready().await?;
        Ok(etcd)
    }

    /// The addresses of the nodes for clients, as in settings.
    #[must_use]
    pub(crate) fn endpoints(&self) -> Vec<String> {
        let urls = self.nodes.iter().map(|node| url(node.client));
        urls.collect()
    }

    /// Starts one that does not run.
    ///
    /// # Errors
    /// If its program is not there.
    pub(crate) fn run(&mut self, which: usize) -> Result<()> {
        let (cluster, restored) = (self.members(), self.restored);
        let data = self.data(which);
        let log = self.directory.path().join(format!("node{which}.log"));
        let node = &mut self.nodes[which];
        let mut command = Command::new("etcd");
        command
            .args(["--name", &node.name, "--data-dir"])
            .arg(data)
            .args(["--listen-client-urls", &url(node.client)])
            .args(["--advertise-client-urls", &url(node.client)])
            .args(["--listen-peer-urls", &url(node.peer)])
            .args(["--initial-advertise-peer-urls", &url(node.peer)])
            .args(["--initial-cluster", &cluster])
            .args(["--initial-cluster-token", &format!("bench-{restored}")])
            .args(["--logger", "zap", "--log-outputs", "stderr"]);
        let child = spawn(&mut command, &log, node.site.as_ref());
        node.child = Some(child.context("scripts/services.sh install etcd")?);
        Ok(())
    }

    /// Kills one with SIGKILL.
    ///
    /// # Errors
    /// If it had ended by itself.
    pub(crate) async fn kill(&mut self, which: usize) -> Result<()> {
        let node = &mut self.nodes[which];
        let mut child = node.child.take().context("the node does not run")?;
        if let Some(status) = child.try_wait()? {
            bail!("etcd node {which} ended by itself: {status}");
        }
        Ok(child.kill().await?)
    }

    /// Sends a signal to all that run.
    ///
    /// # Errors
    /// What the system says.
    pub(crate) async fn signal(&self, name: &str) -> Result<()> {
        let children = self.nodes.iter().filter_map(|node| node.child.as_ref());
        for id in children.filter_map(Child::id) {
            signal(id, name).await?;
        }
        Ok(())
    }

    /// Runs `etcdctl` and gives what it printed.
    ///
    /// # Errors
    /// If it fails.
    pub(crate) async fn control(&self, args: &[&str]) -> Result<String> {
        let mut command = Command::new("etcdctl");
        let running = self.nodes.iter().filter(|node| node.child.is_some());
        let endpoint = running.map(|node| url(node.client)).next();
        command
            .env("ETCDCTL_API", "3")
            .args(args)
            .stdin(Stdio::null())
            .kill_on_drop(true);
        if let Some(endpoint) = endpoint {
            command.args(["--endpoints", &endpoint]);
        }
        let output = timeout(READY, command.output()).await?;
        let output = output.context("cannot start etcdctl")?;
        ensure!(
            output.status.success(),
            "etcdctl {args:?}: {}",
            String::from_utf8_lossy(&output.stderr)
        );
        Ok(String::from_utf8_lossy(&output.stdout).into_owned())
    }

    /// Writes a backup of everything.
    ///
    /// # Errors
    /// If that fails.
    pub(crate) async fn backup(&self) -> Result<PathBuf> {
        let file = self.directory.path().join("backup");
        let name = file.to_str().context("a path that is not UTF-8")?;
        self.control(&["snapshot", "save", name]).await?;
        Ok(file)
    }

    /// Kills all nodes and starts them again with nothing but a backup.
    ///
    /// # Errors
    /// If that fails.
    pub(crate) async fn restore(&mut self, backup: &Path) -> Result<()> {
        for which in 0..self.nodes.len() {
            self.kill(which).await?;
        }
        self.restored += 1;
        let backup = backup.to_str().context("a path that is not UTF-8")?;
        let (cluster, token) = (self.members(), format!("bench-{}", self.restored));
        for (which, node) in self.nodes.iter().enumerate() {
            let data = self.data(which);
            let data = data.to_str().context("a path that is not UTF-8")?;
            self.control(&[
                "snapshot",
                "restore",
                backup,
                "--name",
                &node.name,
                "--data-dir",
                data,
                "--initial-cluster",
                &cluster,
                "--initial-cluster-token",
                &token,
                "--initial-advertise-peer-urls",
                &url(node.peer),
            ])
            .await?;
        }
        self.run_all()?;
        self.ready().await
    }

    fn run_all(&mut self) -> Result<()> {
        (0..self.nodes.len()).try_for_each(|which| self.run(which))
    }

    /// Waits until a leader takes a write.
    async fn ready(&self) -> Result<()> {
        let asking = async {
            while self.control(&["put", "ready", "yes"]).await.is_err() {
                sleep(STEP).await;
            }
        };
        timeout(READY, asking).await.context("etcd is not ready")
    }

    fn members(&self) -> String {
        let members = self
            .nodes
            .iter()
            .map(|node| format!("{}={}", node.name, url(node.peer)));
        members.collect::<Vec<_>>().join(",")
    }

    fn data(&self, which: usize) -> PathBuf {
        let name = format!("node{which}-{}", self.restored);
        self.directory.path().join(name)
    }
}

fn url(address: SocketAddr) -> String {
    format!("http://{address}")
}
