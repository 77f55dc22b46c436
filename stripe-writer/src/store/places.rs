//! Places for puts under way, all stripes together.
//!
//! Stripes wait in line, each at most once, so that a place goes to them in turn. A put that takes much
//! longer than others gives its place to the next in line and goes on: it waits for its part of the store,
//! and does not work. What is late has a bound of its own. A stripe whose part of the store is slow thus
//! keeps no place from the others.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use super::clock;
use crate::limits::{FLIGHTS_A_STRIPE, LATE_STRIPES};
use crate::logic::pace::Pace;

/// All places.
#[derive(Debug)]
pub(crate) struct Places {
    on_time: Arc<Semaphore>,
    late: Arc<Semaphore>,
    count: usize,
    late_count: usize,
    pace: Mutex<Pace>,
}

/// A place that is taken, given back when it is dropped.
#[derive(Debug)]
pub(crate) struct Place {
    places: Arc<Places>,
    /// `None` only if the semaphore was closed, which it never is.
    permit: Option<OwnedSemaphorePermit>,
}

impl Places {
    /// So many places for puts that are on time.
    #[must_use]
    pub(crate) fn new(count: usize) -> Arc<Self> {
        let late_count = count.max(FLIGHTS_A_STRIPE * LATE_STRIPES);
        Arc::new(Self {
            on_time: Arc::new(Semaphore::new(count)),
            late: Arc::new(Semaphore::new(late_count)),
            count,
            late_count,
            pace: Mutex::default(),
        })
    }

    /// Waits for a place; who came first gets it first.
    pub(crate) async fn take(self: Arc<Self>) -> Place {
        let permit = Arc::clone(&self.on_time).acquire_owned().await.ok();
        Place {
            places: self,
            permit,
        }
    }

    /// Puts that are under way.
    #[must_use]
    pub(crate) fn under_way(&self) -> usize {
        let free = self.on_time.available_permits() + self.late.available_permits();
        (self.count + self.late_count).saturating_sub(free)
    }

    /// Whether stripes wait for the store longer than usual: there is no place, or a put is late.
    #[must_use]
    pub(crate) fn are_slow(&self) -> bool {
        let late = self.late.available_permits() < self.late_count;
        late || self.on_time.available_permits() == 0
    }

    fn pace(&self) -> MutexGuard<'_, Pace> {
        self.pace.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Place {
    /// Does a put in this place, and gives the place to another if it is late.
    pub(super) async fn hold<T, E>(
        &mut self,
        put: impl Future<Output = Result<T, E>>,
    ) -> Result<T, E> {
        let began = clock::now();
        let mut put = std::pin::pin!(put);
        let late_after = self.places.pace().late_after();
        let ended = match tokio::time::timeout(late_after, &mut put).await {
            Ok(ended) => ended,
            Err(_) => {
                if let Ok(late) = Arc::clone(&self.places.late).try_acquire_owned() {
                    self.permit = Some(late);
                }
                put.await
            }
        };
        if ended.is_ok() {
            let took = clock::now().saturating_sub(began);
            self.places.pace().record(took);
        }
        ended
    }
}

#[cfg(test)]
mod tests {
    use std::convert::Infallible;
    use std::time::Duration;

    use tokio::time::timeout;

    use super::*;

    const SOON: Duration = Duration::from_secs(5);

    async fn put(places: &Arc<Places>, took: Duration) -> Result<(), Infallible> {
        let mut place = Arc::clone(places).take().await;
        let put = async {
            tokio::time::sleep(took).await;
            Ok(())
        };
        place.hold(put).await
    }

    async fn until_under_way(places: &Places, count: usize) {
        let wait = async {
            while places.under_way() < count {
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
        };
        timeout(SOON, wait).await.expect("late puts made room");
    }

    /// One stripe's puts never end; another's go on, also when all places were taken.
    #[tokio::test]
    async fn a_put_that_is_late_gives_its_place_to_another() {
        let places = Places::new(2);
        for _ in 0..8 {
            put(&places, Duration::ZERO).await.expect("stored");
        }
        assert!(!places.are_slow());
        let slow: Vec<_> = (0..FLIGHTS_A_STRIPE)
            .map(|_| {
                let places = Arc::clone(&places);
                tokio::spawn(async move { put(&places, SOON * 100).await })
            })
            .collect();
        until_under_way(&places, FLIGHTS_A_STRIPE).await;
        assert!(places.are_slow());
        for _ in 0..8 {
            let other = timeout(SOON, put(&places, Duration::ZERO));
            other.await.expect("has a place").expect("stored");
        }
        for slow in slow {
            slow.abort();
        }
    }

    #[tokio::test]
    async fn what_is_late_has_a_bound() {
        let places = Places::new(1);
        put(&places, Duration::ZERO).await.expect("stored");
        let bound = 1 + FLIGHTS_A_STRIPE * LATE_STRIPES;
        let slow: Vec<_> = (0..bound + 3)
            .map(|_| {
                let places = Arc::clone(&places);
                tokio::spawn(async move { put(&places, SOON * 100).await })
            })
            .collect();
        until_under_way(&places, bound).await;
        tokio::time::sleep(Duration::from_millis(100)).await;
        assert_eq!(places.under_way(), bound);
        for slow in slow {
            slow.abort();
        }
    }
}
