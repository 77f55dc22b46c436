//! The daemon as a whole: takes its stripes, serves, stops.

use std::net::SocketAddr;
use std::ops::RangeInclusive;
use std::sync::atomic::Ordering;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use catalog::{CatalogError, Log, Store};
use prometheus_client::registry::Registry;
use thiserror::Error;
use tokio::sync::{Semaphore, watch};
use tokio::task::AbortHandle;
use ulid::Ulid;
use wire::limits::OBJECT_TARGET_BYTES;
use wire::mac::Key;
use wire::{ClientId, WriterId};

use crate::limits::{LOOKUPS, RECENT_BYTES, RECENT_PART, REPORT_HEARTBEAT};
use crate::logic::action::Config;
use crate::metrics::Metrics;
use crate::net::{Memory, Reporter, Server};
use crate::shared::Shared;
use crate::store::{Places, StoreThreads, StripeHandle, Workers};
use crate::stripes::{Stripes, Taker};

/// Longest time to make durable what is held at a stop.
const STOP_TIMEOUT: Duration = Duration::from_secs(30);

/// How a stripe-writer runs.
#[derive(Debug, Clone)]
pub struct Options {
    /// TCP address to listen on.
    pub listen: SocketAddr,
    /// UDP address of the sequencer.
    pub sequencer: SocketAddr,
    /// First and last stripe to own, of those that the layout of a segment has.
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
}

/// A running stripe-writer.
#[derive(Debug)]
pub struct StripeWriter {
    shared: Arc<Shared>,
    address: SocketAddr,
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
        let (id, epoch, places) = (log.id(), entry.epoch, Arc::clone(&workers.places));
        let taker = Taker {
            log,
            writer,
            owned: options.stripes.clone(),
            config: Config {
                linger: options.linger,
                target_bytes: OBJECT_TARGET_BYTES,
                max_commit_age: options.max_commit_age,
            },
            recent_bytes: RECENT_BYTES.min(options.memory_bytes / RECENT_PART),
            workers,
        };
        let stripes = Stripes::take(taker, entry).await?;
        let owned = stripes.served().newest().count();
        if owned == 0 {
            let (first, last) = (options.stripes.start(), options.stripes.end());
            tracing::warn!(
                first,
                last,
                "the newest segment has none of the stripes of the settings"
            );
        }
        tracing::info!(log = %id, %writer, stripes = owned, %epoch, %address, "serving");
        let memory = Memory::new(options.memory_bytes, owned);
        let shared = Arc::new(Shared::new(writer, stripes, memory, places, metrics));
        let client = client_id(writer);
        let reporter = Reporter::new(Arc::clone(&shared), options, client, ripe);
        let reporter = reporter.await.map_err(listen)?;
        let reporter = tokio::spawn(reporter.run()).abort_handle();
        let server = tokio::spawn(server.run(Arc::clone(&shared))).abort_handle();
        Ok(Self {
            shared,
            address,
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
        move || match shared.served().all().filter(|s| is_lost(s)).count() {
            0 => Ok(()),
            fenced => Err(format!("stripes that another process owns now: {fenced}")),
        }
    }

    /// Resolves when another process owns every stripe.
    pub async fn all_fenced(&self) {
        loop {
            let served = self.shared.served();
            // Where a segment is complete there is nothing to lose.
            let mut owned = served.all().filter(|stripe| !stripe.is_complete());
            if owned.next().is_some_and(is_lost) && owned.all(is_lost) {
                return;
            }
            tokio::time::sleep(REPORT_HEARTBEAT).await;
        }
    }

    /// Takes in nothing more, makes durable what is held without a hole before it, and ends.
    pub async fn stop(self) {
        self.server.abort();
        self.reporter.abort();
        let all = tokio::time::timeout(STOP_TIMEOUT, self.shared.stop());
        if all.await.is_err() {
            tracing::warn!(
                "the store is too slow to wait for: what is held was never acknowledged"
            );
        }
    }
}

/// Whether a stripe is served here no more: another process owns it, or its task has ended.
fn is_lost(stripe: &Arc<StripeHandle>) -> bool {
    stripe.fenced.load(Ordering::Acquire) || stripe.events.is_closed()
}

/// The low half of the process's identity is random enough to tell reporters apart.
fn client_id(writer: WriterId) -> ClientId {
    let low = writer.0.last_chunk::<8>();
    ClientId(low.map_or(0, |bytes| u64::from_le_bytes(*bytes)))
}
