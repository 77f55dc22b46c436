//! Appends in volume, by the library, as fast as they are taken or at a fixed rate.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use bytes::Bytes;
use hdrhistogram::Histogram;
use rand::RngCore;
use serde::Serialize;
use stripelog::Log;
use tokio::task::JoinSet;

use super::raw::ns;
use crate::logic::tally::histogram;

/// What is appended.
#[derive(Debug, Clone, Copy, Serialize)]
pub(crate) struct Shape {
    /// Bytes of a record.
    pub(crate) size: usize,
    /// Records of one call.
    pub(crate) batch: usize,
    /// Calls that each client has under way, where it appends as fast as it can.
    pub(crate) calls: usize,
}

/// What was acknowledged in a stretch of time.
#[derive(Debug)]
pub(crate) struct Appended {
    pub(crate) records: u64,
    pub(crate) bytes: u64,
    pub(crate) failed: u64,
    /// From the first call to the last acknowledgement.
    pub(crate) seconds: f64,
    /// Of calls, from when they were due to their acknowledgement.
    pub(crate) latency: Histogram<u64>,
}

impl Appended {
    /// Gigabytes a second.
    #[must_use]
    pub(crate) fn rate(&self) -> f64 {
        self.bytes as f64 / 1e9 / self.seconds.max(1e-9)
    }

    /// Records a second.
    #[must_use]
    pub(crate) fn records_per_second(&self) -> f64 {
        self.records as f64 / self.seconds.max(1e-9)
    }
}

/// The records of one call: slices of one buffer, as of a user who has received them together.
#[must_use]
pub(crate) fn records(shape: Shape) -> Vec<Bytes> {
    let mut block = vec![0; shape.size * shape.batch];
    rand::rng().fill_bytes(&mut block);
    let block = Bytes::from(block);
    (0..shape.batch)
        .map(|index| block.slice(index * shape.size..(index + 1) * shape.size))
        .collect()
}

/// Every client keeps its calls under way until the time is over, and the last one is acknowledged.
///
/// # Errors
/// If an append fails.
#[allow(clippy::disallowed_methods, reason = "it measures")]
pub(crate) async fn closed(logs: &[Log], shape: Shape, time: Duration) -> Result<Appended> {
    let mut tasks = JoinSet::new();
    let calls = shape.calls.max(1);
    // Made before the clock starts: a client has its records already.
    let mut made: Vec<_> = (0..logs.len() * calls).map(|_| records(shape)).collect();
    let started = Instant::now();
    for log in logs {
        for records in made.split_off(made.len().saturating_sub(calls)) {
            let log = log.clone();
            tasks.spawn(async move {
                let mut latency = histogram()?;
                while started.elapsed() < time {
                    let began = Instant::now();
                    log.append(records.clone()).await?;
                    latency.saturating_record(ns(began.elapsed()));
                }
                anyhow::Ok(latency)
            });
        }
    }
    let mut latency = histogram()?;
    while let Some(one) = tasks.join_next().await {
        latency.add(one??)?;
    }
    Ok(done(shape, latency, 0, started.elapsed()))
}

/// Calls are due at a fixed rate of `rate` records a second, whether those before are acknowledged or not.
///
/// # Errors
/// If the rate makes no sense.
pub(crate) async fn open(
    logs: &[Log],
    shape: Shape,
    rate: f64,
    time: Duration,
) -> Result<Appended> {
    ensure!(rate > 0.0 && !logs.is_empty(), "no rate, or no client");
    let shared = Arc::new(Open {
        logs: logs.to_vec(),
        records: records(shape),
        failed: AtomicU64::new(0),
    });
    let runtime = tokio::runtime::Handle::current();
    let step = Duration::from_secs_f64(shape.batch as f64 / rate);
    // A thread of its own: timers of the runtime are a millisecond late.
    let due = Arc::clone(&shared);
    let drive = move || drive(&due, &runtime, step, time);
    let (started, mut tasks) = tokio::task::spawn_blocking(drive).await?;
    let mut latency = histogram()?;
    let mut ended = started;
    while let Some(one) = tasks.join_next().await {
        let (took, at) = one?;
        ended = ended.max(at);
        if let Some(took) = took {
            latency.saturating_record(ns(took));
        }
    }
    let failed = shared.failed.load(Ordering::Relaxed);
    Ok(done(shape, latency, failed, ended - started))
}

struct Open {
    logs: Vec<Log>,
    records: Vec<Bytes>,
    failed: AtomicU64,
}

type Call = (Option<Duration>, Instant);

#[allow(clippy::disallowed_methods, reason = "it waits and measures")]
fn drive(
    shared: &Arc<Open>,
    runtime: &tokio::runtime::Handle,
    step: Duration,
    time: Duration,
) -> (Instant, JoinSet<Call>) {
    let (started, mut tasks, mut due) = (Instant::now(), JoinSet::new(), Duration::ZERO);
    for log in shared.logs.iter().cycle() {
        if due >= time {
            break;
        }
        if let Some(wait) = due.checked_sub(started.elapsed()) {
            std::thread::sleep(wait);
        }
        let (log, shared, at) = (log.clone(), Arc::clone(shared), started + due);
        let call = async move {
            let appended = log.append(shared.records.clone()).await;
            let ended = Instant::now();
            match appended {
                Ok(_) => (Some(ended - at), ended),
                Err(_) => {
                    shared.failed.fetch_add(1, Ordering::Relaxed);
                    (None, ended)
                }
            }
        };
        tasks.spawn_on(call, runtime);
        due += step;
    }
    (started, tasks)
}

fn done(shape: Shape, latency: Histogram<u64>, failed: u64, time: Duration) -> Appended {
    let records = latency.len() * shape.batch as u64;
    Appended {
        records,
        bytes: records * shape.size as u64,
        failed,
        seconds: time.as_secs_f64(),
        latency,
    }
}

/// The clients of a log, each with memory for what it has under way.
///
/// # Errors
/// If the log cannot be opened.
pub(crate) async fn clients(
    cluster: &crate::cluster::Cluster,
    count: usize,
    in_flight_bytes: usize,
) -> Result<Vec<Log>> {
    let mut logs = Vec::new();
    for _ in 0..count {
        let options = cluster.options().max_in_flight_bytes(in_flight_bytes);
        let options = options.append_timeout(APPEND_TIMEOUT);
        logs.push(Log::open(options).await.context("cannot open the log")?);
    }
    Ok(logs)
}

/// Longest time for an append: stores are slow on purpose.
const APPEND_TIMEOUT: Duration = Duration::from_secs(300);
