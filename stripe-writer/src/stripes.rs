//! The stripes that this process serves: of the newest segment, and of the one before it, whose last positions
//! may not be decided yet (H-5).
//!
//! The set changes when the control chain opens a segment. Whoever looks something up takes the set as it is and
//! keeps it as long as it likes; a new one takes its place as a whole.

use std::collections::BTreeMap;
use std::ops::RangeInclusive;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, RwLock};

use catalog::{CatalogError, Log};
use futures::{StreamExt, TryStreamExt, stream};
use tokio::task::JoinSet;
use wire::control::ControlEntry;
use wire::frame::Place;
use wire::{Position, Segment, SegmentId, StripeId, WriterId};

use crate::limits::TAKE_OVERS;
use crate::logic::action::Config;
use crate::store::{Closed, Event, Start, StripeHandle, Workers, take_over};

/// A stripe of a segment.
type Key = (SegmentId, StripeId);

/// How this process takes a stripe.
#[derive(Debug)]
pub(crate) struct Taker {
    /// The log.
    pub(crate) log: Log,
    /// This process.
    pub(crate) writer: WriterId,
    /// First and last stripe to own, of those that a layout has.
    pub(crate) owned: RangeInclusive<u16>,
    /// How stripes behave.
    pub(crate) config: Config,
    /// Bytes of durable runs to keep for readers, all stripes of a segment together.
    pub(crate) recent_bytes: usize,
    /// What their tasks share.
    pub(crate) workers: Workers,
}

/// All stripes, as of one control entry.
#[derive(Debug)]
pub(crate) struct Served {
    entry: ControlEntry,
    handles: BTreeMap<Key, Arc<StripeHandle>>,
}

/// The stripes of a daemon.
#[derive(Debug)]
pub(crate) struct Stripes {
    taker: Taker,
    served: RwLock<Arc<Served>>,
    /// Held while the set is made anew: a process is never two owners of one stripe.
    following: tokio::sync::Mutex<()>,
    tasks: Mutex<JoinSet<()>>,
}

impl Stripes {
    /// Takes the stripes of all open segments of a control entry.
    ///
    /// # Errors
    /// If the store failed, or an object of a chain is corrupt.
    pub(crate) async fn take(taker: Taker, entry: ControlEntry) -> Result<Self, CatalogError> {
        let nothing = Served {
            entry: entry.clone(),
            handles: BTreeMap::new(),
        };
        let stripes = Self {
            taker,
            served: RwLock::new(Arc::new(nothing)),
            following: tokio::sync::Mutex::default(),
            tasks: Mutex::default(),
        };
        stripes.follow(&entry).await?;
        Ok(stripes)
    }

    /// The set as it is now.
    #[must_use]
    pub(crate) fn served(&self) -> Arc<Served> {
        Arc::clone(&self.served.read().unwrap_or_else(PoisonError::into_inner))
    }

    /// The log.
    #[must_use]
    pub(crate) fn log(&self) -> &Log {
        &self.taker.log
    }

    /// Takes the stripes of segments that a control entry has opened, and lets go those of segments that are
    /// complete. An entry that is older than what is known changes nothing.
    ///
    /// # Errors
    /// If the store failed, or an object of a chain is corrupt: then everything is as it was.
    pub(crate) async fn follow(&self, entry: &ControlEntry) -> Result<(), CatalogError> {
        let _one = self.following.lock().await;
        let before = self.served();
        if entry.number < before.entry.number {
            return Ok(());
        }
        let mut wanted = BTreeMap::new();
        for segment in entry.open_segments() {
            wanted.extend(self.taker.of(segment).map(|key| (key, *segment)));
        }
        let new = |key: &Key| !before.handles.contains_key(key);
        let missing: Vec<(Key, Segment)> = wanted
            .iter()
            .filter(|(key, _)| new(key))
            .map(|(key, segment)| (*key, *segment))
            .collect();
        let taken = stream::iter(missing)
            .map(|(key, segment)| async move {
                let start = self.taker.one(entry, &segment, key.1).await;
                start.map(|start| (key, start))
            })
            .buffer_unordered(TAKE_OVERS);
        // All of them are looked at before the first is started: after a failure none of them is served.
        let taken: Vec<(Key, Start)> = taken.try_collect().await?;
        let (mut handles, left): (BTreeMap<_, _>, Vec<_>) = split(&before.handles, &wanted);
        for (key, start) in taken {
            let (handle, task) = StripeHandle::start(start, self.taker.workers.clone());
            self.tasks().spawn(task);
            handles.insert(key, Arc::new(handle));
        }
        let served = Served {
            entry: entry.clone(),
            handles,
        };
        *self.served.write().unwrap_or_else(PoisonError::into_inner) = Arc::new(served);
        for handle in left {
            // A task that has ended serves nobody.
            let _ = handle.events.send(Event::Close).await;
        }
        Ok(())
    }

    /// The stripe of a place whose segment is complete: its answers are in the store, for any process.
    #[must_use]
    pub(crate) fn closed(&self, place: Place) -> Option<Closed> {
        let served = self.served();
        let (segment, end) = served.complete(place)?;
        let chain = self.taker.log.chain(segment, place.stripe);
        let end = segment.layout.slot_at_or_after(place.stripe, end);
        Some(Closed::new(chain, end, self.taker.workers.clone()))
    }

    /// Has every stripe make durable what it holds, and waits until all tasks have ended.
    pub(crate) async fn stop(&self) {
        for handle in self.served().all() {
            let _ = handle.events.send(Event::Stop).await;
        }
        let mut tasks = std::mem::take(&mut *self.tasks());
        while tasks.join_next().await.is_some() {}
    }

    fn tasks(&self) -> MutexGuard<'_, JoinSet<()>> {
        self.tasks.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The handles that are wanted, and the others.
fn split(
    handles: &BTreeMap<Key, Arc<StripeHandle>>,
    wanted: &BTreeMap<Key, Segment>,
) -> (BTreeMap<Key, Arc<StripeHandle>>, Vec<Arc<StripeHandle>>) {
    let (mut kept, mut left) = (BTreeMap::new(), Vec::new());
    for (key, handle) in handles {
        let handle = Arc::clone(handle);
        match wanted.contains_key(key) {
            true => drop(kept.insert(*key, handle)),
            false => left.push(handle),
        }
    }
    (kept, left)
}

impl Taker {
    /// The stripes of a segment that are to be owned here.
    fn of(&self, segment: &Segment) -> impl Iterator<Item = Key> {
        let (id, owned) = (segment.id, self.owned.clone());
        let stripes = segment.layout.all();
        stripes.filter_map(move |stripe| owned.contains(&stripe.0).then_some((id, stripe)))
    }

    /// Looks at the chain of a stripe. Nothing is written.
    async fn one(
        &self,
        entry: &ControlEntry,
        segment: &Segment,
        stripe: StripeId,
    ) -> Result<Start, CatalogError> {
        let chain = self.log.chain(segment, stripe);
        let slot = |position| segment.layout.slot_at_or_after(stripe, position);
        Ok(Start {
            taken: take_over(&chain, entry.epoch, self.writer).await?,
            chain,
            seal_to: slot(entry.sealed_to(segment)),
            end: entry.segment_end(segment).map(slot),
            config: self.config,
            recent_bytes: self.recent_bytes / self.of(segment).count().max(1),
        })
    }
}

impl Served {
    /// The stripe of a place, if it is owned here.
    #[must_use]
    pub(crate) fn stripe(&self, place: Place) -> Option<&Arc<StripeHandle>> {
        self.handles.get(&(place.segment, place.stripe))
    }

    /// All stripes that are owned here.
    pub(crate) fn all(&self) -> impl Iterator<Item = &Arc<StripeHandle>> {
        self.handles.values()
    }

    /// Those of the newest segment, the only one that records are appended to.
    pub(crate) fn newest(&self) -> impl Iterator<Item = &Arc<StripeHandle>> {
        let newest = self.entry.segments.last().map(|segment| segment.id);
        let handles = self.handles.iter();
        handles.filter_map(move |(key, handle)| (Some(key.0) == newest).then_some(handle))
    }

    /// The control entry that they are of.
    #[must_use]
    pub(crate) fn entry(&self) -> &ControlEntry {
        &self.entry
    }

    /// The segment of a place and its end, if every position of it is decided.
    fn complete(&self, place: Place) -> Option<(&Segment, Position)> {
        let segments = &self.entry.segments;
        let open = self.entry.open_segments().first()?.start;
        let segment = segments.iter().find(|s| s.id == place.segment)?;
        let has = u32::from(place.stripe.0) < segment.layout.stripes();
        let end = self.entry.segment_end(segment)?;
        // [H-5] Whether this process knows of the last of its objects does not matter: a reign has sealed it.
        (has && end <= open).then_some((segment, end))
    }
}
