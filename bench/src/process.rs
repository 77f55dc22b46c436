//! Programs that a point starts, kills and starts again.

use std::fs::OpenOptions;
use std::path::{Path, PathBuf};
use std::process::{ExitStatus, Stdio};
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use tokio::process::{Child, Command};
use tokio::time::timeout;

use crate::net::lan::{self, Site};

/// The settings file, in the directory of its cluster.
pub(crate) const SETTINGS: &str = "stripelog.toml";

/// Longest time for a process to end after a signal to stop.
const STOP_TIMEOUT: Duration = Duration::from_secs(60);

/// Lines of a log in an error message.
const LAST_LINES: usize = 20;

/// A daemon of a cluster, killed when this is dropped.
#[derive(Debug)]
pub(crate) struct Process {
    program: &'static str,
    config: PathBuf,
    environment: Vec<(String, String)>,
    log: PathBuf,
    /// The network that it has for itself.
    site: Option<Site>,
    child: Option<Child>,
}

impl Process {
    /// One that does not run yet, with the settings in the directory of its cluster, and a log of this name there.
    #[must_use]
    pub(crate) fn new(
        program: &'static str,
        directory: &Path,
        log: &str,
        environment: &[(String, String)],
    ) -> Self {
        Self {
            program,
            config: directory.join(SETTINGS),
            environment: environment.to_vec(),
            log: directory.join(log),
            site: None,
            child: None,
        }
    }

    /// The same in a network of its own, if there is one for it.
    #[must_use]
    pub(crate) fn at(mut self, site: Option<Site>) -> Self {
        self.site = site;
        self
    }

    /// The network that it has for itself.
    #[must_use]
    pub(crate) fn site(&self) -> Option<&Site> {
        self.site.as_ref()
    }

    /// Starts it, with arguments besides the settings.
    ///
    /// # Errors
    /// If its program is not there.
    pub(crate) fn run(&mut self, args: &[&str]) -> Result<()> {
        let mut command = Command::new(binary(self.program)?);
        command.args(args).arg("--config").arg(&self.config);
        command.envs(self.environment.iter().cloned());
        self.child = Some(spawn(&mut command, &self.log, self.site.as_ref())?);
        Ok(())
    }

    /// Its number for the system, while it runs.
    #[must_use]
    pub(crate) fn id(&self) -> Option<u32> {
        self.child.as_ref()?.id()
    }

    /// Whether it was started, and neither killed nor stopped since.
    #[must_use]
    pub(crate) fn is_started(&self) -> bool {
        self.child.is_some()
    }

    /// How it has ended; `None` while it runs.
    ///
    /// # Errors
    /// If it was not started.
    pub(crate) fn has_ended(&mut self) -> Result<Option<ExitStatus>> {
        Ok(self.child()?.try_wait()?)
    }

    /// How it has ended by itself, if it was started and has; it does not run then.
    ///
    /// # Errors
    /// What the system says.
    pub(crate) fn take_ended(&mut self) -> Result<Option<ExitStatus>> {
        let Some(child) = &mut self.child else {
            return Ok(None);
        };
        let status = child.try_wait()?;
        if status.is_some() {
            self.child = None;
        }
        Ok(status)
    }

    /// Kills it with SIGKILL, and waits until it is gone.
    ///
    /// # Errors
    /// If it had ended by itself: it must not.
    pub(crate) async fn kill(&mut self) -> Result<()> {
        if let Some(status) = self.has_ended()? {
            bail!("ended by itself: {status}\n{}", self.last_lines());
        }
        self.child()?.kill().await?;
        self.child = None;
        Ok(())
    }

    /// Kills it with SIGKILL, unless it has ended by itself.
    ///
    /// # Errors
    /// What the system says.
    pub(crate) async fn end(&mut self) -> Result<()> {
        if let Some(mut child) = self.child.take()
            && child.try_wait()?.is_none()
        {
            child.kill().await?;
        }
        Ok(())
    }

    /// Sends it a signal.
    ///
    /// # Errors
    /// If it does not run.
    pub(crate) async fn signal(&self, name: &str) -> Result<()> {
        let id = self.id();
        signal(
            id.with_context(|| format!("{} does not run", self.program))?,
            name,
        )
        .await
    }

    /// Waits until it has ended by itself, or by a signal that was sent.
    ///
    /// # Errors
    /// If it does not end in time.
    pub(crate) async fn ended(&mut self) -> Result<ExitStatus> {
        let ended = timeout(STOP_TIMEOUT, self.child()?.wait()).await;
        let status = ended.with_context(|| self.last_lines())??;
        self.child = None;
        Ok(status)
    }

    /// Stops it in good order, and waits until it has ended.
    ///
    /// # Errors
    /// If it does not end in time, or not with success.
    pub(crate) async fn stop(&mut self) -> Result<()> {
        self.signal("-TERM").await?;
        let status = self.ended().await?;
        ensure!(
            status.success(),
            "stopped with {status}\n{}",
            self.last_lines()
        );
        Ok(())
    }

    /// All that it has logged since it was started first.
    #[must_use]
    pub(crate) fn said(&self) -> String {
        std::fs::read_to_string(&self.log).unwrap_or_default()
    }

    /// How many lines of that speak of a panic.
    #[must_use]
    pub(crate) fn panics(&self) -> usize {
        let said = self.said();
        said.lines()
            .filter(|line| line.contains("panicked"))
            .count()
    }

    /// The last lines of that, under the name of the file, for error messages.
    #[must_use]
    pub(crate) fn last_lines(&self) -> String {
        let said = self.said();
        let lines: Vec<_> = said.lines().collect();
        let last = lines.get(lines.len().saturating_sub(LAST_LINES)..);
        let name = self.log.file_name().unwrap_or_default().display();
        format!("{name}:\n{}\n", last.unwrap_or_default().join("\n"))
    }

    fn child(&mut self) -> Result<&mut Child> {
        let child = self.child.as_mut();
        child.with_context(|| format!("{} does not run", self.program))
    }
}

/// Starts a program that is killed when it is dropped, in a network of its own if there is one for it. What it logs is
/// added to a file.
///
/// # Errors
/// If it is not there.
pub(crate) fn spawn(command: &mut Command, log: &Path, site: Option<&Site>) -> Result<Child> {
    let program = command.as_std().get_program().to_owned();
    let log = OpenOptions::new().create(true).append(true).open(log)?;
    let silent = command.stdin(Stdio::null()).stdout(Stdio::null());
    let command = silent.stderr(log).kill_on_drop(true);
    let child = lan::run(site, || Ok(command.spawn()?));
    child.with_context(|| format!("cannot start {:?}", program))
}

/// Sends a signal to a process.
///
/// # Errors
/// What the system says.
pub(crate) async fn signal(process: u32, name: &str) -> Result<()> {
    let mut kill = Command::new("kill");
    let sent = kill.arg(name).arg(process.to_string()).status().await?;
    ensure!(sent.success(), "cannot send {name}");
    Ok(())
}

/// The program beside this one.
///
/// # Errors
/// If it was not built.
pub(crate) fn binary(name: &str) -> Result<PathBuf> {
    let own = std::env::current_exe()?;
    let directory = own.parent().context("this program lies nowhere")?;
    // Tests lie one folder deeper.
    let places = [Some(directory), directory.parent()];
    let found = places
        .into_iter()
        .flatten()
        .map(|d| d.join(name))
        .find(|p| p.is_file());
    found.with_context(|| format!("{name} is not built: cargo build --release"))
}
