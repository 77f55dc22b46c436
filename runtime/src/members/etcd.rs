//! Talks with etcd: lists and watches the keys of a log, and keeps one alive.
//!
//! One node is asked at a time. Whatever goes wrong ends the connection; the next one goes to the next node, and begins
//! with a list: it covers what was missed, a history that was compacted, and a cluster that was restored from a
//! backup, whose revisions have gone back.

use std::convert::Infallible;
use std::hash::{BuildHasher, RandomState};
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use catalog::{Backoff, Membership};
use etcd_client::{
    Client, ConnectOptions, EventType, GetOptions, PutOptions, WatchOptions, WatchResponse,
    WatchStream,
};
use thiserror::Error;
use tokio::sync::{oneshot, watch};
use tokio::time::{Instant, timeout};
use wire::LogId;

use super::Role;
use super::list::{self, ENTRIES, List};
use crate::settings::EtcdSettings;

/// Longest wait for a connection, and for each answer.
const CALL_TIMEOUT: Duration = Duration::from_secs(2);

/// A watch that is silent for so long is asked whether it is there.
const PROBE_EVERY: Duration = Duration::from_secs(2);

/// First and longest bound of the pauses between two connections.
const PAUSES: (Duration, Duration) = (Duration::from_millis(200), Duration::from_secs(2));

/// Keep-alives within the time of a lease.
const BEATS: u32 = 3;

#[derive(Debug, Error)]
enum Failure {
    #[error("{0}")]
    Etcd(#[from] etcd_client::Error),
    #[error("no answer in time")]
    Timeout(#[from] tokio::time::error::Elapsed),
    #[error("it ended the stream")]
    Ended,
    #[error("it does not know the lease any more")]
    Expired,
    #[error("its history was compacted, or has gone back")]
    Stale,
}

/// What went wrong last, for whoever waits.
#[derive(Debug, Clone, Default)]
pub(super) struct Problem(Arc<Mutex<String>>);

impl Problem {
    pub(super) fn take(&self) -> String {
        let text = std::mem::take(&mut *self.lock());
        if text.is_empty() {
            "no answer in time".to_owned()
        } else {
            text
        }
    }

    fn set(&self, text: String) {
        *self.lock() = text;
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, String> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The nodes of a cluster, of which one is asked.
#[derive(Debug)]
struct Nodes {
    endpoints: Vec<String>,
    at: usize,
    pauses: Backoff,
    /// Since when one of them answers.
    works_since: Option<Instant>,
    /// Whether it has been told that they do not answer.
    lost: bool,
    what: &'static str,
}

impl Nodes {
    /// The first one to ask is drawn, so that not everybody asks the same.
    fn new(endpoints: &[String], what: &'static str) -> Self {
        let chance = RandomState::new().hash_one(0);
        let count = endpoints.len().max(1) as u64;
        Self {
            endpoints: endpoints.to_vec(),
            at: usize::try_from(chance % count).unwrap_or(0),
            pauses: Backoff::within(PAUSES),
            works_since: None,
            lost: false,
            what,
        }
    }

    async fn connect(&self) -> Result<Client, Failure> {
        // A node that has lost the others ends its streams.
        let options = ConnectOptions::new()
            .with_connect_timeout(CALL_TIMEOUT)
            .with_require_leader(true);
        let endpoint: Vec<_> = self.endpoints.get(self.at).into_iter().collect();
        Ok(timeout(CALL_TIMEOUT, Client::connect(endpoint, Some(options))).await??)
    }

    /// It answers.
    fn works(&mut self) {
        self.works_since = Some(Instant::now());
        if std::mem::take(&mut self.lost) {
            let endpoint = self.endpoints.get(self.at);
            tracing::info!(what = self.what, ?endpoint, "etcd answers again");
        }
    }

    /// It does not: the next one is asked, later.
    async fn failed(&mut self, failure: &Failure) {
        let endpoint = self.endpoints.get(self.at);
        if std::mem::replace(&mut self.lost, true) {
            tracing::debug!(what = self.what, ?endpoint, %failure, "etcd does not answer");
        } else {
            tracing::warn!(what = self.what, ?endpoint, %failure, "etcd does not answer: trying the next node");
        }
        self.at = (self.at + 1) % self.endpoints.len().max(1);
        // One that answers and breaks off each time is to be left alone as one that does not answer.
        let worked = self.works_since.take();
        if worked.is_some_and(|since| since.elapsed() >= PAUSES.1) {
            self.pauses = Backoff::within(PAUSES);
        }
        self.pauses.wait().await;
    }
}

/// Follows the keys of a log.
#[derive(Debug)]
pub(super) struct Follower {
    nodes: Nodes,
    list: List,
    /// Keys that could not be read.
    unread: u64,
    problem: Problem,
    /// Who waits for the first list, and afterwards who is told of changes.
    first: Option<oneshot::Sender<watch::Receiver<Membership>>>,
    tell: Option<watch::Sender<Membership>>,
}

impl Follower {
    pub(super) fn new(settings: &EtcdSettings, log: LogId, problem: Problem) -> Self {
        Self {
            nodes: Nodes::new(&settings.endpoints, "membership"),
            list: List::new(list::root(&settings.prefix, log)),
            unread: 0,
            problem,
            first: None,
            tell: None,
        }
    }

    /// Follows for ever.
    pub(super) async fn run(mut self, first: oneshot::Sender<watch::Receiver<Membership>>) {
        self.first = Some(first);
        loop {
            let Err(failure) = self.session().await;
            self.problem.set(failure.to_string());
            self.nodes.failed(&failure).await;
        }
    }

    async fn session(&mut self) -> Result<Infallible, Failure> {
        let mut client = self.nodes.connect().await?;
        let revision = self.relist(&mut client).await?;
        let options = WatchOptions::new()
            .with_prefix()
            .with_start_revision(revision + 1);
        let watch = client.watch(self.list.root(), Some(options));
        let watch = timeout(CALL_TIMEOUT, watch).await??;
        self.nodes.works();
        self.watch(watch, revision).await
    }

    /// Lists all keys; gives the revision of the list.
    async fn relist(&mut self, client: &mut Client) -> Result<i64, Failure> {
        let limit = i64::try_from(ENTRIES).unwrap_or(i64::MAX);
        let options = GetOptions::new().with_prefix().with_limit(limit);
        let listed = client.get(self.list.root(), Some(options));
        let listed = timeout(CALL_TIMEOUT, listed).await??;
        if listed.more() {
            let (root, most) = (self.list.root(), ENTRIES);
            tracing::warn!(root, most, "etcd has more keys of this log than are read");
        }
        self.list.clear();
        for entry in listed.kvs() {
            self.put(entry.key(), entry.value());
        }
        self.tell();
        Ok(listed
            .header()
            .map_or(0, etcd_client::ResponseHeader::revision))
    }

    /// Watches until a new list is needed.
    async fn watch(
        &mut self,
        mut watch: WatchStream,
        mut revision: i64,
    ) -> Result<Infallible, Failure> {
        let mut asked = false;
        loop {
            let response = match timeout(PROBE_EVERY, watch.message()).await {
                Ok(response) => response?.ok_or(Failure::Ended)?,
                Err(silent) if asked => return Err(silent.into()),
                Err(_) => {
                    asked = true;
                    timeout(CALL_TIMEOUT, watch.request_progress()).await??;
                    continue;
                }
            };
            asked = false;
            let told = response
                .header()
                .map_or(revision, etcd_client::ResponseHeader::revision);
            if response.canceled() || told < revision {
                return Err(Failure::Stale);
            }
            revision = told;
            self.take(&response);
        }
    }

    fn take(&mut self, response: &WatchResponse) {
        for event in response.events() {
            match (event.event_type(), event.kv()) {
                (EventType::Put, Some(kv)) => self.put(kv.key(), kv.value()),
                (EventType::Delete, Some(kv)) => self.list.delete(kv.key()),
                (_, None) => {}
            }
        }
        if !response.events().is_empty() {
            self.tell();
        }
    }

    fn put(&mut self, key: &[u8], value: &[u8]) {
        if self.list.put(key, value) {
            return;
        }
        self.unread += 1;
        // Seldom, since anybody can write them.
        if self.unread.is_power_of_two() {
            let (key, count) = (String::from_utf8_lossy(key), self.unread);
            tracing::warn!(%key, count, "a key in etcd cannot be read, or is one too many: it is left out");
        }
    }

    fn tell(&mut self) {
        let (membership, left_out) = (self.list.membership(), self.list.left_out());
        match (&self.tell, self.first.take()) {
            (Some(tell), _) => {
                tell.send_if_modified(|known| {
                    let new = *known != membership;
                    if new {
                        tracing::info!(sequencers = ?membership.sequencers, writers = ?addresses(&membership), left_out, "the membership has changed");
                        *known = membership;
                    }
                    new
                });
            }
            (None, Some(first)) => {
                tracing::info!(sequencers = ?membership.sequencers, writers = ?addresses(&membership), left_out, "the membership is known");
                let (tell, changes) = watch::channel(membership);
                let _ = first.send(changes);
                self.tell = Some(tell);
            }
            (None, None) => {}
        }
    }
}

fn addresses(membership: &Membership) -> Vec<SocketAddr> {
    membership.addresses().collect()
}

/// Keeps a process registered.
#[derive(Debug)]
pub(super) struct Registrar {
    nodes: Nodes,
    key: String,
    value: String,
    lease: Duration,
}

impl Registrar {
    pub(super) fn new(
        settings: &EtcdSettings,
        log: LogId,
        address: SocketAddr,
        role: &Role,
    ) -> Self {
        let (key, value) = list::entry(&list::root(&settings.prefix, log), address, role);
        Self {
            nodes: Nodes::new(&settings.endpoints, "registration"),
            key,
            value,
            lease: settings.lease,
        }
    }

    /// Keeps it until it is taken back.
    pub(super) async fn run(mut self, mut left: oneshot::Receiver<()>) {
        let mut granted = None;
        loop {
            let failure = tokio::select! {
                Err(failure) = self.session(&mut granted) => failure,
                _ = &mut left => break,
            };
            let pause = self.nodes.failed(&failure);
            tokio::select! {
                () = pause => {}
                _ = &mut left => break,
            }
        }
        if let Some(lease) = granted
            && let Ok(mut client) = self.nodes.connect().await
        {
            let _ = timeout(CALL_TIMEOUT, client.lease_revoke(lease)).await;
        }
    }

    /// Registers under a new lease, and keeps that alive. The key moves from the former lease to this one, if that is
    /// not over: nobody sees it go.
    async fn session(&mut self, granted: &mut Option<i64>) -> Result<Infallible, Failure> {
        let mut client = self.nodes.connect().await?;
        let seconds = i64::try_from(self.lease.as_millis().div_ceil(1000)).unwrap_or(i64::MAX);
        let lease = timeout(CALL_TIMEOUT, client.lease_grant(seconds, None))
            .await??
            .id();
        *granted = Some(lease);
        self.put(&mut client, lease).await?;
        tracing::info!(key = self.key, value = self.value, "registered in etcd");
        let keep = timeout(CALL_TIMEOUT, client.lease_keep_alive(lease)).await?;
        let (mut keeper, mut answers) = keep?;
        self.nodes.works();
        loop {
            tokio::time::sleep(self.lease / BEATS).await;
            timeout(CALL_TIMEOUT, keeper.keep_alive()).await??;
            let answer = timeout(CALL_TIMEOUT, answers.message()).await??;
            if answer.ok_or(Failure::Ended)?.ttl() <= 0 {
                return Err(Failure::Expired);
            }
            self.look(&mut client, lease).await?;
        }
    }

    /// Looks whether the key is there: somebody may have deleted it, or written it with another lease.
    async fn look(&self, client: &mut Client, lease: i64) -> Result<(), Failure> {
        let options = GetOptions::new().with_serializable();
        let found = timeout(CALL_TIMEOUT, client.get(self.key.as_str(), Some(options))).await??;
        if found.kvs().first().is_some_and(|kv| kv.lease() == lease) {
            return Ok(());
        }
        tracing::warn!(
            key = self.key,
            "the registration in etcd was changed by somebody else: registering again"
        );
        self.put(client, lease).await
    }

    async fn put(&self, client: &mut Client, lease: i64) -> Result<(), Failure> {
        let options = PutOptions::new().with_lease(lease);
        let put = client.put(self.key.as_str(), self.value.as_str(), Some(options));
        timeout(CALL_TIMEOUT, put).await??;
        Ok(())
    }
}
