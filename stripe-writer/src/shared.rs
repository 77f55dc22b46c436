//! What all parts of the daemon share.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, PoisonError};
use std::time::Duration;

use catalog::Log;
use tokio::sync::{Mutex, Semaphore, oneshot};
use tokio::task::JoinHandle;
use wire::control::ControlEntry;
use wire::frame::{Place, Seal, SealedStripe};
use wire::{ClientId, Epoch, Position, WriterId};

use crate::limits::{PRESSED, PUSHES};
use crate::metrics::Metrics;
use crate::net::Memory;
use crate::owned::Owned;
use crate::store::{self, Event, Places, StripeHandle};

/// Least time between two looks at the control chain that appends of unknown epochs may cause.
const LEARN_INTERVAL: Duration = Duration::from_millis(100);

/// Shared by connections, reporter and stripes.
#[derive(Debug)]
pub(crate) struct Shared {
    /// The log that is served.
    pub(crate) log: Log,
    /// This process.
    pub(crate) writer: WriterId,
    /// Room for records that are not durable yet.
    pub(crate) memory: Memory,
    /// Bytes for pushed runs that wait for their readers.
    pub(crate) pushes: Arc<Semaphore>,
    /// Counters.
    pub(crate) metrics: Arc<Metrics>,
    /// The stripes that are owned here.
    pub(crate) owned: Owned,
    places: Arc<Places>,
    epoch: AtomicU64,
    /// The newest reign that stripes were told of, and where it starts.
    reign: std::sync::Mutex<(Epoch, Position)>,
    /// In ms.
    pressed_at: AtomicU64,
    looked_at: Mutex<Duration>,
}

impl Shared {
    /// The shared part of a daemon that owns nothing yet, as of a control entry.
    #[must_use]
    pub(crate) fn new(
        log: Log,
        writer: WriterId,
        entry: &ControlEntry,
        memory: Memory,
        places: Arc<Places>,
        metrics: Arc<Metrics>,
    ) -> Self {
        Self {
            log,
            writer,
            memory,
            pushes: Arc::new(Semaphore::new(PUSHES)),
            metrics,
            owned: Owned::default(),
            places,
            epoch: AtomicU64::new(entry.epoch.0),
            reign: std::sync::Mutex::new((entry.epoch, entry.epoch_start)),
            pressed_at: AtomicU64::new(0),
            looked_at: Mutex::new(Duration::ZERO),
        }
    }

    /// The newest epoch that this process has heard of.
    #[must_use]
    pub(crate) fn epoch(&self) -> Epoch {
        Epoch(self.epoch.load(Ordering::Acquire))
    }

    /// The stripe of a place, if it is owned here.
    #[must_use]
    pub(crate) fn stripe(&self, place: Place) -> Option<Arc<StripeHandle>> {
        self.owned.get((place.segment, place.stripe))
    }

    /// Serves a stripe from now on that was taken over under a control entry of this epoch.
    pub(crate) async fn serve(
        &self,
        handle: Arc<StripeHandle>,
        task: JoinHandle<()>,
        epoch: Epoch,
    ) {
        self.owned.serve(Arc::clone(&handle), task);
        // [H-3] A reign that began meanwhile was told to all stripes but this one.
        let (newest, start) = *self.reign();
        if newest > epoch {
            let _ = handle.events.send(seal_event(newest, start, None)).await;
        }
        self.metrics.stripes(self.owned.serving().len());
    }

    fn reign(&self) -> std::sync::MutexGuard<'_, (Epoch, Position)> {
        self.reign.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Who this process is when it asks others: the low half of its identity is random enough.
    pub(crate) fn client(&self) -> ClientId {
        let low = self.writer.0.last_chunk::<8>();
        ClientId(low.map_or(0, |bytes| u64::from_le_bytes(*bytes)))
    }

    /// Puts that are under way.
    #[must_use]
    pub(crate) fn puts_under_way(&self) -> usize {
        self.places.under_way()
    }

    /// Looks whether appends wait because this process, or the store, is slower than they come.
    pub(crate) fn look_at_pressure(&self, now: Duration) {
        if self.memory.is_full() || self.places.are_slow() {
            let now = u64::try_from(now.as_millis()).unwrap_or(u64::MAX);
            self.pressed_at.store(now, Ordering::Relaxed);
        }
    }

    /// Whether they did in the last seconds.
    #[must_use]
    pub(crate) fn is_pressed(&self, now: Duration) -> bool {
        let at = Duration::from_millis(self.pressed_at.load(Ordering::Relaxed));
        now.saturating_sub(at) < PRESSED
    }

    /// Looks at the control chain because somebody has spoken of `epoch`, and gives the newest epoch.
    pub(crate) async fn learn(&self, epoch: Epoch) -> Epoch {
        let mut looked_at = self.looked_at.lock().await;
        let now = store::now();
        if self.epoch() >= epoch || now.saturating_sub(*looked_at) < LEARN_INTERVAL {
            return self.epoch();
        }
        *looked_at = now;
        match self.log.last().await {
            Ok(entry) => drop(self.begin(&entry).await),
            Err(error) => tracing::warn!(%error, "cannot read the control chain"),
        }
        self.epoch()
    }

    /// Seals all stripes for a reign (H-3): done when every position below its start is decided. Gives the stripes of
    /// which that is true: all that are owned here, and are still when it is.
    ///
    /// # Errors
    /// A text for the sequencer: the control chain does not have this reign.
    pub(crate) async fn seal(&self, seal: Seal) -> Result<Vec<SealedStripe>, String> {
        let entry = self.log.last().await.map_err(|error| error.to_string())?;
        let (epoch, start) = (entry.epoch, entry.epoch_start);
        if epoch < seal.epoch || (epoch == seal.epoch && start != seal.position) {
            return Err(format!(
                "no such reign: epoch={} position={} newest={epoch}",
                seal.epoch, seal.position
            ));
        }
        let mut sealed = Vec::new();
        for (stripe, done) in self.begin(&entry).await {
            // [H-4] Not a word about a stripe that another process has taken over meanwhile.
            if done.await.is_ok() {
                sealed.push(stripe);
            }
        }
        tracing::info!(%epoch, position = %start, stripes = sealed.len(), "sealed");
        Ok(sealed)
    }

    /// Tells all stripes of a reign. Appends that come after this call meet stripes that know of it.
    async fn begin(&self, entry: &ControlEntry) -> Vec<(SealedStripe, oneshot::Receiver<()>)> {
        let (epoch, start) = (entry.epoch, entry.epoch_start);
        {
            let mut reign = self.reign();
            *reign = (*reign).max((epoch, start));
        }
        let mut sealed = Vec::new();
        for handle in self.owned.serving() {
            let (done, receiver) = oneshot::channel();
            // A task that has ended drops the event, and the receiver tells.
            let _ = handle
                .events
                .send(seal_event(epoch, start, Some(done)))
                .await;
            let id = handle.chain.id();
            let stripe = SealedStripe {
                segment: id.segment,
                stripe: id.stripe,
            };
            sealed.push((stripe, receiver));
        }
        self.epoch.fetch_max(epoch.0, Ordering::AcqRel);
        sealed
    }
}

fn seal_event(epoch: Epoch, position: Position, done: Option<oneshot::Sender<()>>) -> Event {
    Event::Seal {
        epoch,
        position,
        done,
    }
}
