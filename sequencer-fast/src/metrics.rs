//! What a sequencer shows of itself.

use std::fmt;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, PoisonError, RwLock};

use prometheus_client::collector::Collector;
use prometheus_client::encoding::{DescriptorEncoder, EncodeMetric};
use prometheus_client::metrics::MetricType;
use prometheus_client::metrics::counter::ConstCounter;
use prometheus_client::metrics::gauge::ConstGauge;
use prometheus_client::registry::Registry;

use crate::clock;
use crate::logic::{Counter, ProgramCounts, Reign, ShardCounters, Tally};
use crate::net::xdp::Attached;

/// Counters, tails and health of a sequencer.
#[derive(Debug)]
pub struct Status {
    reign: RwLock<Option<Arc<Reign>>>,
    shards: Vec<Arc<ShardCounters>>,
    program: Option<Arc<Attached>>,
    standby: AtomicBool,
    takeovers: AtomicU64,
}

impl Status {
    pub(crate) fn new(shards: usize) -> Self {
        Self {
            reign: RwLock::default(),
            shards: (0..shards).map(|_| Arc::default()).collect(),
            program: None,
            standby: AtomicBool::new(false),
            takeovers: AtomicU64::new(0),
        }
    }

    pub(crate) fn with_program(mut self, program: Option<Arc<Attached>>) -> Self {
        self.program = program;
        self
    }

    /// What a program in the driver hook has counted, if there is or was one.
    #[must_use]
    pub fn program(&self) -> Option<ProgramCounts> {
        self.program.as_ref().map(|program| program.counts())
    }

    /// Whether a program is in the driver hook, as far as this process knows.
    #[must_use]
    pub fn has_program(&self) -> bool {
        self.program
            .as_ref()
            .is_some_and(|program| program.is_attached())
    }

    /// It stands by, or not any more.
    pub(crate) fn stands_by(&self, standby: bool) {
        self.standby.store(standby, Ordering::Relaxed);
    }

    /// A standby has begun a reign.
    pub(crate) fn took_over(&self) {
        self.takeovers.fetch_add(1, Ordering::Relaxed);
    }

    pub(crate) fn begun(&self, reign: Arc<Reign>) {
        *self.reign.write().unwrap_or_else(PoisonError::into_inner) = Some(reign);
    }

    /// The newest reign, once one has begun.
    #[must_use]
    pub fn reign(&self) -> Option<Arc<Reign>> {
        self.reign
            .read()
            .unwrap_or_else(PoisonError::into_inner)
            .clone()
    }

    /// The counters of each shard.
    #[must_use]
    pub fn shards(&self) -> &[Arc<ShardCounters>] {
        &self.shards
    }

    /// Whether it stands by while another sequencer reigns, as far as it knows.
    #[must_use]
    pub fn is_standby(&self) -> bool {
        self.standby.load(Ordering::Relaxed)
    }

    /// Whether it does its work now: it grants, or stands by.
    ///
    /// # Errors
    /// Why it does not.
    pub fn health(&self) -> Result<&'static str, String> {
        if self.is_standby() {
            return Ok("standby: it does not grant, and takes over when no other sequencer reigns");
        }
        match self.reign() {
            None => Err("no reign has begun: the store has not answered yet".to_owned()),
            Some(reign) if reign.has_ended() => Err("the reign has ended".to_owned()),
            Some(reign) if reign.reigns(clock::now_ns()) => Ok("ok"),
            Some(_) => Err(
                "not granting: stripes are being sealed, or the reign could not be renewed"
                    .to_owned(),
            ),
        }
    }

    /// Shows everything in a registry from now on.
    pub fn register(self: &Arc<Self>, registry: &mut Registry) {
        registry.register_collector(Box::new(Shown(Arc::clone(self))));
    }
}

#[derive(Debug)]
struct Shown(Arc<Status>);

type Count = (&'static str, &'static str, fn(&ShardCounters) -> &Tally);

const COUNTS: [Count; 13] = [
    ("received", "Datagrams received, good or bad", |shard| {
        &shard.received
    }),
    ("granted", "Requests given a token, each once", |shard| {
        &shard.granted
    }),
    ("tokens", "Positions granted", |shard| &shard.tokens),
    (
        "busy",
        "Requests refused for want of reservation",
        |shard| &shard.busy,
    ),
    ("refused", "Requests refused for other reasons", |shard| {
        &shard.refused
    }),
    (
        "retries",
        "Requests given the token they had before",
        |shard| &shard.retries,
    ),
    (
        "held",
        "Replies that had to wait for the reservation",
        |shard| &shard.held_total,
    ),
    ("batches", "Batches with at least one datagram", |shard| {
        &shard.batches
    }),
    ("fetch_adds", "Additions to the shared counter", |shard| {
        &shard.fetch_adds
    }),
    (
        "stuck",
        "Blocks of lanes that the program in the driver hook did not leave in time",
        |shard| &shard.stuck,
    ),
    (
        "idle_polls",
        "Turns of a shard that polls and found nothing",
        |shard| &shard.idle_polls,
    ),
    (
        "send_errors",
        "Reply datagrams that the socket did not take",
        |shard| &shard.send_errors,
    ),
    ("wakeups", "Times that the shard woke from sleep", |shard| {
        &shard.wakeups
    }),
];

impl Shown {
    /// Names, what they tell, and values.
    fn gauges(&self) -> Vec<(&'static str, &'static str, u64)> {
        let waiting: u64 = self.0.shards.iter().map(|shard| shard.held.get()).sum();
        let mut gauges = vec![
            ("held_now", "Replies that wait for the reservation", waiting),
            (
                "standby",
                "1 while it stands by for another sequencer",
                u64::from(self.0.is_standby()),
            ),
        ];
        gauges.extend(self.0.program.as_ref().map(|_| {
            (
                "program_attached",
                "1 while a program is in the driver hook, as far as this process knows",
                u64::from(self.0.has_program()),
            )
        }));
        if let Some(reign) = self.0.reign() {
            let tails = reign.tails();
            let issued = tails.map_or(0, |tails| tails.issued.0);
            let durable = tails.and_then(|tails| tails.durable);
            gauges.extend([
                ("epoch", "Number of this reign", reign.epoch().0),
                (
                    "granting",
                    "1 while it grants",
                    u64::from(self.0.health().is_ok()),
                ),
                (
                    "headroom",
                    "Positions that can be granted at once",
                    reign.headroom(),
                ),
                (
                    "reservation",
                    "Positions below are reserved",
                    reign.reservation().0,
                ),
                (
                    "taken_tail",
                    "First position that is not taken",
                    reign.counter().tail(),
                ),
                ("issued_tail", "First position that is not granted", issued),
            ]);
            gauges.extend(durable.map(|durable| {
                (
                    "durable_tail",
                    "First position that is not durable",
                    durable.0,
                )
            }));
        }
        gauges
    }
}

impl Collector for Shown {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> Result<(), fmt::Error> {
        let shards = || self.0.shards.iter().enumerate();
        for (name, help, get) in COUNTS {
            let name = format!("sequencer_{name}");
            let mut metric = encoder.encode_descriptor(&name, help, None, MetricType::Counter)?;
            for (number, shard) in shards() {
                let label = [("shard", number.to_string())];
                let count = ConstCounter::new(get(shard).get());
                count.encode(metric.encode_family(&label)?)?;
            }
        }
        let help = "Datagrams dropped unanswered";
        let mut metric =
            encoder.encode_descriptor("sequencer_dropped", help, None, MetricType::Counter)?;
        for (number, shard) in shards() {
            for (reason, count) in shard.dropped.iter() {
                let labels = [("shard", number.to_string()), ("reason", reason.to_owned())];
                ConstCounter::new(count).encode(metric.encode_family(&labels)?)?;
            }
        }
        if let Some(program) = self.0.program() {
            show_program(&program, &mut encoder)?;
        }
        let takeovers = self.0.takeovers.load(Ordering::Relaxed);
        let help = "Reigns begun as a standby";
        let metric =
            encoder.encode_descriptor("sequencer_takeovers", help, None, MetricType::Counter)?;
        ConstCounter::new(takeovers).encode(metric)?;
        for (name, help, value) in self.gauges() {
            let name = format!("sequencer_{name}");
            let metric = encoder.encode_descriptor(&name, help, None, MetricType::Gauge)?;
            ConstGauge::new(value).encode(metric)?;
        }
        Ok(())
    }
}

fn show_program(
    program: &ProgramCounts,
    encoder: &mut DescriptorEncoder<'_>,
) -> Result<(), fmt::Error> {
    for (name, help, count) in [
        (
            "answered",
            "Datagrams that the program in the driver hook answered",
            program.answered,
        ),
        (
            "granted",
            "Requests given a token by the program, each once",
            program.granted,
        ),
        ("tokens", "Positions granted by the program", program.tokens),
        (
            "retries",
            "Requests given the token they had before by the program",
            program.retries,
        ),
    ] {
        let name = format!("sequencer_program_{name}");
        let metric = encoder.encode_descriptor(&name, help, None, MetricType::Counter)?;
        ConstCounter::new(count).encode(metric)?;
    }
    let (name, help) = (
        "sequencer_program_passed_up",
        "Datagrams to the sequencer that the program left to the sockets",
    );
    let mut metric = encoder.encode_descriptor(name, help, None, MetricType::Counter)?;
    for (reason, count) in program.passed_up() {
        let label = [("reason", reason)];
        ConstCounter::new(count).encode(metric.encode_family(&label)?)?;
    }
    Ok(())
}
