//! Settings of the sequencer.

use std::net::SocketAddr;
use std::time::Duration;

use super::SettingsError;
use super::reader::Reader;

/// How the sequencer's sockets are driven.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Backend {
    /// `io_uring` if a probe at start succeeds, or else `poll`.
    Auto,
    /// Only `io_uring`.
    IoUring,
    /// `recvmmsg` and `sendmmsg`.
    Poll,
    /// A program in the driver hook of an interface, before what `Auto` takes.
    Xdp,
}

/// By whom the program of [`Backend::Xdp`] is run.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum XdpMode {
    /// By the driver.
    Native,
    /// By the kernel.
    Generic,
}

/// How shards wait for datagrams.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Wait {
    /// Asleep.
    Block,
    /// Awake, on a core of their own.
    BusyPoll,
    /// Asleep, with a thread of the kernel that submits, on a core of its own.
    SqPoll,
}

/// Settings of the sequencer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SequencerSettings {
    /// UDP address to bind.
    pub listen: SocketAddr,
    /// Address at which others reach it, if that is another.
    pub member: Option<SocketAddr>,
    /// Threads that grant.
    pub shards: usize,
    /// Cores to pin the shards to and then the checkpoint thread: none, one a shard, or one more.
    pub cores: Vec<usize>,
    /// How the sockets are driven.
    pub backend: Backend,
    /// Interface of the program of [`Backend::Xdp`].
    pub interface: Option<String>,
    /// By whom that program is run.
    pub xdp_mode: XdpMode,
    /// How shards wait for datagrams.
    pub wait: Wait,
    /// Core of the kernel's submitting thread, with [`Wait::SqPoll`].
    pub sqpoll_core: Option<usize>,
    /// Whether the kernel merges received datagrams.
    pub merge: bool,
    /// Requests a second and source address; 0: no limit.
    pub client_rate: u64,
    /// Requests of one address that may come at once.
    pub client_burst: u64,
    /// Least positions that one checkpoint reserves.
    pub reservation_min: u64,
    /// Most positions that one checkpoint reserves, not below the least.
    pub reservation_max: u64,
    /// How long it may grant without a renewal.
    pub reign_ttl: Duration,
    /// Whether it begins a reign only when no other sequencer reigns.
    pub standby: bool,
    /// Without a sign of a reign for so long a standby begins its own.
    pub detect: Duration,
    /// Blocks of lanes whose grants are remembered for repeated requests, per shard.
    pub retry_memory: usize,
    /// Replies that may wait for the reservation, per shard.
    pub held_replies: usize,
    /// TCP address for metrics and health.
    pub admin: Option<SocketAddr>,
}

impl SequencerSettings {
    pub(super) fn read(reader: &Reader) -> Result<Self, SettingsError> {
        let backend = match reader.word("sequencer.backend")? {
            "io_uring" => Backend::IoUring,
            "poll" => Backend::Poll,
            "xdp" => Backend::Xdp,
            _ => Backend::Auto,
        };
        let wait = match reader.word("sequencer.wait")? {
            "busy_poll" => Wait::BusyPoll,
            "sqpoll" => Wait::SqPoll,
            _ => Wait::Block,
        };
        let sqpoll = reader.cores("sequencer.sqpoll_core")?;
        let settings = Self {
            listen: reader.address("sequencer.listen")?,
            member: reader.optional_address("sequencer.member")?,
            shards: reader.size("sequencer.shards")?,
            cores: reader.cores("sequencer.cores")?,
            backend,
            interface: reader.optional_interface("sequencer.interface")?,
            xdp_mode: match reader.word("sequencer.xdp_mode")? {
                "generic" => XdpMode::Generic,
                _ => XdpMode::Native,
            },
            wait,
            sqpoll_core: sqpoll.first().copied(),
            merge: reader.word("sequencer.merge")? == "on",
            client_rate: reader.number("sequencer.client_rate")?,
            client_burst: reader.number("sequencer.client_burst")?,
            reservation_min: reader.number("sequencer.reservation_min")?,
            reservation_max: reader.number("sequencer.reservation_max")?,
            reign_ttl: reader.millis("sequencer.reign_ttl_ms")?,
            standby: reader.word("sequencer.standby")? == "on",
            detect: reader.millis("sequencer.detect_ms")?,
            retry_memory: reader.size("sequencer.retry_memory")?,
            held_replies: reader.size("sequencer.held_replies")?,
            admin: reader.optional_address("sequencer.admin")?,
        };
        let (shards, least) = (settings.shards, settings.reservation_min);
        let pinned = settings.cores.len();
        if pinned != 0 && pinned != shards && pinned != shards + 1 {
            let allowed = format!("nothing, {shards} cores (one a shard), or one core more");
            return Err(reader.refuse("sequencer.cores", allowed));
        }
        if settings.reservation_max < least {
            let allowed = format!("at least sequencer.reservation_min={least}");
            return Err(reader.refuse("sequencer.reservation_max", allowed));
        }
        if sqpoll.len() > 1 {
            let allowed = "nothing, or one core".to_owned();
            return Err(reader.refuse("sequencer.sqpoll_core", allowed));
        }
        if settings.wait == Wait::SqPoll && settings.backend == Backend::Poll {
            let allowed = "block or busy_poll with sequencer.backend=poll".to_owned();
            return Err(reader.refuse("sequencer.wait", allowed));
        }
        settings.check_interface(reader)?;
        Ok(settings)
    }

    /// A program and its interface go together; with `Auto` there may be both or neither.
    fn check_interface(&self, reader: &Reader) -> Result<(), SettingsError> {
        let named = self.interface.is_some();
        let allowed = match (self.backend, named) {
            (Backend::Xdp, false) => {
                "a network interface with sequencer.backend=xdp (--interface NAME)"
            }
            (Backend::IoUring, true) => "nothing with sequencer.backend=io_uring",
            (Backend::Poll, true) => "nothing with sequencer.backend=poll",
            _ => return self.check_listen(reader),
        };
        Err(reader.refuse("sequencer.interface", allowed.to_owned()))
    }

    /// A program answers to one address, and nobody comes to the loopback's by another interface.
    fn check_listen(&self, reader: &Reader) -> Result<(), SettingsError> {
        let ip = self.listen.ip().to_canonical();
        let elsewhere = ip.is_loopback() && self.interface.as_deref() != Some("lo");
        if self.backend == Backend::Xdp && (ip.is_unspecified() || elsewhere) {
            let allowed = "one address of the interface with sequencer.backend=xdp".to_owned();
            return Err(reader.refuse("sequencer.listen", allowed));
        }
        Ok(())
    }
}
