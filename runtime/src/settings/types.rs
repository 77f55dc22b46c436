//! Settings as programs use them.

use std::net::SocketAddr;
use std::ops::RangeInclusive;
use std::path::{Path, PathBuf};
use std::time::Duration;

use catalog::{Membership, Writer};
use wire::mac::Key;

use super::key_file;
use super::layers::Layers;
use super::reader::Reader;
use super::sequencer::SequencerSettings;
use super::{CommonArgs, SettingsError};

/// All settings, checked.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Settings {
    /// URL of the object store that holds the log.
    pub store: String,
    /// What a new log is like.
    pub log: LogSettings,
    /// Where the processes of the log are.
    pub membership: Membership,
    /// Where the processes of the log find each other instead, if that is given: `membership` is not used then.
    pub etcd: Option<EtcdSettings>,
    /// File with the key of the log, if it has one; see [`Settings::key`].
    pub key_file: Option<PathBuf>,
    /// The sequencer.
    pub sequencer: SequencerSettings,
    /// The stripe-writer.
    pub writer: WriterSettings,
    /// Clients.
    pub client: ClientSettings,
}

/// A cluster of etcd that has the membership of logs.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct EtcdSettings {
    /// URLs of its nodes, at least one.
    pub endpoints: Vec<String>,
    /// Start of all keys; the identity of the log follows it.
    pub prefix: String,
    /// Time after which a process that has died disappears.
    pub lease: Duration,
}

/// What a new log is like.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct LogSettings {
    /// Stripes, K.
    pub stripes: u32,
    /// Positions that stay on one stripe, U.
    pub unit: u32,
}

/// Settings of the stripe-writer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct WriterSettings {
    /// TCP address to bind.
    pub listen: SocketAddr,
    /// Its address in the membership, if that is given; see [`Settings::own_writer`].
    pub member: Option<SocketAddr>,
    /// First and last stripe that it is to own, with etcd.
    pub stripes: RangeInclusive<u16>,
    /// Longest wait of a record for others before its object closes.
    pub linger: Duration,
    /// Age at which a hole becomes junk.
    pub hole_timeout: Duration,
    /// Uploads that run at once, all stripes together.
    pub puts_in_flight: usize,
    /// Most memory for records, in bytes.
    pub memory_bytes: usize,
    /// Age at which a create is verified again before it is acknowledged (C-7).
    pub max_commit_age: Duration,
    /// Silence after which the stripes of a peer are taken over; zero: they never are.
    pub takeover: Duration,
    /// TCP address for metrics and health.
    pub admin: Option<SocketAddr>,
}

/// Settings of clients.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ClientSettings {
    /// Time after which the outcome of an append is given up as unknown.
    pub append_timeout: Duration,
    /// First wait for a token before it is asked for again.
    pub grant_timeout: Duration,
    /// Bytes at which a batch is sent without waiting for more.
    pub max_batch_bytes: usize,
    /// Most bytes of records without an acknowledgement.
    pub max_in_flight_bytes: usize,
    /// Most bytes that a scan reads ahead.
    pub read_ahead_bytes: usize,
    /// Directory of the cache, if there is to be one.
    pub cache_dir: Option<PathBuf>,
    /// Most bytes of the cache.
    pub cache_bytes: usize,
    /// Most requests in one datagram to the sequencer.
    pub requests_per_datagram: usize,
    /// Grants that are asked for at once.
    pub grant_lanes: u32,
}

impl Settings {
    /// Settings of a program: file, environment, `--store`, then `flags` of the program itself as pairs
    /// of `section.key` and value, then `--set`, the later the stronger.
    ///
    /// # Errors
    /// The first thing that is wrong.
    pub fn load(common: &CommonArgs, flags: Vec<(String, String)>) -> Result<Self, SettingsError> {
        let mut layers = Layers::default();
        if let Some(file) = common.file() {
            layers.file(&file)?;
        }
        layers.environment(None)?;
        common.overrides(&mut layers, &flags)?;
        Self::checked(layers)
    }

    /// Settings of a file alone, without the environment.
    ///
    /// # Errors
    /// The first thing that is wrong.
    pub fn from_file(path: &Path) -> Result<Self, SettingsError> {
        let mut layers = Layers::default();
        layers.file(path)?;
        Self::checked(layers)
    }

    /// Defaults with some keys changed, without file and environment: for tests and programs that
    /// are not configured by their user.
    ///
    /// # Errors
    /// The first thing that is wrong.
    pub fn from_pairs(pairs: &[(&str, &str)]) -> Result<Self, SettingsError> {
        let mut layers = Layers::default();
        for (key, value) in pairs {
            layers.set(key, value, "argument")?;
        }
        Self::checked(layers)
    }

    /// Which stripe-writer of the membership this process is: the one that `writer.member` names, or the
    /// only one, or the one at `writer.listen`.
    ///
    /// # Errors
    /// [`SettingsError::Value`] if there is none.
    pub fn own_writer(&self) -> Result<&Writer, SettingsError> {
        let writers = &self.membership.writers;
        if let (None, [only]) = (self.writer.member, writers.as_slice()) {
            return Ok(only);
        }
        let (key, own) = match self.writer.member {
            Some(member) => ("writer.member", member),
            None => ("writer.listen", self.writer.listen),
        };
        let mine = writers.iter().find(|writer| writer.address == own);
        mine.ok_or_else(|| {
            let addresses: Vec<_> = writers.iter().map(|w| w.address.to_string()).collect();
            SettingsError::Value {
                key: key.to_owned(),
                value: own.to_string(),
                from: "to be found in membership.writers".to_owned(),
                allowed: addresses.join(", "),
            }
        })
    }

    /// This stripe-writer as it is registered in etcd.
    ///
    /// # Errors
    /// [`SettingsError::Value`] if nobody could reach its address, or it would take nothing over.
    pub fn registered_writer(&self) -> Result<Writer, SettingsError> {
        if self.writer.takeover.is_zero() {
            return Err(SettingsError::Value {
                key: "writer.takeover_ms".to_owned(),
                value: "0".to_owned(),
                from: WITH_ETCD.to_owned(),
                allowed: "more than 0: somebody has to own what a dead stripe-writer leaves"
                    .to_owned(),
            });
        }
        let address = self.writer.member.unwrap_or(self.writer.listen);
        Ok(Writer {
            address: reachable("writer.member", address)?,
            stripes: self.writer.stripes.clone(),
        })
    }

    /// The address under which this sequencer is registered in etcd.
    ///
    /// # Errors
    /// [`SettingsError::Value`] if nobody could reach it.
    pub fn registered_sequencer(&self) -> Result<SocketAddr, SettingsError> {
        let address = self.sequencer.member.unwrap_or(self.sequencer.listen);
        reachable("sequencer.member", address)
    }

    /// The key of the log, read from its file, if there is one.
    ///
    /// # Errors
    /// [`SettingsError::KeyFile`].
    pub fn key(&self) -> Result<Option<Key>, SettingsError> {
        self.key_file.as_deref().map(key_file::read).transpose()
    }

    pub(super) fn checked(layers: Layers) -> Result<Self, SettingsError> {
        let reader = Reader(layers);
        Ok(Self {
            store: reader.url("store")?,
            log: LogSettings {
                stripes: reader.small("log.stripes")?,
                unit: reader.small("log.unit")?,
            },
            membership: Membership {
                sequencers: reader.addresses("membership.sequencer")?,
                writers: reader.writers("membership.writers")?,
            },
            etcd: EtcdSettings::read(&reader)?,
            key_file: reader.optional_file("membership.key_file")?,
            sequencer: SequencerSettings::read(&reader)?,
            writer: WriterSettings::read(&reader)?,
            client: ClientSettings::read(&reader)?,
        })
    }
}

/// Where a setting is refused because of etcd.
const WITH_ETCD: &str = "with membership.etcd";

fn reachable(key: &str, address: SocketAddr) -> Result<SocketAddr, SettingsError> {
    if !address.ip().is_unspecified() {
        return Ok(address);
    }
    Err(SettingsError::Value {
        key: key.to_owned(),
        value: address.to_string(),
        from: WITH_ETCD.to_owned(),
        allowed: "the address at which others reach this process".to_owned(),
    })
}

impl EtcdSettings {
    fn read(reader: &Reader) -> Result<Option<Self>, SettingsError> {
        let etcd = Self {
            endpoints: reader.endpoints("membership.etcd")?,
            prefix: reader.prefix("membership.etcd_prefix")?,
            lease: reader.millis("membership.lease_ms")?,
        };
        if etcd.endpoints.is_empty() {
            return Ok(None);
        }
        if cfg!(not(feature = "etcd")) {
            let allowed = "nothing: this program was built without etcd; \
                           cargo build --release --features etcd makes one that has it";
            return Err(reader.refuse("membership.etcd", allowed.to_owned()));
        }
        Ok(Some(etcd))
    }
}

impl WriterSettings {
    fn read(reader: &Reader) -> Result<Self, SettingsError> {
        Ok(Self {
            listen: reader.address("writer.listen")?,
            member: reader.optional_address("writer.member")?,
            stripes: reader.stripes("writer.stripes")?,
            linger: reader.millis("writer.linger_ms")?,
            hole_timeout: reader.millis("writer.hole_timeout_ms")?,
            puts_in_flight: reader.size("writer.puts_in_flight")?,
            memory_bytes: reader.mebibytes("writer.memory_mib")?,
            max_commit_age: reader.millis("writer.max_commit_age_ms")?,
            takeover: reader.millis("writer.takeover_ms")?,
            admin: reader.optional_address("writer.admin")?,
        })
    }
}

impl ClientSettings {
    fn read(reader: &Reader) -> Result<Self, SettingsError> {
        Ok(Self {
            append_timeout: reader.millis("client.append_timeout_ms")?,
            grant_timeout: reader.millis("client.grant_timeout_ms")?,
            max_batch_bytes: reader.size("client.max_batch_bytes")?,
            max_in_flight_bytes: reader.mebibytes("client.max_in_flight_mib")?,
            read_ahead_bytes: reader.mebibytes("client.read_ahead_mib")?,
            cache_dir: reader.optional_file("client.cache_dir")?,
            cache_bytes: reader.mebibytes("client.cache_mib")?,
            requests_per_datagram: reader.size("client.requests_per_datagram")?,
            grant_lanes: reader.small("client.grant_lanes")?,
        })
    }
}
