//! The step in which a batch takes its positions, and what follows if they are not where they were
//! expected.

use wire::ClientId;
use wire::datagram::place::{self, Answer, Ask, Entry, Facts};

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
    /// How much further on they are; nothing: there are none.
    moved_by: Option<u64>,
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
        let given = base < CLOSED;
        if base != batch.base {
            let expected = Expected {
                first: batch.base,
                end: batch.end(),
                batch: batch.number,
                moved_by: given.then(|| base.wrapping_sub(batch.base)),
            };
            self.correct(&expected, packets);
        }
        batch.reigns &= given;
        if given {
            batch.base = base;
            self.counters.granted.add(batch.fresh);
            self.counters.tokens.add(batch.sum);
        }
    }

    /// Moves the tokens of the batch in its replies and in the memory, or takes them back. What the memory
    /// has forgotten again within the batch is left alone.
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

    /// A reply whose token is taken back is written anew in the second pass.
    fn correct_reply(&self, entry: &mut Entry) {
        if let Some((first, _)) = Answer::granted(entry)
            && self.has(first.0)
        {
            Answer::shift(entry, self.moved_by.unwrap_or_default());
        }
    }

    /// A lane that is in the batch twice is corrected once.
    fn correct_memory(&self, memory: &mut Memory, client: ClientId, lane: wire::Lane) {
        let known = memory.get(client, lane);
        let Some(known) =
            known.filter(|known| known.batch == self.batch && self.has(known.first.0))
        else {
            return;
        };
        *known = match self.moved_by {
            Some(by) => Known {
                first: known.first.plus(by),
                batch: SETTLED,
                ..*known
            },
            None => Known {
                count: 0,
                batch: SETTLED,
                ..*known
            },
        };
    }
}
