//! A sequencer: `sequencer_fast::logic` with the order of steps of its checkpoint thread, which is that of
//! `sequencer-fast/src/store/begin.rs`, `checkpoint.rs` and `seal.rs`.

use std::collections::BTreeSet;
use std::rc::Rc;
use std::sync::Arc;

use sequencer_fast::logic::{
    self, Counter, Limits, Outbox, Packet, Packets, Peer, Reign, Sealing, Shard, ShardCounters,
    Window,
};
use wire::control::ControlEntry;
use wire::{Epoch, Layout, Position, WriterId};

use crate::calls::{Calls, Outcome, What};
use crate::env::{Env, MS};
use crate::event::{Input, Post, ProcId, Timer};
use crate::mutation::Mutation;

mod layout;
mod seals;
mod standby;

pub use standby::DETECT;

/// Time for which a reign stands without being renewed.
pub const REIGN_TTL: u64 = 900 * MS;

const RENEW_EVERY: u64 = REIGN_TTL / 3;
const TICK: u64 = 60 * MS;
const ASK_SEALS: u64 = 120 * MS;
const COLLECT_EVERY: u64 = 2500 * MS;

/// What a call is for.
#[derive(Debug)]
enum For {
    /// The entry to begin behind.
    Last,
    /// The log's identity, before standing by.
    StandBy,
    /// Whether the reign of the newest entry is over.
    Look,
    Begin,
    /// The entry that opens a segment from this position on, begun at this time.
    Restripe(Position, u64),
    /// An extension to this position, begun at this time of its clock.
    Extend(Position, u64),
    Renew(u64),
    Clean,
    Collect,
}

/// One process.
#[derive(Debug)]
pub struct Sequencer {
    me: ProcId,
    /// Its place in the membership.
    post: u16,
    /// Whether it waits for the end of the reign of others.
    waits: bool,
    standby: Option<standby::Standby>,
    owner: WriterId,
    calls: Calls<For>,
    window: Window,
    entry: Option<Rc<ControlEntry>>,
    reign: Option<Arc<Reign>>,
    shard: Option<Shard<To>>,
    /// When the create began that is under way, or the question whether the reign stands.
    busy: bool,
    since_ns: u64,
    checked_ns: u64,
    sealing: Option<Sealing>,
    /// Stripe-writers that have answered for a seal.
    answered: BTreeSet<u16>,
    asked_at: u64,
    collected_at: u64,
    stopping: bool,
    /// Whether it has ended its reign to open a segment.
    restripes: bool,
    /// The layout of the segment before, where a guard is taken out.
    carried: Option<Layout>,
    /// Whether its process has ended.
    pub over: bool,
}

#[derive(Debug, Clone, Copy)]
struct To(ProcId);

impl Peer for To {
    fn address(&self) -> u128 {
        self.0 as u128
    }
}

/// One datagram.
struct One(ProcId, Vec<u8>);

impl Packets<To> for One {
    fn count(&self) -> usize {
        1
    }

    fn packet(&mut self, index: usize) -> Option<Packet<'_, To>> {
        let segment = self.1.len();
        (index == 0).then_some(Packet {
            peer: To(self.0),
            bytes: &mut self.1,
            segment,
        })
    }

    fn keep(&mut self, _: usize, len: usize) {
        self.1.truncate(len);
    }
}

/// Replies that leave.
#[derive(Default)]
struct Out(Vec<(ProcId, Vec<u8>)>);

impl Outbox<To> for Out {
    fn send(&mut self, To(peer): To, datagram: &[u8]) {
        self.0.push((peer, datagram.to_vec()));
    }
}

impl Sequencer {
    /// A process that begins.
    #[must_use]
    pub fn new(me: ProcId, (post, waits): (u16, bool), window: Window) -> Self {
        let mut owner = WriterId([9; 16]);
        owner.0[..8].copy_from_slice(&(me as u64).to_le_bytes());
        Self {
            me,
            post,
            waits,
            standby: None,
            owner,
            calls: Calls::new(me),
            window,
            entry: None,
            reign: None,
            shard: None,
            busy: false,
            since_ns: 0,
            checked_ns: 0,
            sealing: None,
            answered: BTreeSet::new(),
            asked_at: 0,
            collected_at: 0,
            stopping: false,
            restripes: false,
            carried: None,
            over: false,
        }
    }

    /// Whether it has begun a reign that has not ended.
    #[must_use]
    pub fn reigns(&self) -> bool {
        self.reign.as_ref().is_some_and(|reign| !reign.has_ended())
    }

    /// Its newest reign.
    #[must_use]
    pub fn epoch(&self) -> Option<Epoch> {
        self.entry.as_ref().map(|entry| entry.epoch)
    }

    /// Stops in good order.
    pub fn stop(&mut self, env: &mut Env) {
        self.stopping = true;
        // Its reign is over, and what it has begun the next one finds in the chain.
        self.over = self.restripes;
        self.finish(env);
    }

    /// Takes what it is told.
    pub fn handle(&mut self, input: Input, env: &mut Env) {
        match input {
            // [S-4] Never from memory.
            Input::Start if self.waits => self.calls.insist(What::Last, For::StandBy, env),
            Input::Start => self.calls.insist(What::Last, For::Last, env),
            Input::Timer(Timer::Retry(call)) => self.calls.retry(call, env),
            Input::Timer(_) if self.stands_by() => self.watch_others(env),
            Input::Timer(_) => self.tick(env),
            Input::Answer(call, answer) => {
                if let Some((tag, outcome)) = self.calls.answer(call, answer, env) {
                    self.done(tag, outcome, env);
                }
            }
            Input::Datagram(from, bytes) => self.came(from, bytes, env),
            Input::Closed(Post::Sequencer(place)) => self.is_gone(place, env),
            Input::Sealed(post, seal, stripes) => self.sealed(post, seal, &stripes, env),
            _ => {}
        }
    }

    fn done(&mut self, tag: For, outcome: Outcome, env: &mut Env) {
        let outcome = match outcome {
            Outcome::Fenced if env.is(Mutation::FencedGoesOn) => Outcome::Appended,
            Outcome::IsLast(_) if env.is(Mutation::FencedGoesOn) => Outcome::IsLast(true),
            outcome => outcome,
        };
        match (tag, outcome) {
            (For::StandBy, Outcome::Last(last)) => self.stand_by(&last, env),
            (For::Look, Outcome::Last(last)) => self.looked(Some(last), env),
            (For::Look, _) => self.looked(None, env),
            (For::Last, Outcome::Last(last)) => self.begin(&last, env),
            (For::Begin, Outcome::Fenced) if self.stands_by() => self.was_slower(env),
            (For::Begin, Outcome::Appended) => {
                if !self.stands_by() {
                    env.timer(self.me, TICK, Timer::Tick);
                }
                self.begun(env);
            }
            (For::Extend(reservation, since_ns), Outcome::Appended) => {
                self.busy = false;
                self.window
                    .stored(env.clock_ns(self.me).saturating_sub(since_ns));
                self.stands_since(since_ns, env);
                self.publish(reservation, env);
                self.finish(env);
                self.extend(env);
            }
            (For::Renew(since_ns), Outcome::IsLast(true)) => {
                self.busy = false;
                self.stands_since(since_ns, env);
                self.finish(env);
            }
            (For::Renew(_), Outcome::Failed) => {
                self.busy = false;
                self.finish(env);
            }
            (For::Restripe(tail, since_ns), Outcome::Appended) => {
                self.restriped(tail, since_ns, env);
            }
            (For::Clean, Outcome::Appended) => {
                if let Some(entry) = self.entry.clone() {
                    self.publish(entry.reservation, env);
                }
                self.over = true;
            }
            (For::Collect, _) => {}
            _ => self.fenced(env),
        }
    }

    fn begin(&mut self, last: &ControlEntry, env: &mut Env) {
        let mut last = last.clone();
        if env.is(Mutation::ReignFromStart) {
            last.reservation = last.epoch_start;
        }
        let entry = Rc::new(logic::begin(&last, self.owner, self.window.size()));
        self.since_ns = env.clock_ns(self.me);
        self.entry = Some(Rc::clone(&entry));
        self.calls.insist(What::Append(entry), For::Begin, env);
    }

    fn begun(&mut self, env: &mut Env) {
        let Some(entry) = self.entry.clone() else {
            return;
        };
        let Ok(reign) = Reign::new(&entry) else {
            return env.fail("a control entry without segments");
        };
        let reign = Arc::new(reign);
        let counters = Arc::new(ShardCounters::default());
        self.shard = Some(Shard::new(Arc::clone(&reign), counters, limits()));
        self.reign = Some(reign);
        self.window
            .stored(env.clock_ns(self.me).saturating_sub(self.since_ns));
        self.stands_since(self.since_ns, env);
        self.answered.clear();
        self.sealing = Some(Sealing::new(&entry));
        self.skip_seals(env);
        self.opens(env);
        self.ask_seals(env);
        // The ticks go on.
        self.standby = None;
    }

    fn open(&mut self, env: &mut Env) {
        self.mark_low_water();
        if let Some(reign) = &self.reign {
            reign.grant();
        }
        env.note(|| format!("sequencer {} grants", self.me));
    }

    fn tick(&mut self, env: &mut Env) {
        env.timer(self.me, TICK, Timer::Tick);
        if self.sealing.is_some() && env.now >= self.asked_at + ASK_SEALS {
            self.ask_seals(env);
        }
        if self.sealing.is_none() {
            self.extend(env);
        }
        if self.restripes_now(env) {
            return;
        }
        let now_ns = env.clock_ns(self.me);
        if !self.busy && now_ns >= self.checked_ns + RENEW_EVERY * 1000 {
            let Some(entry) = &self.entry else {
                return;
            };
            self.busy = true;
            let number = entry.number;
            // Counted from before the question: the answer may be as old as that.
            self.calls
                .attempt(What::IsLast(number), For::Renew(now_ns), env);
        }
        if env.now >= self.collected_at + COLLECT_EVERY {
            self.collected_at = env.now;
            let number = self.entry.as_ref().map_or(0, |entry| entry.number);
            self.calls.attempt(What::Collect(number), For::Collect, env);
        }
    }

    /// Extends the reservation if that is due.
    fn extend(&mut self, env: &mut Env) {
        let (Some(reign), Some(entry)) = (&self.reign, &self.entry) else {
            return;
        };
        if self.busy || self.stopping || reign.has_ended() {
            return;
        }
        let now_ns = env.clock_ns(self.me);
        let tail = Position(reign.counter().tail());
        self.window.observe(now_ns, tail);
        if let Some(reservation) = self.window.extension(tail, entry.reservation) {
            self.busy = true;
            let entry = Rc::new(logic::extend(entry, reservation));
            self.entry = Some(Rc::clone(&entry));
            self.calls
                .insist(What::Append(entry), For::Extend(reservation, now_ns), env);
            if env.is(Mutation::ReplyBeforeDurable) {
                self.publish(reservation, env);
            }
            return;
        }
        self.mark_low_water();
    }

    fn came(&mut self, from: ProcId, bytes: Vec<u8>, env: &mut Env) {
        if !self.heard(from, &bytes, env) {
            self.serve(from, bytes, env);
        }
    }

    fn serve(&mut self, from: ProcId, bytes: Vec<u8>, env: &mut Env) {
        let Some(shard) = &mut self.shard else {
            return;
        };
        let (mut one, mut out) = (One(from, bytes), Out::default());
        shard.serve(&mut one, env.clock_ns(self.me), &mut out);
        if !one.1.is_empty() {
            out.0.push((from, one.1));
        }
        self.send(out, env);
        let claimed = self
            .reign
            .as_ref()
            .is_some_and(|reign| reign.claim_low_water());
        if claimed || self.shard.as_ref().is_some_and(Shard::holds) {
            self.extend(env);
        }
    }

    fn publish(&mut self, reservation: Position, env: &mut Env) {
        let (Some(reign), Some(shard)) = (&self.reign, &mut self.shard) else {
            return;
        };
        reign.reserve(reservation);
        let mut out = Out::default();
        shard.release(&mut out);
        self.send(out, env);
    }

    fn send(&self, out: Out, env: &mut Env) {
        for (to, bytes) in out.0 {
            if let Err(broken) = env.tokens.sent(self.me, &bytes, &mut env.store) {
                return env.fail(broken);
            }
            env.datagram(self.me, to, &bytes);
        }
    }

    fn stands_since(&mut self, since_ns: u64, env: &Env) {
        self.checked_ns = since_ns;
        if let Some(reign) = &self.reign {
            let ttl = if env.is(Mutation::NoDeadline) {
                u64::MAX
            } else {
                REIGN_TTL * 1000
            };
            reign.renew(since_ns.saturating_add(ttl));
        }
    }

    fn mark_low_water(&self) {
        if let (Some(reign), Some(entry)) = (&self.reign, &self.entry) {
            reign.set_low_water(self.window.low_water(entry.reservation));
        }
    }

    /// Ends the reign at its exact tail, once no create is under way.
    fn finish(&mut self, env: &mut Env) {
        if !self.stopping || self.busy || self.over {
            return;
        }
        let (Some(reign), Some(entry)) = (&self.reign, &self.entry) else {
            self.over = true;
            return;
        };
        let Some(tail) = reign.end() else {
            return;
        };
        let entry = Rc::new(logic::clean(entry, tail));
        self.busy = true;
        self.entry = Some(Rc::clone(&entry));
        self.calls.insist(What::Append(entry), For::Clean, env);
    }

    fn fenced(&mut self, env: &Env) {
        env.note(|| format!("sequencer {} is fenced", self.me));
        if let Some(reign) = &self.reign {
            reign.end();
        }
        self.over = true;
    }
}

fn limits() -> Limits {
    Limits {
        retry_memory: 64,
        held_replies: 64,
        rate: None,
        key: None,
        seed: 5,
    }
}
