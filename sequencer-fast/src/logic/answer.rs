//! The second pass over a batch: what needs the tails, a condition, or the reservation.

use wire::datagram::place::{self, Answer, Ask, Entry, Facts};
use wire::datagram::{Kind, Report, Restripe, Status};
use wire::limits::{MAX_GRANT, MAX_POSITION};
use wire::{Fixed, Position, StripeId};

use super::batch::Batch;
use super::counter::{CLOSED, Counter};
use super::counters::STALE;
use super::memory::{Known, Recall};
use super::packets::{Packets, Peer, retain};
use super::reign::Tails;
use super::shard::{SETTLED, Shard};

impl<P: Peer, C: Counter> Shard<P, C> {
    /// Completes every datagram as a whole: with as many replies as it has requests (S-9). What has to wait
    /// is taken out of its packet.
    pub(super) fn finish(&mut self, batch: &mut Batch, packets: &mut impl Packets<P>) {
        for index in 0..packets.count() {
            if let Some(packet) = packets.packet(index) {
                let kept = retain(packet, |peer, datagram| {
                    self.finish_datagram(batch, peer, datagram)
                });
                packets.keep(index, kept);
            }
        }
    }

    /// Whether the datagram is answered now.
    fn finish_datagram(&mut self, batch: &mut Batch, peer: P, datagram: &mut [u8]) -> bool {
        let Ok(facts) = Facts::check(datagram, self.reign.log()) else {
            return false;
        };
        let tails = self.reign.tails().filter(|_| batch.reigns);
        let Some(tails) = tails else {
            self.refuse(batch.now_ns, facts, datagram);
            place::turn(datagram, self.reign.epoch());
            return true;
        };
        match facts.kind {
            Kind::Grant => self.complete_refusals(tails, datagram),
            Kind::GrantAt => {
                if !self.grant_at(batch, facts, datagram) {
                    self.counters.dropped.count(STALE);
                    return false;
                }
            }
            Kind::Tail => {
                for entry in place::entries_mut(datagram) {
                    told(tails).write(entry);
                }
            }
            Kind::Report => self.hear(datagram),
            Kind::Restripe => self.restripe(tails, datagram),
        }
        place::turn(datagram, self.reign.epoch());
        let tokens = place::entries(datagram).iter().filter_map(Answer::granted);
        let end = tokens
            .map(|(first, count)| first.plus(u64::from(count)))
            .max();
        // [S-2] As a whole, when the last of its tokens is covered.
        match end {
            Some(end) if end > self.reign.reservation() => {
                self.hold(peer, facts, datagram, end, tails)
            }
            _ => true,
        }
    }

    /// Every request is answered with the news that this reign may not speak.
    fn refuse(&self, now_ns: u64, facts: Facts, datagram: &mut [u8]) {
        // Standbys leave a reign alone that is about to grant.
        let status = match self.reign.seals(now_ns) {
            true => Status::Sealing,
            false => Status::NotReigning,
        };
        for entry in place::entries_mut(datagram) {
            self.counters.refused.add(1);
            if facts.kind == Kind::Report {
                place::clear_lane(entry);
            }
            Answer::refusal(status).write(entry);
        }
    }

    /// Adds the tails to the refusals of the first pass.
    fn complete_refusals(&self, tails: Tails, datagram: &mut [u8]) {
        for entry in place::entries_mut(datagram) {
            if let Ok(status) = Answer::status(entry)
                && status != Status::Ok
            {
                self.refusal(status, tails).write(entry);
            }
        }
    }

    fn refusal(&self, status: Status, tails: Tails) -> Answer {
        match status {
            Status::Busy => self.counters.busy.add(1),
            _ => self.counters.refused.add(1),
        }
        match status {
            Status::NotReigning | Status::Sealing => Answer::refusal(status),
            _ => Answer {
                status,
                ..told(tails)
            },
        }
    }

    /// Decides a datagram of conditional grants; false if one of its lanes has gone on.
    fn grant_at(&mut self, batch: &mut Batch, facts: Facts, datagram: &mut [u8]) -> bool {
        // [S-10] Room for all of its replies at once, if they have to wait.
        let fits = self.held.fits(batch.holds + facts.count);
        let mut waits = false;
        for entry in place::entries_mut(datagram) {
            let Some(answer) = self.grant_one_at(fits, facts, Ask::read(entry)) else {
                return false;
            };
            answer.write(entry);
            let end = answer.first.plus(u64::from(answer.count));
            waits |= answer.count > 0 && end > batch.reservation;
        }
        if waits {
            batch.holds += facts.count;
        }
        true
    }

    /// The answer to a conditional grant; nothing if its lane has gone on.
    fn grant_one_at(&mut self, fits: bool, facts: Facts, ask: Ask) -> Option<Answer> {
        // As after what the batch has taken so far.
        let tails = self.reign.tails();
        let refused = match self.decide_at(fits, facts, ask, tails) {
            Ok((first, count)) => return Some(Answer::token(first, count)),
            Err(refused) => refused?,
        };
        let told = tails.map(|tails| self.refusal(refused, tails));
        Some(told.unwrap_or(Answer::refusal(Status::NotReigning)))
    }

    /// The token, or why there is none: nothing if the lane has gone on.
    fn decide_at(
        &mut self,
        fits: bool,
        facts: Facts,
        ask: Ask,
        tails: Option<Tails>,
    ) -> Result<(Position, u32), Option<Status>> {
        let (expected, count) = (ask.expected_tail.0, u64::from(ask.count));
        if ask.count == 0 || ask.count > MAX_GRANT {
            return Err(Some(Status::Invalid));
        }
        // [S-6]
        let known = self.memory.get(facts.client, ask.lane);
        match known.map_or(Recall::New, |known| known.recall(ask.request)) {
            Recall::Stale => return Err(None),
            // [S-8] Whatever the number was used for before: this request is for one token only.
            Recall::Token(first, _) if first != ask.expected_tail => {
                return Err(Some(Status::Invalid));
            }
            Recall::Token(first, count) => {
                self.counters.retries.add(1);
                return Ok((first, count));
            }
            Recall::New => {}
        }
        if expected.saturating_add(count) > MAX_POSITION {
            return Err(Some(Status::Invalid));
        }
        if !fits {
            return Err(Some(Status::Busy));
        }
        // [S-8]
        match self.reign.counter().take_at(expected, count) {
            Ok(()) => {}
            Err(tail) if tail >= CLOSED => return Err(Some(Status::NotReigning)),
            // The tail that is told stands where it was expected: it is held back by the reservation, while
            // the counter has gone on.
            Err(_) if tails.is_some_and(|tails| tails.issued == ask.expected_tail) => {
                return Err(Some(Status::Busy));
            }
            Err(_) => return Err(Some(Status::TailMoved)),
        }
        self.counters.granted.add(1);
        self.counters.tokens.add(count);
        if let Some(known) = self.memory.room(facts.client, ask.lane) {
            *known = Known {
                request: ask.request,
                first: ask.expected_tail,
                count: ask.count,
                batch: SETTLED,
            };
        }
        Ok((ask.expected_tail, ask.count))
    }

    /// Takes the reports of a datagram, and tells the tails.
    fn hear(&self, datagram: &mut [u8]) {
        let frontiers = self.reign.frontiers();
        let mut heard = false;
        for entry in place::entries(datagram) {
            if let Some((stripe, frontier)) = self.sound(entry) {
                heard |= frontiers.report(stripe, frontier);
            }
        }
        if heard {
            frontiers.advance();
        }
        let tails = self.reign.tails();
        for entry in place::entries_mut(datagram) {
            let answer = match (tails, self.sound(entry)) {
                (Some(tails), Some(_)) => told(tails),
                (Some(tails), None) => self.refusal(Status::Invalid, tails),
                (None, _) => Answer::refusal(Status::NotReigning),
            };
            place::clear_lane(entry);
            answer.write(entry);
        }
    }

    /// Takes the wishes for another layout (H-5).
    fn restripe(&self, tails: Tails, datagram: &mut [u8]) {
        for entry in place::entries_mut(datagram) {
            let status = match Restripe::read(entry) {
                Ok(wish) => {
                    self.reign
                        .wish()
                        .ask(wish.segment, wish.stripes, wish.unit, tails.issued)
                }
                Err(_) => Status::Invalid,
            };
            let answer = match status {
                Status::Ok => told(tails),
                status => self.refusal(status, tails),
            };
            answer.write(entry);
        }
    }

    /// The stripe and frontier of a report on this segment, if it can be true.
    fn sound(&self, entry: &Entry) -> Option<(StripeId, Position)> {
        let report = Report::read(entry).ok()?;
        let stripe = report.stripe().ok()?;
        let sound = report.segment == self.reign.segment()
            && report.frontier.0 < CLOSED
            && usize::from(stripe.0) < self.reign.frontiers().stripes();
        sound.then_some((stripe, report.frontier))
    }

    /// Holds a reply back until `end` is covered, or says Busy where there is no room for that; whether it
    /// is sent now.
    fn hold(
        &mut self,
        peer: P,
        facts: Facts,
        datagram: &mut [u8],
        end: Position,
        tails: Tails,
    ) -> bool {
        if self.held.redirect(peer, facts.client, datagram) {
            return false;
        }
        if self.held.push(peer, facts.client, datagram, end) {
            self.counters.held_total.add(facts.count as u64);
            return false;
        }
        // Repeated requests come here, and what other shards have pushed behind the reservation: no other
        // new one was granted anything for want of room (S-10). They are remembered.
        let reservation = self.reign.reservation();
        for entry in place::entries_mut(datagram) {
            let granted = Answer::granted(entry);
            let waits = |(first, count): (Position, u32)| first.plus(count.into()) > reservation;
            if granted.is_some_and(waits) {
                // [S-2] Also where the reign ends at this moment: the next one grants these positions.
                self.refusal(Status::Busy, tails).write(entry);
            }
        }
        true
    }
}

/// The tails.
fn told(tails: Tails) -> Answer {
    Answer {
        status: Status::Ok,
        first: tails.issued,
        count: 0,
        durable: tails.durable,
    }
}
