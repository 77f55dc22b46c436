//! What all parts of the daemon share.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use catalog::{CatalogError, Log};
use tokio::sync::{Mutex, Semaphore, oneshot};
use wire::control::ControlEntry;
use wire::frame::{Place, Seal};
use wire::{Epoch, LogId, WriterId};

use crate::limits::{PRESSED, PUSHES};
use crate::metrics::Metrics;
use crate::net::Memory;
use crate::store::{self, Closed, Event, Places, StripeHandle};
use crate::stripes::{Served, Stripes};

/// Least time between two looks at the control chain that appends of unknown epochs may cause.
const LEARN_INTERVAL: Duration = Duration::from_millis(100);

/// Shared by connections, reporter and stripes.
#[derive(Debug)]
pub(crate) struct Shared {
    /// This process.
    pub(crate) writer: WriterId,
    /// Room for records that are not durable yet.
    pub(crate) memory: Memory,
    /// Bytes for pushed runs that wait for their readers.
    pub(crate) pushes: Arc<Semaphore>,
    /// Counters.
    pub(crate) metrics: Arc<Metrics>,
    places: Arc<Places>,
    stripes: Stripes,
    epoch: AtomicU64,
    /// In ms.
    pressed_at: AtomicU64,
    looked_at: Mutex<Duration>,
}

impl Shared {
    /// The shared part of a daemon that serves `stripes`.
    #[must_use]
    pub(crate) fn new(
        writer: WriterId,
        stripes: Stripes,
        memory: Memory,
        places: Arc<Places>,
        metrics: Arc<Metrics>,
    ) -> Self {
        let epoch = stripes.served().entry().epoch;
        let shared = Self {
            writer,
            memory,
            pushes: Arc::new(Semaphore::new(PUSHES)),
            metrics,
            places,
            stripes,
            epoch: AtomicU64::new(epoch.0),
            pressed_at: AtomicU64::new(0),
            looked_at: Mutex::new(Duration::ZERO),
        };
        shared.share_memory();
        shared
    }

    /// The log that is served.
    #[must_use]
    pub(crate) fn log(&self) -> &Log {
        self.stripes.log()
    }

    /// Its identity.
    #[must_use]
    pub(crate) fn log_id(&self) -> LogId {
        self.log().id()
    }

    /// The newest epoch that this process has heard of.
    #[must_use]
    pub(crate) fn epoch(&self) -> Epoch {
        Epoch(self.epoch.load(Ordering::Acquire))
    }

    /// The stripe of a place, if it is owned here.
    #[must_use]
    pub(crate) fn stripe(&self, place: Place) -> Option<Arc<StripeHandle>> {
        self.stripes.served().stripe(place).cloned()
    }

    /// All stripes that are owned here, as of now.
    #[must_use]
    pub(crate) fn served(&self) -> Arc<Served> {
        self.stripes.served()
    }

    /// The stripe of a place, if its segment is complete.
    #[must_use]
    pub(crate) fn closed(&self, place: Place) -> Option<Closed> {
        self.stripes.closed(place)
    }

    /// Has all stripes make durable what they hold, and end.
    pub(crate) async fn stop(&self) {
        self.stripes.stop().await;
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
        let begun = match self.log().last().await {
            Ok(entry) => self.begin(&entry).await.map(drop),
            Err(error) => Err(error),
        };
        match begun {
            Ok(()) => {}
            Err(error) => tracing::warn!(%error, "cannot read the control chain"),
        }
        self.epoch()
    }

    /// Seals all stripes for a reign (H-3): done when every position below its start is decided.
    ///
    /// # Errors
    /// A text for the sequencer: the control chain does not have this reign, or a stripe is owned by
    /// another process.
    pub(crate) async fn seal(&self, seal: Seal) -> Result<(), String> {
        let entry = self.log().last().await.map_err(|error| error.to_string())?;
        let (epoch, start) = (entry.epoch, entry.epoch_start);
        if epoch < seal.epoch || (epoch == seal.epoch && start != seal.position) {
            return Err(format!(
                "no such reign: epoch={} position={} newest={epoch}",
                seal.epoch, seal.position
            ));
        }
        let sealing = self.begin(&entry).await;
        for done in sealing.map_err(|error| error.to_string())? {
            done.await
                .map_err(|_| "a stripe is owned by another process".to_owned())?;
        }
        tracing::info!(%epoch, position = %start, "sealed");
        Ok(())
    }

    /// Takes the stripes of a segment that a reign has opened, and tells all stripes of the reign. Appends that come
    /// after this call meet stripes that know of it.
    async fn begin(
        &self,
        entry: &ControlEntry,
    ) -> Result<Vec<oneshot::Receiver<()>>, CatalogError> {
        self.stripes.follow(entry).await?;
        self.share_memory();
        let served = self.served();
        let mut sealed = Vec::new();
        for handle in served.all() {
            let (done, receiver) = oneshot::channel();
            let id = handle.chain.id().segment;
            let Some(segment) = entry.segments.iter().find(|segment| segment.id == id) else {
                // Of a newer entry: it knows of this reign.
                continue;
            };
            let event = Event::Seal {
                epoch: entry.epoch,
                position: entry.sealed_to(segment),
                end: entry.segment_end(segment),
                done: Some(done),
            };
            // A task that has ended drops the event, and the receiver tells.
            let _ = handle.events.send(event).await;
            sealed.push(receiver);
        }
        self.epoch.fetch_max(entry.epoch.0, Ordering::AcqRel);
        Ok(sealed)
    }

    fn share_memory(&self) {
        self.memory.share_among(self.served().newest().count());
    }
}
