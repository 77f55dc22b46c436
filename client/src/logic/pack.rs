//! Requests to the sequencer that have no answer yet: when each is sent, and with which others.
//!
//! All that is due goes out together, requests of one kind packed into datagrams of up to so many entries,
//! the full ones before the last. A request that gets no answer is due again after a pause that doubles, with
//! the same number (S-6). Requests that were sent together have the same pauses and are repeated together.

use std::collections::BTreeMap;
use std::time::Duration;

use wire::datagram::{Grant, Kind};
use wire::{Lane, RequestId};

use crate::logic::backoff::Backoff;

/// How often a request shares a datagram with others. After that it goes alone: a path that drops long
/// datagrams may let short ones through.
const SENT_TOGETHER: u32 = 3;

/// The requests under way; `A` is who waits for an answer.
#[derive(Debug)]
pub struct Asks<A> {
    /// First and longest pause.
    pauses: (Duration, Duration),
    asks: BTreeMap<(Lane, RequestId), Ask<A>>,
}

#[derive(Debug)]
struct Ask<A> {
    kind: Kind,
    grant: Grant,
    pauses: Backoff,
    due: Duration,
    /// How often it was sent.
    sent: u32,
    waiter: A,
}

/// What is to be sent now.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Packed {
    /// The entries of each datagram. Those of one kind and length follow one another.
    pub datagrams: Vec<(Kind, Vec<Grant>)>,
    /// Requests among them that were sent before.
    pub repeated: u64,
}

impl<A> Asks<A> {
    pub fn new(pauses: (Duration, Duration)) -> Self {
        Self {
            pauses,
            asks: BTreeMap::new(),
        }
    }

    /// Adds a request, which is due at once.
    pub fn add(&mut self, kind: Kind, grant: Grant, now: Duration, waiter: A) {
        let ask = Ask {
            kind,
            grant,
            pauses: Backoff::new(self.pauses),
            due: now,
            sent: 0,
            waiter,
        };
        self.asks.insert((grant.lane, grant.request), ask);
    }

    /// Takes a request out, because it is answered or nobody waits for it.
    pub fn remove(&mut self, lane: Lane, request: RequestId) -> Option<A> {
        self.asks.remove(&(lane, request)).map(|ask| ask.waiter)
    }

    /// Makes every request due at once, as if it had never been sent: another sequencer reigns.
    pub fn renew(&mut self, now: Duration) {
        for ask in self.asks.values_mut() {
            ask.pauses.reset();
            ask.due = now;
            ask.sent = 0;
        }
    }

    /// All requests that are due, packed by `most` a datagram, in the order of their lanes. `chance` in
    /// `[0, 1)` spreads the next repetitions of many clients.
    pub fn take_due(&mut self, now: Duration, chance: f64, most: usize) -> Packed {
        let mut packed = Packed::default();
        for kind in [Kind::Grant, Kind::Tail, Kind::Restripe] {
            let (mut entries, mut alone) = (Vec::new(), Vec::new());
            for ask in self.asks.values_mut() {
                if ask.kind != kind || ask.due > now {
                    continue;
                }
                packed.repeated += u64::from(ask.sent > 0);
                ask.sent = ask.sent.saturating_add(1);
                // The first copy waits for all of its time: a jitter below it would double the load.
                ask.due = now + ask.pauses.pause(chance).max(self.pauses.0);
                if ask.sent > SENT_TOGETHER {
                    alone.push((kind, vec![ask.grant]));
                } else {
                    entries.push(ask.grant);
                }
            }
            let datagrams = entries
                .chunks(most.max(1))
                .map(|part| (kind, part.to_vec()));
            packed.datagrams.extend(datagrams);
            packed.datagrams.append(&mut alone);
        }
        packed
    }

    /// Whether a request of a kind was sent and has no answer.
    pub fn is_owed(&self, kind: Kind) -> bool {
        let mut asks = self.asks.values();
        asks.any(|ask| ask.kind == kind && ask.sent > 0)
    }

    /// When the next request is due.
    pub fn next_due(&self) -> Option<Duration> {
        self.asks.values().map(|ask| ask.due).min()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MS: Duration = Duration::from_millis(1);

    fn asks(lanes: u32) -> Asks<u32> {
        let mut asks = Asks::new((50 * MS, 1000 * MS));
        for lane in (0..lanes).rev() {
            let grant = Grant::new(Lane(lane), RequestId(u64::from(100 + lane)), lane + 1);
            asks.add(Kind::Grant, grant, Duration::ZERO, lane);
        }
        asks
    }

    fn lanes(packed: &Packed) -> Vec<(Kind, Vec<u32>)> {
        let lanes = |entries: &Vec<Grant>| entries.iter().map(|grant| grant.lane.0).collect();
        let all = packed.datagrams.iter();
        all.map(|(kind, entries)| (*kind, lanes(entries))).collect()
    }

    #[test]
    fn what_is_due_is_packed_by_kind_in_the_order_of_lanes() {
        let mut asks = asks(7);
        let tail = Grant::new(Lane(32), RequestId(9), 0);
        asks.add(Kind::Tail, tail, Duration::ZERO, 9);
        let packed = asks.take_due(MS, 0.5, 3);
        let expected = [
            (Kind::Grant, vec![0, 1, 2]),
            (Kind::Grant, vec![3, 4, 5]),
            (Kind::Grant, vec![6]),
            (Kind::Tail, vec![32]),
        ];
        assert_eq!((lanes(&packed), packed.repeated), (expected.to_vec(), 0));
        assert_eq!(asks.take_due(MS, 0.5, 3), Packed::default());
    }

    #[test]
    fn what_is_never_answered_goes_alone_in_the_end() {
        let mut asks = asks(4);
        let mut now = Duration::ZERO;
        for turn in 0..6 {
            let packed = asks.take_due(now, 0.0, 29);
            let together = turn < SENT_TOGETHER;
            assert_eq!(
                packed.datagrams.len(),
                if together { 1 } else { 4 },
                "turn={turn}"
            );
            now += 1000 * MS;
        }
    }

    #[test]
    fn an_answer_is_owed_from_the_sending_on() {
        let mut asks = asks(1);
        assert!(!asks.is_owed(Kind::Grant), "not sent");
        asks.take_due(Duration::ZERO, 0.5, 29);
        assert!(asks.is_owed(Kind::Grant) && !asks.is_owed(Kind::Tail));
        asks.remove(Lane(0), RequestId(100));
        assert!(!asks.is_owed(Kind::Grant));
    }

    #[test]
    fn s6_after_a_switch_everything_goes_again_at_once_with_its_number() {
        let mut asks = asks(3);
        let first = asks.take_due(Duration::ZERO, 0.5, 29);
        for now in [100, 1000, 9000] {
            asks.take_due(now * MS, 0.5, 29);
        }
        asks.renew(9001 * MS);
        assert_eq!(asks.take_due(9001 * MS, 0.5, 29), first);
        assert_eq!(asks.next_due(), Some(9051 * MS), "the pauses begin anew");
    }

    #[test]
    fn s6_what_has_no_answer_goes_again_with_its_number_and_its_neighbours() {
        let mut asks = asks(3);
        let first = asks.take_due(Duration::ZERO, 0.9, 29);
        assert_eq!(asks.remove(Lane(1), RequestId(101)), Some(1));
        assert_eq!(asks.remove(Lane(1), RequestId(101)), None);
        assert_eq!(asks.next_due(), Some(50 * MS));
        assert_eq!(asks.take_due(49 * MS, 0.1, 29), Packed::default());
        let again = asks.take_due(50 * MS, 0.0, 29);
        let entries = |packed: &Packed| packed.datagrams[0].1.clone();
        assert_eq!(entries(&again), [entries(&first)[0], entries(&first)[2]]);
        assert_eq!((again.datagrams.len(), again.repeated), (1, 2));
        // Twice the pause, less the jitter.
        assert_eq!(asks.next_due(), Some(100 * MS));
    }
}
