//! Several stripe-writers of a cluster, which watch one another.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::time::Duration;

use anyhow::{Context, Result};
use stripelog::{Log, Writer};
use tokio::time::{sleep, timeout};

use crate::cluster::{Cluster, free_tcp_port};
use crate::host;
use crate::process::Process;

/// Longest time until every stripe is owned as it is to be.
const OWNED_TIMEOUT: Duration = Duration::from_secs(120);

/// Time between two looks at who owns what.
const LOOK_EVERY: Duration = Duration::from_millis(20);

/// All stripe-writers of a cluster, killed when this is dropped.
#[derive(Debug)]
pub(crate) struct Group {
    members: Vec<Member>,
}

#[derive(Debug)]
struct Member {
    writer: Writer,
    admin: SocketAddr,
    process: Process,
}

/// The stripes of each stripe-writer, by its number. Every stripe of the log is in it once.
pub(crate) type Owners = Vec<Vec<u16>>;

impl Group {
    /// Starts the stripe-writers of a cluster.
    ///
    /// # Errors
    /// What keeps them from running.
    pub(crate) fn start(cluster: &Cluster) -> Result<Self> {
        let mut group = Self {
            members: Vec::new(),
        };
        for (number, writer) in cluster.writers().into_iter().enumerate() {
            group.members.push(Member {
                writer,
                admin: free_tcp_port()?,
                process: cluster
                    .member("stripe-writer", &format!("writer-{number}.log"))
                    .at(cluster.sites().map(|sites| sites.writers[number].clone())),
            });
            group.run(number)?;
        }
        Ok(group)
    }

    /// How many there are, dead or alive.
    #[must_use]
    pub(crate) fn len(&self) -> usize {
        self.members.len()
    }

    /// Starts one that does not run.
    ///
    /// # Errors
    /// If its program is not there.
    pub(crate) fn run(&mut self, which: usize) -> Result<()> {
        let member = &mut self.members[which];
        let (listen, admin) = (member.writer.address.to_string(), member.admin.to_string());
        let at = ["--listen", &listen, "--admin", &admin];
        member.process.run(&at)
    }

    /// Kills one with SIGKILL, and waits until it is gone.
    ///
    /// # Errors
    /// If it had ended by itself: it must not.
    pub(crate) async fn kill(&mut self, which: usize) -> Result<()> {
        self.members[which].process.kill().await
    }

    /// Sends a signal to one.
    ///
    /// # Errors
    /// If it does not run.
    pub(crate) async fn signal(&self, which: usize, signal: &str) -> Result<()> {
        self.members[which].process.signal(signal).await
    }

    /// Stops one in good order, and waits until it has ended.
    ///
    /// # Errors
    /// If it does not end in time, or not as it should.
    pub(crate) async fn stop(&mut self, which: usize) -> Result<()> {
        self.members[which].process.stop().await
    }

    /// The most memory that one of those that run has ever taken, in bytes.
    ///
    /// # Errors
    /// If one has ended by itself.
    pub(crate) fn peak_memory(&self) -> Result<u64> {
        let mut most = 0;
        for member in &self.members {
            if let Some(process) = member.process.id() {
                most = most.max(host::memory(process)?.1);
            }
        }
        Ok(most)
    }

    /// Who owns which stripe, by what the stripe-writers that answer say; `None` unless that is one for each.
    ///
    /// # Errors
    /// If the log cannot be looked at.
    pub(crate) async fn owners(&self, log: &Log) -> Result<Option<Owners>> {
        let status = log.status().await?;
        let mut owners = vec![Vec::new(); self.members.len()];
        let mut times = BTreeMap::<u16, usize>::new();
        for stripe in &status.stripes {
            let mut members = self.members.iter();
            let which = members.position(|member| member.writer.address == stripe.address);
            let which = which.context("an owner that the settings do not name")?;
            owners[which].push(stripe.stripe.0);
            *times.entry(stripe.stripe.0).or_default() += 1;
        }
        let all = status.control.last_segment()?.layout.all().count();
        let once = times.len() == all && times.values().all(|times| *times == 1);
        Ok(once.then_some(owners))
    }

    /// Waits until every stripe is owned by one stripe-writer, and all of them as `right` wants it.
    ///
    /// # Errors
    /// If that takes too long, with the last lines of all.
    pub(crate) async fn become_owned(
        &self,
        log: &Log,
        right: impl Fn(&Owners) -> bool,
    ) -> Result<Owners> {
        let looking = async {
            loop {
                if let Some(owners) = self.owners(log).await?.filter(&right) {
                    return anyhow::Ok(owners);
                }
                sleep(LOOK_EVERY).await;
            }
        };
        let owned = timeout(OWNED_TIMEOUT, looking).await;
        owned.with_context(|| format!("stripes without an owner\n{}", self.last_lines()))?
    }

    /// Whether every stripe is owned as the settings say.
    #[must_use]
    pub(crate) fn is_home(&self, owners: &Owners) -> bool {
        let mut all = self.members.iter().zip(owners);
        all.all(|(member, owned)| {
            let home = &member.writer.stripes;
            owned.iter().all(|stripe| home.contains(stripe))
        })
    }

    /// How many lines of their logs speak of a panic.
    #[must_use]
    pub(crate) fn panics(&self) -> usize {
        self.members.iter().map(|one| one.process.panics()).sum()
    }

    /// The last lines that all of them logged, for error messages.
    #[must_use]
    pub(crate) fn last_lines(&self) -> String {
        let lines = self.members.iter().map(|one| one.process.last_lines());
        lines.collect()
    }
}
