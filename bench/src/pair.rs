//! Two sequencers of a cluster: one reigns and the other stands by.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::process::{ExitStatus, Stdio};
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use tokio::process::{Child, Command};
use tokio::time::{sleep, timeout};

use crate::cluster::{Cluster, binary, free_tcp_port};
use crate::net::lan::{self, Site};
use crate::net::metrics::Metrics;

/// Longest time for a sequencer to come into a role, or to end.
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
    config: PathBuf,
    environment: Vec<(String, String)>,
    backend: &'static str,
    site: Option<Site>,
    log: PathBuf,
    child: Option<Child>,
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
                config: cluster.config(),
                environment: cluster.environment().to_vec(),
                backend: "auto",
                site: cluster
                    .sites()
                    .map(|sites| sites.sequencers[number].clone()),
                log: cluster.directory().join(format!("sequencer-{number}.log")),
                child: None,
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
        let mut log = std::fs::OpenOptions::new();
        let log = log.create(true).append(true).open(&member.log)?;
        let (listen, admin) = (member.listen.to_string(), member.admin.to_string());
        let mut command = Command::new(binary("sequencer-fast")?);
        command
            .args(["--standby", "--listen", &listen, "--admin", &admin])
            .args(["--backend", member.backend])
            .arg("--config")
            .arg(&member.config)
            .envs(member.environment.iter().cloned())
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(log)
            .kill_on_drop(true);
        let child = lan::spawn(member.site.as_ref(), &mut command);
        let child = child.context("cannot start sequencer-fast")?;
        member.child = Some(child);
        Ok(())
    }

    /// Waits until one has a role.
    ///
    /// # Errors
    /// If it ends, or does not come into the role in time; with the last lines of both.
    pub(crate) async fn becomes(&mut self, which: usize, role: Role) -> Result<()> {
        let looking = async {
            loop {
                if let Some(status) = self.child(which)?.try_wait()? {
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
        let (admin, site) = (self.members[which].admin, self.members[which].site.clone());
        tokio::task::spawn_blocking(move || lan::run(site.as_ref(), || Metrics::ask(admin))).await?
    }

    /// Kills one with SIGKILL, and waits until it is gone.
    ///
    /// # Errors
    /// If it had ended by itself: it must not.
    pub(crate) async fn kill(&mut self, which: usize) -> Result<()> {
        let child = self.child(which)?;
        if let Some(status) = child.try_wait()? {
            bail!("sequencer {which} ended: {status}\n{}", self.last_lines());
        }
        child.kill().await?;
        self.members[which].child = None;
        Ok(())
    }

    /// Sends a signal to one.
    ///
    /// # Errors
    /// If it does not run.
    pub(crate) async fn signal(&mut self, which: usize, signal: &str) -> Result<()> {
        let id = self.child(which)?.id().context("the sequencer has ended")?;
        let mut kill = Command::new("kill");
        let sent = kill.arg(signal).arg(id.to_string()).status().await?;
        ensure!(sent.success(), "cannot send {signal}");
        Ok(())
    }

    /// Waits until one has ended by itself, or by a signal that was sent.
    ///
    /// # Errors
    /// If it does not end in time.
    pub(crate) async fn ended(&mut self, which: usize) -> Result<ExitStatus> {
        let ended = timeout(ROLE_TIMEOUT, self.child(which)?.wait()).await;
        let status = ended.with_context(|| self.last_lines())??;
        self.members[which].child = None;
        Ok(status)
    }

    /// How one has ended by itself, if it has; it does not run then.
    ///
    /// # Errors
    /// What the system says.
    pub(crate) fn has_ended(&mut self, which: usize) -> Result<Option<ExitStatus>> {
        let member = &mut self.members[which];
        let Some(child) = &mut member.child else {
            return Ok(None);
        };
        let status = child.try_wait()?;
        if status.is_some() {
            member.child = None;
        }
        Ok(status)
    }

    /// Whether the last line that one logged has a text.
    #[must_use]
    pub(crate) fn said_last(&self, which: usize, text: &str) -> bool {
        let all = self.members[which].text();
        all.lines()
            .next_back()
            .is_some_and(|line| line.contains(text))
    }

    /// How many lines of their logs speak of a panic.
    #[must_use]
    pub(crate) fn panics(&self) -> usize {
        let texts = self.members.iter().map(|member| member.text());
        texts
            .map(|text| {
                text.lines()
                    .filter(|line| line.contains("panicked"))
                    .count()
            })
            .sum()
    }

    /// The last lines that both logged, for error messages.
    #[must_use]
    pub(crate) fn last_lines(&self) -> String {
        let mut text = String::new();
        for (which, member) in self.members.iter().enumerate() {
            let all = member.text();
            let lines: Vec<_> = all.lines().rev().take(12).collect();
            let lines = lines.into_iter().rev().collect::<Vec<_>>().join("\n");
            text.push_str(&format!("sequencer {which}:\n{lines}\n"));
        }
        text
    }

    fn child(&mut self, which: usize) -> Result<&mut Child> {
        let child = self.members[which].child.as_mut();
        child.context("the sequencer does not run")
    }
}

impl Member {
    fn text(&self) -> String {
        std::fs::read_to_string(&self.log).unwrap_or_default()
    }
}
