//! What connections and the task of a stripe tell each other when its share of the memory is taken.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use wire::Slot;

/// Nothing, or never.
const NONE: u64 = u64::MAX;

/// Of one stripe.
#[derive(Debug)]
pub(crate) struct Pressure {
    /// When an append was put off last, in ms.
    put_off: AtomicU64,
    /// The slot without which the stripe has nothing to put.
    wanted: AtomicU64,
}

impl Default for Pressure {
    fn default() -> Self {
        Self {
            put_off: AtomicU64::new(NONE),
            wanted: AtomicU64::new(NONE),
        }
    }
}

impl Pressure {
    /// An append to the stripe was put off.
    pub(crate) fn put_off(&self, now: Duration) {
        let now = u64::try_from(now.as_millis()).unwrap_or(NONE);
        self.put_off.store(now, Ordering::Release);
    }

    /// When that was last.
    pub(crate) fn put_off_at(&self) -> Option<Duration> {
        let at = self.put_off.load(Ordering::Acquire);
        (at != NONE).then_some(Duration::from_millis(at))
    }

    /// Tells what the stripe waits for.
    pub(crate) fn want(&self, slot: Option<Slot>) {
        let slot = slot.map_or(NONE, |slot| slot.0);
        self.wanted.store(slot, Ordering::Release);
    }

    /// Whether the stripe waits for one of these slots: to put them off would keep all that is behind them in
    /// memory.
    pub(crate) fn wants(&self, first: Slot, end: Slot) -> bool {
        (first.0..end.0).contains(&self.wanted.load(Ordering::Acquire))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn says_what_was_told() {
        let pressure = Pressure::default();
        assert_eq!(pressure.put_off_at(), None);
        assert!(!pressure.wants(Slot(0), Slot(NONE)));
        pressure.put_off(Duration::from_millis(7));
        pressure.want(Some(Slot(5)));
        assert_eq!(pressure.put_off_at(), Some(Duration::from_millis(7)));
        assert!(pressure.wants(Slot(5), Slot(6)) && pressure.wants(Slot(3), Slot(9)));
        assert!(!pressure.wants(Slot(6), Slot(9)) && !pressure.wants(Slot(3), Slot(5)));
        pressure.want(None);
        assert!(!pressure.wants(Slot(5), Slot(6)));
    }
}
