//! Reigns that begin: `stripe-writer/src/shared.rs`.

use std::rc::Rc;

use wire::control::ControlEntry;
use wire::frame::{Seal, SealedStripe};

use super::{Env, For, Held, Input, Mutation, ProcId, TaskNo, Writer};
use crate::calls::What;

/// A seal that a sequencer waits for.
#[derive(Debug)]
pub(super) struct Asked {
    from: ProcId,
    seal: Seal,
    waits: Vec<(SealedStripe, TaskNo)>,
    sealed: Vec<SealedStripe>,
}

impl Writer {
    pub(super) fn asked_to_seal(&mut self, from: ProcId, seal: Seal, env: &mut Env) {
        let same = |asked: &Asked| asked.from == from && asked.seal == seal;
        if !self.seals.iter().any(same) {
            self.calls.attempt(What::Last, For::Seal(from, seal), env);
        }
    }

    /// Seals all stripes for a reign, if the control chain has it.
    pub(super) fn seal(
        &mut self,
        from: ProcId,
        seal: Seal,
        entry: Rc<ControlEntry>,
        env: &mut Env,
    ) {
        let is_known = entry.epoch > seal.epoch
            || (entry.epoch == seal.epoch && entry.epoch_start == seal.position);
        if is_known {
            let waits = self.begin(&entry, env);
            self.seals.push(Asked {
                from,
                seal,
                waits,
                sealed: Vec::new(),
            });
        }
    }

    /// Tells all stripes of a reign. Gives those that are told.
    pub(super) fn begin(
        &mut self,
        entry: &Rc<ControlEntry>,
        env: &mut Env,
    ) -> Vec<(SealedStripe, TaskNo)> {
        let newer = self
            .entry
            .as_ref()
            .is_none_or(|known| entry.number > known.number);
        if newer {
            self.entry = Some(Rc::clone(entry));
        }
        let Some(newest) = self.entry.clone() else {
            return Vec::new();
        };
        let mut told = Vec::new();
        for (key, held) in self.held.clone() {
            if let Held::Serving(no) = held
                && self.tell(&newest, no, env)
            {
                let (segment, stripe) = key;
                told.push((SealedStripe { segment, stripe }, no));
            }
        }
        self.epoch = self.epoch.max(newest.epoch);
        if newer {
            // [H-5] A reign may have opened a segment.
            self.look(env);
        }
        told
    }

    /// Tells a stripe. False if it is not of an open segment; if that is complete, it is let go.
    pub(super) fn tell(&mut self, entry: &ControlEntry, no: TaskNo, env: &Env) -> bool {
        let now = env.clock(self.me);
        let Some(task) = self.tasks.get_mut(&no) else {
            return false;
        };
        let (id, _) = task.key;
        let mut open = entry.open_segments().iter();
        if let Some(segment) = open.find(|segment| segment.id == id) {
            if env.is(Mutation::SealIgnored) {
                return true;
            }
            if let Some(end) = entry.segment_end(segment) {
                task.end = task.slot(end);
                task.stripe.end_at(task.end);
            }
            let to = task.slot(entry.sealed_to(segment));
            task.stripe.seal(entry.epoch, to, now);
            return true;
        }
        let mut all = entry.segments.iter();
        let complete = all.find(|segment| segment.id == id);
        if let Some(end) = complete.and_then(|segment| entry.segment_end(segment)) {
            let key = task.key;
            task.end = task.slot(end);
            task.stripe.end_at(task.end);
            task.stop();
            self.held.remove(&key);
        }
        false
    }

    /// Answers the seals of which nothing more is to be waited for.
    pub(super) fn answer_seals(&mut self, env: &mut Env) {
        let ignored = env.is(Mutation::SealIgnored);
        for asked in &mut self.seals {
            for (stripe, no) in std::mem::take(&mut asked.waits) {
                // [H-4] Not a word about a stripe that another process has taken over meanwhile.
                let task = self.tasks.get(&no);
                let Some(task) = task.filter(|task| !task.stripe.is_fenced()) else {
                    continue;
                };
                if ignored || task.stripe.is_sealed() {
                    asked.sealed.push(stripe);
                } else {
                    asked.waits.push((stripe, no));
                }
            }
        }
        let (waiting, done) = std::mem::take(&mut self.seals)
            .into_iter()
            .partition(|asked: &Asked| !asked.waits.is_empty());
        self.seals = waiting;
        for Asked {
            from, seal, sealed, ..
        } in done
        {
            env.message(self.me, from, Input::Sealed(self.post, seal, sealed));
        }
    }
}
