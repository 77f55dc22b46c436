//! Two sequencers of a cluster: one reigns and the other stands by.

use std::net::SocketAddr;
use std::process::ExitStatus;
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use tokio::time::{sleep, timeout};

use crate::cluster::{Cluster, free_tcp_port};
use crate::net::lan;
use crate::net::metrics::Metrics;
use crate::process::Process;

/// Longest time for a sequencer to come into a role.
const ROLE_TIMEOUT: Duration = Duration::from_secs(60);

/// Time between two looks at a role.
const LOOK_EVERY: Duration = Duration::from_millis(5);

/// What a sequencer does.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Role {
    /// It stands by.
    Standby,
    /// It grants.
    Reigns,
}

/// Both sequencers of a cluster, killed when this is dropped.
#[derive(Debug)]
pub(crate) struct Pair {
    members: Vec<Member>,
}

#[derive(Debug)]
struct Member {
    listen: SocketAddr,
    admin: SocketAddr,
    backend: &'static str,
    process: Process,
}

impl Pair {
    /// Starts the sequencers of a cluster, both as standbys: the first is given the time to take the log.
    ///
    /// # Errors
    /// What keeps them from running.
    pub(crate) async fn start(cluster: &Cluster) -> Result<Self> {
        let mut members = Vec::new();
        for (number, listen) in cluster.sequencers().into_iter().enumerate() {
            members.push(Member {
                listen,
                admin: free_tcp_port()?,
                backend: "auto",
                process: cluster
                    .member("sequencer-fast", &format!("sequencer-{number}.log"))
                    .at(cluster
                        .sites()
                        .map(|sites| sites.sequencers[number].clone())),
            });
        }
        let mut pair = Self { members };
        ensure!(pair.members.len() == 2, "not a pair");
        for (which, role) in [(0, Role::Reigns), (1, Role::Standby)] {
            pair.run(which)?;
            pair.becomes(which, role).await?;
        }
        Ok(pair)
    }

    /// UDP address of one of them.
    #[must_use]
    pub(crate) fn address(&self, which: usize) -> SocketAddr {
        self.members[which].listen
    }

    /// Chooses how one receives and sends when it is started next.
    pub(crate) fn set_backend(&mut self, which: usize, backend: &'static str) {
        self.members[which].backend = backend;
    }

    /// Starts one that does not run, as a standby.
    ///
    /// # Errors
    /// If its program is not there.
    pub(crate) fn run(&mut self, which: usize) -> Result<()> {
        let member = &mut self.members[which];
        let (listen, admin) = (member.listen.to_string(), member.admin.to_string());
        let at = ["--standby", "--listen", &listen, "--admin", &admin];
        let how = ["--backend", member.backend];
        member.process.run(&[&at[..], &how].concat())
    }

    /// Waits until one has a role.
    ///
    /// # Errors
    /// If it ends, or does not come into the role in time; with the last lines of both.
    pub(crate) async fn becomes(&mut self, which: usize, role: Role) -> Result<()> {
        let looking = async {
            loop {
                if let Some(status) = self.members[which].process.has_ended()? {
                    bail!("sequencer {which} ended: {status}");
                }
                if self.role(which).await == Some(role) {
                    return Ok(());
                }
                sleep(LOOK_EVERY).await;
            }
        };
        let outcome = timeout(ROLE_TIMEOUT, looking).await;
        let outcome =
            outcome.unwrap_or_else(|_| bail!("sequencer {which} is not {role:?} in time"));
        outcome.with_context(|| self.last_lines())
    }

    /// What one does now; `None` if it does not say.
    pub(crate) async fn role(&self, which: usize) -> Option<Role> {
        let metrics = self.metrics(which).await.ok()?;
        if metrics.get("sequencer_granting") > 0.0 {
            Some(Role::Reigns)
        } else {
            (metrics.get("sequencer_standby") > 0.0).then_some(Role::Standby)
        }
    }

    /// What one shows of itself.
    ///
    /// # Errors
    /// If it does not answer.
    pub(crate) async fn metrics(&self, which: usize) -> Result<Metrics> {
        let member = &self.members[which];
        let (admin, site) = (member.admin, member.process.site().cloned());
        tokio::task::spawn_blocking(move || lan::run(site.as_ref(), || Metrics::ask(admin))).await?
    }

    /// Kills one with SIGKILL, and waits until it is gone.
    ///
    /// # Errors
    /// If it had ended by itself: it must not.
    pub(crate) async fn kill(&mut self, which: usize) -> Result<()> {
        self.members[which].process.kill().await
    }

    /// Stops one in good order, and waits until it has ended.
    ///
    /// # Errors
    /// If it does not end in time, or not as it should.
    pub(crate) async fn stop(&mut self, which: usize) -> Result<()> {
        self.members[which].process.stop().await
    }

    /// Sends a signal to one.
    ///
    /// # Errors
    /// If it does not run.
    pub(crate) async fn signal(&mut self, which: usize, signal: &str) -> Result<()> {
        self.members[which].process.signal(signal).await
    }

    /// Waits until one has ended by itself, or by a signal that was sent.
    ///
    /// # Errors
    /// If it does not end in time.
    pub(crate) async fn ended(&mut self, which: usize) -> Result<ExitStatus> {
        self.members[which].process.ended().await
    }

    /// How one has ended by itself, if it has; it does not run then.
    ///
    /// # Errors
    /// What the system says.
    pub(crate) fn has_ended(&mut self, which: usize) -> Result<Option<ExitStatus>> {
        self.members[which].process.take_ended()
    }

    /// Whether the last line that one logged has a text.
    #[must_use]
    pub(crate) fn said_last(&self, which: usize, text: &str) -> bool {
        let all = self.members[which].process.said();
        all.lines()
            .next_back()
            .is_some_and(|line| line.contains(text))
    }

    /// How many lines of their logs speak of a panic.
    #[must_use]
    pub(crate) fn panics(&self) -> usize {
        self.members.iter().map(|one| one.process.panics()).sum()
    }

    /// The last lines that both logged, for error messages.
    #[must_use]
    pub(crate) fn last_lines(&self) -> String {
        let lines = self.members.iter().map(|one| one.process.last_lines());
        lines.collect()
    }
}
