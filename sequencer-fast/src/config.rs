//! What a sequencer is told at its start.

use std::fmt;
use std::net::SocketAddr;
use std::time::Duration;

use wire::mac::Key;

use crate::logic::Rate;

/// How datagrams are received and sent.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Backend {
    /// io_uring where the system allows it, or else [`Backend::Poll`]; before it the program of [`Backend::Xdp`] where
    /// there is a hook for it and the system allows it.
    #[default]
    Auto,
    /// io_uring, or an error.
    IoUring,
    /// poll, recvmmsg and sendmmsg.
    Poll,
    /// A program in the driver hook of an interface ([`Config::hook`]) that grants by itself, before what
    /// [`Backend::Auto`] would take; or an error. Needs the feature `xdp`.
    Xdp,
}

/// Where a program that grants is attached.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Hook {
    /// Name of the network interface that has the address of the sequencer.
    pub interface: String,
    /// By whom the program is run.
    pub mode: HookMode,
}

/// By whom a program in the hook of an interface is run.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum HookMode {
    /// By its driver, before anything else is done with a packet.
    #[default]
    Native,
    /// By the kernel, for drivers that cannot; the kernel has made a packet of its own then.
    Generic,
}

impl fmt::Display for HookMode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Native => "native",
            Self::Generic => "generic",
        })
    }
}

/// How a shard waits for datagrams.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Wait {
    /// Asleep: costs nothing while nothing comes, and a wake-up for what comes then.
    #[default]
    Block,
    /// Awake: the least latency, for all of a core.
    BusyPoll,
    /// Asleep, with a thread of the kernel that submits; only with io_uring, and only worth it with a core
    /// to spare.
    SqPoll {
        /// Core of that thread; nothing: any.
        core: Option<u32>,
    },
}

/// How a sequencer stands by.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Standby {
    /// UDP addresses of the other sequencers of the log. It may be among them itself.
    pub others: Vec<SocketAddr>,
    /// The address at which others reach it, if that is not the one it binds: it does not ask itself.
    pub member: Option<SocketAddr>,
    /// Without a sign of their reign for so long it begins its own.
    pub detect: Duration,
}

/// Settings of a sequencer. They have been checked where they were read.
#[derive(Debug, Clone)]
pub struct Config {
    /// UDP address to bind.
    pub listen: SocketAddr,
    /// Number of shards.
    pub shards: usize,
    /// Cores to pin the shards to, in order, and then the checkpoint thread; empty: nothing is pinned.
    pub cores: Vec<usize>,
    /// How datagrams are received and sent.
    pub backend: Backend,
    /// Where the program of [`Backend::Xdp`] is attached.
    pub hook: Option<Hook>,
    /// How shards wait for datagrams.
    pub wait: Wait,
    /// Whether the kernel merges what it receives (UDP_GRO).
    pub merge: bool,
    /// Most requests a second and source address; none: no limit.
    pub rate: Option<Rate>,
    /// Key that datagrams are authenticated with; none: they are not.
    pub key: Option<Key>,
    /// Least positions that are reserved at once.
    pub reservation_min: u64,
    /// Most positions that are reserved at once.
    pub reservation_max: u64,
    /// How long a reign lasts that is not renewed (S-5).
    pub reign_ttl: Duration,
    /// Blocks of 32 lanes of a client whose last requests a shard remembers (S-6).
    pub retry_memory: usize,
    /// Replies a shard that may wait for the reservation (S-10).
    pub held_replies: usize,
    /// Whether it begins a reign only when no other sequencer reigns; none: it begins one at once.
    pub standby: Option<Standby>,
}

impl Config {
    /// The default settings on an address: one shard, nothing pinned.
    #[must_use]
    pub fn new(listen: SocketAddr) -> Self {
        Self {
            listen,
            shards: 1,
            cores: Vec::new(),
            backend: Backend::Auto,
            hook: None,
            wait: Wait::Block,
            merge: true,
            rate: None,
            key: None,
            reservation_min: 1 << 16,
            reservation_max: 1 << 36,
            reign_ttl: Duration::from_secs(10),
            retry_memory: 1 << 14,
            held_replies: 1 << 16,
            standby: None,
        }
    }
}
