//! A reign that ends to open a segment (H-5): `sequencer-fast/src/store/checkpoint.rs`.

use std::rc::Rc;

use sequencer_fast::logic::{self, Counter};
use wire::{Layout, Position};

use super::{For, Sequencer};
use crate::calls::What;
use crate::env::Env;
use crate::mutation::Mutation;

impl Sequencer {
    /// Ends the reign to open a segment, if somebody wants that. Whether it has.
    pub(super) fn restripes_now(&mut self, env: &mut Env) -> bool {
        let Some(reign) = &self.reign else {
            return false;
        };
        if self.busy || self.stopping || reign.has_ended() {
            return false;
        }
        // [H-5] Only a reign that grants opens a segment.
        let mut wanted = reign.wish().wanted().filter(|_| self.sealing.is_none());
        if env.is(Mutation::RestripeUnsealed) && self.sealing.is_some() {
            wanted = self.carried.take();
        }
        if let Some(layout) = wanted {
            self.restripe(layout, env);
        }
        wanted.is_some()
    }

    fn restripe(&mut self, layout: Layout, env: &mut Env) {
        let (Some(reign), Some(entry)) = (&self.reign, &self.entry) else {
            return;
        };
        let durable = reign.tails().and_then(|tails| tails.durable);
        let tail = match env.mutation {
            Some(Mutation::RestripeOpen) => Some(Position(reign.counter().tail())),
            Some(Mutation::RestripeAtDurable) => reign.end().map(|tail| durable.unwrap_or(tail)),
            _ => reign.end(),
        };
        let Some(tail) = tail else {
            return self.fenced(env);
        };
        env.note(|| format!("sequencer {} opens a segment at {tail}", self.me));
        let newest = entry.segments.last().map(|segment| segment.layout);
        let entry = Rc::new(logic::restripe(entry, tail, layout, self.window.size()));
        self.carried = newest;
        (self.busy, self.restripes) = (true, true);
        self.entry = Some(Rc::clone(&entry));
        let tag = For::Restripe(tail, env.clock_ns(self.me));
        self.calls.insist(What::Append(entry), tag, env);
    }

    /// The next reign has begun, in the same process.
    pub(super) fn restriped(&mut self, tail: Position, since_ns: u64, env: &mut Env) {
        (self.busy, self.restripes) = (false, false);
        // Replies that were held are covered by where the next reign starts.
        self.publish(tail, env);
        self.since_ns = since_ns;
        self.begun(env);
    }
}
