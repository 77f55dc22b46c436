//! Counters of the daemon.

use std::sync::atomic::AtomicU64;

use catalog::StoreFault;
use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::registry::Registry;
use wire::frame::AckStatus;
use wire::object::{Header, Object};
use wire::{Position, Run};

use crate::store::StoreHealth;

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct StatusLabel {
    status: &'static str,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct FaultLabel {
    fault: &'static str,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct MoveLabel {
    how: &'static str,
}

/// How a stripe came to this process or left it.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Move {
    /// Taken as one of its own by the settings.
    Taken,
    /// Taken over from a peer that did not answer.
    TakenOver,
    /// Given back to its home.
    GivenBack,
    /// Taken by another process.
    Lost,
}

/// All counters. Updated by the tasks, read by the admin endpoint.
#[derive(Debug, Default)]
pub(crate) struct Metrics {
    puts: Counter,
    put_bytes: Counter,
    put_failures: Family<FaultLabel, Counter>,
    /// The same without a label: not told to anybody.
    all_put_failures: Counter,
    objects: Counter,
    records: Counter,
    record_bytes: Counter,
    junk: Counter,
    answers: Family<StatusLabel, Counter>,
    refused: Counter,
    wrong_macs: Counter,
    issued_tail: Gauge<u64, AtomicU64>,
    unheard: Gauge<u64, AtomicU64>,
    stripes: Gauge<u64, AtomicU64>,
    moves: Family<MoveLabel, Counter>,
    peers_silent: Gauge<u64, AtomicU64>,
    /// For health checks: not a counter.
    pub(crate) store: StoreHealth,
}

impl Metrics {
    /// Names the counters for the admin endpoint.
    pub(crate) fn register(&self, registry: &mut Registry) {
        let registry = registry.sub_registry_with_prefix("stripe_writer");
        registry.register(
            "puts",
            "Objects that were begun to be put",
            self.puts.clone(),
        );
        registry.register(
            "put_bytes",
            "Bytes of those objects",
            self.put_bytes.clone(),
        );
        registry.register(
            "put_failures",
            "Puts that failed and were tried again, by how the store failed",
            self.put_failures.clone(),
        );
        registry.register("objects", "Objects committed", self.objects.clone());
        registry.register("records", "Records committed", self.records.clone());
        registry.register(
            "record_bytes",
            "Bytes of records committed, with their lengths",
            self.record_bytes.clone(),
        );
        registry.register("junk", "Positions filled with junk", self.junk.clone());
        registry.register(
            "answers",
            "Positions answered, by status",
            self.answers.clone(),
        );
        registry.register(
            "refused_connections",
            "Connections refused or broken off for a fault",
            self.refused.clone(),
        );
        registry.register(
            "wrong_macs",
            "Answers of the sequencer that failed the key check",
            self.wrong_macs.clone(),
        );
        registry.register(
            "issued_tail",
            "Issued tail that the sequencer told last",
            self.issued_tail.clone(),
        );
        registry.register(
            "unheard",
            "1 while the sequencer does not answer, so that no holes are filled",
            self.unheard.clone(),
        );
        registry.register("stripes", "Stripes that are owned", self.stripes.clone());
        registry.register(
            "moves",
            "Stripes that came or left, by how: taken, taken_over, given_back, lost",
            self.moves.clone(),
        );
        registry.register(
            "peers_silent",
            "Stripe-writers of the membership that do not answer",
            self.peers_silent.clone(),
        );
    }

    /// How many stripes are owned now.
    pub(crate) fn stripes(&self, owned: usize) {
        self.stripes.set(u64::try_from(owned).unwrap_or(u64::MAX));
    }

    pub(crate) fn moved(&self, how: Move) {
        let how = match how {
            Move::Taken => "taken",
            Move::TakenOver => "taken_over",
            Move::GivenBack => "given_back",
            Move::Lost => "lost",
        };
        self.moves.get_or_create(&MoveLabel { how }).inc();
    }

    pub(crate) fn peers_silent(&self, silent: usize) {
        let silent = u64::try_from(silent).unwrap_or(u64::MAX);
        self.peers_silent.set(silent);
    }

    pub(crate) fn put(&self, object: &Object) {
        self.puts.inc();
        self.put_bytes.inc_by(object.len() as u64);
    }

    pub(crate) fn put_failed(&self, fault: Option<StoreFault>) {
        let fault = match fault {
            Some(StoreFault::SlowDown) => "slow_down",
            Some(StoreFault::Server) => "server",
            Some(StoreFault::TimedOut) => "timed_out",
            Some(StoreFault::Connection) => "connection",
            Some(StoreFault::Refused) => "refused",
            Some(StoreFault::Other) => "other",
            None => "content",
        };
        self.all_put_failures.inc();
        self.put_failures.get_or_create(&FaultLabel { fault }).inc();
    }

    pub(crate) fn committed(&self, header: &Header, runs: &[Run]) {
        debug_assert_eq!(header.runs as usize, runs.len());
        self.objects.inc();
        for run in runs {
            if run.is_junk() {
                self.junk.inc_by(run.count);
            } else {
                self.records.inc_by(run.count);
                self.record_bytes.inc_by(run.body_len() as u64);
            }
        }
    }

    /// Objects committed, and puts that failed.
    pub(crate) fn puts_ended(&self) -> (u64, u64) {
        (self.objects.get(), self.all_put_failures.get())
    }

    /// Whether the sequencer has been silent for long.
    pub(crate) fn is_unheard(&self) -> bool {
        self.unheard.get() != 0
    }

    pub(crate) fn unheard(&self, unheard: bool) {
        self.unheard.set(u64::from(unheard));
    }

    pub(crate) fn answered(&self, status: AckStatus, count: u64) {
        let status = match status {
            AckStatus::Committed => "committed",
            AckStatus::Junk => "junk",
            AckStatus::Sealed => "sealed",
            AckStatus::Conflict => "conflict",
            AckStatus::NotOwner => "not_owner",
            AckStatus::Busy => "busy",
            AckStatus::Invalid => "invalid",
            // These answer nothing.
            AckStatus::Waiting | AckStatus::Unheard => return,
        };
        self.answers
            .get_or_create(&StatusLabel { status })
            .inc_by(count);
    }

    pub(crate) fn refused(&self) {
        self.refused.inc();
    }

    pub(crate) fn wrong_mac(&self) {
        self.wrong_macs.inc();
    }

    pub(crate) fn issued_tail(&self, tail: Position) {
        self.issued_tail.set(tail.0);
    }
}
