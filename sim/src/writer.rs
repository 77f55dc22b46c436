//! A stripe-writer: `stripe_writer::logic` with the order of steps of its tasks.

use std::collections::BTreeMap;
use std::rc::Rc;
use std::time::Duration;

use catalog::{Heard, Reigning};
use stripe_writer::logic::action::{Action, Config, FlightId};
use stripe_writer::logic::hole::HoleClock;
use stripe_writer::logic::stripe::Stripe;
use wire::control::ControlEntry;
use wire::datagram::{self, Datagram, Header as Head, Kind, Reply, Report, Status};
use wire::frame::{Ack, AckStatus, Append, Place, Seal};
use wire::object::{Author, ChainId, Header};
use wire::{
    ClientId, Epoch, Identity, OwnerNumber, RequestId, Run, RunBody, Slot, StripeId, WriterId,
};

use crate::calls::{Calls, Outcome, What};
use crate::env::{Env, LOG, MS};
use crate::event::{Input, Post, ProcId, Timer};
use crate::mutation::Mutation;
use crate::store::Found;
use crate::world::SEQUENCERS;

/// Age at which a create is verified (C-7).
pub const MAX_COMMIT_AGE: Duration = Duration::from_millis(500);

/// What superseded objects are kept for: many times longer than a commit may take without being verified.
pub const GRACE: u64 = 3000 * MS;

const REPORT_EVERY: u64 = 80 * MS;
/// Time without an answer to a report after which another sequencer may reign.
const REPORT_PATIENCE: Duration = Duration::from_millis(150);

const HOLE_TIMEOUT: Duration = Duration::from_millis(600);

/// Whom to answer.
#[derive(Debug, Clone, Copy)]
pub struct Token {
    client: ProcId,
    conn: u64,
    place: Place,
    request: RequestId,
}

/// What a call is for.
#[derive(Debug)]
enum For {
    Start,
    /// Somebody has spoken of a newer epoch.
    Learn,
    Seal(ProcId, Seal),
    Take(StripeId, Duration),
    Put(StripeId, FlightId),
    /// A walk from near the end, and then one of the whole chain.
    Verify(StripeId, FlightId, Header, bool),
    Lookup(StripeId, Token, Slot, Slot, Identity),
}

#[derive(Debug)]
struct Task {
    stripe: Stripe<Token>,
    last_start: Slot,
    /// Where the chain ends, by what it said.
    frontier: Slot,
    due_at: Option<u64>,
}

/// One process.
#[derive(Debug)]
pub struct Writer {
    me: ProcId,
    post: u16,
    writer: WriterId,
    calls: Calls<For>,
    epoch: Epoch,
    entry: Option<Rc<ControlEntry>>,
    chains: BTreeMap<StripeId, ChainId>,
    config: Config,
    tasks: BTreeMap<StripeId, Task>,
    seals: Vec<(ProcId, Seal)>,
    learning: Vec<(ProcId, u64, Append, RunBody)>,
    clock: HoleClock,
    reigning: Reigning,
    /// When the oldest report was made that has no answer.
    unanswered: Option<Duration>,
    request: u64,
    /// Whether its process has ended.
    pub over: bool,
}

impl Writer {
    /// A process that begins, for these chains.
    #[must_use]
    pub fn new(me: ProcId, post: u16, chains: BTreeMap<StripeId, ChainId>, config: Config) -> Self {
        let mut writer = WriterId([3; 16]);
        writer.0[..8].copy_from_slice(&(me as u64).to_le_bytes());
        Self {
            me,
            post,
            writer,
            calls: Calls::new(me),
            epoch: Epoch(0),
            entry: None,
            chains,
            config,
            tasks: BTreeMap::new(),
            seals: Vec::new(),
            learning: Vec::new(),
            clock: HoleClock::new(HOLE_TIMEOUT),
            reigning: Reigning::new(SEQUENCERS.len(), Epoch(0)),
            unanswered: None,
            request: 0,
            over: false,
        }
    }

    fn serves(&self) -> bool {
        self.tasks.len() == self.chains.len()
    }

    /// Whether another process owns one of its stripes.
    #[must_use]
    pub fn is_unhealthy(&self) -> bool {
        self.tasks.values().any(|task| task.stripe.is_fenced())
    }

    /// Takes what it is told.
    pub fn handle(&mut self, input: Input, env: &mut Env) {
        match input {
            Input::Start => self.calls.insist(What::Last, For::Start, env),
            Input::Timer(Timer::Retry(call)) => self.calls.retry(call, env),
            Input::Timer(Timer::Tick) => self.tick(env),
            Input::Answer(call, answer) => {
                if let Some((tag, outcome)) = self.calls.answer(call, answer, env) {
                    self.done(tag, outcome, env);
                }
            }
            Input::Append(client, conn, head, body) => {
                if !self.serves() {
                    // The port is bound before the stripes are taken, and nobody listens yet.
                    env.sever(conn);
                    return env.message(self.me, client, Input::Reset(conn));
                }
                self.append(client, conn, head, body, env);
            }
            Input::Seal(from, seal) if self.serves() => {
                self.calls.attempt(What::Last, For::Seal(from, seal), env);
            }
            Input::Datagram(from, bytes) => self.heard(from, &bytes, env),
            _ => {}
        }
        if self.serves() {
            self.act(env);
        }
    }

    fn done(&mut self, tag: For, outcome: Outcome, env: &mut Env) {
        let now = env.clock(self.me);
        match (tag, outcome) {
            (For::Start, Outcome::Last(entry)) => {
                self.epoch = entry.epoch;
                self.entry = Some(entry);
                for stripe in self.chains.keys().copied().collect::<Vec<_>>() {
                    self.calls
                        .insist(What::Walk(stripe, Slot(0)), For::Take(stripe, now), env);
                }
            }
            (For::Take(stripe, walked_at), Outcome::Walk(walk)) => {
                self.take(stripe, walked_at, &walk, env);
            }
            (For::Learn, outcome) => self.learned(outcome, env),
            (For::Seal(from, seal), Outcome::Last(entry))
                if entry.epoch > seal.epoch
                    || (entry.epoch == seal.epoch && entry.epoch_start == seal.position) =>
            {
                self.begin(&entry, env);
                self.seals.push((from, seal));
            }
            (For::Put(stripe, id), Outcome::Put(outcome)) => {
                if let Some(task) = self.tasks.get_mut(&stripe) {
                    task.stripe.put_done(id, outcome, now);
                }
            }
            (For::Verify(stripe, id, header, whole), Outcome::Walk(walk)) => {
                let has = walk.headers.contains(&header);
                let near = has && walk.headers.first() != Some(&header);
                if !whole && !near {
                    let again = For::Verify(stripe, id, header, true);
                    return self.calls.insist(What::Walk(stripe, Slot(0)), again, env);
                }
                if let Some(task) = self.tasks.get_mut(&stripe) {
                    task.stripe.verified(id, has, now);
                }
            }
            (For::Lookup(stripe, token, first, end, identity), Outcome::Run(found)) => {
                self.looked_up((stripe, token, first, end, identity), found, env);
            }
            (For::Lookup(_, token, first, end, _), _) => {
                // The record may be there.
                let junk = env.is(Mutation::ErrorIsJunk);
                let status = if junk {
                    AckStatus::Junk
                } else {
                    AckStatus::NotOwner
                };
                self.answer(token, first, end, status, env);
            }
            _ => {}
        }
    }

    fn take(&mut self, id: StripeId, walked_at: Duration, walk: &catalog::Walk, env: &mut Env) {
        let (Some(chain), Some(entry)) = (self.chains.get(&id).copied(), self.entry.clone()) else {
            return;
        };
        let newest = walk.headers.iter().map(|header| header.author.owner).max();
        let mut owner = OwnerNumber(newest.unwrap_or_default().0 + 1);
        if env.is(Mutation::SameOwner) {
            owner.0 = newest.unwrap_or_default().0.max(1);
        }
        let author = Author {
            epoch: entry.epoch,
            owner,
            writer: self.writer,
        };
        let mut end = walk.end;
        if env.is(Mutation::LastName)
            && let Some(last) = walk.afloat.last()
        {
            end = chain.layout.slot(*last);
        }
        let mut stripe = Stripe::new(chain, author, end, self.config(env), walked_at);
        let seal_to = chain.layout.slot_at_or_after(id, entry.epoch_start);
        stripe.seal(entry.epoch, seal_to, env.clock(self.me));
        let last_start = walk.headers.last().map_or(Slot(0), |header| header.start);
        let task = Task {
            stripe,
            last_start,
            frontier: end,
            due_at: None,
        };
        self.tasks.insert(id, task);
        if self.serves() {
            env.note(|| format!("writer {} serves {}", self.me, self.post));
            env.timer(self.me, REPORT_EVERY, Timer::Tick);
        }
    }

    fn config(&self, env: &Env) -> Config {
        let max_commit_age = if env.is(Mutation::NoVerify) {
            Duration::MAX
        } else {
            MAX_COMMIT_AGE
        };
        Config {
            max_commit_age,
            ..self.config
        }
    }

    fn tick(&mut self, env: &mut Env) {
        env.timer(self.me, REPORT_EVERY, Timer::Tick);
        let now = env.clock(self.me);
        let mut ripe = self.clock.ripe(now);
        if env.is(Mutation::FillAhead) {
            ripe = env.store.told.plus(3);
        }
        for (id, task) in &mut self.tasks {
            let Some(chain) = self.chains.get(id) else {
                continue;
            };
            task.stripe
                .fill(chain.layout.slot_at_or_after(*id, ripe), now);
        }
        self.report(env);
    }

    fn report(&mut self, env: &mut Env) {
        let mut reports = Vec::new();
        for (id, task) in &self.tasks {
            let (Some(chain), Some(entry)) = (self.chains.get(id), &self.entry) else {
                continue;
            };
            let Ok(segment) = entry.last_segment() else {
                continue;
            };
            let mut frontier = task.frontier;
            if env.is(Mutation::FrontierAhead) {
                frontier = frontier.plus(u64::from(task.stripe.flights() > 0));
            }
            self.request += 1;
            let position = chain.position(frontier);
            reports.push(Report::new(
                RequestId(self.request),
                segment.id,
                *id,
                position,
            ));
        }
        let client = ClientId(1000 + self.me as u64);
        let header = Head::request(Kind::Report, LOG, client, reports.len());
        let mut bytes = vec![0; header.datagram_len()];
        let now = env.clock(self.me);
        if self
            .unanswered
            .is_some_and(|since| now.saturating_sub(since) >= REPORT_PATIENCE)
        {
            self.reigning.doubt(now);
        }
        let (all, current) = (self.reigning.take_due(now), self.reigning.current());
        self.unanswered.get_or_insert(now);
        if datagram::write(header, &reports, &mut bytes).is_ok() {
            for place in SEQUENCERS.filter(|place| all || usize::from(*place) == current) {
                env.ask(self.me, Post::Sequencer(place), &bytes);
            }
        }
    }

    fn heard(&mut self, from: ProcId, bytes: &[u8], env: &Env) {
        let Ok(datagram) = Datagram::parse(bytes, LOG) else {
            return;
        };
        let Post::Sequencer(place) = env.seen[from].post else {
            return;
        };
        let (now, epoch) = (env.clock(self.me), datagram.header.epoch);
        let replies: Vec<_> = datagram.entries::<Reply>().filter_map(Result::ok).collect();
        let Some(Ok(status)) = replies.first().map(Reply::status) else {
            return;
        };
        if !matches!(
            self.reigning.heard(place.into(), epoch, status, now),
            Heard::Reigns { .. }
        ) {
            return;
        }
        self.unanswered = None;
        let replies = replies.into_iter();
        let told = replies.filter(|reply| reply.status() == Ok(Status::Ok));
        if let Some(tail) = told.map(|reply| reply.first).max() {
            self.clock.told(tail, now);
        }
    }

    fn append(&mut self, client: ProcId, conn: u64, head: Append, body: RunBody, env: &mut Env) {
        let waits = self
            .learning
            .iter()
            .any(|(_, waiting, ..)| *waiting == conn);
        if head.epoch > self.epoch || waits {
            if self.learning.is_empty() {
                self.calls.attempt(What::Last, For::Learn, env);
            }
            return self.learning.push((client, conn, head, body));
        }
        self.take_in(client, conn, head, body, env);
    }

    fn take_in(&mut self, client: ProcId, conn: u64, head: Append, body: RunBody, env: &mut Env) {
        let token = Token {
            client,
            conn,
            place: head.place,
            request: head.identity.request,
        };
        let run = Run::records(head.place.first, head.identity, body);
        let now = env.clock(self.me);
        match self.tasks.get_mut(&head.place.stripe) {
            Some(task) => task.stripe.append(&run, head.epoch, &token, now),
            None => self.answer(token, run.first, run.end(), AckStatus::NotOwner, env),
        }
    }

    fn learned(&mut self, outcome: Outcome, env: &mut Env) {
        if let Outcome::Last(entry) = outcome {
            self.begin(&entry, env);
        }
        for (client, conn, head, body) in std::mem::take(&mut self.learning) {
            if head.epoch <= self.epoch {
                self.take_in(client, conn, head, body, env);
                continue;
            }
            let (first, end) = (head.place.first, head.place.first.plus(head.count.into()));
            let token = Token {
                client,
                conn,
                place: head.place,
                request: head.identity.request,
            };
            // Not in the control chain yet, as far as can be told now.
            self.answer(token, first, end, AckStatus::Busy, env);
        }
    }

    /// Tells all stripes of a reign.
    fn begin(&mut self, entry: &Rc<ControlEntry>, env: &Env) {
        if env.is(Mutation::SealIgnored) {
            self.epoch = self.epoch.max(entry.epoch);
            return;
        }
        let now = env.clock(self.me);
        for (id, task) in &mut self.tasks {
            if let Some(chain) = self.chains.get(id) {
                let to = chain.layout.slot_at_or_after(*id, entry.epoch_start);
                task.stripe.seal(entry.epoch, to, now);
            }
        }
        self.epoch = self.epoch.max(entry.epoch);
    }

    /// Does what the state machines say, until they say nothing more.
    fn act(&mut self, env: &mut Env) {
        let now = env.clock(self.me);
        for id in self.chains.keys().copied().collect::<Vec<_>>() {
            let Some(task) = self.tasks.get_mut(&id) else {
                continue;
            };
            while let Some((flight, object)) = task.stripe.close(now) {
                self.calls
                    .insist(What::Put(Rc::new(object)), For::Put(id, flight), env);
            }
            let actions = task.stripe.actions();
            if let Some(due) = task.stripe.due().filter(|due| *due > now) {
                let pause = u64::try_from((due - now).as_micros()).unwrap_or(u64::MAX);
                let at = env.now + pause;
                if task
                    .due_at
                    .is_none_or(|known| known <= env.now || known > at)
                {
                    task.due_at = Some(at);
                    env.timer(self.me, pause, Timer::Due);
                }
            }
            for action in actions {
                self.act_on(id, action, env);
            }
        }
        self.answer_seals(env);
        self.over = self.tasks.values().all(|task| task.stripe.is_fenced());
    }

    fn act_on(&mut self, id: StripeId, action: Action<Token>, env: &mut Env) {
        match action {
            Action::Answer {
                token,
                first,
                end,
                status,
            } => self.answer(token, first, end, status, env),
            Action::Lookup {
                token,
                first,
                end,
                identity,
            } => {
                let tag = For::Lookup(id, token, first, end, identity);
                self.calls.attempt(What::RunAt(id, first), tag, env);
            }
            Action::Committed { header, .. } => self.goes_on(id, header),
            Action::Adopted(index) => self.goes_on(id, index.header),
            Action::Verify { id: flight, header } => {
                let from = self.tasks.get(&id).map_or(Slot(0), |task| task.last_start);
                let tag = For::Verify(id, flight, header, false);
                self.calls.insist(What::Walk(id, from), tag, env);
            }
            Action::Fenced => env.note(|| format!("writer {} lost stripe {id}", self.me)),
        }
    }

    fn goes_on(&mut self, id: StripeId, header: Header) {
        if let Some(task) = self.tasks.get_mut(&id) {
            (task.last_start, task.frontier) = (header.start, header.end);
        }
    }

    fn answer_seals(&mut self, env: &mut Env) {
        if self.seals.is_empty() {
            return;
        }
        if self.tasks.values().any(|task| task.stripe.is_fenced()) {
            self.seals.clear();
        } else if self.tasks.values().all(|task| task.stripe.is_sealed()) {
            for (from, seal) in std::mem::take(&mut self.seals) {
                env.message(self.me, from, Input::Sealed(self.post, seal));
            }
        }
    }

    fn looked_up(
        &mut self,
        (id, token, first, end, identity): (StripeId, Token, Slot, Slot, Identity),
        found: Option<Found>,
        env: &mut Env,
    ) {
        let Some(found) = found else {
            // Not found is not known: the record may be there.
            return self.answer(token, first, end, AckStatus::NotOwner, env);
        };
        let status = match found.identity {
            None if env.is(Mutation::JunkIsCommitted) => AckStatus::Committed,
            None => AckStatus::Junk,
            Some(holder) if holder == identity => AckStatus::Committed,
            Some(_) => AckStatus::Conflict,
        };
        let to = found.end.min(end);
        self.answer(token, first, to, status, env);
        if to < end {
            let tag = For::Lookup(id, token, to, end, identity);
            self.calls.attempt(What::RunAt(id, to), tag, env);
        }
    }

    fn answer(&self, token: Token, first: Slot, end: Slot, status: AckStatus, env: &mut Env) {
        let place = Place {
            first,
            ..token.place
        };
        let count = u32::try_from(first.until(end)).unwrap_or(u32::MAX);
        let ack = Ack::new(place, count, token.request, status);
        env.ack((self.me, token.client, token.conn), ack);
    }
}
