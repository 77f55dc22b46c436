//! When a standby begins a reign of its own.
//!
//! It asks the other sequencers for their tails all the time. A sign of a reign is an answer of one that reigns, or
//! that has begun and waits for seals, in a reign that is not older than the newest that is known; and a control
//! chain that has gone on since the last look. Where there is none for the time of detection, and the newest entry
//! was looked at after that, its reign is taken to be over. Where the list of the others may be wrong, silence counts
//! so soon only of a sequencer that was heard in its reign; any other is given the time to come into the list. A
//! mistake costs the reign that stood a takeover, and never a position: the create of the next entry decides (S-3),
//! and the new reign starts at the old reservation (S-4).
//!
//! The one that gave the last sign may stop in good order. It says then that it does not reign, or its port is closed:
//! the chain is looked at at once, and then with each tick, a few times, for the entry that ends its reign. What it
//! says after that makes no difference: a host may take its time to tell that the port is closed.

use wire::Epoch;
use wire::control::ControlEntry;
use wire::datagram::Status;

/// Looks at the control chain within the time of detection, once there are no answers: a chain that was ended in
/// good order need not be waited for.
const LOOKS: u64 = 4;

/// Looks at once after the last sign of a reign: what one that was killed costs the store.
const QUICK_LOOKS: u32 = 12;

/// What a standby knows of the reign of others.
#[derive(Debug)]
pub struct Watch {
    detect_ns: u64,
    /// As long where the newest reign was never heard of from the one that reigns.
    unheard_ns: u64,
    every_ns: u64,
    ticked_ns: u64,
    /// Time without a sign, as far as this process was awake.
    silent_ns: u64,
    /// The silence from which on the chain is looked at.
    look_ns: u64,
    /// Number of the newest entry that was seen.
    number: Option<u64>,
    epoch: Epoch,
    /// The newest reign whose sequencer has answered.
    heard: Epoch,
    /// Which of the others gave the last sign.
    reigning: Option<usize>,
    /// Whether that one has said since that it does not reign, or is not there.
    left: bool,
    /// Looks since then.
    quick_looks: u32,
}

impl Watch {
    /// A watch that is told of the time every `every_ns`, more or less, and has looked at nothing yet.
    #[must_use]
    pub fn new(detect_ns: u64, every_ns: u64, now_ns: u64) -> Self {
        Self {
            detect_ns,
            unheard_ns: detect_ns,
            every_ns,
            ticked_ns: now_ns,
            silent_ns: 0,
            look_ns: 0,
            number: None,
            epoch: Epoch(0),
            heard: Epoch(0),
            reigning: None,
            left: false,
            quick_looks: 0,
        }
    }

    /// Who reigns may be missing from the list of those that are asked, until it registers again: one that was never
    /// heard is silent for so long before its reign is taken to be over.
    #[must_use]
    pub fn with_unheard(mut self, unheard_ns: u64) -> Self {
        self.unheard_ns = unheard_ns.max(self.detect_ns);
        self
    }

    fn patience_ns(&self) -> u64 {
        match self.heard >= self.epoch {
            true => self.detect_ns,
            false => self.unheard_ns,
        }
    }

    /// Lets time pass. Returns whether the control chain is to be looked at.
    pub fn tick(&mut self, now_ns: u64) -> bool {
        // What a process sleeps through it cannot call silence: nobody was asked meanwhile.
        let passed = now_ns.saturating_sub(self.ticked_ns);
        self.silent_ns += passed.min(2 * self.every_ns);
        self.ticked_ns = now_ns;
        let due = self.silent_ns >= self.look_ns;
        if due {
            let next = self.silent_ns + self.detect_ns / LOOKS;
            // The last look is not before the end.
            let end = self.patience_ns();
            self.look_ns = match self.silent_ns < end {
                true => next.min(end),
                false => self.silent_ns,
            };
        }
        due || self.looks_quickly()
    }

    /// Takes an answer of one of the others that was given for the reign of `epoch`. Returns whether the control chain
    /// is to be looked at now.
    pub fn heard(&mut self, from: usize, epoch: Epoch, status: Status) -> bool {
        let reigns = match status {
            Status::Ok | Status::Busy | Status::TailMoved | Status::Invalid | Status::Sealing => {
                true
            }
            Status::NotReigning => false,
        };
        if epoch < self.epoch {
            return false;
        }
        if !reigns {
            return self.gone(from);
        }
        (self.epoch, self.heard) = (epoch, epoch);
        self.reigning = Some(from);
        self.sign();
        false
    }

    /// One of the others does not reign any more, or is not there. Returns whether the control chain is to be looked at
    /// now.
    pub fn gone(&mut self, from: usize) -> bool {
        if self.left || self.reigning != Some(from) {
            return false;
        }
        self.left = true;
        self.looks_quickly()
    }

    fn looks_quickly(&self) -> bool {
        self.left && self.quick_looks < QUICK_LOOKS
    }

    /// The control chain was looked at, whatever came of it.
    pub fn looked(&mut self) {
        self.quick_looks += u32::from(self.left);
    }

    /// Takes the newest entry of the control chain. Returns whether its reign is over, so that the next one begins
    /// behind this entry.
    pub fn seen(&mut self, last: &ControlEntry) -> bool {
        let before = self.number.replace(last.number);
        self.epoch = self.epoch.max(last.epoch);
        if last.clean {
            // Written by the one that reigned, as its last.
            return true;
        }
        if before.is_some_and(|number| number != last.number) {
            self.sign();
            return false;
        }
        before.is_some() && self.silent_ns >= self.patience_ns()
    }

    /// Another sequencer was faster.
    pub fn lost(&mut self) {
        self.number = None;
        self.sign();
    }

    fn sign(&mut self) {
        self.silent_ns = 0;
        self.left = false;
        self.quick_looks = 0;
        self.look_ns = self.detect_ns / LOOKS;
    }
}

#[cfg(test)]
mod tests {
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
}
