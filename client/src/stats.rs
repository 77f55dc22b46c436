use std::sync::atomic::{AtomicU64, Ordering};

/// Counters of an open log, since it was opened.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Stats {
    /// Tokens that were granted.
    pub grants: u64,
    /// Requests to the sequencer that were sent again because no answer came in time.
    pub requests_resent: u64,
    /// Datagrams to the sequencer, each with one request or more.
    pub datagrams_sent: u64,
    /// Datagrams that failed the check of the key, and were ignored.
    pub wrong_macs: u64,
    /// Datagrams that were ignored: malformed, late, repeated, or answers of a former reign.
    pub datagrams_ignored: u64,
    /// Append frames that were sent, each copy counted.
    pub frames_sent: u64,
    /// Connections to stripe-writers that were made.
    pub connections: u64,
    /// Records that lost their position to junk or to a seal and were appended again.
    pub records_reappended: u64,
    /// Times that a stripe-writer put a frame off (busy, or not the owner).
    pub frames_put_off: u64,
}

macro_rules! counters {
    ($($name:ident),*) => {
        #[derive(Debug, Default)]
        pub(crate) struct Counters {
            $(pub(crate) $name: Counter,)*
        }

        impl Counters {
            pub(crate) fn read(&self) -> Stats {
                Stats { $($name: self.$name.0.load(Ordering::Relaxed),)* }
            }
        }
    };
}

counters!(
    grants,
    requests_resent,
    datagrams_sent,
    wrong_macs,
    datagrams_ignored,
    frames_sent,
    connections,
    records_reappended,
    frames_put_off
);

#[derive(Debug, Default)]
pub(crate) struct Counter(AtomicU64);

impl Counter {
    pub(crate) fn add(&self, count: u64) {
        self.0.fetch_add(count, Ordering::Relaxed);
    }
}
