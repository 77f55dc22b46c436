use std::ops::RangeInclusive;
use std::time::Duration;

use catalog::faults::{Fault, Faults, FaultyStore, Operation};
use catalog::{Log, Store};
use object_store::memory::InMemory;
use tokio::sync::{Semaphore, watch};
use tokio::time::timeout;
use wire::frame::{Seal, SealedStripe};
use wire::{Epoch, Layout, Position, SegmentId, Slot, WriterId};

use super::*;
use crate::metrics::Metrics;
use crate::net::Memory;
use crate::store::{Event, Places, StoreThreads};

const SOON: Duration = Duration::from_secs(20);

struct Rig {
    shared: Shared,
    entry: ControlEntry,
    segment: Segment,
    faults: Faults,
    ripe: watch::Sender<Position>,
    _threads: StoreThreads,
}

/// A process that owns nothing of a log with two stripes, and the log's first entry. It takes some by itself when a
/// reign begins.
async fn rig(own: Option<RangeInclusive<u16>>) -> Rig {
    let faulty = FaultyStore::new(Arc::new(InMemory::new()), 1);
    let faults = faulty.faults();
    let store = Store::new(Arc::new(faulty), "");
    let layout = Layout::new(2, 1).expect("valid");
    let log = Log::create(store, layout).await.expect("creates");
    let entry = log.last().await.expect("last");
    let segment = *entry.last_segment().expect("a segment");
    let threads = StoreThreads::start().expect("starts");
    let metrics = Arc::new(Metrics::default());
    let (ripe, ripens) = watch::channel(Position(0));
    let workers = Workers {
        threads: threads.handle(),
        places: Places::new(4),
        lookups: Arc::new(Semaphore::new(4)),
        ripe: ripens,
        hole_timeout: Duration::from_secs(60),
        metrics,
    };
    let taking = Taking {
        workers,
        linger: Duration::from_millis(1),
        max_commit_age: Duration::from_secs(60),
        recent_bytes: 1 << 20,
    };
    let (memory, writer) = (Memory::new(64 << 20), WriterId([7; 16]));
    let shared = Shared::new(log, writer, entry.clone(), memory, taking, own);
    Rig {
        shared,
        entry,
        segment,
        faults,
        ripe,
        _threads: threads,
    }
}

impl Rig {
    /// A reign begins that starts behind positions which nobody has written.
    async fn new_reign(&self) -> ControlEntry {
        let entry = ControlEntry {
            number: self.entry.number + 1,
            epoch: Epoch(self.entry.epoch.0 + 1),
            epoch_start: Position(100),
            reservation: Position(200),
            clean: false,
            ..self.entry.clone()
        };
        let appended = self.shared.log.append(&entry).await;
        appended.expect("is the next");
        entry
    }

    async fn take(&self, entry: &ControlEntry, stripe: u16) -> Arc<StripeHandle> {
        let stripe = StripeId(stripe);
        let taken = self.shared.take(entry, self.segment, stripe).await;
        taken.expect("takes");
        let handle = self.shared.owned.get((self.segment.id, stripe));
        handle.expect("serves")
    }

    /// The stripes that are sealed for a reign.
    async fn seal(&self, reign: &ControlEntry) -> Vec<SealedStripe> {
        let (epoch, position) = (reign.epoch, reign.epoch_start);
        let sealed = timeout(SOON, self.shared.seal(Seal { epoch, position })).await;
        sealed.expect("in time").expect("seals")
    }
}

#[tokio::test]
async fn h3_a_reign_that_begins_while_a_stripe_is_taken_is_told_to_it() {
    let rig = rig(None).await;
    let reign = rig.new_reign().await;
    let known = rig.shared.learn(reign.epoch).await;
    assert_eq!(known, reign.epoch);
    // The entry that the stripe is taken under was read before.
    let handle = rig.take(&rig.entry, 0).await;
    let mut frontier = handle.frontier.clone();
    let sealed = frontier.wait_for(|frontier| *frontier >= Slot(50));
    let sealed = timeout(SOON, sealed).await.expect("in time");
    sealed.expect("serves");
}

#[tokio::test]
async fn h4_not_a_word_about_a_stripe_that_was_lost() {
    let rig = rig(None).await;
    let _kept = rig.take(&rig.entry, 0).await;
    let lost = rig.take(&rig.entry, 1).await;
    let reign = rig.new_reign().await;
    lost.events.send(Event::Fence).await.expect("serves");
    let kept = SealedStripe {
        segment: rig.segment.id,
        stripe: StripeId(0),
    };
    assert_eq!(rig.seal(&reign).await, vec![kept]);
}

#[tokio::test]
async fn c6_a_process_at_its_end_takes_no_stripe_that_was_its_own() {
    for (leaving, taken) in [(false, 2), (true, 0)] {
        let rig = rig(Some(0..=1)).await;
        rig.shared.leaving.send_replace(leaving);
        let reign = rig.new_reign().await;
        assert_eq!(rig.seal(&reign).await.len(), taken, "leaving: {leaving}");
        assert_eq!(rig.shared.owned.numbers().len(), taken);
    }
}

/// It hears of two segments at once, while a put is under way: that it is complete, and with it where it ends.
#[tokio::test]
async fn h5_a_stripe_that_is_let_go_fills_nothing_behind_its_segment() {
    let rig = rig(None).await;
    let stripe = rig.take(&rig.entry, 0).await;
    rig.faults.next(Operation::Create, [Fault::Stall]);
    let seal = Event::Seal {
        epoch: Epoch(1),
        position: Position(2),
        end: None,
        done: None,
    };
    stripe.events.send(seal).await.expect("serves");
    let segment = |id, start| Segment {
        id: SegmentId(id),
        epoch: Epoch(u64::from(id) + 1),
        start: Position(start),
        ..rig.segment
    };
    let entry = ControlEntry {
        number: rig.entry.number + 9,
        epoch: Epoch(3),
        epoch_start: Position(4),
        reservation: Position(200),
        segments: vec![rig.segment, segment(1, 2), segment(2, 4)],
        ..rig.entry.clone()
    };
    rig.shared.begin(entry).await.expect("begins");
    timeout(SOON, stripe.events.closed()).await.expect("let go");
    rig.ripe.send_replace(Position(100));
    tokio::time::sleep(Duration::from_millis(50)).await;
    rig.faults.release();
    let ended = async {
        while Arc::strong_count(&stripe.fenced) > 1 {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    timeout(SOON, ended).await.expect("its task ends");
    let walk = stripe.chain.walk(Slot(0)).await.expect("walks");
    assert_eq!(walk.end, Slot(1), "the segment ends at position 2");
}
