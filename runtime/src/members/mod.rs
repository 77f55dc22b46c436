//! The membership of a log, as it changes.
//!
//! Where settings name a cluster of etcd, every sequencer and every stripe-writer registers its address there under a
//! lease ([`register`]), and everybody follows the list ([`follow`]). What was known last stays as long as etcd does
//! not answer, and an empty list never takes the place of another. Nothing that is promised rests on what etcd says:
//! it tells whom to ask, and who is asked decides by the log itself
//! (`docs/decisions/0028-membership-in-etcd.md`).
//!
//! A build without the feature `etcd` has these functions, too; they refuse.

#[cfg(feature = "etcd")]
mod etcd;
#[cfg(feature = "etcd")]
mod list;

use std::net::SocketAddr;
use std::ops::RangeInclusive;
use std::time::Duration;

use catalog::Membership;
use thiserror::Error;
use tokio::sync::{oneshot, watch};
use tokio::task::JoinHandle;
use wire::LogId;

use crate::settings::EtcdSettings;

/// Longest time for a process that ends to take its registration back.
const LEAVE_TIMEOUT: Duration = Duration::from_secs(2);

/// What a process is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Role {
    /// A sequencer, whether it reigns or stands by.
    Sequencer,
    /// A stripe-writer that is to own these stripes, or its part of them.
    Writer(RangeInclusive<u16>),
}

/// Why there is no membership.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[non_exhaustive]
pub enum MembersError {
    /// No node answers.
    #[error("etcd does not answer: {problem}: endpoints={endpoints}")]
    Silent {
        /// What was wrong last.
        problem: String,
        /// The nodes that were asked.
        endpoints: String,
    },
    /// The program ends.
    #[error("this process ends")]
    Ended,
    /// This program was built without etcd.
    #[error("this program was built without etcd")]
    NotBuilt,
}

/// A membership that is followed, until this is dropped.
#[derive(Debug)]
pub struct Following {
    changes: watch::Receiver<Membership>,
    _task: Task,
}

impl Following {
    /// The membership as it changes. The receiver has not seen what was listed first.
    #[must_use]
    pub fn changes(&self) -> watch::Receiver<Membership> {
        self.changes.clone()
    }

    /// The membership as it is known now.
    #[must_use]
    pub fn now(&self) -> Membership {
        self.changes.borrow().clone()
    }
}

/// A registration that is kept until this is dropped. Then it is forgotten when its lease runs out.
#[derive(Debug)]
pub struct Registered {
    leave: oneshot::Sender<()>,
    task: Task,
}

impl Registered {
    /// Takes the registration back at once, if etcd answers.
    pub async fn leave(mut self) {
        let _ = self.leave.send(());
        let _ = tokio::time::timeout(LEAVE_TIMEOUT, &mut self.task.0).await;
    }
}

/// Ends with its owner.
#[derive(Debug)]
struct Task(JoinHandle<()>);

impl Drop for Task {
    fn drop(&mut self) {
        self.0.abort();
    }
}

/// Follows the membership of a log. Done when etcd has listed it once; without `patience` that may take for ever.
///
/// # Errors
/// [`MembersError::Silent`] if no node has answered for `patience`.
#[cfg(feature = "etcd")]
pub async fn follow(
    settings: &EtcdSettings,
    log: LogId,
    patience: Option<Duration>,
) -> Result<Following, MembersError> {
    let (first, mut listed) = oneshot::channel();
    let problem = etcd::Problem::default();
    let follower = etcd::Follower::new(settings, log, problem.clone());
    let task = Task(tokio::spawn(follower.run(first)));
    let endpoints = settings.endpoints.join(",");
    let changes = match patience {
        None => (&mut listed).await.ok(),
        Some(patience) => {
            let listed = tokio::time::timeout(patience, &mut listed).await;
            listed.ok().and_then(Result::ok)
        }
    };
    match changes {
        Some(changes) => Ok(Following {
            changes,
            _task: task,
        }),
        None => Err(MembersError::Silent {
            problem: problem.take(),
            endpoints,
        }),
    }
}

/// Registers a process at an address, as long as it lives. That etcd does not answer is no error: it is tried again and
/// again.
///
/// # Errors
/// [`MembersError::NotBuilt`] in a build without etcd.
#[cfg(feature = "etcd")]
pub fn register(
    settings: &EtcdSettings,
    log: LogId,
    address: SocketAddr,
    role: &Role,
) -> Result<Registered, MembersError> {
    let registrar = etcd::Registrar::new(settings, log, address, role);
    let (leave, left) = oneshot::channel();
    let task = Task(tokio::spawn(registrar.run(left)));
    Ok(Registered { leave, task })
}

/// Follows nothing.
///
/// # Errors
/// [`MembersError::NotBuilt`].
#[cfg(not(feature = "etcd"))]
#[allow(clippy::unused_async, reason = "as with the feature")]
pub async fn follow(
    _settings: &EtcdSettings,
    _log: LogId,
    _patience: Option<Duration>,
) -> Result<Following, MembersError> {
    Err(MembersError::NotBuilt)
}

/// Registers nothing.
///
/// # Errors
/// [`MembersError::NotBuilt`].
#[cfg(not(feature = "etcd"))]
pub fn register(
    _settings: &EtcdSettings,
    _log: LogId,
    _address: SocketAddr,
    _role: &Role,
) -> Result<Registered, MembersError> {
    Err(MembersError::NotBuilt)
}

/// Waits until a membership has changed, and gives it; for ever where it does not change. Cancel-safe.
pub async fn changed(changes: &mut Option<watch::Receiver<Membership>>) -> Membership {
    if let Some(changes) = changes
        && changes.changed().await.is_ok()
    {
        return changes.borrow_and_update().clone();
    }
    // Whoever told of changes is gone: what was known last stays.
    *changes = None;
    std::future::pending().await
}
