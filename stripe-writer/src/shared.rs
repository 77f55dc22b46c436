//! What all parts of the daemon share.

use std::ops::RangeInclusive;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use catalog::{CatalogError, Log};
use futures::{StreamExt, TryStreamExt, stream};
use tokio::sync::{Mutex, Semaphore, oneshot, watch};
use tokio::task::JoinHandle;
use wire::control::ControlEntry;
use wire::frame::{Place, Seal, SealedStripe};
use wire::{ClientId, Epoch, Segment, StripeId, WriterId};

use crate::limits::{PRESSED, PUSHES, TAKE_OVERS};
use crate::logic::members::Key;
use crate::metrics::Metrics;
use crate::net::Memory;
use crate::owned::Owned;
use crate::store::{self, Closed, Event, Places, StripeHandle};
use crate::taking::Taking;

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
    /// What they are taken over with.
    pub(crate) taking: Taking,
    /// First and last stripe of each segment that are taken as soon as it is open; none where peers are watched.
    own: Option<RangeInclusive<u16>>,
    /// Whether this process is about to end. Changes, also to what it was, when peers are to hear what is owned now.
    pub(crate) leaving: watch::Sender<bool>,
    places: Arc<Places>,
    epoch: AtomicU64,
    /// The newest control entry that stripes were told of.
    entry: watch::Sender<Arc<ControlEntry>>,
    /// Held while own stripes are taken: a process is never two owners of one stripe.
    following: Mutex<()>,
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
        entry: ControlEntry,
        memory: Memory,
        taking: Taking,
        own: Option<RangeInclusive<u16>>,
    ) -> Self {
        Self {
            log,
            writer,
            memory,
            pushes: Arc::new(Semaphore::new(PUSHES)),
            metrics: Arc::clone(&taking.workers.metrics),
            owned: Owned::default(),
            leaving: watch::Sender::new(false),
            own,
            places: Arc::clone(&taking.workers.places),
            taking,
            epoch: AtomicU64::new(entry.epoch.0),
            entry: watch::Sender::new(Arc::new(entry)),
            following: Mutex::default(),
            pressed_at: AtomicU64::new(0),
            looked_at: Mutex::new(Duration::ZERO),
        }
    }

    /// The newest epoch that this process has heard of.
    #[must_use]
    pub(crate) fn epoch(&self) -> Epoch {
        Epoch(self.epoch.load(Ordering::Acquire))
    }

    /// The newest control entry that stripes were told of.
    #[must_use]
    pub(crate) fn entry(&self) -> Arc<ControlEntry> {
        Arc::clone(&self.entry.borrow())
    }

    /// The same, for whoever waits for the next one.
    #[must_use]
    pub(crate) fn entries(&self) -> watch::Receiver<Arc<ControlEntry>> {
        self.entry.subscribe()
    }

    /// The stripe of a place, if it is owned here.
    #[must_use]
    pub(crate) fn stripe(&self, place: Place) -> Option<Arc<StripeHandle>> {
        self.owned.get((place.segment, place.stripe))
    }

    /// The stripe of a place whose segment is complete: its answers are in the store, for any process.
    #[must_use]
    pub(crate) fn closed(&self, place: Place) -> Option<Closed> {
        let entry = self.entry();
        let (segment, end) = entry.complete(place.segment, place.stripe)?;
        let chain = self.log.chain(segment, place.stripe);
        let end = segment.layout.slot_at_or_after(place.stripe, end);
        Some(Closed::new(chain, end, self.taking.workers.clone()))
    }

    /// The stripes of the newest segment that are served here, the only ones that records are appended to.
    #[must_use]
    pub(crate) fn newest(&self) -> Vec<Arc<StripeHandle>> {
        let newest = self.entry().segments.last().map(|segment| segment.id);
        let mut serving = self.owned.serving();
        serving.retain(|stripe| Some(stripe.chain.id().segment) == newest);
        serving
    }

    /// Stripes of a segment that this process may come to own.
    #[must_use]
    pub(crate) fn most(&self, segment: &Segment) -> usize {
        let all = segment.layout.all();
        let own = |stripe: &StripeId| self.own.as_ref().is_none_or(|own| own.contains(&stripe.0));
        all.filter(own).count()
    }

    /// Serves a stripe from now on that was taken over under a control entry.
    pub(crate) async fn serve(
        &self,
        handle: Arc<StripeHandle>,
        task: JoinHandle<()>,
        entry: &ControlEntry,
    ) {
        self.owned.serve(Arc::clone(&handle), task);
        // [H-3] A reign that began meanwhile was told to all stripes but this one.
        let newest = self.entry();
        if newest.number > entry.number {
            self.tell(&newest, &handle, None).await;
        }
        self.metrics.stripes(self.owned.serving().len());
    }

    /// Who this process is when it asks others: the low half of its identity is random enough.
    pub(crate) fn client(&self) -> ClientId {
        let low = self.writer.0.last_chunk::<8>();
        ClientId(low.map_or(0, |bytes| u64::from_le_bytes(*bytes)))
    }

    /// Leaves a stripe to its next owner: resolves when what is held of it is durable, and peers are told. `None` if it is
    /// not served here.
    pub(crate) fn leave(self: Arc<Self>, key: Key) -> Option<impl Future<Output = ()> + Send> {
        let (handle, task) = self.owned.leave(key)?;
        Some(async move {
            // A task that has ended needs no word.
            let _ = handle.events.send(Event::Stop).await;
            if let Err(error) = task.await {
                tracing::error!(%error, stripe = %key.1, "the task of a stripe broke off");
            }
            self.owned.left(key);
            self.leaving.send_modify(|_| {});
        })
    }

    /// Leaves a stripe for good whose leave was broken off.
    pub(crate) async fn left(&self, handle: Arc<StripeHandle>) {
        let _ = handle.events.send(Event::Stop).await;
        handle.events.closed().await;
        self.owned.left(key(&handle));
        self.leaving.send_modify(|_| {});
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
        let begun = match self.log.last().await {
            Ok(entry) => self.begin(entry).await.map(drop),
            Err(error) => Err(error),
        };
        if let Err(error) = begun {
            tracing::warn!(%error, "cannot read the control chain, or take a new segment's stripes");
        }
        self.epoch()
    }

    /// Seals all stripes for a reign (H-3): done when every position below its start is decided. Gives the stripes of
    /// which that is true: all that are owned here, and are still when it is.
    ///
    /// # Errors
    /// A text for the sequencer: the control chain does not have this reign, or cannot be read.
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
        let begun = self.begin(entry).await.map_err(|error| error.to_string())?;
        for (stripe, done) in begun {
            // [H-4] Not a word about a stripe that another process has taken over meanwhile.
            if done.await.is_ok() {
                sealed.push(stripe);
            }
        }
        tracing::info!(%epoch, position = %start, stripes = sealed.len(), "sealed");
        Ok(sealed)
    }

    /// Takes this process's own stripes of segments that a reign has opened, tells all stripes of the reign, and lets go
    /// those of segments that are complete. Appends that come after this call meet stripes that know of it.
    ///
    /// # Errors
    /// If an own stripe cannot be taken over.
    pub(crate) async fn begin(
        &self,
        entry: ControlEntry,
    ) -> Result<Vec<(SealedStripe, oneshot::Receiver<()>)>, CatalogError> {
        let entry = Arc::new(entry);
        self.entry.send_if_modified(|known| {
            let newer = entry.number > known.number;
            if newer {
                known.clone_from(&entry);
            }
            newer
        });
        let newest = self.entry();
        if let Ok(segment) = newest.last_segment() {
            self.memory.share_among(self.most(segment));
        }
        let taken = self.take_own(&newest).await;
        let mut sealed = Vec::new();
        for handle in self.owned.serving() {
            let (done, receiver) = oneshot::channel();
            if self.tell(&newest, &handle, Some(done)).await {
                let id = handle.chain.id();
                let stripe = SealedStripe {
                    segment: id.segment,
                    stripe: id.stripe,
                };
                sealed.push((stripe, receiver));
            }
        }
        self.epoch.fetch_max(newest.epoch.0, Ordering::AcqRel);
        taken.map(|()| sealed)
    }

    /// Takes over the own stripes of all open segments that are not served here yet; none at the end of this process.
    async fn take_own(&self, entry: &ControlEntry) -> Result<(), CatalogError> {
        let Some(own) = self.own.as_ref().filter(|_| !*self.leaving.borrow()) else {
            return Ok(());
        };
        let _one = self.following.lock().await;
        let mut missing: Vec<(Segment, StripeId)> = Vec::new();
        for segment in entry.open_segments() {
            let stripes = segment.layout.all().filter(|s| own.contains(&s.0));
            let stripes = stripes.filter(|stripe| !self.owned.has((segment.id, *stripe)));
            missing.extend(stripes.map(|stripe| (*segment, stripe)));
        }
        let taken = stream::iter(missing)
            .map(|(segment, stripe)| self.take(entry, segment, stripe))
            .buffer_unordered(TAKE_OVERS);
        taken.try_collect().await
    }

    /// Tells a stripe of the reign of a control entry. Nothing, and false, if the entry does not have its segment; if that is
    /// complete, the stripe is let go.
    async fn tell(
        &self,
        entry: &ControlEntry,
        handle: &StripeHandle,
        done: Option<oneshot::Sender<()>>,
    ) -> bool {
        let (id, stripe) = key(handle);
        let segment = |segments: &[Segment]| segments.iter().find(|s| s.id == id).copied();
        if let Some(segment) = segment(entry.open_segments()) {
            let event = Event::Seal {
                epoch: entry.epoch,
                position: entry.sealed_to(&segment),
                end: entry.segment_end(&segment),
                done,
            };
            // A task that has ended drops the event, and the receiver tells.
            let _ = handle.events.send(event).await;
            return true;
        }
        // [H-5] One that is not in this entry at all is of a newer one.
        let complete = segment(&entry.segments);
        if let Some(end) = complete.and_then(|segment| entry.segment_end(&segment)) {
            self.owned.close((id, stripe));
            let _ = handle.events.send(Event::Close { end }).await;
        }
        false
    }
}

fn key(handle: &StripeHandle) -> Key {
    let id = handle.chain.id();
    (id.segment, id.stripe)
}
