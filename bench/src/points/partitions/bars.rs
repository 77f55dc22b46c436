//! What each fault may cost, and what it cost.

use std::collections::BTreeMap;

use super::fault::{Fault, Kind};
use super::scene::DETECT_MS;
use crate::measure::round as rounded;
use crate::report::Report;

/// Time that a takeover of a reign, or of stripes, may take besides its detection, in milliseconds.
const TAKEOVER_MS: f64 = 1000.0;

/// Longest pause of a stripe whose owner is killed: until clients leave it as well.
const KILLED_WRITER_MS: f64 = 3000.0;

/// Longest pause when a sequencer dies with it: seals wait for the stripes.
const KILLED_BOTH_MS: f64 = 4000.0;

/// Longest pause of a stripe whose owner stands still: clients find no closed port, and leave it after four seconds.
const STOPPED_WRITER_MS: f64 = 5000.0;

/// Longest pause by a fault of etcd, or of a way to it: none is its doing, and other programs run here.
const CALM_MS: f64 = 1000.0;

/// Longest time from the heal until every client has an acknowledgement of every stripe, and longest pause of a stripe
/// from then on, until every daemon is back.
const HEALED_MS: f64 = 5000.0;

impl Fault {
    /// Longest pause of a stripe while it lasts, in milliseconds; `None` where what is cut off is needed, and the log
    /// waits for the heal.
    fn bar_ms(&self) -> Option<f64> {
        let takeover = f64::from(DETECT_MS) + TAKEOVER_MS;
        match self.kind {
            Kind::KillSequencer | Kind::StopSequencer => Some(takeover),
            Kind::SequencerStandby | Kind::SequencerStore => Some(takeover),
            Kind::KillWriter => Some(KILLED_WRITER_MS),
            Kind::KillBoth => Some(KILLED_BOTH_MS),
            Kind::StopWriter => Some(STOPPED_WRITER_MS),
            Kind::EtcdKilled | Kind::EtcdCut | Kind::SequencerEtcd | Kind::WriterEtcd => {
                Some(CALM_MS)
            }
            Kind::SequencerClients
            | Kind::SequencerWriters
            | Kind::WriterStore
            | Kind::WriterPeers
            | Kind::WriterClients => None,
        }
    }

    /// Longest time from the heal until everybody goes on.
    fn healed_bar_ms(&self) -> f64 {
        match self.kind {
            Kind::WriterStore => HEALED_MS.max(self.lasts.as_secs_f64() * 1000.0 + SILENT_MS),
            _ => HEALED_MS,
        }
    }
}

/// What a connection to the store adds to the time of a cut in which it was silent: it sends again after pauses that
/// double, the last of which is as long as all before it.
const SILENT_MS: f64 = 2000.0;

/// What a round cost, in milliseconds.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Cost {
    /// Longest pause of a stripe in the fault.
    pub(super) pause: f64,
    /// From the heal until every client has an acknowledgement of every stripe.
    pub(super) healed: f64,
    /// Longest pause of a stripe from then until every daemon is back.
    pub(super) settling: f64,
}

/// The most that each fault cost, by its name.
#[derive(Debug, Default)]
pub(super) struct Costs(BTreeMap<String, Most>);

#[derive(Debug, Default)]
struct Most {
    rounds: u32,
    pause_bar: Option<f64>,
    /// Of the round with the longest fault.
    healed_bar: f64,
    cost: Cost,
}

impl Costs {
    /// Adds a round.
    pub(super) fn add(&mut self, fault: &Fault, cost: Cost) {
        let most = self.0.entry(fault.name()).or_default();
        most.rounds += 1;
        most.pause_bar = fault.bar_ms();
        most.healed_bar = most.healed_bar.max(fault.healed_bar_ms());
        most.cost.pause = most.cost.pause.max(cost.pause);
        most.cost.healed = most.cost.healed.max(cost.healed);
        most.cost.settling = most.cost.settling.max(cost.settling);
    }

    /// Reports all of them.
    pub(super) fn tell(&self, report: &mut Report) {
        for (name, most) in &self.0 {
            report.figure(&format!("{name}_rounds"), most.rounds);
            let (pause, cost) = (format!("{name}_pause_ms"), most.cost);
            match most.pause_bar {
                Some(bar) => report.at_most(&pause, rounded(cost.pause), bar),
                None => report.figure(&pause, rounded(cost.pause)),
            }
            let healed = format!("{name}_healed_ms");
            report.at_most(&healed, rounded(cost.healed), most.healed_bar);
            let settling = format!("{name}_settling_ms");
            report.at_most(&settling, rounded(cost.settling), HEALED_MS);
        }
    }
}
