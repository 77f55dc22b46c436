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
mod tests;
