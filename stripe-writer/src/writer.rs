//! The daemon as a whole: takes its stripes, serves, stops.

use std::future::pending;
use std::net::SocketAddr;
use std::ops::RangeInclusive;
use std::sync::atomic::Ordering;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use catalog::{CatalogError, Log, Membership, Store};
use futures::future::{join, join_all};
use prometheus_client::registry::Registry;
use thiserror::Error;
use tokio::sync::{Semaphore, watch};
use tokio::task::JoinSet;
use ulid::Ulid;
use wire::WriterId;
use wire::mac::Key;

use crate::keeper::{Board, Keeper, Takeover};
use crate::limits::{LOOKUPS, RECENT_BYTES, RECENT_PART, REPORT_HEARTBEAT, STORE_PATIENCE};
use crate::metrics::Metrics;
use crate::net::{Memory, Reporter, Server};
use crate::shared::Shared;
use crate::store::{Places, StoreThreads, StripeHandle, Workers, now};
use crate::taking::Taking;

/// Longest time to make durable what is held at a stop.
const STOP_TIMEOUT: Duration = Duration::from_secs(30);

/// Time for the last answers to leave, and for peers to hear what is theirs now.
const FAREWELL: Duration = Duration::from_millis(50);

/// How a stripe-writer runs.
#[derive(Debug, Clone)]
pub struct Options {
    /// TCP address to listen on.
    pub listen: SocketAddr,
    /// UDP addresses of the sequencers, of which one reigns.
    pub sequencers: Vec<SocketAddr>,
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
    /// The peers to watch and to take stripes over from. Without it all of `stripes` are taken at the start,
    /// and nothing afterwards.
    pub takeover: Option<Takeover>,
    /// The membership as it changes, if it does. Its sequencers take the place of [`Self::sequencers`].
    pub changes: Option<watch::Receiver<Membership>>,
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
    /// Where it watches its peers.
    board: Option<Arc<Board>>,
    address: SocketAddr,
    tasks: JoinSet<()>,
    _threads: StoreThreads,
}

impl StripeWriter {
    /// Checks the store, takes over the stripes, and serves. With peers to watch it serves at once, and takes what
    /// nobody owns as soon as it knows.
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
        let taking = Taking {
            workers,
            linger: options.linger,
            max_commit_age: options.max_commit_age,
            recent_bytes: RECENT_BYTES.min(options.memory_bytes / RECENT_PART),
        };
        let writer = WriterId::from(Ulid::generate());
        // Those who watch their peers take what nobody owns, whatever the segment.
        let own = options.takeover.is_none().then(|| options.stripes.clone());
        let memory = Memory::new(options.memory_bytes);
        let shared = Shared::new(log, writer, entry.clone(), memory, taking, own);
        let shared = Arc::new(shared);
        shared.begin(entry).await?;
        warn_of_none(&shared, &options.stripes);
        let mut tasks = JoinSet::new();
        let takeover = options.takeover.as_ref();
        let board = takeover.map(|takeover| keep(takeover, &shared, &mut tasks));
        tracing::info!(log = %shared.log.id(), %writer, epoch = %shared.epoch(), %address, "serving");
        let reporter = Reporter::new(Arc::clone(&shared), options, ripe);
        tasks.spawn(reporter.await.map_err(listen)?.run());
        tasks.spawn(server.run(Arc::clone(&shared)));
        Ok(Self {
            shared,
            board,
            address,
            tasks,
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
        let (shared, board) = (Arc::clone(&self.shared), self.board.clone());
        move || {
            if let Some(board) = &board {
                board.health()?;
            } else {
                let fenced = |handle: &&Arc<StripeHandle>| handle.fenced.load(Ordering::Acquire);
                let fenced = shared.owned.serving().iter().filter(fenced).count();
                if fenced > 0 {
                    return Err(format!("stripes that another process owns now: {fenced}"));
                }
            }
            let trouble = shared.metrics.store.trouble(now(), STORE_PATIENCE);
            trouble.map_or(Ok(()), Err)
        }
    }

    /// Resolves when another process owns every stripe, for good: never where this one watches its peers.
    pub async fn all_fenced(&self) {
        if self.board.is_some() {
            return pending().await;
        }
        loop {
            let mut serving = self.shared.owned.serving();
            // Where a segment is complete there is nothing to lose.
            serving.retain(|stripe| !stripe.is_complete());
            if !serving.is_empty() && serving.iter().all(is_lost) {
                return;
            }
            tokio::time::sleep(REPORT_HEARTBEAT).await;
        }
    }

    /// Takes in nothing more, makes durable what is held without a hole before it, and ends.
    pub async fn stop(mut self) {
        self.tasks.shutdown().await;
        // What was being taken is nobody's: peers are not to wait for it.
        self.shared.owned.give_up_all();
        self.shared.leaving.send_replace(true);
        // Whoever was about to give these back is gone with the tasks.
        let begun = self.shared.owned.leaving();
        let begun = begun.into_iter().map(|handle| self.shared.left(handle));
        let stripes = self.shared.owned.serving();
        let leaves = stripes.iter().filter_map(|handle| {
            let id = handle.chain.id();
            Arc::clone(&self.shared).leave((id.segment, id.stripe))
        });
        let all = join(join_all(begun), join_all(leaves));
        if tokio::time::timeout(STOP_TIMEOUT, all).await.is_err() {
            tracing::warn!(
                "the store is too slow to wait for: what is held was never acknowledged"
            );
        }
        tokio::time::sleep(FAREWELL).await;
    }
}

/// Says so if there is nothing to do here yet: a later segment may have more stripes.
fn warn_of_none(shared: &Shared, stripes: &RangeInclusive<u16>) {
    let entry = shared.entry();
    let Ok(newest) = entry.last_segment() else {
        return;
    };
    if shared.most(newest) == 0 {
        let (first, last, layout) = (stripes.start(), stripes.end(), newest.layout.stripes());
        let text = "the newest segment has none of the stripes of the settings";
        tracing::warn!(first, last, layout, "{text}");
    }
}

/// Whether a stripe is served here no more: another process owns it, or its task has ended.
fn is_lost(stripe: &Arc<StripeHandle>) -> bool {
    stripe.fenced.load(Ordering::Acquire) || stripe.events.is_closed()
}

/// Starts to watch the peers, and to take what nobody owns.
fn keep(takeover: &Takeover, shared: &Arc<Shared>, tasks: &mut JoinSet<()>) -> Arc<Board> {
    let board = Arc::new(Board::new(takeover));
    tasks.spawn(Keeper::new(takeover, Arc::clone(shared), Arc::clone(&board)).run());
    board
}
