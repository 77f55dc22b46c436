//! Worlds in which only what a script says goes wrong, at about the times that it says.

use wire::{Layout, SegmentId, StripeId};

use super::{Post, ProcId, Process, World};
use crate::env::MS;
use crate::event::{Event, Input};
use crate::faults::Faults;
use crate::mutation::Mutation;

/// Spread of the times of a script, in milliseconds: each seed has its own.
const SPREAD_MS: u64 = 200;

/// Somebody, found when something is about to happen to it.
#[derive(Debug, Clone, Copy)]
pub enum Who {
    /// The sequencer of the newest reign.
    Reigning,
    /// The one that stands by.
    Waiting,
    /// The stripe-writer that owns this stripe of the newest segment.
    Owner(u16),
    /// Whoever started last in a post.
    Newest(Post),
}

/// Something that happens.
#[derive(Debug, Clone, Copy)]
pub enum Act {
    /// It crashes.
    Crash(Who),
    /// It does nothing for so many milliseconds.
    Pause(Who, u64),
    /// The two cannot reach each other for so long.
    Cut(Who, Who, u64),
    /// It and all other servers cannot reach each other for so long; clients reach it.
    CutServers(Who, u64),
    /// It cannot reach the store for so long.
    CutStore(Who, u64),
    /// Another one starts in a post.
    Start(Post),
    /// It stops in good order.
    Stop(Who),
    /// A client wants this many stripes with units of this many positions.
    Wish(u32, u32),
    /// Neighbours in some chain are merged.
    Compact,
}

/// A script.
#[derive(Debug, Clone, Default)]
pub struct Script {
    /// What goes wrong all the time.
    pub faults: Faults,
    /// What happens when, in milliseconds.
    pub acts: Vec<(u64, Act)>,
}

impl World {
    /// The world of a script, and of a seed that says when and in which order exactly.
    ///
    /// # Errors
    /// None that a seed can cause.
    pub fn scripted(
        seed: u64,
        mutation: Option<Mutation>,
        script: Script,
    ) -> Result<Self, wire::WireError> {
        let mut world = Self::new(seed, mutation, false)?;
        world.env.faults = script.faults.clone();
        world.compacts = false;
        for (number, (at, _)) in script.acts.iter().enumerate() {
            let late = world.env.rng.below(SPREAD_MS);
            world.env.after((at + late) * MS, Event::Act(number));
        }
        world.script = Some(script);
        Ok(world)
    }

    /// The same, told on stderr.
    #[must_use]
    pub fn told(mut self) -> Self {
        self.env.verbose = true;
        self
    }

    pub(super) fn act(&mut self, number: usize) {
        let acts = self.script.as_ref().map(|script| &script.acts);
        let Some((_, act)) = acts.and_then(|acts| acts.get(number)).copied() else {
            return;
        };
        let now = self.env.now;
        self.env.note(|| format!("{act:?}"));
        match act {
            Act::Crash(who) => {
                if let Some(id) = self.find(who) {
                    self.env.seen[id].alive = false;
                }
            }
            Act::Pause(who, ms) => {
                if let Some(id) = self.find(who) {
                    self.env.seen[id].paused_until = now + ms * MS;
                }
            }
            Act::Cut(who, other, ms) => {
                if let (Some(one), Some(two)) = (self.find(who), self.find(other)) {
                    self.env.faults.cut(one, Some(two), now + ms * MS);
                    self.env.faults.cut(two, Some(one), now + ms * MS);
                }
            }
            Act::CutServers(who, ms) => {
                let Some(one) = self.find(who) else {
                    return;
                };
                for (id, seen) in self.env.seen.iter().enumerate() {
                    if id != one && seen.alive && !matches!(seen.post, Post::Client(_)) {
                        self.env.faults.cut(one, Some(id), now + ms * MS);
                        self.env.faults.cut(id, Some(one), now + ms * MS);
                    }
                }
            }
            Act::CutStore(who, ms) => {
                if let Some(id) = self.find(who) {
                    self.env.faults.cut(id, None, now + ms * MS);
                }
            }
            Act::Start(post) => self.start(post),
            Act::Stop(who) => {
                if let Some(id) = self.find(who) {
                    self.stop(id);
                }
            }
            Act::Wish(stripes, unit) => {
                let client = self.env.living(Post::Client(0)).last().copied();
                if let (Some(client), Ok(layout)) = (client, Layout::new(stripes, unit)) {
                    self.env.after(0, Event::Input(client, Input::Wish(layout)));
                }
            }
            Act::Compact => self.compact(),
        }
    }

    fn find(&self, who: Who) -> Option<ProcId> {
        let now = self.env.now;
        let awake = |id: &ProcId| {
            let seen = &self.env.seen[*id];
            seen.alive && (seen.paused_until <= now || seen.paused_from > now)
        };
        let mut all = (0..self.processes.len()).filter(awake);
        match who {
            Who::Newest(post) => self.env.living(post).last().copied(),
            Who::Reigning => all.max_by_key(|id| match &self.processes[*id] {
                Process::Sequencer(one) if one.reigns() => one.epoch(),
                _ => None,
            }),
            Who::Waiting => all.find(|id| match &self.processes[*id] {
                Process::Sequencer(one) => !one.reigns(),
                _ => false,
            }),
            Who::Owner(stripe) => {
                let newest = self.env.store.newest();
                let newest = newest.and_then(|entry| entry.segments.last().map(|s| s.id));
                let key = (newest.unwrap_or(SegmentId(0)), StripeId(stripe));
                all.find(|id| match &self.processes[*id] {
                    Process::Writer(writer) => writer.owns(key),
                    _ => false,
                })
            }
        }
    }
}
