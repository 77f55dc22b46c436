//! How a shard answers a batch that has been decided.

use wire::Position;
use wire::datagram::{Grant, Header, Reply, Status};
use wire::{Lane, RequestId};

use super::counter::Counter;
use super::counters::STALE;
use super::grant::{Core, Moment, Outcome};
use super::memory::{Asker, Token};
use super::shard::Outbox;
use super::staged::{Batch, Requests, Staged};

impl<P: Copy, C: Counter> Core<P, C> {
    /// Answers every datagram of the batch as a whole: with as many replies as it has requests (S-9).
    pub(super) fn answer(
        &mut self,
        batch: &Batch<P>,
        moment: Option<Moment>,
        out: &mut impl Outbox<P>,
    ) {
        let mut outcomes = 0;
        for staged in batch.iter() {
            self.replies.clear();
            let requests = batch.requests(&staged);
            if let (Some(grants), Some(moment)) = (requests.grants(), moment) {
                let first = outcomes;
                outcomes += grants.len();
                self.answer_grants(&staged, grants, first, moment, out);
            } else {
                self.tell(requests, moment);
                out.send(staged.peer, self.header(&staged), &self.replies);
            }
        }
    }

    /// Sends what was held and is covered by now.
    pub(super) fn release(&mut self, out: &mut impl Outbox<P>) {
        if self.held.is_empty() {
            return;
        }
        let reservation = self.reign.reservation();
        self.held.release(reservation, |peer, header, replies| {
            out.send(peer, header, replies);
        });
        self.counters.held.set(self.held.len() as u64);
    }

    /// Answers a datagram of grant requests, whose outcomes start at `first`.
    fn answer_grants(
        &mut self,
        staged: &Staged<P>,
        grants: &[Grant],
        first: usize,
        moment: Moment,
        out: &mut impl Outbox<P>,
    ) {
        let mut end = Position(0);
        let outcomes = self.outcomes.iter().skip(first);
        for (grant, outcome) in grants.iter().zip(outcomes) {
            let token = match *outcome {
                Outcome::Token(token) => token,
                Outcome::Batch(token) => token.starting_at(moment.base),
                // The tokens of its other requests are remembered, should they be asked for again.
                Outcome::Stale => return self.counters.dropped.count(STALE),
                Outcome::TailMoved => {
                    // The tail that is told stands where it was expected: it is held back by the
                    // reservation, while the counter has gone on.
                    let met = grant.expected_tail == moment.tails.issued;
                    let status = if met { Status::Busy } else { Status::TailMoved };
                    let reply = self.refusal(grant.request, grant.lane, status, Some(moment));
                    self.replies.push(reply);
                    continue;
                }
                Outcome::Refused(status) => {
                    let reply = self.refusal(grant.request, grant.lane, status, Some(moment));
                    self.replies.push(reply);
                    continue;
                }
            };
            end = end.max(token.end());
            let (request, lane) = (grant.request, grant.lane);
            let reply = Reply::new(request, lane, Status::Ok, token.first, token.count);
            self.replies.push(reply);
        }
        // [S-2] As a whole, when the last of its tokens is covered.
        if end > moment.reservation {
            self.hold(staged, grants, end, moment, out);
        } else {
            out.send(staged.peer, self.header(staged), &self.replies);
        }
    }

    /// Holds the replies of a datagram back, or says Busy where there is no room for that.
    fn hold(
        &mut self,
        staged: &Staged<P>,
        grants: &[Grant],
        end: Position,
        moment: Moment,
        out: &mut impl Outbox<P>,
    ) {
        let (peer, header) = (staged.peer, self.header(staged));
        let askers = grants
            .iter()
            .map(|grant| (Asker::of(&header, grant), grant.request));
        let mut numbers = askers
            .clone()
            .map(|(asker, request)| self.memory.held(asker, request));
        if let Some(number) = numbers.next().flatten()
            && self.held.redirect(number, peer, header, &self.replies)
        {
            return;
        }
        if self.held.len() + self.replies.len() <= self.held.bound() {
            let number = self.held.push(peer, header, &self.replies, end);
            for (asker, request) in askers {
                self.memory.hold(asker, request, number);
            }
            let count = self.replies.len() as u64;
            return self.counters.held_total.add(count);
        }
        // Only repeated requests come here: new ones were granted nothing for want of room (S-10).
        for index in 0..self.replies.len() {
            if let Some(reply) = self.replies.get(index).copied()
                && Token::new(reply.first.0, reply.count).end() > moment.reservation
            {
                let busy = self.refusal(reply.request, reply.lane, Status::Busy, Some(moment));
                if let Some(place) = self.replies.get_mut(index) {
                    *place = busy;
                }
            }
        }
        out.send(peer, header, &self.replies);
    }

    /// Replies that grant nothing: tails, or a refusal where this reign may not speak.
    fn tell(&mut self, requests: Requests<'_>, moment: Option<Moment>) {
        match requests {
            Requests::Reports(reports) => {
                for report in reports {
                    let sound = self.is_sound(report);
                    let status = if sound { Status::Ok } else { Status::Invalid };
                    let reply = self.told(report.request, Lane(0), status, moment);
                    self.replies.push(reply);
                }
            }
            Requests::Grants(asked) | Requests::GrantsAt(asked) | Requests::Tails(asked) => {
                for request in asked {
                    let reply = self.told(request.request, request.lane, Status::Ok, moment);
                    self.replies.push(reply);
                }
            }
        }
    }

    fn told(
        &self,
        request: RequestId,
        lane: Lane,
        status: Status,
        moment: Option<Moment>,
    ) -> Reply {
        match (moment, status) {
            (Some(moment), Status::Ok) => {
                let tails = moment.tails;
                Reply::new(request, lane, status, tails.issued, 0).with_durable(tails.durable)
            }
            (Some(_), _) => self.refusal(request, lane, status, moment),
            (None, _) => self.refusal(request, lane, Status::NotReigning, None),
        }
    }

    fn refusal(
        &self,
        request: RequestId,
        lane: Lane,
        status: Status,
        moment: Option<Moment>,
    ) -> Reply {
        match status {
            Status::Busy => self.counters.busy.add(1),
            _ => self.counters.refused.add(1),
        }
        let tails = moment.map(|moment| moment.tails);
        let issued = tails.map(|tails| tails.issued).unwrap_or_default();
        let durable = tails.and_then(|tails| tails.durable);
        Reply::new(request, lane, status, issued, 0).with_durable(durable)
    }

    fn header(&self, staged: &Staged<P>) -> Header {
        staged.header.reply(self.reign.epoch())
    }
}
