//! The raw store: what it takes and gives without a log on it.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Result, ensure};
use bytes::Bytes;
use catalog::{Create, Store};
use futures::StreamExt;
use futures::stream;
use hdrhistogram::Histogram;
use rand::RngCore;
use serde::Serialize;
use tokio::task::JoinSet;

use crate::logic::tally::{Latency, histogram};
use crate::measure::round;

/// Bytes of one chunk of an object, as a payload of records is made of chunks too.
const CHUNK_BYTES: usize = 256 << 10;

/// Deletes at the same time.
const DELETES: usize = 16;

/// What is put: objects of this size, so many at once.
#[derive(Debug, Clone, Copy, Serialize, clap::Args)]
pub(crate) struct PutArgs {
    /// Bytes of a raw object
    #[arg(long, value_name = "BYTES", default_value_t = 16 << 20)]
    pub(crate) object_bytes: usize,
    /// Raw puts at the same time; the same as `writer.puts_in_flight`
    #[arg(long, value_name = "PUTS", default_value_t = 8)]
    pub(crate) puts: usize,
}

/// What is got: ranges of this size, so many at once.
#[derive(Debug, Clone, Copy, Serialize, clap::Args)]
pub(crate) struct GetArgs {
    /// Bytes of a raw range
    #[arg(long, value_name = "BYTES", default_value_t = 4 << 20)]
    pub(crate) range_bytes: u64,
    /// Raw gets at the same time
    #[arg(long, value_name = "GETS", default_value_t = 16)]
    pub(crate) gets: usize,
}

/// What was moved in a stretch of time.
#[derive(Debug)]
pub(crate) struct Moved {
    pub(crate) requests: u64,
    pub(crate) bytes: u64,
    pub(crate) seconds: f64,
    pub(crate) latency: Histogram<u64>,
}

/// The figures of it.
#[derive(Debug, Clone, Serialize)]
pub(crate) struct Figures {
    pub(crate) gb_per_second: f64,
    pub(crate) per_second: f64,
    pub(crate) requests: u64,
    #[serde(flatten)]
    pub(crate) latency: Latency,
}

impl Moved {
    /// Gigabytes a second.
    #[must_use]
    pub(crate) fn rate(&self) -> f64 {
        self.bytes as f64 / 1e9 / self.seconds.max(1e-9)
    }

    /// All figures.
    #[must_use]
    pub(crate) fn figures(&self) -> Figures {
        Figures {
            gb_per_second: round(self.rate()),
            per_second: round(self.requests as f64 / self.seconds.max(1e-9)),
            requests: self.requests,
            latency: Latency::of(&self.latency),
        }
    }
}

/// Puts objects below a prefix, each create-only as all of a log are, until the time is over and the
/// last one has ended.
///
/// # Errors
/// If the store fails.
#[allow(clippy::disallowed_methods, reason = "it measures")]
pub(crate) async fn puts(
    store: &Store,
    prefix: &str,
    args: PutArgs,
    time: Duration,
) -> Result<Moved> {
    ensure!(args.puts > 0 && args.object_bytes > 0, "nothing to put");
    let started = Instant::now();
    let mut tasks = JoinSet::new();
    for task in 0..args.puts {
        let (store, prefix) = (store.clone(), format!("{prefix}/{task:04}"));
        tasks.spawn(async move {
            let chunks = chunks(args.object_bytes);
            let mut latency = histogram()?;
            while started.elapsed() < time {
                let name = format!("{prefix}/{:08}", latency.len());
                let began = Instant::now();
                let created = store.create(&name, &chunks).await?;
                ensure!(created == Create::Done, "{name} was there already");
                latency.saturating_record(ns(began.elapsed()));
            }
            anyhow::Ok(latency)
        });
    }
    let mut latency = histogram()?;
    while let Some(one) = tasks.join_next().await {
        latency.add(one??)?;
    }
    Ok(Moved {
        requests: latency.len(),
        bytes: latency.len() * args.object_bytes as u64,
        seconds: started.elapsed().as_secs_f64(),
        latency,
    })
}

/// Gets ranges of objects, in order, again and again, until the time is over.
///
/// # Errors
/// If the store fails, or an object is not there.
#[allow(clippy::disallowed_methods, reason = "it measures")]
pub(crate) async fn gets(
    store: &Store,
    objects: &[(String, u64)],
    args: GetArgs,
    time: Duration,
) -> Result<Moved> {
    ensure!(args.gets > 0 && args.range_bytes > 0, "nothing to get");
    let ranges: Vec<_> = objects
        .iter()
        .flat_map(|(name, size)| {
            let starts =
                (0..*size).step_by(usize::try_from(args.range_bytes).unwrap_or(usize::MAX));
            starts.map(move |start| (name.clone(), start..(start + args.range_bytes).min(*size)))
        })
        .collect();
    ensure!(!ranges.is_empty(), "there are no objects to get");
    let started = Instant::now();
    let (ranges, next) = (Arc::new(ranges), Arc::new(AtomicUsize::new(0)));
    let mut tasks = JoinSet::new();
    for _ in 0..args.gets {
        let (store, ranges, next) = (store.clone(), Arc::clone(&ranges), Arc::clone(&next));
        tasks.spawn(async move {
            let (mut latency, mut bytes) = (histogram()?, 0);
            loop {
                let index = next.fetch_add(1, Ordering::Relaxed);
                // Whole passes only, so that every store is asked for the same.
                if index % ranges.len() == 0 && index > 0 && started.elapsed() >= time {
                    next.store(usize::MAX / 2, Ordering::Relaxed);
                }
                if index >= usize::MAX / 2 || (index >= ranges.len() && started.elapsed() >= time) {
                    return anyhow::Ok((latency, bytes));
                }
                let Some((name, range)) = ranges.get(index % ranges.len()) else {
                    continue;
                };
                let began = Instant::now();
                let got = store.get_range(name, range.clone()).await?;
                let got = got.map_or(0, |bytes| bytes.len() as u64);
                ensure!(got == range.end - range.start, "{name} is cut off");
                bytes += got;
                latency.saturating_record(ns(began.elapsed()));
            }
        });
    }
    let (mut latency, mut bytes) = (histogram()?, 0);
    while let Some(one) = tasks.join_next().await {
        let (one, moved) = one??;
        latency.add(one)?;
        bytes += moved;
    }
    Ok(Moved {
        requests: latency.len(),
        bytes,
        seconds: started.elapsed().as_secs_f64(),
        latency,
    })
}

/// Names and sizes of all objects below a prefix.
///
/// # Errors
/// If the store fails.
pub(crate) async fn objects(store: &Store, prefix: &str) -> Result<Vec<(String, u64)>> {
    let listed = store.list(prefix, None).await?;
    Ok(listed.into_iter().map(|one| (one.name, one.size)).collect())
}

/// Deletes all objects below a prefix.
///
/// # Errors
/// If the store fails.
pub(crate) async fn clear(store: &Store, prefix: &str) -> Result<()> {
    let names = objects(store, prefix).await?;
    let deletes = names.iter().map(|(name, _)| store.delete(name));
    let mut deletes = stream::iter(deletes).buffer_unordered(DELETES);
    while let Some(deleted) = deletes.next().await {
        deleted?;
    }
    Ok(())
}

/// Random bytes, in chunks: nothing on the way can make them smaller.
fn chunks(mut bytes: usize) -> Vec<Bytes> {
    let mut chunks = Vec::new();
    while bytes > 0 {
        let mut chunk = vec![0; bytes.min(CHUNK_BYTES)];
        rand::rng().fill_bytes(&mut chunk);
        bytes -= chunk.len();
        chunks.push(chunk.into());
    }
    chunks
}

/// A stretch of time in nanoseconds.
pub(crate) fn ns(time: Duration) -> u64 {
    u64::try_from(time.as_nanos()).unwrap_or(u64::MAX)
}
