//! One stripe's runs in the order of their slots: from the store, and at the chain's end from the owner.
//!
//! A reader that waits never depends on one source: beside a live subscription that says nothing for
//! [`LIVE_QUIET`] the store is looked into, and a store that has nothing is looked into
//! again after a pause (LESSONS 16).

use std::collections::VecDeque;

use bytes::Bytes;
use tokio::time::{Instant, sleep, timeout_at};
use wire::frame::Place;
use wire::{Run, SegmentId, Slot, StripeId};

use crate::Result;
use crate::limits::{LIVE_QUIET, POLL};
use crate::logic::backoff::Backoff;
use crate::logic::current::Current;
use crate::net::jitter;
use crate::net::live::{Hub, Live, Subscription};
use crate::store::loads::{Loaded, Loads, Planned};

/// What a reader has at its next slot.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Ready {
    /// A run covers it.
    Run,
    /// The store has nothing there now.
    End,
    /// Nothing came for a while: time to look at the log's state.
    Quiet,
    /// The owner says that the stripe's segment has ended.
    Ended,
}

/// Reads one stripe.
#[derive(Debug)]
pub(crate) struct StripeReader {
    segment: SegmentId,
    stripe: StripeId,
    next: Slot,
    current: Option<Current>,
    buffered: VecDeque<Run>,
    loads: Loads,
    live: Option<Subscription>,
    follows: bool,
    /// Whether the last subscription brought nothing: the next one has to wait.
    live_failed: bool,
    /// Whether the next slot should be in the store: by the owner's word, or because it was asked for.
    in_store: bool,
    /// Whether the owner is asked before the store is.
    live_first: bool,
    /// Whether the owner has said that the stripe has no more.
    ended: bool,
    /// When the owner was last heard of, or asked: a caller that asks often must not put off the look into
    /// the store.
    heard: Option<Instant>,
    pauses: Backoff,
}

impl StripeReader {
    /// A reader from a slot on.
    pub(crate) fn new(
        segment: SegmentId,
        stripe: StripeId,
        next: Slot,
        loads: Loads,
        follows: bool,
    ) -> Self {
        Self {
            segment,
            stripe,
            next,
            current: None,
            buffered: VecDeque::new(),
            live_first: follows && !loads.is_placed(),
            loads,
            live: None,
            heard: None,
            ended: false,
            live_failed: false,
            in_store: !follows,
            follows,
            pauses: Backoff::new(POLL),
        }
    }

    pub(crate) fn next(&self) -> Slot {
        self.next
    }

    /// Others say that the next slot is durable: the store has it, and is looked into before anything else.
    pub(crate) fn expect_in_store(&mut self) {
        (self.live, self.in_store) = (None, true);
    }

    /// Name of the object that the chain should go on with.
    pub(crate) fn missing_name(&self) -> String {
        self.loads.boundary_name()
    }

    /// The segment ends: nothing from this slot on is wanted.
    pub(crate) fn set_until(&mut self, until: Slot) {
        self.loads.until = until;
    }

    /// The run at the next slot, as far as it is here already.
    pub(crate) fn current(&self) -> Option<&Current> {
        self.current.as_ref()
    }

    /// Takes the record at the next slot.
    pub(crate) fn take(&mut self) -> Option<Bytes> {
        let current = self.current.as_mut()?;
        let record = current.take();
        let over = current.is_over();
        if record.is_some() {
            self.next = self.next.plus(1);
        }
        if over {
            self.current = None;
            self.loads.passed(self.next);
        }
        record
    }

    /// Goes on to a slot, over junk.
    pub(crate) fn skip_to(&mut self, slot: Slot) {
        self.next = self.next.max(slot);
        if !self.current.as_mut().is_some_and(|c| c.skip_to(slot)) {
            self.current = None;
        }
        self.loads.passed(self.next);
        if self.current.is_none() && self.buffered.is_empty() {
            self.loads.advance(self.next);
        }
    }

    /// Makes the run at the next slot current. With a `hub` it waits for one, else it says `End`.
    ///
    /// Cancel-safe: what a dropped call has got is kept.
    pub(crate) async fn ready(&mut self, hub: Option<&mut Hub>) -> Result<Ready> {
        let mut hub = hub;
        loop {
            if self.use_buffered() {
                return Ok(Ready::Run);
            }
            if let Some(hub) = hub.as_deref_mut().filter(|_| self.live_first) {
                self.live_first = false;
                self.subscribe(hub).await;
            }
            if self.live.is_some() {
                self.wait_live(hub.as_deref()).await?;
                if std::mem::take(&mut self.ended) {
                    return Ok(Ready::Ended);
                }
                if self.live.is_some() && self.buffered.is_empty() {
                    return Ok(Ready::Quiet);
                }
                continue;
            }
            if self.load_buffered().await? {
                continue;
            }
            let Some(hub) = hub.as_deref_mut() else {
                return Ok(Ready::End);
            };
            if !self.live_failed {
                self.subscribe(hub).await;
            }
            if self.live_failed {
                sleep(self.pauses.pause(jitter())).await;
                self.live_failed = false;
                return Ok(Ready::Quiet);
            }
            self.wait_live(Some(hub)).await?;
            if std::mem::take(&mut self.ended) {
                return Ok(Ready::Ended);
            }
            if self.buffered.is_empty() {
                return Ok(Ready::Quiet);
            }
        }
    }

    /// Sees to it that a slot is read ahead from the store, if that is where it comes from.
    pub(crate) fn plan(&mut self, slot: Slot) -> Planned {
        if self.live.is_some() || self.live_first {
            return Planned::Unknown;
        }
        self.loads.plan(slot)
    }

    fn use_buffered(&mut self) -> bool {
        while self.current.is_none() {
            let Some(run) = self.buffered.pop_front() else {
                return false;
            };
            self.current = Current::of(&run, self.next);
        }
        true
    }

    /// Waits for runs from the owner. Where it says nothing for a while the store is looked into as well,
    /// since the owner may be stale, and what comes first is taken. Ends the subscription when it brings none.
    async fn wait_live(&mut self, hub: Option<&Hub>) -> Result<()> {
        let Some(live) = self.live.as_mut() else {
            return Ok(());
        };
        let quiet_at = *self.heard.get_or_insert_with(Instant::now) + LIVE_QUIET;
        let received = match timeout_at(quiet_at, live.receive()).await {
            Ok(received) => received,
            Err(_) => tokio::select! {
                biased;
                received = live.receive() => received,
                loaded = self.loads.next(self.next) => {
                    self.heard = None;
                    if let Loaded::Runs(runs) = loaded? {
                        self.buffered.extend(runs);
                        if let (Some(hub), Some(live)) = (hub, self.live.take()) {
                            // [C-6] An owner tells of what is durable before anybody can find it.
                            hub.leave(&live);
                        }
                    }
                    return Ok(());
                }
            },
        };
        self.heard = None;
        let run = match received {
            Some(Live::Run(run)) => run,
            Some(Live::InStore) => {
                (self.live, self.live_failed, self.in_store) = (None, true, true);
                return Ok(());
            }
            Some(Live::Ended) => {
                // If that is not so, the next question has to wait.
                (self.live, self.live_failed, self.ended) = (None, true, true);
                return Ok(());
            }
            // It ended: whether it ever brought anything decides how soon there is another.
            None => {
                self.live_failed = !live.has_delivered();
                self.live = None;
                return Ok(());
            }
        };
        if run.first > self.next {
            // A gap: not something that an owner does.
            (self.live, self.live_failed) = (None, true);
            return Ok(());
        }
        if run.end() > self.next {
            self.pauses.reset();
            self.loads.advance(run.end());
            self.buffered.push_back(run);
        }
        Ok(())
    }

    /// Loads from the store. Returns whether there was anything.
    async fn load_buffered(&mut self) -> Result<bool> {
        // A subscription may have brought what is loaded ahead.
        self.loads.advance(self.next);
        let mut loaded = self.loads.next(self.next).await?;
        if self.in_store && matches!(loaded, Loaded::End) {
            // It was looked up ahead of time, or compaction moved it into an object that starts before.
            self.loads.search_again();
            self.in_store = false;
            loaded = self.loads.next(self.next).await?;
        }
        let Loaded::Runs(runs) = loaded else {
            return Ok(false);
        };
        self.buffered.extend(runs);
        self.in_store |= !self.follows;
        self.live_failed = false;
        self.pauses.reset();
        Ok(true)
    }

    async fn subscribe(&mut self, hub: &mut Hub) {
        let place = Place {
            segment: self.segment,
            stripe: self.stripe,
            first: self.next,
        };
        self.live = hub.subscribe(place, self.loads.until).await;
        self.live_failed = self.live.is_none();
        if self.live.is_some() {
            // What was looked up ahead is older than what comes now.
            self.loads.stop(self.next);
        }
    }
}
