//! Keeps the stripes of the log owned: takes those of dead peers over, drops those that a peer has taken, and gives
//! back those whose home has returned. What is done when is decided in `logic/members.rs`.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use catalog::{Membership, Writer};
use runtime::members::changed;
use tokio::sync::{Notify, watch};
use tokio::task::{AbortHandle, JoinError, JoinSet};
use tokio::time::{MissedTickBehavior, interval, timeout};
use wire::{OwnerNumber, Segment};

use crate::limits::{STORE_ANSWERS, TAKE_OVERS};
use crate::logic::members::{Key, Members};
use crate::metrics::Move;
use crate::net::Peer;
use crate::shared::Shared;
use crate::store::{self, Event};

/// Why a stripe is not taken over.
const SILENT_STORE: &str = "the store does not answer in time";

/// The membership of a stripe-writer that watches its peers.
#[derive(Debug, Clone)]
pub struct Takeover {
    /// All stripe-writers, in the order of the settings.
    pub writers: Vec<Writer>,
    /// Which of them this process is.
    pub own: usize,
    /// One that has not answered for so long is dead: its stripes are taken over.
    pub timeout: Duration,
    /// The membership as it changes, if it does. Its writers take the place of [`Self::writers`], but for this one.
    pub changes: Option<watch::Receiver<Membership>>,
}

/// What the peers say, where all that watch them write it down.
#[derive(Debug)]
pub(crate) struct Board {
    members: Mutex<Members>,
    news: Notify,
    /// Stripes that could not be taken over, and why.
    failing: Mutex<BTreeMap<Key, String>>,
}

impl Board {
    pub(crate) fn new(takeover: &Takeover) -> Self {
        let members = Members::new(&takeover.writers, takeover.own, takeover.timeout);
        Self {
            members: Mutex::new(members),
            news: Notify::new(),
            failing: Mutex::default(),
        }
    }

    /// A peer says what it owns, and whether it is about to end.
    pub(crate) fn heard(&self, member: usize, claims: BTreeMap<Key, OwnerNumber>, leaving: bool) {
        if self.members().heard(member, claims, leaving) {
            self.news.notify_one();
        }
    }

    /// A peer cannot be reached.
    pub(crate) fn unreachable(&self, member: usize) {
        if self.members().unreachable(member) {
            self.news.notify_one();
        }
    }

    /// Says which stripes cannot be taken over, for health checks.
    pub(crate) fn health(&self) -> Result<(), String> {
        let failing = lock(&self.failing);
        match failing.first_key_value() {
            None => Ok(()),
            Some(((_, stripe), error)) => {
                let count = failing.len();
                Err(format!(
                    "stripes that cannot be taken over: {count}, stripe {stripe}: {error}"
                ))
            }
        }
    }

    fn members(&self) -> MutexGuard<'_, Members> {
        lock(&self.members)
    }
}

/// The task that keeps the stripes.
pub(crate) struct Keeper {
    shared: Arc<Shared>,
    board: Arc<Board>,
    takes: JoinSet<(Key, Result<(), String>)>,
    leaves: JoinSet<()>,
    taking: BTreeMap<Key, AbortHandle>,
    timeout: Duration,
    changes: Option<watch::Receiver<Membership>>,
    peers: JoinSet<()>,
    watched: BTreeMap<usize, AbortHandle>,
}

impl Keeper {
    pub(crate) fn new(takeover: &Takeover, shared: Arc<Shared>, board: Arc<Board>) -> Self {
        let mut keeper = Self {
            shared,
            board,
            takes: JoinSet::new(),
            leaves: JoinSet::new(),
            taking: BTreeMap::new(),
            timeout: takeover.timeout,
            changes: takeover.changes.clone(),
            peers: JoinSet::new(),
            watched: BTreeMap::new(),
        };
        for (member, writer) in takeover.writers.iter().enumerate() {
            if member != takeover.own {
                keeper.watch(member, writer.address);
            }
        }
        keeper
    }

    /// Keeps them for ever.
    pub(crate) async fn run(mut self) {
        let mut ticks = interval(self.board.members().tick());
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let board = Arc::clone(&self.board);
        let mut entries = self.shared.entries();
        loop {
            tokio::select! {
                _ = ticks.tick() => {}
                // [H-5] A reign may have opened a segment. The sender lives as long as this does.
                _ = entries.changed() => {}
                () = board.news.notified() => {}
                membership = changed(&mut self.changes) => self.relist(&membership),
                Some(taken) = self.takes.join_next(), if !self.takes.is_empty() => match taken {
                    Ok((key, outcome)) => self.taken(key, outcome),
                    Err(error) => self.broke_off(&error),
                },
                Some(_) = self.leaves.join_next(), if !self.leaves.is_empty() => {}
            }
            self.look().await;
        }
    }

    /// Watches whom the membership has now.
    fn relist(&mut self, membership: &Membership) {
        let changes = self.board.members().relist(&membership.writers);
        for (member, address) in changes {
            match address {
                Some(address) => self.watch(member, address),
                None => self.leave(member),
            }
        }
    }

    fn watch(&mut self, member: usize, address: SocketAddr) {
        self.leave(member);
        let shared = &self.shared;
        let peer = Peer {
            member,
            address,
            log: shared.log.id(),
            client: shared.client(),
            timeout: self.timeout,
        };
        let task = self.peers.spawn(peer.watch(Arc::clone(&self.board)));
        self.watched.insert(member, task);
    }

    fn leave(&mut self, member: usize) {
        if let Some(task) = self.watched.remove(&member) {
            task.abort();
        }
        while self.peers.try_join_next().is_some() {}
    }

    /// Looks at who owns what, and acts.
    async fn look(&mut self) {
        let shared = Arc::clone(&self.shared);
        for key in shared.owned.sweep() {
            shared.metrics.moved(Move::Lost);
            self.board.members().fenced(key);
        }
        let entry = shared.entry();
        let open = entry.open_segments();
        let of = |segment: &Segment| {
            let id = segment.id;
            segment.layout.all().map(move |stripe| (id, stripe))
        };
        let all: Vec<Key> = open.iter().flat_map(of).collect();
        let mine = shared.owned.numbers();
        let (decisions, silent) = {
            let mut members = self.board.members();
            let decisions = members.decide(store::now(), &all, &mine);
            (decisions, members.silent())
        };
        for key in decisions.lost {
            self.lose(key).await;
        }
        for key in decisions.take {
            // The rest follows when one of these has ended.
            if self.takes.len() < TAKE_OVERS {
                self.take(open, key);
            }
        }
        if let Some(key) = decisions.give_back {
            self.give_back(key);
        }
        lock(&self.board.failing).retain(|key, _| all.contains(key) && !mine.contains_key(key));
        shared.metrics.peers_silent(silent);
        shared.metrics.stripes(shared.owned.serving().len());
    }

    fn take(&mut self, open: &[Segment], key: Key) {
        let Some(segment) = open.iter().find(|segment| segment.id == key.0).copied() else {
            return;
        };
        tracing::info!(segment = %key.0, stripe = %key.1, "taking a stripe over");
        self.shared.owned.taking(key);
        let shared = Arc::clone(&self.shared);
        let task = self.takes.spawn(async move {
            let take = async {
                // Whoever cannot reach the store stands in nobody's way for long. A walk may take its time.
                let last = timeout(STORE_ANSWERS, shared.log.last()).await;
                let entry = last.map_err(|_| SILENT_STORE)?.map_err(|e| e.to_string())?;
                let taken = shared.take(&entry, segment, key.1).await;
                taken.map_err(|error| error.to_string())
            };
            (key, take.await)
        });
        self.taking.insert(key, task);
    }

    fn taken(&mut self, key: Key, outcome: Result<(), String>) {
        match outcome {
            Ok(()) => {
                self.taking.remove(&key);
                lock(&self.board.failing).remove(&key);
                let how = match self.board.members().is_home(key.1) {
                    true => Move::Taken,
                    false => Move::TakenOver,
                };
                tracing::info!(segment = %key.0, stripe = %key.1, "a stripe is served here");
                self.shared.metrics.moved(how);
            }
            Err(error) => self.failed(key, error),
        }
    }

    /// A task that was called off is known no more; another that has not come to its end is as one that failed, lest
    /// its stripe count as being taken for ever.
    fn broke_off(&mut self, error: &JoinError) {
        let mut taking = self.taking.iter();
        let key = taking.find(|(_, task)| task.id() == error.id());
        if let Some(key) = key.map(|(key, _)| *key) {
            self.failed(key, error.to_string());
        }
    }

    fn failed(&mut self, key: Key, text: String) {
        self.taking.remove(&key);
        self.shared.owned.give_up(key);
        self.board.members().failed(key);
        let before = lock(&self.board.failing).insert(key, text.clone());
        // It is tried again and again: what is new is told.
        if before.as_ref() != Some(&text) {
            tracing::warn!(error = text, stripe = %key.1, "cannot take a stripe over: trying again");
        }
    }

    /// A peer owns a stripe.
    async fn lose(&mut self, key: Key) {
        let shared = &self.shared;
        if let Some(task) = self.taking.remove(&key) {
            task.abort();
            shared.owned.give_up(key);
        }
        if let Some(handle) = shared.owned.drop_now(key) {
            tracing::info!(segment = %key.0, stripe = %key.1, "another process owns the stripe now");
            shared.metrics.moved(Move::Lost);
            // A task that has ended needs no word.
            let _ = handle.events.send(Event::Fence).await;
        }
    }

    fn give_back(&mut self, key: Key) {
        let shared = &self.shared;
        if let Some(leaving) = Arc::clone(shared).leave(key) {
            tracing::info!(segment = %key.0, stripe = %key.1, "giving a stripe back");
            shared.metrics.moved(Move::GivenBack);
            self.leaves.spawn(leaving);
        }
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
