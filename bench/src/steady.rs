//! Clients that append at a steady rate, whatever becomes of the appends before, and when each stripe acknowledges.
//!
//! A client that waits for one append before it makes the next stands still as a whole with the first stripe that
//! does. These go on: what stands still here is the log.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use bytes::Bytes;
use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};
use stripelog::{Log, Position};
use tokio::sync::Semaphore;
use tokio::task::JoinSet;
use tokio::time::{MissedTickBehavior, interval};
use wire::Layout;

use crate::load::record;
use crate::logic::history::{Append, Outcome};
use crate::report::Report;

/// Time between two appends of a client.
const EVERY: Duration = Duration::from_millis(5);

/// Most records of one append.
const RECORDS: usize = 4;

/// Appends that a client has under way, at most.
const UNDER_WAY: usize = 4096;

/// Records of an append of a client that presses, and bytes of each.
const PRESSING: usize = 16;
const PRESSING_BYTES: usize = 16 << 10;

/// Clients at work, and all that they were told so far.
#[derive(Debug)]
pub(crate) struct Steady {
    shared: Arc<Shared>,
    tasks: JoinSet<()>,
    clients: Vec<Log>,
}

/// What became of a load.
#[derive(Debug)]
pub(crate) struct Finished {
    /// The history.
    pub(crate) appends: Vec<Append>,
    /// Errors of appends that failed.
    pub(crate) errors: Vec<String>,
    /// Records that had to be appended again under a new token.
    pub(crate) appended_again: u64,
}

impl Finished {
    /// Reports what failed and what had to be appended again.
    pub(crate) fn tell(&self, report: &mut Report) {
        report.figure("appended_again", self.appended_again);
        report.exactly("failed_appends", self.errors.len(), 0);
        for error in self.errors.iter().take(3) {
            eprintln!("append failed: {error}");
        }
    }
}

#[derive(Debug)]
struct Shared {
    layout: Layout,
    clock: AtomicU64,
    stop: AtomicBool,
    /// Whether those that press make no further appends.
    relieved: AtomicBool,
    acknowledged: AtomicU64,
    /// Appends that were not made because too many were under way.
    held_back: AtomicU64,
    stripes: Mutex<Vec<Seen>>,
    /// When each client had the last acknowledgement of each stripe; those that press are not in it.
    clients: Mutex<Vec<Vec<Instant>>>,
    appends: Mutex<Vec<Append>>,
    errors: Mutex<Vec<String>>,
}

/// Acknowledgements of a stripe.
#[derive(Debug, Clone, Copy)]
struct Seen {
    last: Instant,
    /// Longest time between two, since this was last asked for.
    longest: Duration,
}

impl Steady {
    /// Starts to append with these clients of a log that has this layout.
    #[must_use]
    #[allow(clippy::disallowed_methods, reason = "measures real time")]
    pub(crate) fn start(clients: Vec<Log>, layout: Layout, seed: u64) -> Self {
        let seen = Seen {
            last: Instant::now(),
            longest: Duration::ZERO,
        };
        let shared = Arc::new(Shared {
            layout,
            clock: AtomicU64::default(),
            stop: AtomicBool::default(),
            relieved: AtomicBool::default(),
            acknowledged: AtomicU64::default(),
            held_back: AtomicU64::default(),
            stripes: Mutex::new(vec![seen; layout.all().count()]),
            clients: Mutex::new(vec![vec![seen.last; layout.all().count()]; clients.len()]),
            appends: Mutex::default(),
            errors: Mutex::default(),
        });
        let mut tasks = JoinSet::new();
        for (client, log) in clients.iter().enumerate() {
            let number = client as u64;
            let random = StdRng::seed_from_u64(seed.wrapping_mul(0x9e37_79b9).wrapping_add(number));
            let name = format!("steady.{client}");
            let shared = Arc::clone(&shared);
            tasks.spawn(append_all(log.clone(), shared, (client, name), random));
        }
        Self {
            shared,
            tasks,
            clients,
        }
    }

    /// Lets more clients append as much as they may have under way, until they are told to stop.
    pub(crate) fn press(&mut self, clients: Vec<Log>, in_flight_bytes: usize) {
        self.shared.relieved.store(false, Ordering::Release);
        for (client, log) in clients.into_iter().enumerate() {
            for task in 0..in_flight_bytes.div_ceil(PRESSING * PRESSING_BYTES) {
                let name = format!("pressing.{client}.{task}");
                self.tasks
                    .spawn(press(log.clone(), Arc::clone(&self.shared), name));
            }
            self.clients.push(log);
        }
    }

    /// Those that press make no further appends.
    pub(crate) fn relieve(&self) {
        self.shared.relieved.store(true, Ordering::Release);
    }

    /// A counter of the records that were acknowledged so far.
    pub(crate) fn counter(&self) -> impl Fn() -> u64 + Send + use<> {
        let shared = Arc::clone(&self.shared);
        move || shared.acknowledged.load(Ordering::Acquire)
    }

    /// For each stripe the longest time between two acknowledgements since the last call, in milliseconds; a pause
    /// that lasts is counted as far as it has come, and as a whole in the next call.
    #[allow(clippy::disallowed_methods, reason = "measures real time")]
    pub(crate) fn take(&self) -> Vec<f64> {
        let now = Instant::now();
        let mut stripes = lock(&self.shared.stripes);
        let take = |seen: &mut Seen| {
            let longest = std::mem::take(&mut seen.longest);
            let lasts = now.saturating_duration_since(seen.last);
            longest.max(lasts).as_secs_f64() * 1000.0
        };
        stripes.iter_mut().map(take).collect()
    }

    /// Whether every stripe has acknowledged something since.
    pub(crate) fn all_since(&self, since: Instant) -> bool {
        lock(&self.shared.stripes)
            .iter()
            .all(|seen| seen.last > since)
    }

    /// Whether every client has had an acknowledgement of every stripe since.
    pub(crate) fn every_client_since(&self, since: Instant) -> bool {
        let clients = lock(&self.shared.clients);
        clients.iter().flatten().all(|last| *last > since)
    }

    /// Appends that were not made because a client had too many under way.
    #[must_use]
    pub(crate) fn held_back(&self) -> u64 {
        self.shared.held_back.load(Ordering::Acquire)
    }

    /// Ends the load after the appends that are under way.
    pub(crate) async fn finish(mut self) -> Finished {
        self.shared.stop.store(true, Ordering::Release);
        while self.tasks.join_next().await.is_some() {}
        let again = self
            .clients
            .iter()
            .map(|log| log.stats().records_reappended);
        Finished {
            appended_again: again.sum(),
            appends: std::mem::take(&mut *lock(&self.shared.appends)),
            errors: std::mem::take(&mut *lock(&self.shared.errors)),
        }
    }
}

impl Shared {
    #[allow(clippy::disallowed_methods, reason = "measures real time")]
    fn acknowledged(&self, client: Option<usize>, positions: &[Position]) {
        let count = positions.len() as u64;
        self.acknowledged.fetch_add(count, Ordering::AcqRel);
        let mut stripes = lock(&self.stripes);
        let mut clients = lock(&self.clients);
        let mut own = client.and_then(|client| clients.get_mut(client));
        for position in positions {
            let stripe = usize::from(self.layout.stripe(*position).0);
            if let Some(seen) = stripes.get_mut(stripe) {
                let now = Instant::now();
                seen.longest = seen.longest.max(now.saturating_duration_since(seen.last));
                seen.last = now;
                if let Some(last) = own.as_mut().and_then(|own| own.get_mut(stripe)) {
                    *last = now;
                }
            }
        }
    }
}

async fn append_all(
    log: Log,
    shared: Arc<Shared>,
    (client, name): (usize, String),
    mut random: StdRng,
) {
    let mut ticks = interval(EVERY);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Skip);
    let places = Arc::new(Semaphore::new(UNDER_WAY));
    let mut calls = JoinSet::new();
    let mut number = 0_u64;
    while !shared.stop.load(Ordering::Acquire) {
        ticks.tick().await;
        while calls.try_join_next().is_some() {}
        let Ok(place) = Arc::clone(&places).try_acquire_owned() else {
            shared.held_back.fetch_add(1, Ordering::AcqRel);
            continue;
        };
        let records: Vec<_> = (0..random.random_range(1..=RECORDS))
            .map(|index| record(&name, number, index, &mut random))
            .collect();
        number += 1;
        let (log, shared) = (log.clone(), Arc::clone(&shared));
        calls.spawn(async move {
            append(&log, &shared, Some(client), records).await;
            drop(place);
        });
    }
    while calls.join_next().await.is_some() {}
}

async fn press(log: Log, shared: Arc<Shared>, name: String) {
    let mut number = 0_u64;
    while !shared.relieved.load(Ordering::Acquire) {
        let records = (0..PRESSING).map(|index| {
            let mut record = format!("{name}/{number}/{index}:").into_bytes();
            record.resize(PRESSING_BYTES, b'.');
            Bytes::from(record)
        });
        append(&log, &shared, None, records.collect()).await;
        number += 1;
    }
}

async fn append(log: &Log, shared: &Shared, client: Option<usize>, records: Vec<Bytes>) {
    let started = shared.clock.fetch_add(1, Ordering::AcqRel);
    let result = log.append(records.clone()).await;
    let ended = shared.clock.fetch_add(1, Ordering::AcqRel);
    let outcome = match result {
        Ok(positions) => {
            shared.acknowledged(client, &positions);
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

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
