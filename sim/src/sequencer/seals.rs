//! Seals that a reign waits for before it grants: `sequencer-fast/src/store/seal.rs`.

use sequencer_fast::logic::Sealing;
use wire::frame::{Seal, SealedStripe};

use super::Sequencer;
use crate::env::Env;
use crate::event::Post;
use crate::mutation::Mutation;
use crate::world::WRITERS;

impl Sequencer {
    pub(super) fn ask_seals(&mut self, env: &mut Env) {
        let Some(sealing) = &self.sealing else {
            return;
        };
        self.asked_at = env.now;
        for post in WRITERS {
            if let Some(writer) = env.route(self.me, Post::Writer(post)) {
                env.seal(self.me, writer, sealing.seal());
            }
        }
    }

    pub(super) fn sealed(
        &mut self,
        post: u16,
        seal: Seal,
        stripes: &[SealedStripe],
        env: &mut Env,
    ) {
        let Some(sealing) = &mut self.sealing else {
            return;
        };
        sealing.sealed(seal, stripes);
        if env.is(Mutation::SealByWriter) && seal == sealing.seal() {
            self.answered.insert(post);
            if self.answered.len() == WRITERS.len() {
                self.sealing = None;
                return self.open(env);
            }
        }
        self.skip_seals(env);
        self.opens(env);
    }

    /// Seals that are not waited for, where a guard is taken out.
    pub(super) fn skip_seals(&mut self, env: &Env) {
        let (Some(sealing), Some(entry)) = (&mut self.sealing, &self.entry) else {
            return;
        };
        let newest = entry.segments.last().map(|segment| segment.id);
        let skips = |segment| match env.mutation {
            Some(Mutation::SealNewOnly) => Some(segment) != newest,
            Some(Mutation::SealOldOnly) => Some(segment) == newest && entry.segments.len() > 1,
            _ => false,
        };
        let mut skipped = Vec::new();
        for segment in entry.segments.iter().filter(|segment| skips(segment.id)) {
            skipped.extend(segment.layout.all().map(|stripe| SealedStripe {
                segment: segment.id,
                stripe,
            }));
        }
        if env.is(Mutation::SealOneLess) && sealing.missing() == 1 {
            skipped.extend(sealing.first_missing());
        }
        sealing.sealed(sealing.seal(), &skipped);
    }

    /// Grants once every stripe is sealed (H-4).
    pub(super) fn opens(&mut self, env: &mut Env) {
        if self.sealing.as_ref().is_some_and(Sealing::is_complete) {
            self.sealing = None;
            self.open(env);
        }
    }
}
