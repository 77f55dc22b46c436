//! What goes wrong in a world.

use wire::Layout;

use super::{Post, ProcId, Process, SEQUENCERS, STRIPES_MOST, World};
use crate::env::MS;
use crate::event::{Event, Input};
use crate::sequencer::{DETECT, REIGN_TTL};
use crate::writer::GRACE;

/// Segments of a log, at most.
const SEGMENTS: usize = 8;

impl World {
    /// Somebody who runs: mostly a server.
    fn victim(&mut self) -> Option<(ProcId, Vec<ProcId>)> {
        let all: Vec<ProcId> = (0..self.processes.len())
            .filter(|id| self.env.seen[*id].alive)
            .collect();
        let (kind, env) = (self.env.rng.below(100), &self.env);
        let of_kind = |id: &ProcId| match env.seen[*id].post {
            Post::Sequencer(_) => kind < 40,
            Post::Writer(_) => (40..85).contains(&kind),
            Post::Client(_) => kind >= 85,
        };
        let victims: Vec<_> = all.iter().copied().filter(of_kind).collect();
        Some((self.env.rng.pick(&victims)?, all))
    }

    pub(super) fn trouble(&mut self) {
        let now = self.env.now;
        let Some((victim, servers)) = self.victim() else {
            return;
        };
        let post = self.env.seen[victim].post;
        match self.env.rng.below(21) {
            0 | 1 => {
                self.env.note(|| format!("{victim} crashes"));
                self.env.seen[victim].alive = false;
            }
            2..=4 => {
                // Longer than every lease, now and then.
                let longest = self
                    .env
                    .rng
                    .pick(&[REIGN_TTL / 2, 2 * REIGN_TTL, 9000 * MS]);
                let pause = self.env.rng.below(longest.unwrap_or(REIGN_TTL));
                self.env.note(|| format!("{victim} pauses for {pause} us"));
                self.env.seen[victim].paused_until = now + pause;
            }
            5 | 6 if !matches!(post, Post::Client(_)) => self.start(post),
            7 => {
                if let Some(other) = self.env.rng.pick(&servers) {
                    let until = now + self.env.rng.between(1, 3000) * MS;
                    self.env
                        .note(|| format!("{victim} is cut off from {other}"));
                    self.env.faults.cut(victim, Some(other), until);
                    if self.env.rng.percent(50) {
                        self.env.faults.cut(other, Some(victim), until);
                    }
                }
            }
            8 => {
                let until = now + self.env.rng.between(1, 3000) * MS;
                if self.env.rng.percent(20) {
                    self.env.note(|| "the store is down".to_owned());
                    self.env.faults.outage(until);
                } else {
                    self.env
                        .note(|| format!("{victim} is cut off from the store"));
                    self.env.faults.cut(victim, None, until);
                }
            }
            9 => self.jump(victim),
            10 | 14 if self.env.seen[victim].paused_until <= now => self.stop(victim),
            11 => self.compact(),
            12 | 13 => self.suspect(),
            15 | 16 => self.restripe(),
            _ => self.succeed(victim, post),
        }
    }

    pub(super) fn stop(&mut self, victim: ProcId) {
        self.env.note(|| format!("{victim} stops in good order"));
        match &mut self.processes[victim] {
            Process::Sequencer(sequencer) => {
                sequencer.stop(&mut self.env);
                self.env.seen[victim].alive = !sequencer.over;
            }
            Process::Writer(writer) => writer.stop(&mut self.env),
            Process::Client(_) => {}
        }
    }

    /// One (lessons 1, 9 and 13) that others take for dead, and that is not.
    fn succeed(&mut self, victim: ProcId, post: Post) {
        if matches!(post, Post::Client(_)) {
            return;
        }
        let (now, rng) = (self.env.now, &mut self.env.rng);
        let long = now + rng.between(2000, 8000) * MS;
        match rng.below(3) {
            0 => {
                let until = now + rng.between(300, 2000) * MS;
                self.env.faults.cut(victim, None, until);
                self.start(post);
            }
            1 => {
                self.env.seen[victim].paused_until = long;
                self.start(post);
            }
            _ => {
                // It is paused as soon as it has looked where it has to begin.
                self.start(post);
                let successor = self.processes.len() - 1;
                self.env.seen[successor].paused_from = now + self.env.rng.between(1, 150) * MS;
                self.env.seen[successor].paused_until = long;
            }
        }
        self.env
            .note(|| format!("{victim} is taken for dead, until {long} us"));
    }

    pub(super) fn compact(&mut self) {
        let now = self.env.now;
        if let Err(broken) = self.env.store.compact(&mut self.env.rng, now, now + GRACE) {
            self.env.fail(broken);
        }
    }

    /// A machine sleeps, or somebody sets its wall clock.
    fn jump(&mut self, victim: ProcId) {
        let rng = &mut self.env.rng;
        let seen = &mut self.env.seen[victim];
        if rng.percent(50) {
            let slept = rng.below(4000) * MS;
            seen.clock_ahead += slept;
        } else {
            let by = i64::try_from(rng.below(7_200_000)).unwrap_or(0);
            seen.wall_ahead_ms = if rng.percent(50) { by } else { -by };
        }
        self.env.note(|| format!("the clocks of {victim} jump"));
    }

    /// Sequencers that are taken to be gone and are not, and standbys that are hindered when one is.
    fn suspect(&mut self) {
        let now = self.env.now;
        let long = now + self.env.rng.between(300, 4000) * MS;
        match self.env.rng.below(3) {
            0 => {
                self.env
                    .note(|| "sequencers cannot hear each other".to_owned());
                let of_post = SEQUENCERS.map(|post| self.env.living(Post::Sequencer(post)));
                let all: Vec<ProcId> = of_post.flatten().collect();
                for (one, other) in all
                    .iter()
                    .flat_map(|one| all.iter().map(move |two| (one, two)))
                {
                    self.env.faults.cut(*one, Some(*other), long);
                }
            }
            1 => {
                // Whoever stands by is paused in the middle of its start.
                let waiting = self.kill_reigning();
                for id in waiting {
                    let seen = &mut self.env.seen[id];
                    seen.paused_from = now + DETECT + self.env.rng.below(250) * MS;
                    seen.paused_until = seen.paused_from + long - now;
                }
            }
            _ => {
                // Two begin at the same time.
                self.kill_reigning();
                for post in SEQUENCERS {
                    if self.env.rng.percent(70) {
                        self.start(Post::Sequencer(post));
                    }
                }
            }
        }
    }

    /// Clients want another layout, and now and then whoever takes the wish up does not live to the end of it.
    fn restripe(&mut self) {
        let segments = self
            .env
            .store
            .newest()
            .map_or(0, |entry| entry.segments.len());
        if segments >= SEGMENTS {
            return;
        }
        for post in 0..=u16::from(self.env.rng.percent(30)) {
            let stripes = self.env.rng.between(1, STRIPES_MOST.into());
            let unit = self.env.rng.between(1, 4);
            let sizes = (u32::try_from(stripes), u32::try_from(unit));
            let (Ok(stripes), Ok(unit)) = sizes else {
                return;
            };
            let client = self.env.living(Post::Client(post)).last().copied();
            if let (Some(client), Ok(layout)) = (client, Layout::new(stripes, unit)) {
                self.env
                    .note(|| format!("{client} wants {stripes} stripes, unit {unit}"));
                self.env.after(0, Event::Input(client, Input::Wish(layout)));
            }
        }
        if self.env.rng.percent(50) {
            let pause = self.env.rng.below(300) * MS;
            self.env.after(pause, Event::Fall);
        }
    }

    /// Gives the sequencers that stand by.
    pub(super) fn kill_reigning(&mut self) -> Vec<ProcId> {
        let mut waiting = Vec::new();
        for (id, process) in self.processes.iter().enumerate() {
            let Process::Sequencer(sequencer) = process else {
                continue;
            };
            if !self.env.seen[id].alive {
                continue;
            }
            if sequencer.reigns() {
                self.env.note(|| format!("{id} reigns and crashes"));
                self.env.seen[id].alive = false;
            } else {
                waiting.push(id);
            }
        }
        waiting
    }
}
