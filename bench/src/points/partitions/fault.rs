//! Which faults there are, in which order they are drawn, and what each may cost.

use std::time::Duration;

use rand::Rng;
use rand::rngs::StdRng;
use rand::seq::SliceRandom;

use crate::net::cut::{WAYS, Way};

/// How long a kill, a stop and a cut last, at least: longer than every lease and time-out of [`super::scene`].
const KILLED_MS: u64 = 4000;
const STOPPED_MS: u64 = 6000;
const CUT_MS: u64 = 4500;

/// How much longer at most, in the long form.
const LONGER_MS: u64 = 2500;

/// Longest time without a fault before each.
const CALM_MS: u64 = 500;

/// What happens.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, clap::ValueEnum)]
pub(super) enum Kind {
    /// The sequencer that reigns is killed with SIGKILL.
    KillSequencer,
    /// A stripe-writer is killed.
    KillWriter,
    /// Both at the same moment.
    KillBoth,
    /// The sequencer that reigns stands still for longer than its reign lasts.
    StopSequencer,
    /// A stripe-writer stands still.
    StopWriter,
    /// The sequencer that reigns and its standby do not hear each other.
    SequencerStandby,
    /// The sequencer that reigns does not reach the store.
    SequencerStore,
    /// Clients do not reach the sequencer that reigns.
    SequencerClients,
    /// Stripe-writers do not reach the sequencer that reigns.
    SequencerWriters,
    /// A stripe-writer does not reach the store.
    WriterStore,
    /// A stripe-writer and the others do not hear each other.
    WriterPeers,
    /// Clients do not reach a stripe-writer.
    WriterClients,
    /// A node of etcd is killed.
    EtcdKilled,
    /// A node of etcd is cut off from everybody.
    EtcdCut,
    /// The sequencer that reigns reaches no node of etcd.
    SequencerEtcd,
    /// A stripe-writer reaches no node of etcd.
    WriterEtcd,
}

/// Faults where the settings name everybody.
pub(super) const NAMED: [Kind; 12] = [
    Kind::KillSequencer,
    Kind::KillWriter,
    Kind::KillBoth,
    Kind::StopSequencer,
    Kind::StopWriter,
    Kind::SequencerStandby,
    Kind::SequencerStore,
    Kind::SequencerClients,
    Kind::SequencerWriters,
    Kind::WriterStore,
    Kind::WriterPeers,
    Kind::WriterClients,
];

/// Faults of etcd, where everybody is found there.
pub(super) const OF_ETCD: [Kind; 4] = [
    Kind::EtcdKilled,
    Kind::EtcdCut,
    Kind::SequencerEtcd,
    Kind::WriterEtcd,
];

/// Faults of daemons that are looked at with etcd as well, in the long form.
pub(super) const BESIDE_ETCD: [Kind; 4] = [
    Kind::KillSequencer,
    Kind::KillWriter,
    Kind::StopSequencer,
    Kind::StopWriter,
];

impl Kind {
    /// Whether packets are dropped.
    fn is_cut(self) -> bool {
        !matches!(
            self,
            Self::KillSequencer
                | Self::KillWriter
                | Self::KillBoth
                | Self::StopSequencer
                | Self::StopWriter
                | Self::EtcdKilled
        )
    }

    fn lasts_ms(self) -> u64 {
        match self {
            Self::StopSequencer | Self::StopWriter => STOPPED_MS,
            kind if kind.is_cut() => CUT_MS,
            _ => KILLED_MS,
        }
    }
}

/// What happens in a round.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Fault {
    /// What.
    pub(super) kind: Kind,
    /// Which packets are lost, of a cut.
    pub(super) way: Way,
    /// Time before it.
    pub(super) calm: Duration,
    /// How long.
    pub(super) lasts: Duration,
}

impl Fault {
    /// Its name in reports.
    #[must_use]
    pub(super) fn name(&self) -> String {
        let value = clap::ValueEnum::to_possible_value(&self.kind);
        let kind = value.map_or_else(String::new, |value| value.get_name().to_owned());
        match self.kind.is_cut() {
            true => format!("{kind}-{}", self.way.name()),
            false => kind,
        }
    }
}

/// So many decks of faults: in each every kind is once, and in three that follow one another every way of a cut.
pub(super) fn draw(kinds: &[Kind], decks: usize, longer: bool, random: &mut StdRng) -> Vec<Fault> {
    let first: Vec<_> = kinds
        .iter()
        .map(|_| random.random_range(0..WAYS.len()))
        .collect();
    let mut all = Vec::new();
    for deck in 0..decks {
        let mut faults = Vec::new();
        for (kind, first) in kinds.iter().zip(&first) {
            let more = random.random_range(0..=LONGER_MS);
            let lasts = kind.lasts_ms() + if longer { more } else { 0 };
            faults.push(Fault {
                kind: *kind,
                way: WAYS[(first + deck) % WAYS.len()],
                calm: Duration::from_millis(random.random_range(0..=CALM_MS)),
                lasts: Duration::from_millis(lasts),
            });
        }
        faults.shuffle(random);
        all.extend(faults);
    }
    all
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use rand::SeedableRng;

    use super::*;

    fn drawn(decks: usize, longer: bool, seed: u64) -> Vec<Fault> {
        draw(&NAMED, decks, longer, &mut StdRng::seed_from_u64(seed))
    }

    #[test]
    fn the_same_seed_draws_the_same_faults() {
        assert_eq!(drawn(4, true, 7), drawn(4, true, 7));
        assert_ne!(drawn(4, true, 7), drawn(4, true, 8));
    }

    #[test]
    fn a_deck_has_every_kind_once() {
        for seed in 0..50 {
            let kinds: BTreeSet<_> = drawn(1, false, seed).iter().map(|f| f.kind).collect();
            assert_eq!(kinds.len(), NAMED.len(), "seed {seed}");
        }
    }

    #[test]
    fn three_decks_have_every_way_of_every_cut() {
        let cuts = NAMED.iter().filter(|kind| kind.is_cut()).count();
        for seed in 0..50 {
            let names: BTreeSet<_> = drawn(3, true, seed).iter().map(Fault::name).collect();
            let expected = cuts * WAYS.len() + NAMED.len() - cuts;
            assert_eq!(names.len(), expected, "seed {seed}: {names:?}");
        }
    }

    #[test]
    fn names_tell_kind_and_way() {
        let fault = Fault {
            kind: Kind::WriterPeers,
            way: Way::Out,
            calm: Duration::ZERO,
            lasts: Duration::ZERO,
        };
        assert_eq!(fault.name(), "writer-peers-out");
        let kind = Kind::KillBoth;
        assert_eq!(Fault { kind, ..fault }.name(), "kill-both");
    }
}
