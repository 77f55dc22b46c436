//! Which stripes are owned: `stripe-writer/src/keeper.rs` and `taking.rs`. What is done when is decided by
//! `stripe_writer::logic::members`.

use std::collections::BTreeMap;
use std::rc::Rc;
use std::time::Duration;

use catalog::Walk;
use stripe_writer::logic::action::Config;
use stripe_writer::logic::members::Key;
use stripe_writer::logic::stripe::Stripe;
use wire::OwnerNumber;
use wire::control::ControlEntry;
use wire::object::Author;

use super::{
    Env, For, Held, MAX_COMMIT_AGE, MS, Mutation, Outcome, Task, TaskNo, Timer, Writer, chain_of,
};
use crate::calls::What;

/// Time without an answer after which a stripe-writer counts as dead.
pub const TAKEOVER: Duration = Duration::from_millis(400);

/// How long one that ends stays after it has left its last stripe.
const FAREWELL: u64 = 50 * MS;

impl Writer {
    /// A tick of whoever keeps the stripes.
    pub(super) fn keep(&mut self, env: &mut Env) {
        if self.leaving {
            return;
        }
        let tick = u64::try_from(self.members.tick().as_micros()).unwrap_or(u64::MAX);
        env.timer(self.me, tick, Timer::Look);
        self.ask_peers(env);
        self.look(env);
    }

    /// Looks at who owns what, and acts.
    pub(super) fn look(&mut self, env: &mut Env) {
        let Some(entry) = self.entry.clone().filter(|_| !self.leaving) else {
            return;
        };
        for key in self.sweep() {
            self.members.fenced(key);
        }
        let open = entry.open_segments();
        let keys = open.iter().flat_map(|segment| {
            let id = segment.id;
            segment.layout.all().map(move |stripe| (id, stripe))
        });
        let all: Vec<Key> = keys.collect();
        let mine = self.numbers();
        let decisions = self.members.decide(env.clock(self.me), &all, &mine);
        for key in decisions.lost {
            self.lose(key, env);
        }
        for key in decisions.take {
            self.next_task += 1;
            self.held.insert(key, Held::Taking(self.next_task));
            let tag = For::Entry(key, self.next_task);
            self.calls.attempt(What::Last, tag, env);
        }
        if let Some(key) = decisions.give_back {
            env.note(|| format!("writer {} gives stripe {} back", self.me, key.1));
            self.leave(key, env);
        }
    }

    /// What is claimed, by owner numbers.
    pub(super) fn numbers(&self) -> BTreeMap<Key, OwnerNumber> {
        let number = |(key, held): (&Key, &Held)| match held {
            Held::Taking(_) => Some((*key, OwnerNumber(0))),
            Held::Serving(no) | Held::Leaving(no) => Some((*key, self.tasks.get(no)?.claim()?)),
        };
        self.held.iter().filter_map(number).collect()
    }

    /// Forgets stripes that another process owns, and gives them.
    fn sweep(&mut self) -> Vec<Key> {
        let mut fenced = Vec::new();
        let tasks = &mut self.tasks;
        self.held.retain(|key, held| {
            let Held::Serving(no) = held else {
                return true;
            };
            let task = tasks.get_mut(no).filter(|task| task.stripe.is_fenced());
            if let Some(task) = task {
                task.stop();
                fenced.push(*key);
                return false;
            }
            true
        });
        fenced
    }

    /// A peer owns a stripe.
    fn lose(&mut self, key: Key, env: &Env) {
        match self.held.remove(&key) {
            None | Some(Held::Taking(_)) => {}
            Some(Held::Serving(no) | Held::Leaving(no)) => {
                env.note(|| {
                    format!(
                        "writer {} hears that stripe {} is another's",
                        self.me, key.1
                    )
                });
                if let Some(task) = self.tasks.get_mut(&no) {
                    task.stopping = true;
                    task.stripe.fence();
                }
            }
        }
    }

    /// Leaves a stripe to its next owner: told to others as owned until what is held is durable.
    fn leave(&mut self, key: Key, env: &Env) {
        let Some(Held::Serving(no)) = self.held.get(&key).copied() else {
            return;
        };
        self.held.insert(key, Held::Leaving(no));
        if let Some(task) = self.tasks.get_mut(&no) {
            task.stop();
            if env.is(Mutation::GiveBackEarly) {
                task.stripe.fence();
            }
        }
    }

    /// Stops in good order: leaves all stripes at once, and says so.
    pub fn stop(&mut self, env: &mut Env) {
        self.leaving = true;
        for key in self.held.keys().copied().collect::<Vec<_>>() {
            self.leave(key, env);
        }
        self.held.retain(|_, held| !matches!(held, Held::Taking(_)));
        self.tell_moves(env);
        self.act(env);
    }

    /// One that ends has left something: when that was the last stripe, it ends soon.
    pub(super) fn has_left(&mut self, env: &mut Env) {
        if self.leaving && self.held.is_empty() && self.ends_at.is_none() {
            self.ends_at = Some(env.now + FAREWELL);
            env.timer(self.me, FAREWELL, Timer::Due);
        }
    }

    /// The entry is there under which a stripe is to be taken.
    pub(super) fn takes(&mut self, key: Key, no: TaskNo, outcome: Outcome, env: &mut Env) {
        let Outcome::Last(entry) = outcome else {
            return self.cannot_take(key, no);
        };
        let open = self
            .entry
            .as_ref()
            .map(|known| known.open_segments().to_vec());
        let segments = open.unwrap_or_default();
        let Some(segment) = segments.iter().find(|segment| segment.id == key.0) else {
            return self.cannot_take(key, no);
        };
        let now = env.clock(self.me);
        let what = What::Walk(key, segment.first_slot(key.1));
        self.calls
            .attempt(what, For::Take(key, no, entry, now), env);
    }

    pub(super) fn cannot_take(&mut self, key: Key, no: TaskNo) {
        if self.held.get(&key) == Some(&Held::Taking(no)) {
            self.held.remove(&key);
            self.members.failed(key);
        }
    }

    /// Takes a stripe over whose chain was walked (C-6).
    pub(super) fn take(
        &mut self,
        (key, no): (Key, TaskNo),
        entry: &Rc<ControlEntry>,
        walked_at: Duration,
        walk: &Walk,
        env: &mut Env,
    ) {
        if self.held.get(&key) != Some(&Held::Taking(no)) {
            return;
        }
        let Some(segment) = entry.segments.iter().find(|segment| segment.id == key.0) else {
            return self.cannot_take(key, no);
        };
        let chain = chain_of(segment, key.1);
        let slot = |position| chain.layout.slot_at_or_after(key.1, position);
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
        let last = entry.segment_end(segment).map(slot);
        if let Some(last) = last {
            stripe.end_at(last);
        }
        // [H-3] It starts sealed: the entry was read before this process puts anything.
        stripe.seal(
            entry.epoch,
            slot(entry.sealed_to(segment)),
            env.clock(self.me),
        );
        let mut task = Task::new(key, stripe, chain, segment.first_slot(key.1));
        task.end = last.unwrap_or(task.end);
        if let Some(header) = walk.headers.last() {
            task.last_start = header.start;
        }
        env.note(|| {
            format!(
                "writer {} serves segment {} stripe {} as {owner}",
                self.me, key.0, key.1
            )
        });
        self.tasks.insert(no, task);
        self.held.insert(key, Held::Serving(no));
        // [H-3] A reign that began meanwhile was told to all stripes but this one.
        if let Some(newest) = self
            .entry
            .clone()
            .filter(|newest| newest.number > entry.number)
        {
            self.tell(&newest, no, env);
        }
        self.look(env);
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
}
