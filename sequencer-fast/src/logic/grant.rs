//! How a shard decides a batch of requests.

use std::sync::Arc;

use wire::Position;
use wire::datagram::{Grant, MAX_ENTRIES, Reply, Report, Status};
use wire::limits::MAX_POSITION;

use super::counter::{CLOSED, Counter};
use super::counters::ShardCounters;
use super::held::Held;
use super::memory::{Asker, Memory, Place, Recall, Token};
use super::reign::{Reign, Tails};
use super::shard::Limits;
use super::staged::{Batch, Requests};

/// Everything but the batch itself.
#[derive(Debug)]
pub(super) struct Core<P, C: Counter> {
    pub(super) reign: Arc<Reign<C>>,
    pub(super) counters: Arc<ShardCounters>,
    pub(super) memory: Memory,
    pub(super) held: Held<P>,
    /// What becomes of the grant requests of the batch, in order.
    pub(super) outcomes: Vec<Outcome>,
    /// Where the memory has tokens of the batch.
    fresh: Vec<Place>,
    /// Replies of one datagram.
    pub(super) replies: Vec<Reply>,
    /// Positions that the batch wants.
    sum: u64,
}

#[derive(Debug, Clone, Copy)]
pub(super) enum Outcome {
    /// A token that was granted before, or by a condition that held.
    Token(Token),
    /// A token that starts so far into the batch.
    Batch(Token),
    /// The condition did not hold.
    TailMoved,
    /// The lane has gone on.
    Stale,
    Refused(Status),
}

/// Moment at which a batch is answered.
#[derive(Debug, Clone, Copy)]
pub(super) struct Moment {
    /// First position of the batch.
    pub(super) base: Position,
    pub(super) tails: Tails,
    pub(super) reservation: Position,
}

impl<P: Copy, C: Counter> Core<P, C> {
    /// With room for batches of `batch` requests.
    pub(super) fn new(
        reign: Arc<Reign<C>>,
        counters: Arc<ShardCounters>,
        limits: Limits,
        batch: usize,
    ) -> Self {
        Self {
            reign,
            counters,
            memory: Memory::new(limits.retry_memory, limits.seed),
            held: Held::new(limits.held_replies),
            outcomes: Vec::with_capacity(batch),
            fresh: Vec::with_capacity(batch),
            replies: Vec::with_capacity(MAX_ENTRIES),
            sum: 0,
        }
    }

    /// Takes the reports of a batch.
    pub(super) fn hear(&mut self, batch: &Batch<P>) {
        let mut heard = false;
        for staged in batch.iter() {
            if let Requests::Reports(reports) = batch.requests(&staged) {
                for report in reports.iter().filter(|report| self.is_sound(report)) {
                    let stripe = report.stripe().unwrap_or_default();
                    heard |= self.reign.frontiers().report(stripe, report.frontier);
                }
            }
        }
        if heard {
            self.reign.frontiers().advance();
        }
    }

    pub(super) fn is_sound(&self, report: &Report) -> bool {
        let stripes = self.reign.frontiers().stripes();
        report.segment == self.reign.segment()
            && report.frontier.0 < CLOSED
            && report.stripe().is_ok_and(|s| usize::from(s.0) < stripes)
    }

    /// Decides the grant requests of a batch with one addition to the counter. Nothing is granted, and
    /// nothing returned, if this reign may not speak.
    pub(super) fn grant(&mut self, batch: &Batch<P>, now_ns: u64) -> Option<Moment> {
        self.outcomes.clear();
        self.fresh.clear();
        self.sum = 0;
        if !self.reign.reigns(now_ns) {
            return None;
        }
        let tail = self.reign.counter().tail();
        let mut admitted = self.held.len();
        for staged in batch.iter() {
            let (requests, conditional) = match batch.requests(&staged) {
                Requests::Grants(requests) => (requests, false),
                Requests::GrantsAt(requests) => (requests, true),
                Requests::Tails(_) | Requests::Reports(_) => continue,
            };
            // [S-10] Held replies mean that there is no headroom. Where one more might not find room,
            // nothing is taken from the counter.
            let room = admitted + requests.len() <= self.held.bound();
            if room {
                admitted += requests.len();
            }
            for grant in requests {
                let asker = Asker::of(&staged.header, grant);
                let outcome = self.decide(asker, grant, conditional, room, tail);
                self.outcomes.push(outcome);
            }
        }
        self.take()
    }

    fn decide(
        &mut self,
        asker: Asker,
        grant: &Grant,
        conditional: bool,
        room: bool,
        tail: u64,
    ) -> Outcome {
        if grant.check().is_err() {
            return Outcome::Refused(Status::Invalid);
        }
        // [S-6]
        match self.memory.recall(asker, grant.request) {
            Recall::Stale => return Outcome::Stale,
            // [S-8] Whatever the number was used for before: this request is for one token only.
            Recall::Token(token) if conditional && token.first != grant.expected_tail => {
                return Outcome::Refused(Status::Invalid);
            }
            Recall::Batch(_) if conditional => return Outcome::Refused(Status::Invalid),
            Recall::Token(token) => {
                self.counters.retries.add(1);
                return Outcome::Token(token);
            }
            Recall::Batch(token) => {
                self.counters.retries.add(1);
                return Outcome::Batch(token);
            }
            Recall::New => {}
        }
        if !room {
            return Outcome::Refused(Status::Busy);
        }
        if conditional {
            return self.take_at(asker, grant);
        }
        let (first, count) = (self.sum, u64::from(grant.count));
        if tail.saturating_add(first + count) > MAX_POSITION {
            return Outcome::Refused(Status::Invalid);
        }
        self.sum += count;
        let token = Token::new(first, grant.count);
        let place = self.memory.batched(asker, grant.request, token);
        self.fresh.push(place);
        Outcome::Batch(token)
    }

    fn take_at(&mut self, asker: Asker, grant: &Grant) -> Outcome {
        let (expected, count) = (grant.expected_tail.0, u64::from(grant.count));
        if expected.saturating_add(count) > MAX_POSITION {
            return Outcome::Refused(Status::Invalid);
        }
        // [S-8]
        match self.reign.counter().take_at(expected, count) {
            Ok(()) => {
                let token = Token::new(expected, grant.count);
                self.memory.granted(asker, grant.request, token);
                self.count_granted(1, count);
                Outcome::Token(token)
            }
            Err(tail) if tail >= CLOSED => Outcome::Refused(Status::NotReigning),
            Err(_) => Outcome::TailMoved,
        }
    }

    /// Takes the positions of the batch in one step.
    fn take(&mut self) -> Option<Moment> {
        let mut base = 0;
        if self.sum > 0 {
            base = self.reign.counter().take(self.sum);
            self.counters.fetch_adds.add(1);
        }
        let taken = base < CLOSED;
        if taken {
            self.count_granted(self.fresh.len() as u64, self.sum);
        }
        for place in self.fresh.drain(..) {
            self.memory.settle(place, taken.then_some(Position(base)));
        }
        let reservation = self.reign.reservation();
        let tails = self.reign.tails()?;
        taken.then_some(Moment {
            base: Position(base),
            tails,
            reservation,
        })
    }

    fn count_granted(&self, requests: u64, tokens: u64) {
        self.counters.granted.add(requests);
        self.counters.tokens.add(tokens);
    }
}
