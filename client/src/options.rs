use std::time::Duration;

use catalog::Membership;
use wire::limits::MAX_RUN_BYTES;

use crate::limits::{
    APPEND_TIMEOUT, FRAME_BYTES, GRANT_TIMEOUT, IN_FLIGHT_BYTES, IN_FLIGHT_BYTES_MAX,
};
use crate::{Error, Result};

/// Which log to open, who serves it, and the limits of this client.
#[derive(Debug, Clone)]
pub struct Options {
    pub(crate) store: String,
    pub(crate) membership: Membership,
    pub(crate) append_timeout: Duration,
    pub(crate) grant_timeout: Duration,
    pub(crate) frame_bytes: usize,
    pub(crate) in_flight_bytes: usize,
}

impl Options {
    /// The log at a store's URL, served by these, with default limits.
    #[must_use]
    pub fn new(store: impl Into<String>, membership: Membership) -> Self {
        Self {
            store: store.into(),
            membership,
            append_timeout: APPEND_TIMEOUT,
            grant_timeout: GRANT_TIMEOUT,
            frame_bytes: FRAME_BYTES,
            in_flight_bytes: IN_FLIGHT_BYTES,
        }
    }

    /// What the settings of all programs say.
    #[must_use]
    pub fn from_settings(settings: &runtime::settings::Settings) -> Self {
        Self::new(settings.store.clone(), settings.membership.clone())
            .append_timeout(settings.client.append_timeout)
            .grant_timeout(settings.client.grant_timeout)
            .max_batch_bytes(settings.client.max_batch_bytes)
            .max_in_flight_bytes(settings.client.max_in_flight_bytes)
    }

    /// Longest time for an append, from the call to its outcome; 30 s by default.
    #[must_use]
    pub fn append_timeout(mut self, timeout: Duration) -> Self {
        self.append_timeout = timeout;
        self
    }

    /// Time after which a request to the sequencer is sent again, doubling each time; 50 ms by default.
    #[must_use]
    pub fn grant_timeout(mut self, timeout: Duration) -> Self {
        self.grant_timeout = timeout;
        self
    }

    /// Most bytes of one frame of records; 1 MiB by default, 4 MiB at most.
    #[must_use]
    pub fn max_batch_bytes(mut self, bytes: usize) -> Self {
        self.frame_bytes = bytes;
        self
    }

    /// Most bytes that the records of all appends under way may take; 64 MiB by default.
    #[must_use]
    pub fn max_in_flight_bytes(mut self, bytes: usize) -> Self {
        self.in_flight_bytes = bytes;
        self
    }

    pub(crate) fn check(&self) -> Result<()> {
        let sound = [
            (!self.append_timeout.is_zero(), "append timeout: zero"),
            (!self.grant_timeout.is_zero(), "grant timeout: zero"),
            (
                (1..=MAX_RUN_BYTES).contains(&self.frame_bytes),
                "batch size: not 1 byte to 4 MiB",
            ),
            (
                (1..=IN_FLIGHT_BYTES_MAX).contains(&self.in_flight_bytes),
                "bytes in flight: not 1 byte to 64 GiB",
            ),
        ];
        match sound.into_iter().find(|(ok, _)| !ok) {
            Some((_, what)) => Err(Error::invalid(what)),
            None => Ok(()),
        }
    }
}
