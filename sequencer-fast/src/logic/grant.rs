//! The first pass over a batch: every plain grant request is decided and answered.

use wire::Position;
use wire::datagram::place::{self, Answer, Ask, Entry, Facts};
use wire::datagram::{Kind, MAX_DATAGRAM_BYTES, Status};
use wire::limits::{MAX_GRANT, MAX_POSITION};

use super::batch::Batch;
use super::counter::Counter;
use super::counters::{FORGED, LIMITED, STALE};
use super::memory::{Group, Known, Recall};
use super::packets::{Packets, Peer, retain};
use super::shard::Shard;
use crate::limits::POSITIONS_PER_REQUEST;

/// What becomes of a request in the first pass.
enum Decision {
    Token(Position, u32),
    Refused(Status),
    /// The lane has gone on.
    Stale,
}

/// Why a datagram is dropped, as it is counted.
type Reason = &'static str;

impl<P: Peer, C: Counter> Shard<P, C> {
    /// Checks every datagram, drops the bad ones, and answers the grant requests as if the batch began at
    /// the issued tail of its start. Everything else is left for the second pass.
    pub(super) fn decide(&mut self, batch: &mut Batch, packets: &mut impl Packets<P>) {
        let mut received = 0;
        for index in 0..packets.count() {
            let Some(packet) = packets.packet(index) else {
                continue;
            };
            if packet.bytes.is_empty() {
                received += 1;
                self.counters.dropped.count("short");
                continue;
            }
            let kept = retain(packet, |peer, datagram| {
                received += 1;
                let decided = self.decide_datagram(batch, peer, datagram);
                decided
                    .map_err(|reason| self.counters.dropped.count(reason))
                    .is_ok()
            });
            packets.keep(index, kept);
        }
        self.counters.received.add(received);
    }

    fn decide_datagram(
        &mut self,
        batch: &mut Batch,
        peer: P,
        datagram: &mut [u8],
    ) -> Result<(), Reason> {
        if datagram.len() > MAX_DATAGRAM_BYTES {
            // Before the check of the key, as that costs the more the longer it is.
            return Err("length");
        }
        let signer = self.signer.as_mut();
        if signer.is_some_and(|signer| !signer.verify(datagram)) {
            return Err(FORGED);
        }
        let facts = Facts::check(datagram, self.reign.log()).map_err(|error| error.reason())?;
        if facts.reply {
            // [S-9] Else two sequencers could be made to talk to each other.
            return Err("malformed");
        }
        if let Some(limiter) = &mut self.limiter
            && !limiter.admit(peer.address(), cost(facts, datagram), batch.now_ns)
        {
            return Err(LIMITED);
        }
        match facts.kind {
            Kind::Grant if batch.reigns => self.decide_grants(batch, facts, datagram),
            Kind::Grant | Kind::GrantAt | Kind::Tail | Kind::Report | Kind::Restripe => {
                batch.incomplete = true;
                Ok(())
            }
        }
    }

    fn decide_grants(
        &mut self,
        batch: &mut Batch,
        facts: Facts,
        datagram: &mut [u8],
    ) -> Result<(), Reason> {
        let (mut rest, mut waits) = (place::entries_mut(datagram), false);
        while let Some((entry, behind)) = self.grant_plain(batch, facts, rest).split_first_mut() {
            match self.decide_request(batch, facts, Ask::read(entry), &mut waits) {
                Decision::Token(first, count) => Answer::token(first, count).write(entry),
                Decision::Refused(status) => {
                    batch.incomplete = true;
                    Answer::refusal(status).write(entry);
                }
                Decision::Stale => {
                    self.orphan(facts, datagram);
                    return Err(STALE);
                }
            }
            rest = behind;
        }
        place::turn(datagram, self.reign.epoch());
        Ok(())
    }

    /// Grants requests up to the first that is not simply granted: one that is repeated, out of bounds, or
    /// above the reservation. Returns what is left. This is where the time of a sequencer goes.
    fn grant_plain<'a>(
        &mut self,
        batch: &mut Batch,
        facts: Facts,
        mut entries: &'a mut [Entry],
    ) -> &'a mut [Entry] {
        let (start, mut end, number) = (batch.end(), batch.end(), batch.number);
        let limit = batch.reservation.0.min(MAX_POSITION);
        let total = entries.len();
        'blocks: while let Some(first) = entries.first() {
            let (group, _) = Group::of(Ask::read(first).lane);
            let Some(lanes) = self.memory.block(facts.client, group) else {
                break;
            };
            let mut done = 0;
            for entry in entries.iter_mut() {
                let ask = Ask::read(entry);
                let (of, index) = Group::of(ask.lane);
                let Some(known) = lanes.get_mut(index).filter(|_| of == group) else {
                    break;
                };
                let next = end.saturating_add(u64::from(ask.count));
                let plain = ask.request > known.request
                    && ask.count.wrapping_sub(1) < MAX_GRANT
                    && next <= limit;
                if !plain {
                    entries = entries.get_mut(done..).unwrap_or_default();
                    break 'blocks;
                }
                *known = Known {
                    request: ask.request,
                    first: Position(end),
                    count: ask.count,
                    batch: number,
                };
                Answer::grant(entry, Position(end));
                end = next;
                done += 1;
            }
            entries = entries.get_mut(done..).unwrap_or_default();
        }
        batch.sum += end - start;
        batch.fresh += (total - entries.len()) as u64;
        entries
    }

    /// A datagram is dropped as a whole, but the tokens of its other requests stay remembered, should they
    /// be asked for again.
    fn orphan(&mut self, facts: Facts, datagram: &[u8]) {
        let lanes = place::entries(datagram)
            .iter()
            .map(|entry| Ask::read(entry).lane);
        self.orphans.extend(lanes.map(|lane| (facts.client, lane)));
    }

    /// `waits` tells, for a datagram, whether its new tokens need room among the held replies, which is
    /// set aside for all of its replies at once.
    fn decide_request(
        &mut self,
        batch: &mut Batch,
        facts: Facts,
        ask: Ask,
        waits: &mut bool,
    ) -> Decision {
        if ask.count == 0 || ask.count > MAX_GRANT {
            return Decision::Refused(Status::Invalid);
        }
        let Some(known) = self.memory.room(facts.client, ask.lane) else {
            return Decision::Refused(Status::Busy);
        };
        // [S-6]
        match known.recall(ask.request) {
            Recall::New => {}
            Recall::Token(first, count) => {
                self.counters.retries.add(1);
                return Decision::Token(first, count);
            }
            Recall::Stale => return Decision::Stale,
        }
        let (first, count) = (batch.end(), u64::from(ask.count));
        if first.saturating_add(count) > MAX_POSITION {
            // A closed counter looks like this as well; then nothing of the batch is granted.
            return Decision::Refused(Status::Invalid);
        }
        if first + count > batch.reservation.0 && !*waits {
            // [S-10] Where one more reply might not find room, nothing is taken from the counter.
            if !self.held.fits(batch.holds + facts.count) {
                return Decision::Refused(Status::Busy);
            }
            batch.holds += facts.count;
            *waits = true;
        }
        *known = Known {
            request: ask.request,
            first: Position(first),
            count: ask.count,
            batch: batch.number,
        };
        batch.sum += count;
        batch.fresh += 1;
        Decision::Token(Position(first), ask.count)
    }
}

/// Requests that a datagram counts as where its sender is limited: large ones count as several, as the
/// reservation is what a flood of them would use up.
fn cost(facts: Facts, datagram: &[u8]) -> u64 {
    let requests = facts.count as u64;
    match facts.kind {
        Kind::Grant | Kind::GrantAt => {
            let asks = place::entries(datagram).iter().map(Ask::read);
            let positions: u64 = asks.map(|ask| u64::from(ask.count)).sum();
            requests + positions / POSITIONS_PER_REQUEST
        }
        Kind::Tail | Kind::Report | Kind::Restripe => requests,
    }
}
