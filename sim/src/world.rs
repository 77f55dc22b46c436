//! A world from its beginning to its end: processes, trouble, and what has to be true at last.

use std::hash::Hasher;
use std::ops::Range;
use std::time::Duration;

use catalog::Writer as Member;
use sequencer_fast::logic::Window;
use stripe_writer::logic::action::Config;
use stripe_writer::logic::members::Key;
use wire::control::ControlEntry;
use wire::{Epoch, Layout, Position, Segment, SegmentId, WriterId};

use crate::client::Client;
use crate::env::{Env, LOG, MS, Seen};
use crate::event::{Event, Input, Post, ProcId};
use crate::faults::Faults;
use crate::mutation::Mutation;
use crate::rng::Rng;
use crate::sequencer::Sequencer;
use crate::store::Store;
use crate::writer::{MAX_COMMIT_AGE, Writer};

/// Posts of sequencers: one reigns, the other stands by.
pub const SEQUENCERS: Range<u16> = 0..2;

/// Posts of stripe-writers.
pub const WRITERS: Range<u16> = 0..3;

/// Stripes that a layout may have.
pub const STRIPES_MOST: u16 = 6;

const CLIENTS: u16 = 3;
const STRIPES: u32 = 3;
const UNIT: u32 = 2;

/// Time in which things go wrong.
const TROUBLED: u64 = 10_000 * MS;

/// Time after that in which everything has to come to an end.
const REST: u64 = 60_000 * MS;

/// Events of a life after which it counts as going on for ever.
const EVENTS: u64 = 400_000;

mod script;
mod trouble;

pub use script::{Act, Script, Who};

#[derive(Debug)]
enum Process {
    Sequencer(Box<Sequencer>),
    Writer(Box<Writer>),
    Client(Box<Client>),
}

/// What became of a life.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Report {
    /// The rule that was broken, if one was.
    pub broken: Option<String>,
    /// Everything that happened, in a number.
    pub trace: u64,
    /// Events.
    pub events: u64,
    /// Records that were acknowledged.
    pub acknowledged: u64,
    /// Tokens.
    pub tokens: u64,
    /// Reigns.
    pub reigns: u64,
    /// Processes.
    pub processes: u64,
}

/// A world.
#[derive(Debug)]
pub struct World {
    env: Env,
    processes: Vec<Process>,
    config: Config,
    window: (u64, u64),
    members: Vec<Member>,
    /// Whether chains are compacted all the time.
    compacts: bool,
    /// What goes wrong, where that is not left to chance.
    script: Option<Script>,
}

/// The stripe-writers, each with stripes of its own, or all with all stripes.
fn members(shared: bool) -> Vec<Member> {
    let each = STRIPES_MOST / WRITERS.end;
    let member = |post: u16| Member {
        address: ([10, 0, 0, 1], 7000 + post).into(),
        stripes: match shared {
            true => 0..=STRIPES_MOST - 1,
            false => post * each..=(post + 1) * each - 1,
        },
    };
    WRITERS.map(member).collect()
}

impl World {
    /// The world of a seed.
    ///
    /// # Errors
    /// None that a seed can cause.
    pub fn new(
        seed: u64,
        mutation: Option<Mutation>,
        verbose: bool,
    ) -> Result<Self, wire::WireError> {
        let mut rng = Rng::new(seed);
        let layout = Layout::new(STRIPES, UNIT)?;
        let segment = Segment {
            id: SegmentId(0),
            epoch: Epoch(1),
            start: Position(0),
            layout,
        };
        let first = ControlEntry {
            log: LOG,
            number: 0,
            epoch: Epoch(0),
            owner: WriterId(LOG.0),
            epoch_start: Position(0),
            reservation: Position(0),
            clean: true,
            trim: Position(0),
            segments: vec![segment],
        };
        let store = Store::new(first);
        let members = members(rng.percent(50));
        let faults = Faults::draw(&mut rng);
        let config = Config {
            linger: Duration::from_millis(rng.between(0, 30)),
            target_bytes: if rng.percent(50) { 1 } else { 100 },
            max_commit_age: MAX_COMMIT_AGE,
        };
        let least = rng.between(4, 24);
        let window = (least, least * rng.between(1, 8));
        let compacts = rng.percent(50);
        let mut env = Env::new(rng, store, faults, mutation);
        env.verbose = verbose;
        Ok(Self {
            env,
            processes: Vec::new(),
            config,
            window,
            members,
            compacts,
            script: None,
        })
    }

    /// Lives it.
    #[must_use]
    pub fn live(mut self) -> Report {
        self.env.after(0, Event::Supervise);
        let pause = self.env.faults.trouble_every;
        if self.script.is_none() {
            self.env.after(pause, Event::Nemesis);
        }
        let mut events = 0;
        while self.env.broken.is_none() {
            let Some(event) = self.env.go_on() else {
                break;
            };
            events += 1;
            self.env.hash.write_u64(self.env.now);
            let mut hash = std::mem::take(&mut self.env.hash);
            event.trace(&mut hash);
            self.env.hash = hash;
            self.happens(event);
            if self.env.now > TROUBLED && !self.env.faults.calm {
                self.calm_down();
            }
            if self.env.faults.calm && self.is_at_rest() {
                break;
            }
            if self.env.now > TROUBLED + REST || events > EVENTS {
                let unowned = self.unowned();
                self.env
                    .fail(format!("nothing comes to rest, nobody owns {unowned:?}"));
            }
        }
        self.last_checks();
        Report {
            broken: self.env.broken,
            trace: self.env.hash.finish(),
            events,
            acknowledged: self.env.history.acknowledged.len() as u64,
            tokens: self.env.tokens.count,
            reigns: self.env.store.newest().map_or(0, |entry| entry.epoch.0),
            processes: self.processes.len() as u64,
        }
    }

    fn happens(&mut self, event: Event) {
        match event {
            Event::Input(to, input) => self.input(to, input),
            Event::Store { from, op, answered } => self.env.apply(from, &op, answered),
            Event::Supervise => self.supervise(),
            Event::Act(_) if self.env.faults.calm => {}
            Event::Act(number) => self.act(number),
            Event::Fall if self.env.faults.calm => {}
            Event::Fall => {
                self.kill_reigning();
            }
            Event::Nemesis if self.env.faults.calm => {}
            Event::Nemesis => {
                self.trouble();
                let pause = self.env.rng.below(2 * self.env.faults.trouble_every);
                self.env.after(pause, Event::Nemesis);
            }
        }
    }

    fn input(&mut self, to: ProcId, input: Input) {
        let seen = &self.env.seen[to];
        if !seen.alive {
            if let Input::Append(from, conn, ..) = input {
                self.env.sever(conn);
                self.env.message(to, from, Input::Reset(conn));
            }
            return;
        }
        if seen.paused_until > self.env.now && seen.paused_from <= self.env.now {
            let pause = seen.paused_until - self.env.now;
            return self.env.after(pause, Event::Input(to, input));
        }
        if self.env.verbose && !matches!(input, Input::Timer(_) | Input::Datagram(..)) {
            self.env.note(|| {
                format!(
                    "{to}: {}",
                    format!("{input:?}").chars().take(180).collect::<String>()
                )
            });
        }
        let over = match &mut self.processes[to] {
            Process::Sequencer(process) => {
                process.handle(input, &mut self.env);
                process.over
            }
            Process::Writer(process) => {
                process.handle(input, &mut self.env);
                process.over
            }
            Process::Client(process) => {
                process.handle(input, &mut self.env);
                false
            }
        };
        if over {
            self.env.seen[to].alive = false;
        }
    }

    fn start(&mut self, post: Post) {
        let id = self.processes.len();
        let env = &mut self.env;
        let process = match post {
            Post::Sequencer(number) => {
                let window = Window::new(self.window.0, self.window.1);
                // Now and then somebody starts one that does not look whether another reigns.
                let waits = env.faults.calm || !env.rng.percent(env.faults.hasty);
                Process::Sequencer(Box::new(Sequencer::new(id, (number, waits), window)))
            }
            Post::Writer(number) => {
                let writer = Writer::new(id, number, &self.members, self.config);
                Process::Writer(Box::new(writer))
            }
            Post::Client(_) => Process::Client(Box::new(Client::new(id, &self.members))),
        };
        env.note(|| format!("{post:?} starts as {id}"));
        env.seen.push(Seen {
            post,
            alive: true,
            paused_from: 0,
            paused_until: 0,
            clock_ahead: env.rng.below(1_000_000_000),
            wall_ahead_ms: 0,
        });
        env.after(0, Event::Input(id, Input::Start));
        self.processes.push(process);
    }

    fn posts() -> impl Iterator<Item = Post> {
        let writers = WRITERS.map(Post::Writer);
        let clients = (0..CLIENTS).map(Post::Client);
        SEQUENCERS
            .map(Post::Sequencer)
            .chain(writers)
            .chain(clients)
    }

    fn supervise(&mut self) {
        for post in Self::posts().collect::<Vec<_>>() {
            self.end_doubles(post);
            let at_once = self.env.now == 0 || self.env.faults.calm || self.env.rng.percent(50);
            if self.env.living(post).is_empty() && at_once {
                self.start(post);
            }
        }
        self.env.store.delete_due(self.env.now);
        if self.compacts && self.env.rng.percent(20) {
            self.compact();
        }
        self.env.after(100 * MS, Event::Supervise);
    }

    /// One of two that run as the same stripe-writer is found and ended.
    fn end_doubles(&mut self, post: Post) {
        let living = self.env.living(post);
        let doubles = living.len().saturating_sub(1);
        for id in living.into_iter().take(doubles) {
            let found = self.env.faults.calm || self.env.rng.percent(3);
            if matches!(post, Post::Writer(_)) && found {
                self.env.note(|| format!("{id} runs twice and is killed"));
                self.env.seen[id].alive = false;
            }
        }
    }

    /// Nothing goes wrong any more, and clients begin nothing new.
    fn calm_down(&mut self) {
        self.env.note(|| "calm".to_owned());
        self.env.faults = Faults::none();
        for seen in &mut self.env.seen {
            seen.paused_until = seen.paused_until.min(self.env.now);
        }
    }

    fn is_at_rest(&self) -> bool {
        let idle = |(id, process): (usize, &Process)| match process {
            Process::Client(client) => !self.env.seen[id].alive || client.is_idle(),
            _ => true,
        };
        self.processes.iter().enumerate().all(idle) && self.unowned().is_none()
    }

    /// A stripe of an open segment that nobody owns.
    fn unowned(&self) -> Option<Key> {
        let newest = self.env.store.newest()?;
        let open = newest.open_segments().iter();
        let mut keys = open.flat_map(|segment| {
            let id = segment.id;
            segment.layout.all().map(move |stripe| (id, stripe))
        });
        let owns = |(id, process): (usize, &Process), key| match process {
            Process::Writer(writer) => self.env.seen[id].alive && writer.owns(key),
            _ => false,
        };
        keys.find(|key| !self.processes.iter().enumerate().any(|one| owns(one, *key)))
    }

    fn last_checks(&mut self) {
        let all = std::mem::take(&mut self.processes);
        for process in &all {
            if let Process::Client(client) = process {
                client.leave(&mut self.env);
            }
        }
        self.processes = all;
        for (position, record) in self.env.history.acknowledged.clone() {
            if self.env.store.places.get(&record) != Some(&position) {
                self.env.fail(format!(
                    "record {record} was acknowledged at {position} and is lost"
                ));
            }
        }
        if let Err(broken) = self.env.history.check() {
            self.env.fail(broken);
        }
    }
}
