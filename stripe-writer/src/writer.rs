//! The daemon as a whole: takes its stripes, serves, stops.

use std::net::SocketAddr;
use std::ops::RangeInclusive;
use std::sync::atomic::Ordering;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use catalog::{CatalogError, Log, Store};
use futures::{StreamExt, TryStreamExt, stream};
use prometheus_client::registry::Registry;
use thiserror::Error;
use tokio::sync::{Semaphore, watch};
use tokio::task::{AbortHandle, JoinHandle};
use ulid::Ulid;
use wire::control::ControlEntry;
use wire::limits::OBJECT_TARGET_BYTES;
use wire::mac::Key;
use wire::{ClientId, Segment, StripeId, WriterId};

use crate::limits::{LOOKUPS, RECENT_BYTES, RECENT_PART, STORE_PATIENCE};
use crate::logic::action::Config;
use crate::metrics::Metrics;
use crate::net::{Memory, Reporter, Server};
use crate::shared::Shared;
use crate::store::{Event, Places, Start, StoreThreads, StripeHandle, Workers, now, take_over};

/// Stripes that are taken over at the same time.
const TAKE_OVERS: usize = 8;

/// Longest time to make durable what is held at a stop.
const STOP_TIMEOUT: Duration = Duration::from_secs(30);

/// How a stripe-writer runs.
#[derive(Debug, Clone)]
pub struct Options {
    /// TCP address to listen on.
    pub listen: SocketAddr,
    /// UDP addresses of the sequencers, of which one reigns.
    pub sequencers: Vec<SocketAddr>,
    /// First and last stripe to own; those that the layout does not have are left out.
    pub stripes: RangeInclusive<u16>,
    /// An open object closes this long after its first record at the latest.
    pub linger: Duration,
    /// Age at which a hole becomes junk.
    pub hole_timeout: Duration,
    /// Puts under way, all stripes together.
    pub puts_in_flight: usize,
    /// Bytes of records that are not durable yet, all stripes together.
    pub memory_bytes: usize,
    /// Age at which a create is verified before it is acknowledged (C-7).
    pub max_commit_age: Duration,
    /// Key of the log, if it has one: reports are signed, answers are checked.
    pub key: Option<Key>,
}

/// Why a stripe-writer does not start.
#[derive(Debug, Error)]
pub enum WriterError {
    /// The store or the log.
    #[error(transparent)]
    Catalog(#[from] CatalogError),
    /// The address cannot be bound.
    #[error("cannot listen: {source}: address={address}")]
    Listen {
        /// The address.
        address: SocketAddr,
        /// What the system said.
        source: std::io::Error,
    },
    /// The system gives no threads.
    #[error("cannot start threads: {0}")]
    Threads(std::io::Error),
    /// The settings give this process no stripe of the log.
    #[error("no stripe to own: stripes={first}-{last} layout={layout}")]
    NoStripe {
        /// First stripe of the settings.
        first: u16,
        /// Last stripe of the settings.
        last: u16,
        /// Number of stripes of the log.
        layout: u32,
    },
}

/// A running stripe-writer.
#[derive(Debug)]
pub struct StripeWriter {
    shared: Arc<Shared>,
    address: SocketAddr,
    stripes: Vec<JoinHandle<()>>,
    server: AbortHandle,
    reporter: AbortHandle,
    _threads: StoreThreads,
}

impl StripeWriter {
    /// Checks the store, takes over the stripes, and serves.
    ///
    /// # Errors
    /// What keeps it from starting; nothing is served then.
    pub async fn start(
        store: Store,
        options: &Options,
        registry: &Mutex<Registry>,
    ) -> Result<Self, WriterError> {
        // The port first: two processes on one host do not fence each other by mistake.
        let listen = |source| WriterError::Listen {
            address: options.listen,
            source,
        };
        let server = Server::bind(options.listen).await.map_err(listen)?;
        let address = server.address().map_err(listen)?;
        let log = Log::open(store).await?;
        log.store().check().await?;
        log.store().sweep_staging().await?;
        let entry = log.last().await?;
        let metrics = Arc::new(Metrics::default());
        metrics.register(
            &mut registry
                .lock()
                .unwrap_or_else(std::sync::PoisonError::into_inner),
        );
        let (ripe, ripens) = watch::channel(entry.epoch_start);
        let threads = StoreThreads::start().map_err(WriterError::Threads)?;
        let workers = Workers {
            threads: threads.handle(),
            places: Places::new(options.puts_in_flight),
            lookups: Arc::new(Semaphore::new(LOOKUPS)),
            ripe: ripens,
            hole_timeout: options.hole_timeout,
            metrics: Arc::clone(&metrics),
        };
        let writer = WriterId::from(Ulid::generate());
        let taking = Taking {
            log: &log,
            entry: &entry,
            segment: *entry.last_segment().map_err(CatalogError::from)?,
            writer,
            options,
            workers: &workers,
        };
        let taken = taking.all().await?;
        let (handles, stripes): (Vec<_>, Vec<_>) = taken.into_iter().unzip();
        tracing::info!(log = %log.id(), %writer, stripes = handles.len(), epoch = %entry.epoch, %address, "serving");
        let memory = Memory::new(options.memory_bytes, handles.len());
        let shared = Arc::new(Shared::new(
            log,
            writer,
            &entry,
            handles,
            memory,
            workers.places,
            metrics,
        ));
        let client = client_id(writer);
        let reporter = Reporter::new(Arc::clone(&shared), options, client, ripe);
        let reporter = reporter.await.map_err(listen)?;
        let reporter = tokio::spawn(reporter.run()).abort_handle();
        let server = tokio::spawn(server.run(Arc::clone(&shared))).abort_handle();
        Ok(Self {
            shared,
            address,
            stripes,
            server,
            reporter,
            _threads: threads,
        })
    }

    /// The address that it listens on.
    #[must_use]
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Says why it does not do its work, for health checks.
    pub fn health(&self) -> impl Fn() -> Result<(), String> + Send + Sync + 'static {
        let shared = Arc::clone(&self.shared);
        move || {
            let fenced = |handle: &&StripeHandle| handle.fenced.load(Ordering::Acquire);
            let trouble = shared.metrics.store.trouble(now(), STORE_PATIENCE);
            match shared.stripes().filter(fenced).count() {
                0 => trouble.map_or(Ok(()), Err),
                fenced => Err(format!("stripes that another process owns now: {fenced}")),
            }
        }
    }

    /// Resolves when another process owns every stripe.
    pub async fn all_fenced(&self) {
        for handle in self.shared.stripes() {
            let mut frontier = handle.frontier.clone();
            while !handle.fenced.load(Ordering::Acquire) {
                let tick = tokio::time::sleep(crate::limits::REPORT_HEARTBEAT);
                tokio::select! {
                    moved = frontier.changed() => if moved.is_err() {
                        // Its task has ended: nobody serves the stripe here.
                        break;
                    },
                    () = tick => {}
                }
            }
        }
    }

    /// Takes in nothing more, makes durable what is held without a hole before it, and ends.
    pub async fn stop(self) {
        self.server.abort();
        self.reporter.abort();
        for handle in self.shared.stripes() {
            let _ = handle.events.send(Event::Stop).await;
        }
        let all = async {
            for stripe in self.stripes {
                let _ = stripe.await;
            }
        };
        if tokio::time::timeout(STOP_TIMEOUT, all).await.is_err() {
            tracing::warn!(
                "the store is too slow to wait for: what is held was never acknowledged"
            );
        }
    }
}

/// The start of a daemon: what it takes its stripes with.
struct Taking<'a> {
    log: &'a Log,
    entry: &'a ControlEntry,
    segment: Segment,
    writer: WriterId,
    options: &'a Options,
    workers: &'a Workers,
}

impl Taking<'_> {
    async fn all(&self) -> Result<Vec<(StripeHandle, JoinHandle<()>)>, WriterError> {
        let (layout, owned) = (self.segment.layout, &self.options.stripes);
        let stripes: Vec<_> = layout.all().filter(|s| owned.contains(&s.0)).collect();
        if stripes.is_empty() {
            return Err(WriterError::NoStripe {
                first: *owned.start(),
                last: *owned.end(),
                layout: layout.stripes(),
            });
        }
        let recent = RECENT_BYTES.min(self.options.memory_bytes / RECENT_PART);
        let recent_bytes = recent / stripes.len();
        let taken = stream::iter(stripes)
            .map(|stripe| self.one(stripe, recent_bytes))
            .buffer_unordered(TAKE_OVERS);
        taken.try_collect().await
    }

    async fn one(
        &self,
        stripe: StripeId,
        recent_bytes: usize,
    ) -> Result<(StripeHandle, JoinHandle<()>), WriterError> {
        let chain = self.log.chain(&self.segment, stripe);
        let (layout, sealed) = (self.segment.layout, self.entry.epoch_start);
        let start = Start {
            taken: take_over(&chain, self.entry.epoch, self.writer).await?,
            chain,
            seal_to: layout.slot_at_or_after(stripe, sealed),
            config: Config {
                linger: self.options.linger,
                target_bytes: OBJECT_TARGET_BYTES,
                max_commit_age: self.options.max_commit_age,
            },
            recent_bytes,
        };
        Ok(StripeHandle::start(start, self.workers.clone()))
    }
}

/// The low half of the process's identity is random enough to tell reporters apart.
fn client_id(writer: WriterId) -> ClientId {
    let low = writer.0.last_chunk::<8>();
    ClientId(low.map_or(0, |bytes| u64::from_le_bytes(*bytes)))
}
