//! The stripes that this process owns, and those that are on their way to it or away from it.

use std::collections::{BTreeMap, HashMap};
use std::pin::pin;
use std::sync::atomic::Ordering;
use std::sync::{Arc, PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard};

use tokio::sync::Notify;
use tokio::task::JoinHandle;
use wire::frame::{Frontier, Place};
use wire::{OwnerNumber, Slot};

use crate::logic::members::Key;
use crate::store::StripeHandle;

/// All of them, by segment and stripe.
#[derive(Debug, Default)]
pub(crate) struct Owned {
    table: RwLock<HashMap<Key, Held>>,
    /// A stripe has come, or is gone.
    settled: Notify,
}

#[derive(Debug)]
enum Held {
    /// It is being taken over.
    Taking,
    /// It is served.
    Serving(Arc<StripeHandle>, JoinHandle<()>),
    /// What it holds is made durable, and then it is left to its next owner.
    Leaving(Arc<StripeHandle>),
}

impl Owned {
    /// A stripe that is served here.
    #[must_use]
    pub(crate) fn get(&self, key: Key) -> Option<Arc<StripeHandle>> {
        match self.read().get(&key) {
            Some(Held::Serving(handle, _)) => Some(Arc::clone(handle)),
            _ => None,
        }
    }

    /// Whether a stripe is owned here or on its way, also if another process has taken it over since.
    #[must_use]
    pub(crate) fn has(&self, key: Key) -> bool {
        self.read().contains_key(&key)
    }

    /// A stripe whose segment is complete: nobody has to own it any more.
    pub(crate) fn close(&self, key: Key) {
        self.write().remove(&key);
        self.settled.notify_waiters();
    }

    /// Whether a stripe is being taken over.
    #[must_use]
    pub(crate) fn is_taking(&self, key: Key) -> bool {
        matches!(self.read().get(&key), Some(Held::Taking))
    }

    /// Waits until a stripe is neither on its way here nor on its way to another process. Cancel-safe.
    pub(crate) async fn settled(&self, key: Key) {
        loop {
            let mut settled = pin!(self.settled.notified());
            // From here on no change is missed.
            settled.as_mut().enable();
            match self.read().get(&key) {
                Some(Held::Taking | Held::Leaving(_)) => {}
                Some(Held::Serving(..)) | None => return,
            }
            settled.await;
        }
    }

    /// All stripes that are served here.
    #[must_use]
    pub(crate) fn serving(&self) -> Vec<Arc<StripeHandle>> {
        let table = self.read();
        let serving = table.values().filter_map(|held| match held {
            Held::Serving(handle, _) => Some(Arc::clone(handle)),
            _ => None,
        });
        serving.collect()
    }

    /// What is owned here, or taken over, by the owner numbers that it is told under; those that another process is
    /// known to own are not.
    #[must_use]
    pub(crate) fn numbers(&self) -> BTreeMap<Key, OwnerNumber> {
        let table = self.read();
        let number = |(key, held): (&Key, &Held)| Some((*key, held.claim()?));
        table.iter().filter_map(number).collect()
    }

    /// The same with what is known of each stripe.
    #[must_use]
    pub(crate) fn claims(&self) -> Vec<Frontier> {
        let table = self.read();
        let claim = |(key, held): (&Key, &Held)| {
            let owner = held.claim()?;
            let handle = held.handle();
            let place = Place {
                segment: key.0,
                stripe: key.1,
                first: handle.map_or(Slot(0), |handle| *handle.frontier.borrow()),
            };
            let bytes = |handle: &Arc<StripeHandle>| handle.held_bytes.load(Ordering::Relaxed);
            Some(Frontier {
                place,
                owner,
                held_bytes: handle.map_or(0, bytes),
            })
        };
        table.iter().filter_map(claim).collect()
    }

    /// A stripe is about to be taken over.
    pub(crate) fn taking(&self, key: Key) {
        self.write().entry(key).or_insert(Held::Taking);
    }

    /// It is not, after all.
    pub(crate) fn give_up(&self, key: Key) {
        let mut table = self.write();
        if matches!(table.get(&key), Some(Held::Taking)) {
            table.remove(&key);
            self.settled.notify_waiters();
        }
    }

    /// The stripes that are being left.
    #[must_use]
    pub(crate) fn leaving(&self) -> Vec<Arc<StripeHandle>> {
        let table = self.read();
        let leaving = table.values().filter_map(|held| match held {
            Held::Leaving(handle) => Some(Arc::clone(handle)),
            _ => None,
        });
        leaving.collect()
    }

    /// Nothing is taken over any more.
    pub(crate) fn give_up_all(&self) {
        self.write().retain(|_, held| !matches!(held, Held::Taking));
        self.settled.notify_waiters();
    }

    /// A stripe was taken over and is served from now on.
    pub(crate) fn serve(&self, handle: Arc<StripeHandle>, task: JoinHandle<()>) {
        let id = handle.chain.id();
        let key = (id.segment, id.stripe);
        self.write().insert(key, Held::Serving(handle, task));
        self.settled.notify_waiters();
    }

    /// A stripe is to be left to its next owner: it takes in nothing more. Told to others as owned until [`Self::left`],
    /// which is to be called when its task has ended.
    pub(crate) fn leave(&self, key: Key) -> Option<(Arc<StripeHandle>, JoinHandle<()>)> {
        let mut table = self.write();
        match table.remove(&key)? {
            Held::Serving(handle, task) => {
                table.insert(key, Held::Leaving(Arc::clone(&handle)));
                Some((handle, task))
            }
            other => {
                table.insert(key, other);
                None
            }
        }
    }

    /// A stripe was left. Another process may have taken it before, or this one again.
    pub(crate) fn left(&self, key: Key) {
        let mut table = self.write();
        if matches!(table.get(&key), Some(Held::Leaving(_))) {
            table.remove(&key);
            self.settled.notify_waiters();
        }
    }

    /// A stripe is another process's. Gives who has to be told here, if it was served.
    pub(crate) fn drop_now(&self, key: Key) -> Option<Arc<StripeHandle>> {
        let held = self.write().remove(&key)?;
        self.settled.notify_waiters();
        match held {
            Held::Serving(handle, _) | Held::Leaving(handle) => Some(handle),
            Held::Taking => None,
        }
    }

    /// Forgets stripes that another process owns, or whose tasks have broken off, and gives them.
    pub(crate) fn sweep(&self) -> Vec<Key> {
        let mut fenced = Vec::new();
        self.write().retain(|key, held| match held {
            Held::Taking | Held::Leaving(_) => true,
            Held::Serving(handle, task) => {
                let lost = handle.fenced.load(Ordering::Acquire) || task.is_finished();
                if lost {
                    fenced.push(*key);
                }
                !lost
            }
        });
        fenced
    }

    fn read(&self) -> RwLockReadGuard<'_, HashMap<Key, Held>> {
        self.table.read().unwrap_or_else(PoisonError::into_inner)
    }

    fn write(&self) -> RwLockWriteGuard<'_, HashMap<Key, Held>> {
        self.table.write().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Held {
    fn handle(&self) -> Option<&Arc<StripeHandle>> {
        match self {
            Self::Taking => None,
            Self::Serving(handle, _) | Self::Leaving(handle) => Some(handle),
        }
    }

    /// The number under which this process claims the stripe.
    fn claim(&self) -> Option<OwnerNumber> {
        let Some(handle) = self.handle() else {
            return Some(OwnerNumber(0));
        };
        let fenced = handle.fenced.load(Ordering::Acquire);
        (!fenced).then(|| OwnerNumber(handle.owner.load(Ordering::Relaxed)))
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use tokio::time::timeout;
    use wire::{SegmentId, StripeId};

    use super::*;

    #[tokio::test]
    async fn an_append_waits_for_a_stripe_that_is_on_its_way_and_for_no_other() {
        const SOON: Duration = Duration::from_secs(20);
        let owned = Arc::new(Owned::default());
        let (key, other) = ((SegmentId(0), StripeId(1)), (SegmentId(0), StripeId(2)));
        timeout(SOON, owned.settled(key)).await.expect("not ours");
        owned.taking(key);
        owned.taking(other);
        let waiting = Arc::clone(&owned);
        let waiting = tokio::spawn(async move { waiting.settled(key).await });
        tokio::time::sleep(Duration::from_millis(20)).await;
        owned.give_up(other);
        tokio::time::sleep(Duration::from_millis(20)).await;
        assert!(!waiting.is_finished(), "another stripe's news");
        owned.give_up(key);
        let ended = timeout(SOON, waiting).await.expect("is told");
        ended.expect("ends well");
    }
}
