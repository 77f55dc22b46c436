//! Append frames, each in the order of its connection: `stripe-writer/src/net/connection.rs`.

use stripe_writer::logic::members::Key;
use wire::frame::{AckStatus, Append};
use wire::{Run, RunBody};

use super::{Env, For, Held, MS, Mutation, Outcome, ProcId, Timer, Token, Writer};
use crate::calls::What;

/// Longest time for which an append waits for a stripe that is on its way here, or away.
const MOVING: u64 = 100 * MS;

/// A frame that waits.
#[derive(Debug)]
pub(super) struct Frame {
    token: Token,
    head: Append,
    body: RunBody,
    /// Until when a stripe on its way is waited for.
    until: Option<u64>,
    /// Whether the control chain was looked at for its epoch.
    looked: bool,
}

impl Writer {
    /// A frame comes in.
    pub(super) fn came(
        &mut self,
        (client, conn): (ProcId, u64),
        head: Append,
        body: RunBody,
        env: &mut Env,
    ) {
        let token = Token {
            client,
            conn,
            place: head.place,
            request: head.identity.request,
        };
        let frame = Frame {
            token,
            head,
            body,
            until: None,
            looked: false,
        };
        let waits = self.inbox.contains_key(&conn);
        let left = if waits {
            Some(frame)
        } else {
            self.serve_frame(frame, env)
        };
        if let Some(frame) = left {
            self.inbox.entry(conn).or_default().push_back(frame);
        }
    }

    /// Serves the frames that wait, as far as they can be.
    pub(super) fn serve_frames(&mut self, env: &mut Env) {
        for conn in self.inbox.keys().copied().collect::<Vec<_>>() {
            while let Some(frame) = self
                .inbox
                .get_mut(&conn)
                .and_then(|queue| queue.pop_front())
            {
                if let Some(frame) = self.serve_frame(frame, env) {
                    self.inbox.entry(conn).or_default().push_front(frame);
                    break;
                }
            }
            if self.inbox.get(&conn).is_some_and(|queue| queue.is_empty()) {
                self.inbox.remove(&conn);
            }
        }
    }

    /// Gives the frame back if it has to wait.
    fn serve_frame(&mut self, mut frame: Frame, env: &mut Env) -> Option<Frame> {
        let place = frame.head.place;
        let key = (place.segment, place.stripe);
        let run = Run::records(place.first, frame.head.identity, frame.body.clone());
        if frame.head.epoch > self.epoch && !frame.looked && !env.is(Mutation::NeverLearn) {
            if !std::mem::replace(&mut self.learns, true) {
                self.calls.attempt(What::Last, For::Learn, env);
            }
            return Some(frame);
        }
        if self.task_of(key).is_none() && self.waits_for(key, &mut frame, env) {
            return Some(frame);
        }
        let (token, epoch) = (frame.token, frame.head.epoch);
        let (known, now) = (self.epoch, env.clock(self.me));
        match self.task_of(key) {
            Some(task) if epoch <= known => task.stripe.append(&run, epoch, &token, now),
            // Not in the control chain yet, as far as can be told now.
            Some(_) => self.answer(token, run.first, run.end(), AckStatus::Busy, env),
            None => self.not_served(key, token, &run, env),
        }
        None
    }

    /// Whether a stripe on its way here, or away, is waited for.
    fn waits_for(&self, key: Key, frame: &mut Frame, env: &mut Env) -> bool {
        if !matches!(
            self.held.get(&key),
            Some(Held::Taking(_) | Held::Leaving(_))
        ) {
            return false;
        }
        let until = *frame.until.get_or_insert_with(|| {
            env.timer(self.me, MOVING, Timer::Due);
            env.now + MOVING
        });
        env.now < until
    }

    fn not_served(&mut self, key: Key, token: Token, run: &Run, env: &mut Env) {
        let entry = self.entry.clone();
        let complete = entry
            .as_ref()
            .and_then(|entry| entry.complete(key.0, key.1));
        if let Some((segment, end)) = complete {
            // Its answers are in the store, for any process.
            let end = segment.layout.slot_at_or_after(key.1, end);
            self.answer(
                token,
                run.first.max(end),
                run.end(),
                AckStatus::Invalid,
                env,
            );
            if let Some(identity) = run.identity().filter(|_| run.first < end) {
                let range = (run.first, run.end().min(end));
                self.look_up(key, token, range, identity, env);
            }
            return;
        }
        let status = match self.held.get(&key) {
            Some(Held::Taking(_)) => AckStatus::Busy,
            _ => AckStatus::NotOwner,
        };
        self.answer(token, run.first, run.end(), status, env);
    }

    /// The control chain was looked at for an epoch that was not known, or could not be.
    pub(super) fn learned(&mut self, outcome: Outcome, env: &mut Env) {
        self.learns = false;
        if let Outcome::Last(entry) = outcome {
            self.begin(&entry, env);
        }
        for frame in self.inbox.values_mut().flatten() {
            frame.looked = true;
        }
    }
}
