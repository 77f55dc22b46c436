//! Clients that append without pause and remember what they were told.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use anyhow::Result;
use bytes::Bytes;
use rand::rngs::StdRng;
use rand::{Rng, RngCore, SeedableRng};
use stripelog::Log;
use tokio::task::JoinSet;

use crate::cluster::Cluster;
use crate::logic::history::{Append, Outcome};

/// Appends that one client has under way at the same time.
const APPENDS_A_CLIENT: usize = 16;

/// Most records of one append.
const RECORDS: usize = 20;

/// Most random bytes of a record, behind the part that makes it unlike every other.
const FILLER: usize = 160;

/// Clients at work, and all that they were told so far.
#[derive(Debug)]
pub(crate) struct Load {
    shared: Arc<Shared>,
    tasks: JoinSet<()>,
    clients: Vec<Log>,
}

#[derive(Debug, Default)]
struct Shared {
    /// Shared with loads beside this one: what ended before what began is known of all.
    clock: Arc<AtomicU64>,
    stop: AtomicBool,
    acknowledged: AtomicU64,
    appends: Mutex<Vec<Append>>,
    errors: Mutex<Vec<String>>,
}

impl Load {
    /// Starts `clients` clients of a log.
    ///
    /// # Errors
    /// If the log cannot be opened.
    pub(crate) async fn start(cluster: &Cluster, clients: usize, seed: u64) -> Result<Self> {
        Self::on(cluster, clients, seed, "", Arc::default()).await
    }

    /// Starts a load beside this one, whose records have a name of their own and whose history is of the
    /// same time.
    ///
    /// # Errors
    /// If the log cannot be opened.
    pub(crate) async fn beside(
        &self,
        cluster: &Cluster,
        clients: usize,
        seed: u64,
    ) -> Result<Self> {
        let clock = Arc::clone(&self.shared.clock);
        Self::on(cluster, clients, seed, "beside.", clock).await
    }

    async fn on(
        cluster: &Cluster,
        clients: usize,
        seed: u64,
        prefix: &str,
        clock: Arc<AtomicU64>,
    ) -> Result<Self> {
        let shared = Arc::new(Shared {
            clock,
            ..Shared::default()
        });
        let (mut tasks, mut logs) = (JoinSet::new(), Vec::new());
        for client in 0..clients {
            let log = cluster.client().await?;
            for task in 0..APPENDS_A_CLIENT {
                let name = format!("{prefix}{client}.{task}");
                let number = (client * APPENDS_A_CLIENT + task) as u64;
                let random =
                    StdRng::seed_from_u64(seed.wrapping_mul(0x9e37_79b9).wrapping_add(number));
                tasks.spawn(append_all(log.clone(), Arc::clone(&shared), name, random));
            }
            logs.push(log);
        }
        Ok(Self {
            shared,
            tasks,
            clients: logs,
        })
    }

    /// Records that were acknowledged so far.
    #[must_use]
    pub(crate) fn acknowledged(&self) -> u64 {
        self.shared.acknowledged.load(Ordering::Acquire)
    }

    /// The same from anywhere, as long as the load runs and longer.
    pub(crate) fn counter(&self) -> impl Fn() -> u64 + Send + use<> {
        let shared = Arc::clone(&self.shared);
        move || shared.acknowledged.load(Ordering::Acquire)
    }

    /// Records that had to be appended again under a new token, in all clients.
    #[must_use]
    pub(crate) fn appended_again(&self) -> u64 {
        self.clients
            .iter()
            .map(|log| log.stats().records_reappended)
            .sum()
    }

    /// Ends the load after the appends that are under way, and gives the history and the errors.
    pub(crate) async fn finish(mut self) -> (Vec<Append>, Vec<String>) {
        self.shared.stop.store(true, Ordering::Release);
        while self.tasks.join_next().await.is_some() {}
        let appends = std::mem::take(&mut *lock(&self.shared.appends));
        let errors = std::mem::take(&mut *lock(&self.shared.errors));
        (appends, errors)
    }
}

async fn append_all(log: Log, shared: Arc<Shared>, name: String, mut random: StdRng) {
    let mut number = 0_u64;
    while !shared.stop.load(Ordering::Acquire) {
        let records: Vec<_> = (0..random.random_range(1..=RECORDS))
            .map(|index| record(&name, number, index, &mut random))
            .collect();
        number += 1;
        let started = shared.clock.fetch_add(1, Ordering::AcqRel);
        let result = log.append(records.clone()).await;
        let ended = shared.clock.fetch_add(1, Ordering::AcqRel);
        let outcome = match result {
            Ok(positions) => {
                shared
                    .acknowledged
                    .fetch_add(records.len() as u64, Ordering::AcqRel);
                Outcome::Committed(positions)
            }
            Err(error) => {
                lock(&shared.errors).push(error.to_string());
                match error.is_definite() {
                    true => Outcome::Absent,
                    false => Outcome::Unknown,
                }
            }
        };
        lock(&shared.appends).push(Append {
            started,
            ended,
            records,
            outcome,
        });
    }
}

/// A record unlike every other of a history, if the name is that of one task.
pub(crate) fn record(name: &str, number: u64, index: usize, random: &mut StdRng) -> Bytes {
    let mut record = format!("{name}/{number}/{index}:").into_bytes();
    let mut filler = vec![0; random.random_range(0..=FILLER)];
    random.fill_bytes(&mut filler);
    record.extend(filler);
    record.into()
}

fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
