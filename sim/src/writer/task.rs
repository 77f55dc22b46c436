//! The task of a stripe: `stripe-writer/src/store/task.rs`.

use std::rc::Rc;
use std::time::Duration;

use stripe_writer::logic::action::{Action, FlightId, PutOutcome};
use stripe_writer::logic::members::Key;
use stripe_writer::logic::stripe::Stripe;
use wire::frame::AckStatus;
use wire::object::ChainId;
use wire::{OwnerNumber, Position, Slot};

use super::{Env, For, Held, Mutation, TaskNo, Timer, Token, Writer};
use crate::calls::What;

/// A stripe that is served, or was until it has made durable what it holds.
#[derive(Debug)]
pub(super) struct Task {
    pub(super) key: Key,
    pub(super) chain: ChainId,
    pub(super) stripe: Stripe<Token>,
    /// First slot of the chain.
    pub(super) first: Slot,
    pub(super) last_start: Slot,
    /// Where the chain ends, by what it said.
    pub(super) frontier: Slot,
    /// First slot behind the last one, once its segment has ended.
    pub(super) end: Slot,
    /// Takes in nothing more, and ends when nothing is held.
    pub(super) stopping: bool,
    /// Whether the first put has not ended.
    pub(super) fresh: bool,
    due_at: Option<u64>,
}

impl Task {
    pub(super) fn new(key: Key, stripe: Stripe<Token>, chain: ChainId, first: Slot) -> Self {
        let frontier = stripe.frontier();
        Self {
            key,
            chain,
            stripe,
            first,
            last_start: first,
            frontier,
            end: Slot(u64::MAX),
            stopping: false,
            fresh: true,
            due_at: None,
        }
    }

    pub(super) fn slot(&self, position: Position) -> Slot {
        self.chain
            .layout
            .slot_at_or_after(self.chain.stripe, position)
    }

    pub(super) fn whole_walk(&self) -> What {
        What::Walk(self.key, self.first)
    }

    /// Makes durable what it holds, and then ends.
    pub(super) fn stop(&mut self) {
        self.stopping = true;
        self.stripe.flush();
    }

    pub(super) fn put_done(&mut self, id: FlightId, outcome: PutOutcome, now: Duration, env: &Env) {
        let skips = env.is(Mutation::SkipFence) && std::mem::take(&mut self.fresh);
        let outcome = match outcome {
            PutOutcome::Taken(_) if skips => PutOutcome::Stored,
            outcome => outcome,
        };
        self.stripe.put_done(id, outcome, now);
    }

    fn is_idle(&self) -> bool {
        self.stripe.flights() == 0 && self.stripe.due().is_none()
    }

    /// The number under which its process claims the stripe.
    pub(super) fn claim(&self) -> Option<OwnerNumber> {
        (!self.stripe.is_fenced()).then(|| self.stripe.owner())
    }
}

impl Writer {
    /// Does what the state machines say, until they say nothing more.
    pub(super) fn act(&mut self, env: &mut Env) {
        self.serve_frames(env);
        for no in self.tasks.keys().copied().collect::<Vec<_>>() {
            self.act_of(no, env);
            self.end_task(no, env);
        }
        self.answer_seals(env);
        if self.leaving && self.ends_at.is_some_and(|at| at <= env.now) {
            self.over = true;
        }
    }

    fn act_of(&mut self, no: TaskNo, env: &mut Env) {
        let now = env.clock(self.me);
        let Some(task) = self.tasks.get_mut(&no) else {
            return;
        };
        while let Some((flight, object)) = task.stripe.close(now) {
            let what = What::Put(Rc::new(object));
            self.calls.insist(what, For::Put(no, flight), env);
        }
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
        let actions = task.stripe.actions();
        for action in actions {
            self.act_on(no, action, env);
        }
    }

    fn act_on(&mut self, no: TaskNo, action: Action<Token>, env: &mut Env) {
        let Some(task) = self.tasks.get_mut(&no) else {
            return;
        };
        let key = task.key;
        match action {
            Action::Answer {
                token,
                first,
                end,
                mut status,
            } => {
                if status == AckStatus::NotOwner && task.stopping && env.is(Mutation::GiveBackEarly)
                {
                    status = AckStatus::Committed;
                }
                self.answer(token, first, end, status, env);
            }
            Action::Lookup {
                token,
                first,
                end,
                identity,
            } => self.look_up(key, token, (first, end), identity, env),
            Action::Committed { header, .. } => {
                (task.last_start, task.frontier) = (header.start, header.end);
            }
            Action::Adopted(index) => {
                (task.last_start, task.frontier) = (index.header.start, index.header.end);
            }
            Action::Verify { id, header } => {
                let what = What::Walk(key, task.last_start);
                let tag = For::Verify(no, id, header, false);
                self.calls.insist(what, tag, env);
            }
            Action::Fenced => {
                env.note(|| format!("writer {} lost segment {} stripe {}", self.me, key.0, key.1))
            }
        }
    }

    /// A task that stops ends when nothing is held any more, or when its stripe is another's.
    fn end_task(&mut self, no: TaskNo, env: &mut Env) {
        let Some(task) = self.tasks.get_mut(&no) else {
            return;
        };
        if !task.stopping || !(task.stripe.is_fenced() || task.is_idle()) {
            return;
        }
        if task.frontier < task.end {
            // Whoever still waits for this owner is sent to the next one.
            task.stripe.fence();
        }
        let key = task.key;
        self.act_of(no, env);
        self.tasks.remove(&no);
        if self.held.get(&key) == Some(&Held::Leaving(no)) {
            self.held.remove(&key);
            self.tell_moves(env);
        }
    }
}
