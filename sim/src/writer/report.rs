//! Reports of frontiers, and holes that ripen: `stripe-writer/src/net/report.rs`.

use std::time::Duration;

use catalog::Heard;
use wire::datagram::{self, Datagram, Grant, Header, Kind, Reply, Report, Status};
use wire::{ClientId, Fixed, Lane, RequestId};

use super::{Env, Held, LOG, MS, Mutation, Post, ProcId, Timer, Writer, place_of};
use crate::world::SEQUENCERS;

const REPORT_EVERY: u64 = 80 * MS;

/// Time without an answer to a report after which another sequencer may reign.
const REPORT_PATIENCE: Duration = Duration::from_millis(150);

impl Writer {
    pub(super) fn tick(&mut self, env: &mut Env) {
        if self.leaving {
            return;
        }
        env.timer(self.me, REPORT_EVERY, Timer::Tick);
        let now = env.clock(self.me);
        let mut ripe = self.clock.ripe(now);
        if env.is(Mutation::FillAhead) {
            ripe = env.store.told.plus(3);
        }
        for task in self.tasks.values_mut().filter(|task| !task.stopping) {
            task.stripe.fill(task.slot(ripe), now);
        }
        self.report(env);
    }

    fn report(&mut self, env: &mut Env) {
        let newest = self.entry.as_ref().and_then(|entry| entry.segments.last());
        let Some(newest) = newest.map(|segment| segment.id) else {
            return;
        };
        let mut reports = Vec::new();
        for (key, held) in &self.held {
            let Held::Serving(no) = held else {
                continue;
            };
            let Some(task) = self.tasks.get(no).filter(|_| key.0 == newest) else {
                continue;
            };
            let mut frontier = task.frontier;
            if env.is(Mutation::FrontierAhead) {
                frontier = frontier.plus(u64::from(task.stripe.flights() > 0));
            }
            self.request += 1;
            let position = task.chain.position(frontier);
            reports.push(Report::new(
                RequestId(self.request),
                newest,
                key.1,
                position,
            ));
        }
        let now = env.clock(self.me);
        let patient = |since| now.saturating_sub(since) < REPORT_PATIENCE;
        if !self.unanswered.is_none_or(patient) {
            self.reigning.doubt(now);
        }
        self.unanswered.get_or_insert(now);
        let all = self.reigning.take_due(now);
        if reports.is_empty() {
            // [H-1] Who owns nothing is to know which holes are old when it takes a stripe over.
            self.request += 1;
            let question = Grant::new(Lane(0), RequestId(self.request), 0);
            return self.send(Kind::Tail, &[question], all, env);
        }
        self.send(Kind::Report, &reports, all, env);
    }

    fn send<T: Fixed>(&self, kind: Kind, entries: &[T], all: bool, env: &mut Env) {
        let header = Header::request(kind, LOG, self.client(), entries.len());
        let mut bytes = vec![0; header.datagram_len()];
        if datagram::write(header, entries, &mut bytes).is_err() {
            return;
        }
        let current = self.reigning.current();
        for place in SEQUENCERS.filter(|place| all || usize::from(*place) == current) {
            env.ask(self.me, Post::Sequencer(place), &bytes);
        }
    }

    fn client(&self) -> ClientId {
        ClientId(1000 + self.me as u64)
    }

    /// An answer to a report.
    pub(super) fn heard(&mut self, from: ProcId, bytes: &[u8], env: &Env) {
        let Ok(datagram) = Datagram::parse(bytes, LOG) else {
            return;
        };
        let Some(place) = place_of(from, env) else {
            return;
        };
        let (now, epoch) = (env.clock(self.me), datagram.header.epoch);
        let replies: Vec<_> = datagram.entries::<Reply>().flatten().collect();
        let Some(Ok(status)) = replies.first().map(Reply::status) else {
            return;
        };
        let heard = self.reigning.heard(place.into(), epoch, status, now);
        if !matches!(heard, Heard::Reigns { .. }) {
            return;
        }
        self.unanswered = None;
        let told = replies
            .iter()
            .filter(|reply| reply.status() == Ok(Status::Ok));
        if let Some(tail) = told.map(|reply| reply.first).max() {
            self.clock.told(tail, now);
        }
    }
}
