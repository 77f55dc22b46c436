//! The table of all settings.

use wire::datagram::MAX_ENTRIES;
use wire::limits::{MAX_POSITION, MAX_RUN_BYTES, MAX_STRIPES, MAX_UNIT};

use super::kind::Kind;

/// One setting.
#[derive(Debug)]
pub struct Key {
    /// `section.key`, or only `key`.
    pub name: &'static str,
    /// What its value may be.
    pub kind: Kind,
    /// Value if it is given nowhere.
    pub default: &'static str,
    /// Unit of a number, or nothing.
    pub unit: &'static str,
    /// What it does.
    pub meaning: &'static str,
}

/// An hour in milliseconds: no time-out needs more.
const HOUR_MS: u64 = 3_600_000;

const SCHEMES: &[&str] = &["file:///", "s3://", "gs://", "az://", "memory:///"];

const fn count(
    name: &'static str,
    bounds: (u64, u64),
    default: &'static str,
    unit: &'static str,
    meaning: &'static str,
) -> Key {
    let kind = Kind::Count(bounds.0..=bounds.1);
    Key {
        name,
        kind,
        default,
        unit,
        meaning,
    }
}

const fn other(
    name: &'static str,
    kind: Kind,
    default: &'static str,
    meaning: &'static str,
) -> Key {
    let unit = "";
    Key {
        name,
        kind,
        default,
        unit,
        meaning,
    }
}

/// All settings, in the order of their sections.
pub static KEYS: &[Key] = &[
    other(
        "store",
        Kind::Url(SCHEMES),
        "file:///var/lib/stripelog",
        "object store that holds the log; credentials come from the usual environment of the store",
    ),
    count(
        "log.stripes",
        (1, MAX_STRIPES as u64),
        "32",
        "stripes",
        "stripes of a new log (K): how many uploads run side by side; used only when a log is created",
    ),
    count(
        "log.unit",
        (1, MAX_UNIT as u64),
        "1024",
        "positions",
        "positions that stay on one stripe before the next one takes over (U); used only when a log is created",
    ),
    other(
        "membership.sequencer",
        Kind::Addresses,
        "127.0.0.1:7400",
        "UDP address at which everybody reaches the sequencer, or several addresses: of the one that reigns and of those that stand by",
    ),
    other(
        "membership.writers",
        Kind::Writers,
        "127.0.0.1:7500",
        "TCP addresses at which everybody reaches the stripe-writers, and the stripes that each one owns",
    ),
    other(
        "membership.key_file",
        Kind::OptionalFile,
        "",
        "file with the key of the log, as `stripelog key` writes it: datagrams to and from the sequencer are signed and checked with it; the same key everywhere; empty: none",
    ),
    other(
        "membership.etcd",
        Kind::Endpoints,
        "",
        "etcd nodes, of which one is asked at a time; with them every process registers itself and finds the others there, and membership.sequencer and membership.writers are not used; needs a build with the feature etcd",
    ),
    other(
        "membership.etcd_prefix",
        Kind::Prefix,
        "/stripelog",
        "start of all keys in etcd; the identity of the log and the name of the process follow it",
    ),
    count(
        "membership.lease_ms",
        (1000, 600_000),
        "3000",
        "ms",
        "time after which a process that has died disappears from etcd, in whole seconds; etcd may make it longer",
    ),
    other(
        "sequencer.listen",
        Kind::Address,
        "127.0.0.1:7400",
        "UDP address that the sequencer binds",
    ),
    other(
        "sequencer.member",
        Kind::OptionalAddress,
        "",
        "UDP address at which everybody reaches this sequencer, to be registered in etcd; empty: sequencer.listen",
    ),
    count(
        "sequencer.shards",
        (1, 64),
        "1",
        "threads",
        "threads that grant positions, each with a socket and a ring of its own",
    ),
    other(
        "sequencer.cores",
        Kind::Cores,
        "",
        "cores to pin the shards to, in order, and then the checkpoint thread: one a shard, or one more; empty: nothing is pinned",
    ),
    other(
        "sequencer.backend",
        Kind::Word(&["auto", "io_uring", "poll", "xdp"]),
        "auto",
        "how datagrams are received and sent; xdp: a program in the driver hook of sequencer.interface grants by itself what it can, needs a build with the feature xdp; auto takes xdp where sequencer.interface is given, and io_uring, each where the system allows it",
    ),
    other(
        "sequencer.interface",
        Kind::OptionalInterface,
        "",
        "network interface that has the address of sequencer.listen, for the program of sequencer.backend=xdp; empty: no program",
    ),
    other(
        "sequencer.xdp_mode",
        Kind::Word(&["native", "generic"]),
        "native",
        "by whom the program is run: native, by the driver of the interface; generic, by the kernel, for drivers that cannot",
    ),
    other(
        "sequencer.wait",
        Kind::Word(&["block", "busy_poll", "sqpoll"]),
        "block",
        "how shards wait: asleep; awake, which takes all of a core each; or asleep beside a thread of the kernel that submits",
    ),
    other(
        "sequencer.sqpoll_core",
        Kind::Cores,
        "",
        "core of the kernel's thread where sequencer.wait is sqpoll; empty: any",
    ),
    other(
        "sequencer.merge",
        Kind::Word(&["on", "off"]),
        "on",
        "whether the kernel hands over datagrams of one client merged (UDP_GRO)",
    ),
    count(
        "sequencer.client_rate",
        (0, 1_000_000_000),
        "0",
        "requests/s",
        "most requests of one source address (of one /64 network with IPv6), what is above is dropped; a request counts as one more for every 1,024 positions; 0: no limit",
    ),
    count(
        "sequencer.client_burst",
        (MAX_ENTRIES as u64, 1_000_000_000),
        "10000",
        "requests",
        "requests of one source address that may come at once, where sequencer.client_rate is set",
    ),
    count(
        "sequencer.reservation_min",
        (1, MAX_POSITION),
        "65536",
        "positions",
        "least that one checkpoint reserves; a crash wastes at most what was reserved",
    ),
    count(
        "sequencer.reservation_max",
        (1, MAX_POSITION),
        "68719476736",
        "positions",
        "most that one checkpoint reserves",
    ),
    count(
        "sequencer.reign_ttl_ms",
        (100, HOUR_MS),
        "10000",
        "ms",
        "without a renewal in the store for so long the sequencer grants nothing more",
    ),
    other(
        "sequencer.standby",
        Kind::Word(&["on", "off"]),
        "off",
        "whether the sequencer waits, as long as another one reigns, and begins a reign only when none does; off: it begins one at its start",
    ),
    count(
        "sequencer.detect_ms",
        (100, 60_000),
        "1000",
        "ms",
        "with sequencer.standby: without a sign of a reign for so long it begins its own",
    ),
    count(
        "sequencer.retry_memory",
        (1, 1 << 20),
        "16384",
        "blocks a shard",
        "blocks of 32 lanes of a client whose last grants are remembered, so that a repeated request gets its token again; 800 bytes each",
    ),
    count(
        "sequencer.held_replies",
        (1, 1 << 24),
        "65536",
        "replies a shard",
        "replies that may wait for the reservation; more are refused as busy",
    ),
    other(
        "sequencer.admin",
        Kind::OptionalAddress,
        "",
        "TCP address for /metrics and /healthz of the sequencer; empty: none",
    ),
    other(
        "writer.listen",
        Kind::Address,
        "127.0.0.1:7500",
        "TCP address that the stripe-writer binds",
    ),
    other(
        "writer.member",
        Kind::OptionalAddress,
        "",
        "which of membership.writers this stripe-writer is; empty: the only one, or the one at writer.listen; with etcd the TCP address to be registered there; empty: writer.listen",
    ),
    other(
        "writer.stripes",
        Kind::Stripes,
        "0-1023",
        "with etcd, the stripes that this stripe-writer is to own; where several are to own one, each takes its part",
    ),
    count(
        "writer.linger_ms",
        (0, 60_000),
        "50",
        "ms",
        "longest wait of a record for others before its object closes: less is faster, more is cheaper",
    ),
    count(
        "writer.hole_timeout_ms",
        (10, HOUR_MS),
        "2000",
        "ms",
        "a position that was granted and not written for so long becomes junk",
    ),
    count(
        "writer.puts_in_flight",
        (1, 1024),
        "8",
        "puts",
        "uploads that run at once, all stripes together",
    ),
    count(
        "writer.memory_mib",
        (64, 1 << 20),
        "1024",
        "MiB",
        "most memory for records that are not durable yet; beyond it senders are slowed down",
    ),
    count(
        "writer.max_commit_age_ms",
        (1000, HOUR_MS),
        "60000",
        "ms",
        "a create that took longer is verified again before it is acknowledged",
    ),
    count(
        "writer.takeover_ms",
        (0, HOUR_MS),
        "1000",
        "ms",
        "stripe-writers of a membership watch one another; the stripes of one that has not answered for so long are taken over by the others; the same value everywhere; 0: never",
    ),
    other(
        "writer.admin",
        Kind::OptionalAddress,
        "",
        "TCP address for /metrics and /healthz of the stripe-writer; empty: none",
    ),
    count(
        "client.append_timeout_ms",
        (1, HOUR_MS),
        "30000",
        "ms",
        "an append ends that sees no sign of progress for so long, and one of which others alone make progress after ten times as long; its outcome is unknown if any of it was sent",
    ),
    count(
        "client.grant_timeout_ms",
        (1, 60_000),
        "50",
        "ms",
        "wait for a token before it is asked for again; doubles with each repetition",
    ),
    count(
        "client.max_batch_bytes",
        (1024, MAX_RUN_BYTES as u64),
        "1048576",
        "bytes",
        "most bytes of one frame of records; a batch that is larger goes as several",
    ),
    count(
        "client.max_in_flight_mib",
        (2, 1 << 16),
        "64",
        "MiB",
        "most records that wait for an acknowledgement; more make append wait",
    ),
    count(
        "client.read_ahead_mib",
        (1, 1 << 16),
        "256",
        "MiB",
        "most that a read or follow reads ahead of what it hands out, all stripes together",
    ),
    other(
        "client.cache_dir",
        Kind::OptionalFile,
        "",
        "directory in which read and follow keep what they have read from the store, for one process at a time; empty: none",
    ),
    count(
        "client.cache_mib",
        (64, 1 << 24),
        "1024",
        "MiB",
        "most that the cache keeps, where there is one",
    ),
    count(
        "client.requests_per_datagram",
        (1, MAX_ENTRIES as u64),
        "29",
        "requests",
        "most requests in one datagram; 29 fit paths with an MTU of 1,500, 28 those with 1,400",
    ),
    count(
        "client.grant_lanes",
        (1, 32),
        "1",
        "lanes",
        "grants that a client asks for at once; with more than one, appends under way at the same time may be ordered in any way",
    ),
];

/// Finds a key by its name.
pub(super) fn find(name: &str) -> Option<&'static Key> {
    KEYS.iter().find(|key| key.name == name)
}

/// The keys that may stand where an unknown one was found.
pub(super) fn near(name: &str) -> String {
    let section = name.split_once('.').map(|(section, _)| section);
    let inside = |key: &&Key| match (section, key.name.split_once('.')) {
        (Some(section), Some((of_key, _))) => section == of_key,
        _ => false,
    };
    let mut names: Vec<&str> = KEYS.iter().filter(inside).map(|key| key.name).collect();
    if names.is_empty() {
        names = KEYS
            .iter()
            .map(|key| key.name.split_once('.').map_or(key.name, |(s, _)| s))
            .collect();
        names.dedup();
    }
    names.join(", ")
}
