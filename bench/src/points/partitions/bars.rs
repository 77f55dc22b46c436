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
}

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
pub(super) struct Costs(BTreeMap<String, (u32, Option<f64>, Cost)>);

impl Costs {
    /// Adds a round.
    pub(super) fn add(&mut self, fault: &Fault, cost: Cost) {
        let found = self.0.entry(fault.name());
        let (rounds, _, most) = found.or_insert((0, fault.bar_ms(), Cost::default()));
        *rounds += 1;
        most.pause = most.pause.max(cost.pause);
        most.healed = most.healed.max(cost.healed);
        most.settling = most.settling.max(cost.settling);
    }

    /// Reports all of them.
    pub(super) fn tell(&self, report: &mut Report) {
        for (name, (rounds, bar, most)) in &self.0 {
            report.figure(&format!("{name}_rounds"), rounds);
            let pause = format!("{name}_pause_ms");
            match bar {
                Some(bar) => report.at_most(&pause, rounded(most.pause), *bar),
                None => report.figure(&pause, rounded(most.pause)),
            }
            for (what, value) in [("healed", most.healed), ("settling", most.settling)] {
                report.at_most(&format!("{name}_{what}_ms"), rounded(value), HEALED_MS);
            }
        }
    }
}
