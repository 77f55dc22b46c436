use std::path::PathBuf;
use std::time::Duration;

use catalog::Membership;
use runtime::settings::{EtcdSettings, Settings, SettingsError};
use tokio::sync::watch;
use wire::datagram::MAX_ENTRIES;
use wire::limits::MAX_RUN_BYTES;
use wire::mac::Key;

use crate::limits::{
    APPEND_TIMEOUT, CACHE_BYTES_BOUNDS, FRAME_BYTES, GRANT_LANES_MAX, GRANT_TIMEOUT,
    IN_FLIGHT_BYTES, IN_FLIGHT_BYTES_MAX, READ_AHEAD_BYTES, READ_AHEAD_BYTES_BOUNDS,
    REQUESTS_PER_DATAGRAM,
};
use crate::{Error, Result};

/// Which log to open, who serves it, and the limits of this client.
#[derive(Debug, Clone)]
pub struct Options {
    pub(crate) store: String,
    pub(crate) membership: Membership,
    /// The membership as it changes, if it does.
    pub(crate) changes: Option<watch::Receiver<Membership>>,
    pub(crate) etcd: Option<EtcdSettings>,
    pub(crate) append_timeout: Duration,
    pub(crate) grant_timeout: Duration,
    pub(crate) frame_bytes: usize,
    pub(crate) in_flight_bytes: usize,
    pub(crate) read_ahead_bytes: usize,
    pub(crate) cache: Option<(PathBuf, usize)>,
    pub(crate) key: Option<Key>,
    pub(crate) requests_per_datagram: usize,
    pub(crate) grant_lanes: u32,
}

impl Options {
    /// The log at a store's URL, served by these, with default limits.
    #[must_use]
    pub fn new(store: impl Into<String>, membership: Membership) -> Self {
        Self {
            store: store.into(),
            membership,
            changes: None,
            etcd: None,
            append_timeout: APPEND_TIMEOUT,
            grant_timeout: GRANT_TIMEOUT,
            frame_bytes: FRAME_BYTES,
            in_flight_bytes: IN_FLIGHT_BYTES,
            read_ahead_bytes: READ_AHEAD_BYTES,
            cache: None,
            key: None,
            requests_per_datagram: REQUESTS_PER_DATAGRAM,
            grant_lanes: 1,
        }
    }

    /// The log at a store's URL, served by whoever is told, with default limits. Changes take effect while the log is
    /// open: addresses that are new are asked, and those that are gone are asked as long as they owe answers. A
    /// sender that is dropped leaves what was told last.
    #[must_use]
    pub fn told(store: impl Into<String>, changes: watch::Receiver<Membership>) -> Self {
        Self {
            changes: Some(changes),
            ..Self::new(store, Membership::default())
        }
    }

    /// The log at a store's URL, served by those that are registered in etcd, with default limits. Works in builds
    /// with the feature `etcd`; opening the log is an error in others.
    #[must_use]
    pub fn in_etcd(store: impl Into<String>, etcd: EtcdSettings) -> Self {
        Self {
            etcd: Some(etcd),
            ..Self::new(store, Membership::default())
        }
    }

    /// What the settings of all programs say.
    ///
    /// # Errors
    /// What is wrong with the key file.
    pub fn from_settings(settings: &Settings) -> std::result::Result<Self, SettingsError> {
        let base = match &settings.etcd {
            Some(etcd) => Self::in_etcd(settings.store.clone(), etcd.clone()),
            None => Self::new(settings.store.clone(), settings.membership.clone()),
        };
        let options = base
            .append_timeout(settings.client.append_timeout)
            .grant_timeout(settings.client.grant_timeout)
            .max_batch_bytes(settings.client.max_batch_bytes)
            .max_in_flight_bytes(settings.client.max_in_flight_bytes)
            .read_ahead_bytes(settings.client.read_ahead_bytes)
            .requests_per_datagram(settings.client.requests_per_datagram)
            .grant_lanes(settings.client.grant_lanes);
        let options = match &settings.client.cache_dir {
            Some(directory) => options.cache(directory, settings.client.cache_bytes),
            None => options,
        };
        Ok(match settings.key()? {
            Some(key) => options.key(key),
            None => options,
        })
    }

    /// Longest time that an append waits without a sign of progress; 30 s by default. Signs are that its records
    /// get on, that those before it do as long as it has no positions, and that a stripe-writer which has its
    /// records says that it is full or slow and gets on. If only others get on, ten times as long is the end.
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

    /// Most bytes that a scan reads ahead, all stripes together, 1 MiB to 64 GiB; 256 MiB by default. A run
    /// that a scan waits for is read even if it is larger.
    #[must_use]
    pub fn read_ahead_bytes(mut self, bytes: usize) -> Self {
        self.read_ahead_bytes = bytes;
        self
    }

    /// Keeps what scans read from the store in a directory, up to so many bytes, 64 MiB at least; by default
    /// nothing is kept. One process at a time can use the directory. What it holds is checked whenever it is
    /// used: a disk that changes it costs a read of the store.
    #[must_use]
    pub fn cache(mut self, directory: impl Into<PathBuf>, bytes: usize) -> Self {
        self.cache = Some((directory.into(), bytes));
        self
    }

    /// Takes back [`Self::cache`].
    #[must_use]
    pub fn no_cache(mut self) -> Self {
        self.cache = None;
        self
    }

    /// The key of the log: requests to the sequencer are signed with it, and answers that are not are
    /// ignored. A log has one or it has none, and everybody uses it then.
    #[must_use]
    pub fn key(mut self, key: Key) -> Self {
        self.key = Some(key);
        self
    }

    /// Most requests in one datagram; 29 by default, for paths with an MTU of 1,500. 28 fit 1,400.
    #[must_use]
    pub fn requests_per_datagram(mut self, requests: usize) -> Self {
        self.requests_per_datagram = requests;
        self
    }

    /// Grants that are asked for at once, 32 at most; 1 by default. With more than one, appends that are under
    /// way at the same time may be ordered in any way, also those of one caller. The promises of
    /// [`Log::append`](crate::Log::append) hold.
    #[must_use]
    pub fn grant_lanes(mut self, lanes: u32) -> Self {
        self.grant_lanes = lanes;
        self
    }

    pub(crate) fn check(&self) -> Result<()> {
        let sound = [
            (
                !self.membership.sequencers.is_empty()
                    || self.changes.is_some()
                    || self.etcd.is_some(),
                "membership: no sequencer",
            ),
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
            (
                (READ_AHEAD_BYTES_BOUNDS.0..=READ_AHEAD_BYTES_BOUNDS.1)
                    .contains(&self.read_ahead_bytes),
                "bytes read ahead: not 1 MiB to 64 GiB",
            ),
            (
                self.cache.as_ref().is_none_or(|(_, bytes)| {
                    (CACHE_BYTES_BOUNDS.0..=CACHE_BYTES_BOUNDS.1).contains(bytes)
                }),
                "size of the cache: not 64 MiB to 16 TiB",
            ),
            (
                (1..=MAX_ENTRIES).contains(&self.requests_per_datagram),
                "requests a datagram: not 1 to 29",
            ),
            (
                (1..=GRANT_LANES_MAX).contains(&self.grant_lanes),
                "grant lanes: not 1 to 32",
            ),
        ];
        match sound.into_iter().find(|(ok, _)| !ok) {
            Some((_, what)) => Err(Error::invalid(what)),
            None => Ok(()),
        }
    }
}
