//! A stripe-writer: `stripe_writer::logic` with the order of steps of its tasks, which is that of
//! `stripe-writer/src/writer.rs`, `keeper.rs`, `owned.rs`, `taking.rs`, `shared.rs`, `store/task.rs` and `net/`.

use std::collections::{BTreeMap, VecDeque};
use std::rc::Rc;
use std::time::Duration;

use catalog::{Reigning, Writer as Member};
use stripe_writer::logic::action::{Config, FlightId};
use stripe_writer::logic::hole::HoleClock;
use stripe_writer::logic::members::{Key, Members};
use wire::control::ControlEntry;
use wire::frame::{Ack, AckStatus, Place, Seal};
use wire::object::{ChainId, Header};
use wire::{Epoch, Identity, RequestId, Segment, Slot, WriterId};

use crate::calls::{Calls, Outcome};
use crate::env::{Env, LOG, MS};
use crate::event::{Input, Post, ProcId, Timer};
use crate::mutation::Mutation;
use crate::store::Found;
use crate::world::SEQUENCERS;

mod inbox;
mod keep;
mod peers;
mod report;
mod seals;
mod task;

use inbox::Frame;
use peers::Link;
use seals::Asked;
use task::Task;

pub use keep::TAKEOVER;

/// Age at which a create is verified (C-7).
pub const MAX_COMMIT_AGE: Duration = Duration::from_millis(500);

/// What superseded objects are kept for: many times longer than a commit may take without being verified.
pub const GRACE: u64 = 3000 * MS;

const HOLE_TIMEOUT: Duration = Duration::from_millis(600);

/// Number of a task: a stripe may be owned, lost and taken again.
type TaskNo = u64;

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
    /// The entry that a stripe is taken under, and then its chain.
    Entry(Key, TaskNo),
    Take(Key, TaskNo, Rc<ControlEntry>, Duration),
    Put(TaskNo, FlightId),
    /// A walk from near the end, and then one of the whole chain.
    Verify(TaskNo, FlightId, Header, bool),
    Lookup(Key, Token, Slot, Slot, Identity),
}

/// A stripe of this process (`owned.rs`).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Held {
    Taking(TaskNo),
    Serving(TaskNo),
    Leaving(TaskNo),
}

/// One process.
#[derive(Debug)]
pub struct Writer {
    me: ProcId,
    post: u16,
    writer: WriterId,
    calls: Calls<For>,
    config: Config,
    epoch: Epoch,
    /// The newest control entry that stripes were told of; none before it serves.
    entry: Option<Rc<ControlEntry>>,
    members: Members,
    links: BTreeMap<u16, Link>,
    /// Who is told of moves: whoever has asked once.
    told: BTreeMap<ProcId, u64>,
    held: BTreeMap<Key, Held>,
    tasks: BTreeMap<TaskNo, Task>,
    next_task: TaskNo,
    seals: Vec<Asked>,
    inbox: BTreeMap<u64, VecDeque<Frame>>,
    learns: bool,
    clock: HoleClock,
    reigning: Reigning,
    /// When the oldest report was made that has no answer.
    unanswered: Option<Duration>,
    request: u64,
    leaving: bool,
    ends_at: Option<u64>,
    /// Whether its process has ended.
    pub over: bool,
}

impl Writer {
    /// A process that begins, as one of these members.
    #[must_use]
    pub fn new(me: ProcId, post: u16, members: &[Member], config: Config) -> Self {
        let mut writer = WriterId([3; 16]);
        writer.0[..8].copy_from_slice(&(me as u64).to_le_bytes());
        Self {
            me,
            post,
            writer,
            calls: Calls::new(me),
            config,
            epoch: Epoch(0),
            entry: None,
            members: Members::new(members, post.into(), TAKEOVER),
            links: BTreeMap::new(),
            told: BTreeMap::new(),
            held: BTreeMap::new(),
            tasks: BTreeMap::new(),
            next_task: 0,
            seals: Vec::new(),
            inbox: BTreeMap::new(),
            learns: false,
            clock: HoleClock::new(HOLE_TIMEOUT),
            reigning: Reigning::new(SEQUENCERS.len(), Epoch(0)),
            unanswered: None,
            request: 0,
            leaving: false,
            ends_at: None,
            over: false,
        }
    }

    /// Takes what it is told.
    pub fn handle(&mut self, input: Input, env: &mut Env) {
        match input {
            Input::Start => self.calls.insist(crate::calls::What::Last, For::Start, env),
            Input::Timer(Timer::Retry(call)) => self.calls.retry(call, env),
            Input::Timer(Timer::Tick) => self.tick(env),
            Input::Timer(Timer::Look) => self.keep(env),
            Input::Answer(call, answer) => {
                if let Some((tag, outcome)) = self.calls.answer(call, answer, env) {
                    self.done(tag, outcome, env);
                }
            }
            Input::Append(client, conn, ..) | Input::AskClaims(client, conn)
                if self.entry.is_none() =>
            {
                // The port is bound before the log is opened, and nobody listens yet.
                env.sever(conn);
                env.message(self.me, client, Input::Reset(conn));
            }
            Input::Append(client, conn, head, body) => {
                self.came((client, conn), head, body, env);
            }
            Input::AskClaims(from, conn) => self.tell_claims(from, conn, env),
            Input::Claims(conn, claims, leaving) => self.hear(conn, claims, leaving, env),
            Input::Reset(conn) => self.is_reset(conn, env),
            Input::Seal(from, seal) if self.entry.is_some() => self.asked_to_seal(from, seal, env),
            Input::Datagram(from, bytes) => self.heard(from, &bytes, env),
            _ => {}
        }
        if self.entry.is_some() {
            self.act(env);
        }
    }

    fn done(&mut self, tag: For, outcome: Outcome, env: &mut Env) {
        let now = env.clock(self.me);
        match (tag, outcome) {
            (For::Start, Outcome::Last(entry)) => self.serves(entry, env),
            (For::Entry(key, no), outcome) => self.takes(key, no, outcome, env),
            (For::Take(key, no, entry, walked_at), Outcome::Walk(walk)) => {
                self.take((key, no), &entry, walked_at, &walk, env);
            }
            (For::Take(key, no, ..), _) => self.cannot_take(key, no),
            (For::Learn, outcome) => self.learned(outcome, env),
            (For::Seal(from, seal), Outcome::Last(entry)) => self.seal(from, seal, entry, env),
            (For::Put(no, id), Outcome::Put(outcome)) => {
                if let Some(task) = self.tasks.get_mut(&no) {
                    task.put_done(id, outcome, now, env);
                }
            }
            (For::Verify(no, id, header, whole), Outcome::Walk(walk)) => {
                let has = walk.headers.contains(&header);
                let near = has && walk.headers.first() != Some(&header);
                let Some(task) = self.tasks.get_mut(&no) else {
                    return;
                };
                if !whole && !near {
                    let again = For::Verify(no, id, header, true);
                    return self.calls.insist(task.whole_walk(), again, env);
                }
                task.stripe.verified(id, has, now);
            }
            (For::Lookup(key, token, first, end, identity), Outcome::Run(found)) => {
                self.looked_up((key, token, first, end, identity), found, env);
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

    fn serves(&mut self, entry: Rc<ControlEntry>, env: &mut Env) {
        env.note(|| format!("writer {} serves {}", self.me, self.post));
        self.begin(&entry, env);
        env.timer(self.me, 0, Timer::Tick);
        env.timer(self.me, 0, Timer::Look);
    }

    /// Whether every stripe of these segments, but for those that are claimed elsewhere, is served here.
    #[must_use]
    pub fn owns(&self, key: Key) -> bool {
        let Some(Held::Serving(no)) = self.held.get(&key) else {
            return false;
        };
        let task = self.tasks.get(no);
        task.is_some_and(|task| !task.stripe.is_fenced())
    }

    fn task_of(&mut self, key: Key) -> Option<&mut Task> {
        match self.held.get(&key) {
            Some(Held::Serving(no)) => self.tasks.get_mut(no),
            _ => None,
        }
    }

    fn looked_up(
        &mut self,
        (key, token, first, end, identity): (Key, Token, Slot, Slot, Identity),
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
            self.look_up(key, token, (to, end), identity, env);
        }
    }

    fn look_up(
        &mut self,
        key: Key,
        token: Token,
        (first, end): (Slot, Slot),
        identity: Identity,
        env: &mut Env,
    ) {
        let tag = For::Lookup(key, token, first, end, identity);
        self.calls
            .attempt(crate::calls::What::RunAt(key, first), tag, env);
    }

    fn answer(&self, token: Token, first: Slot, end: Slot, status: AckStatus, env: &mut Env) {
        if first >= end {
            return;
        }
        let place = Place {
            first,
            ..token.place
        };
        let count = u32::try_from(first.until(end)).unwrap_or(u32::MAX);
        let ack = Ack::new(place, count, token.request, status);
        env.ack((self.me, token.client, token.conn), ack);
    }
}

/// The chain of a stripe of a segment.
pub(crate) fn chain_of(segment: &Segment, stripe: wire::StripeId) -> ChainId {
    ChainId {
        log: LOG,
        segment: segment.id,
        stripe,
        layout: segment.layout,
    }
}

fn place_of(from: ProcId, env: &Env) -> Option<u16> {
    match env.seen[from].post {
        Post::Sequencer(place) | Post::Writer(place) => Some(place),
        Post::Client(_) => None,
    }
}
