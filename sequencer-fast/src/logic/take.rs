//! The step in which a batch takes its positions, and what follows if they are not where they were
//! expected.

use wire::datagram::place::{self, Answer, Ask, Entry, Facts};
use wire::{ClientId, Lane};

use super::batch::Batch;
use super::counter::{CLOSED, Counter};
use super::memory::{Known, Memory};
use super::packets::{Packets, Peer, retain};
use super::shard::{SETTLED, Shard};

/// Positions that a batch was expected to get.
struct Expected {
    first: u64,
    end: u64,
    batch: u32,
    /// How much further on they are.
    moved_by: u64,
}

impl<P: Peer, C: Counter> Shard<P, C> {
    /// Takes the positions of the batch with one addition to the counter.
    pub(super) fn take(&mut self, batch: &mut Batch, packets: &mut impl Packets<P>) {
        if batch.sum == 0 {
            batch.reigns &= batch.base < CLOSED;
            return;
        }
        let base = self.reign.counter().take(batch.sum);
        self.counters.fetch_adds.add(1);
        if base >= CLOSED {
            // Nothing was given, and what was written and remembered is never told: the counter stays
            // closed.
            batch.reigns = false;
            return;
        }
        if base != batch.base {
            let expected = Expected {
                first: batch.base,
                end: batch.end(),
                batch: batch.number,
                moved_by: base.wrapping_sub(batch.base),
            };
            self.correct(&expected, packets);
        }
        batch.base = base;
        self.counters.granted.add(batch.fresh);
        self.counters.tokens.add(batch.sum);
    }

    /// Moves the tokens of the batch in its replies and in the memory. What the memory has forgotten again
    /// within the batch is left alone.
    fn correct(&mut self, expected: &Expected, packets: &mut impl Packets<P>) {
        let log = self.reign.log();
        for index in 0..packets.count() {
            let Some(packet) = packets.packet(index) else {
                continue;
            };
            retain(packet, |_, datagram| {
                if let Ok(facts) = Facts::check(datagram, log)
                    && facts.reply
                {
                    for entry in place::entries_mut(datagram) {
                        let lane = Ask::read(entry).lane;
                        expected.correct_reply(entry);
                        expected.correct_memory(&mut self.memory, facts.client, lane);
                    }
                }
                true
            });
        }
        for (client, lane) in &self.orphans {
            expected.correct_memory(&mut self.memory, *client, *lane);
        }
    }
}

impl Expected {
    fn has(&self, first: u64) -> bool {
        (self.first..self.end).contains(&first)
    }

    fn correct_reply(&self, entry: &mut Entry) {
        if let Some((first, _)) = Answer::granted(entry)
            && self.has(first.0)
        {
            Answer::shift(entry, self.moved_by);
        }
    }

    /// A lane that is in the batch twice is corrected once.
    fn correct_memory(&self, memory: &mut Memory, client: ClientId, lane: Lane) {
        let known = memory.get(client, lane);
        let Some(known) =
            known.filter(|known| known.batch == self.batch && self.has(known.first.0))
        else {
            return;
        };
        *known = Known {
            first: known.first.plus(self.moved_by),
            batch: SETTLED,
            ..*known
        };
    }
}
