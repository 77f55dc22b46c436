//! How long an append waits: as long as there are signs that what it waits for gets on.
//!
//! A store that is slower than the load makes appends wait for others, for as long as those take. That is no
//! failure, and nothing tells it from one but signs of progress: answers, and the word of a stripe-writer that
//! is full and gets on. Times are counted from the opening of the log.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use crate::limits::PATIENCE;

/// When something was last seen to get on.
#[derive(Debug, Default)]
pub(crate) struct Sign(AtomicU64);

impl Sign {
    pub(crate) fn seen(&self, now: Duration) {
        let now = u64::try_from(now.as_millis()).unwrap_or(u64::MAX);
        self.0.fetch_max(now, Ordering::Relaxed);
    }

    pub(crate) fn last(&self) -> Duration {
        Duration::from_millis(self.0.load(Ordering::Relaxed))
    }
}

/// When one who heard of its own records at `own`, and of others that it waits for at `others`, has waited long
/// enough.
pub(crate) fn end(own: Duration, others: Duration, timeout: Duration) -> Duration {
    let signs = own.max(others).saturating_add(timeout);
    signs.min(own.saturating_add(timeout.saturating_mul(PATIENCE)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn signs_of_others_are_believed_for_so_long() {
        let s = Duration::from_secs;
        assert_eq!(end(s(5), s(0), s(30)), s(35));
        assert_eq!(end(s(5), s(20), s(30)), s(50));
        assert_eq!(end(s(5), s(10_000), s(30)), s(305));
        let sign = Sign::default();
        sign.seen(s(7));
        sign.seen(s(3));
        assert_eq!(sign.last(), s(7));
    }
}
