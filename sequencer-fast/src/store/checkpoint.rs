//! A reign from its first entry to its last.
//!
//! Owned by the checkpoint thread. At any time at most one create is under way, so that the number of the
//! next entry is never in doubt.

use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use catalog::{CatalogError, ErrorKind};
use tokio::time::{MissedTickBehavior, interval, timeout};
use wire::control::ControlEntry;
use wire::{ClientId, Layout, Position};

use super::begin::{self, Begun};
use super::control::Control;
use super::seal::{Writers, seal_all};
use crate::clock;
use crate::demand::Demand;
use crate::logic::{self, Counter, Reign, Sealing, Window};
use crate::net::sleeper::Sleeper;

/// Appended entries between two collections, half of what one collects.
const COLLECT_EVERY: u64 = catalog::COLLECTED_AT_ONCE as u64 / 2;

/// The part of `reign_ttl` that a collection may take at most: nothing is extended or renewed meanwhile.
const COLLECTION: u32 = 8;

/// Renewals that may fail before a reign runs out.
const RENEWALS_PER_TTL: u32 = 3;

/// Longest time between two samples of the rate of grants.
const SAMPLE_EVERY: Duration = Duration::from_millis(250);

/// The checkpoint thread's side of a reign.
#[derive(Debug)]
pub(crate) struct Checkpoint<C> {
    control: C,
    reign: Arc<Reign>,
    entry: ControlEntry,
    window: Window,
    reign_ttl: Duration,
    demand: Arc<Demand>,
    sleepers: Vec<Arc<Sleeper>>,
    /// When the check began that last found the reign standing.
    checked_ns: u64,
    appended: u64,
    /// An entry of which it is not known whether it is in the chain.
    doubtful: Option<ControlEntry>,
}

/// What a reign leaves to the one that follows it in the same process.
#[derive(Debug)]
pub(crate) struct Next<C> {
    pub(crate) control: C,
    pub(crate) begun: Begun,
    pub(crate) window: Window,
}

impl<C: Control> Checkpoint<C> {
    /// Takes over a reign that has just begun.
    pub(crate) fn new(
        control: C,
        begun: Begun,
        reign: Arc<Reign>,
        window: Window,
        reign_ttl: Duration,
        demand: Arc<Demand>,
        sleepers: Vec<Arc<Sleeper>>,
    ) -> Self {
        let mut checkpoint = Self {
            control,
            reign,
            entry: begun.entry,
            window,
            reign_ttl,
            demand,
            sleepers,
            checked_ns: begun.since_ns,
            appended: 0,
            doubtful: None,
        };
        checkpoint.window.stored(begun.took_ns);
        checkpoint.stands_since(begun.since_ns);
        checkpoint
    }

    /// Has every stripe sealed, and then opens the reign (H-4). Renews it meanwhile.
    ///
    /// # Errors
    /// If the reign is over, or the store fails in a way that trying again does not cure.
    pub(crate) async fn open(&mut self, writers: Writers) -> Result<(), CatalogError> {
        let mut sealing = Sealing::new(&self.entry);
        if !sealing.is_complete() {
            let (log, client) = (self.entry.log, ClientId(self.entry.number));
            let sealing = seal_all(writers, log, client, &mut sealing);
            tokio::pin!(sealing);
            let mut renewals = interval(self.reign_ttl / RENEWALS_PER_TTL);
            renewals.set_missed_tick_behavior(MissedTickBehavior::Delay);
            loop {
                tokio::select! {
                    biased;
                    () = &mut sealing => break,
                    _ = renewals.tick() => self.renew().await?,
                }
            }
        }
        self.mark_low_water();
        self.reign.grant();
        tracing::info!(
            epoch = %self.entry.epoch,
            start = %self.entry.epoch_start,
            reservation = %self.entry.reservation,
            "granting"
        );
        // As soon as the reservation is extended.
        self.appended = COLLECT_EVERY;
        Ok(())
    }

    /// Keeps the reservation ahead of the grants and the reign alive, until somebody wants a segment with another layout.
    ///
    /// # Errors
    /// As [`Self::open`].
    pub(crate) async fn run(&mut self) -> Result<Layout, CatalogError> {
        let every = SAMPLE_EVERY.min(self.reign_ttl / (2 * RENEWALS_PER_TTL));
        let mut ticks = interval(every);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            let demand = Arc::clone(&self.demand);
            tokio::select! {
                _ = demand.wait() => {}
                _ = ticks.tick() => {}
            }
            if let Some(layout) = self.reign.wish().wanted() {
                return Ok(layout);
            }
            self.extend().await?;
            if clock::now_ns() >= self.renewal_due_ns() {
                self.renew().await?;
            }
            if self.appended >= COLLECT_EVERY {
                self.collect().await;
            }
        }
    }

    /// Ends the reign at its exact tail, so that the next one wastes nothing. The counter is closed
    /// first: nothing is taken any more when the tail is written.
    ///
    /// # Errors
    /// As [`Self::open`]. The next reign then starts at the reservation.
    pub(crate) async fn finish(&mut self) -> Result<(), CatalogError> {
        let Some(tail) = self.reign.end() else {
            return Ok(());
        };
        if let Some(entry) = self.doubtful.take() {
            self.append(entry).await?;
        }
        let entry = logic::clean(&self.entry, tail);
        self.append(entry).await?;
        // Replies that were held for want of reservation are covered by the exact tail.
        self.publish(tail);
        tracing::info!(epoch = %self.entry.epoch, %tail, "stopped at the exact tail");
        Ok(())
    }

    /// Ends the reign at its exact tail and begins the next one there, in a segment of its own (H-5). To be called after
    /// [`Self::run`] has returned, and once.
    ///
    /// # Errors
    /// As [`Self::open`]. The reign is over then, too.
    pub(crate) async fn restripe(mut self, layout: Layout) -> Result<Next<C>, CatalogError> {
        let Some(tail) = self.reign.end() else {
            let reason = "the reign has ended".to_owned();
            return Err(CatalogError::Fenced(reason));
        };
        if let Some(entry) = self.doubtful.take() {
            self.append(entry).await?;
        }
        let entry = logic::restripe(&self.entry, tail, layout, self.window.size());
        let since_ns = clock::now_ns();
        self.append(entry).await?;
        let took_ns = clock::now_ns().saturating_sub(since_ns);
        // Replies that were held for want of reservation are covered by where the next reign starts.
        self.publish(tail);
        let (epoch, start) = (self.entry.epoch, self.entry.epoch_start);
        let (stripes, unit) = (layout.stripes(), layout.unit());
        tracing::info!(%epoch, %start, stripes, unit, "a segment with another layout is opened");
        let begun = Begun {
            entry: self.entry,
            since_ns,
            took_ns,
        };
        Ok(Next {
            control: self.control,
            begun,
            window: self.window,
        })
    }

    /// Extends the reservation while that is due.
    async fn extend(&mut self) -> Result<(), CatalogError> {
        loop {
            let tail = Position(self.reign.counter().tail());
            self.window.observe(clock::now_ns(), tail);
            let extension = self.window.extension(tail, self.entry.reservation);
            let extends = extension.is_some();
            if let Some(reservation) = extension {
                let since_ns = clock::now_ns();
                self.append(logic::extend(&self.entry, reservation)).await?;
                self.window.stored(clock::now_ns().saturating_sub(since_ns));
                // The append has found the chain to end with this reign.
                self.stands_since(since_ns);
                self.publish(reservation);
            }
            self.mark_low_water();
            // A shard that passed the mark before it was set has not seen it.
            // Where there is nothing left to extend, at the last position, it is looked at now and then.
            if !self.reign.claim_low_water() || !extends {
                return Ok(());
            }
        }
    }

    /// Appends an entry. If this is cancelled, the entry stays doubtful: it may yet come into the chain,
    /// and no other may take its number.
    async fn append(&mut self, entry: ControlEntry) -> Result<(), CatalogError> {
        self.doubtful = Some(entry.clone());
        begin::append(&self.control, &entry).await?;
        self.doubtful = None;
        self.entry = entry;
        self.appended += 1;
        Ok(())
    }

    /// Asks whether the chain still ends with this reign (S-5). A store that does not answer leaves the
    /// deadline where it is.
    async fn renew(&mut self) -> Result<(), CatalogError> {
        // Counted from before the question: the answer may be as old as that.
        let since_ns = clock::now_ns();
        match self.control.is_last(self.entry.number).await {
            Ok(true) => {
                self.stands_since(since_ns);
                Ok(())
            }
            Ok(false) => {
                let number = self.entry.number;
                let reason = format!("the control chain has gone on: number={number}");
                Err(CatalogError::Fenced(reason))
            }
            Err(error) if error.kind() == ErrorKind::Retry => {
                tracing::warn!(%error, "cannot renew the reign: trying again");
                Ok(())
            }
            Err(error) => Err(error),
        }
    }

    async fn collect(&mut self) {
        self.appended = 0;
        let collecting = self.control.collect(self.entry.number, unix_ms());
        match timeout(self.reign_ttl / COLLECTION, collecting).await {
            Ok(Ok(_)) => {}
            Ok(Err(error)) => tracing::warn!(%error, "cannot collect old control entries"),
            // What was deleted stays deleted, and the next one goes on.
            Err(_) => tracing::warn!("the store is slow to delete old control entries"),
        }
    }

    fn stands_since(&mut self, since_ns: u64) {
        self.checked_ns = since_ns;
        self.reign
            .renew(since_ns.saturating_add(nanos(self.reign_ttl)));
    }

    fn renewal_due_ns(&self) -> u64 {
        let every = self.reign_ttl / RENEWALS_PER_TTL;
        self.checked_ns.saturating_add(nanos(every))
    }

    fn publish(&self, reservation: Position) {
        self.reign.reserve(reservation);
        for sleeper in &self.sleepers {
            sleeper.wake_if_waits();
        }
    }

    fn mark_low_water(&self) {
        let mark = self.window.low_water(self.entry.reservation);
        self.reign.set_low_water(mark);
    }
}

fn nanos(duration: Duration) -> u64 {
    u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX)
}

#[allow(clippy::disallowed_methods, reason = "the clock of store times")]
fn unix_ms() -> u64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH);
    since.map_or(0, |since| {
        u64::try_from(since.as_millis()).unwrap_or(u64::MAX)
    })
}
