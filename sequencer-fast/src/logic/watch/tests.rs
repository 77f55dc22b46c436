use wire::{Layout, LogId, Position, Segment, SegmentId, WriterId};

use super::*;

const MS: u64 = 1_000_000;

fn entry(number: u64, epoch: u64, clean: bool) -> ControlEntry {
    ControlEntry {
        log: LogId([1; 16]),
        number,
        epoch: Epoch(epoch),
        owner: WriterId::default(),
        epoch_start: Position(0),
        reservation: Position(100),
        clean,
        trim: Position(0),
        segments: vec![Segment {
            id: SegmentId(0),
            epoch: Epoch(1),
            start: Position(0),
            layout: Layout::new(4, 8).expect("valid"),
        }],
    }
}

/// A watch that detects within 1,000 ms and ticks every 100.
struct Desk {
    watch: Watch,
    now: u64,
    looks: u64,
}

impl Desk {
    fn new() -> Self {
        let watch = Watch::new(1000 * MS, 100 * MS, 0);
        let (now, looks) = (0, 0);
        let mut desk = Self { watch, now, looks };
        assert!(desk.watch.tick(0), "looks at its start");
        desk
    }

    /// Lets time pass over a chain that ends with `last`; when the reign was called over, if it was.
    fn over(&mut self, ms: u64, last: &ControlEntry) -> Option<u64> {
        for _ in 0..ms / 100 {
            self.now += 100;
            if self.watch.tick(self.now * MS) {
                self.looks += 1;
                if self.watch.seen(last) {
                    return Some(self.now);
                }
            }
        }
        None
    }
}

#[test]
fn a_reign_without_a_sign_is_over_after_the_time_of_detection() {
    let mut desk = Desk::new();
    let last = entry(5, 3, false);
    assert!(!desk.watch.seen(&last));
    assert_eq!(desk.over(5000, &last), Some(1000));
    assert!(desk.looks <= 5, "looks={}", desk.looks);
}

#[test]
fn a_reign_that_was_never_heard_is_over_when_its_chain_stands_still_for_longer() {
    let unheard = || {
        let mut desk = Desk::new();
        desk.watch = desk.watch.with_unheard(10_000 * MS);
        desk
    };
    let mut desk = unheard();
    let last = entry(5, 3, false);
    assert!(!desk.watch.seen(&last));
    assert_eq!(desk.over(20_000, &last), Some(10_000));
    assert!(desk.looks <= 45, "looks={}", desk.looks);
    // It renews its reign, and is heard only later.
    let mut desk = unheard();
    for number in 5..15 {
        assert_eq!(desk.over(3300, &entry(number, 3, false)), None);
    }
    desk.watch.heard(0, Epoch(3), Status::Ok);
    assert_eq!(desk.over(900, &entry(14, 3, false)), None);
    assert!(desk.over(200, &entry(14, 3, false)).is_some());
    // Another one, that is not heard, has begun after it.
    let mut desk = unheard();
    desk.watch.heard(0, Epoch(3), Status::Ok);
    assert_eq!(desk.over(9900, &entry(6, 4, false)), None);
    // An end in good order needs no patience.
    assert!(desk.watch.seen(&entry(7, 4, true)));
}

#[test]
fn answers_of_a_reign_that_stands_or_seals_are_signs_and_cost_no_look() {
    for status in [Status::Ok, Status::Sealing, Status::Busy] {
        let mut desk = Desk::new();
        let last = entry(5, 3, false);
        assert!(!desk.watch.seen(&last));
        for _ in 0..100 {
            assert!(!desk.watch.heard(0, Epoch(3), status));
            assert_eq!(desk.over(200, &last), None);
        }
        assert_eq!(desk.looks, 0, "{status:?}");
        assert_eq!(desk.over(5000, &last), Some(desk.now));
    }
}

#[test]
fn answers_of_standbys_and_of_former_reigns_are_no_signs() {
    for (epoch, status) in [
        (0, Status::NotReigning),
        (3, Status::NotReigning),
        (2, Status::Ok),
    ] {
        let mut desk = Desk::new();
        let last = entry(5, 3, false);
        assert!(!desk.watch.seen(&last));
        let mut over = None;
        for _ in 0..20 {
            assert!(!desk.watch.heard(0, Epoch(epoch), status));
            over = over.or(desk.over(100, &last));
        }
        assert_eq!(over, Some(1000), "{status:?}");
    }
}

#[test]
fn a_chain_that_goes_on_is_a_sign() {
    let mut desk = Desk::new();
    assert!(!desk.watch.seen(&entry(5, 3, false)));
    assert_eq!(desk.over(900, &entry(5, 3, false)), None);
    assert_eq!(desk.over(900, &entry(6, 3, false)), None);
    assert_eq!(desk.over(900, &entry(7, 4, false)), None);
    // Who answers for the reign before is of no account.
    assert!(!desk.watch.heard(0, Epoch(3), Status::Ok));
    assert!(desk.over(1000, &entry(7, 4, false)).is_some());
}

#[test]
fn an_end_in_good_order_is_not_waited_for() {
    let mut desk = Desk::new();
    assert!(!desk.watch.seen(&entry(5, 3, false)));
    assert_eq!(desk.over(2000, &entry(6, 3, true)), Some(300));
    assert!(Desk::new().watch.seen(&entry(0, 0, true)), "a new log");
}

#[test]
fn one_that_stops_in_good_order_is_looked_after_at_once_but_not_for_ever() {
    let mut desk = Desk::new();
    let last = entry(5, 3, false);
    assert!(!desk.watch.seen(&last));
    assert!(!desk.watch.gone(0), "it gave no sign");
    assert!(!desk.watch.heard(0, Epoch(3), Status::Ok));
    assert!(!desk.watch.gone(1), "another");
    assert!(!desk.watch.heard(0, Epoch(2), Status::NotReigning), "late");
    assert!(desk.watch.heard(0, Epoch(3), Status::NotReigning));
    desk.watch.looked();
    assert!(!desk.watch.seen(&last), "it has not ended it yet");
    // It is silent from now on, or says so again and again.
    assert!((0..1000).all(|_| !desk.watch.gone(0)));
    let mut looks = 1;
    for ms in 1..100 {
        // A tick while a look is under way is none of its own.
        if desk.watch.tick(2 * ms * MS) && desk.watch.tick((2 * ms + 1) * MS) {
            desk.watch.looked();
            looks += 1;
        }
    }
    assert_eq!(looks, 12);
    assert!(!desk.watch.heard(0, Epoch(3), Status::Ok));
    assert!(desk.watch.gone(0) && desk.watch.seen(&entry(6, 3, true)));
}

/// Nobody was asked while this process stood still.
#[test]
fn time_that_was_slept_through_is_not_silence() {
    let mut desk = Desk::new();
    let last = entry(5, 3, false);
    assert!(!desk.watch.seen(&last));
    assert_eq!(desk.over(500, &last), None);
    desk.now += 60_000;
    assert_eq!(desk.over(200, &last), None);
    assert!(desk.over(1000, &last).is_some());
}

#[test]
fn who_was_slower_watches_the_one_that_was_faster() {
    let mut desk = Desk::new();
    assert!(!desk.watch.seen(&entry(5, 3, false)));
    assert_eq!(desk.over(5000, &entry(5, 3, false)), Some(1000));
    desk.watch.lost();
    assert_eq!(desk.over(900, &entry(6, 4, false)), None);
    assert!(desk.over(1000, &entry(6, 4, false)).is_some());
}
