//! What all clients of a test share: how far everybody was told, and what the sequencer may do at this moment.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use wire::Epoch;

use super::common::Chain;

/// State of the test, written by the one who conducts it and by everybody who is told something.
#[derive(Debug)]
pub(crate) struct World {
    pub(crate) chain: Chain,
    /// [S-7] Everything that was told before lies below, for whoever asks from now on.
    floor: AtomicU64,
    /// Number of the silence that reigns; 0: none does.
    silence: AtomicU64,
    /// Whether clients ask little, so that the reservation lasts.
    calm: AtomicBool,
    over: AtomicBool,
}

impl World {
    pub(crate) fn new(chain: Chain) -> Self {
        Self {
            chain,
            floor: AtomicU64::new(0),
            silence: AtomicU64::new(0),
            calm: AtomicBool::new(false),
            over: AtomicBool::new(false),
        }
    }

    pub(crate) fn floor(&self) -> u64 {
        self.floor.load(Ordering::SeqCst)
    }

    /// Somebody was told that everything below is granted.
    pub(crate) fn told(&self, tail: u64) {
        self.floor.fetch_max(tail, Ordering::SeqCst);
    }

    pub(crate) fn silence(&self) -> u64 {
        self.silence.load(Ordering::SeqCst)
    }

    /// To be called when the sequencer is known not to grant, and with 0 before it may again.
    pub(crate) fn set_silence(&self, number: u64) {
        self.silence.store(number, Ordering::SeqCst);
    }

    pub(crate) fn is_calm(&self) -> bool {
        self.calm.load(Ordering::Relaxed)
    }

    pub(crate) fn set_calm(&self, calm: bool) {
        self.calm.store(calm, Ordering::Relaxed);
    }

    pub(crate) fn is_over(&self) -> bool {
        self.over.load(Ordering::Relaxed)
    }

    pub(crate) fn end(&self) {
        self.over.store(true, Ordering::Relaxed);
    }

    /// [S-2] How far the chain covers tokens of this reign: up to its reservation, or to where the next one starts.
    pub(crate) fn covered(&self, epoch: Epoch) -> u64 {
        let entries = self.chain.entries();
        let mut covered = 0;
        for entry in entries.iter().rev() {
            if entry.epoch <= epoch {
                if entry.epoch == epoch && covered == 0 {
                    covered = entry.reservation.0;
                }
                return covered;
            }
            covered = entry.epoch_start.0;
        }
        covered
    }
}
