//! Everything that is not a process: time, chance, network, store, and what was seen.

use std::collections::{BTreeMap, BTreeSet, BinaryHeap};
use std::hash::DefaultHasher;
use std::time::Duration;

use wire::LogId;
use wire::RunBody;
use wire::frame::{Ack, Append, Seal};

use crate::event::{CallId, Event, Input, Post, ProcId, Timer};
use crate::faults::Faults;
use crate::history::History;
use crate::mutation::Mutation;
use crate::rng::Rng;
use crate::store::{Op, START_MS, Store};
use crate::tokens::Tokens;

/// The log of every simulation.
pub const LOG: LogId = LogId([7; 16]);

/// Microseconds of a millisecond.
pub const MS: u64 = 1000;

/// Time after which a request to the store counts as failed.
const STORE_TIMEOUT: u64 = 700 * MS;

/// Time for which a process sees the same of those that hold a post.
const VIEW: u64 = 700 * MS;

/// How often, in percent, a host tells that nobody listens at a port of it.
const TOLD_CLOSED: u64 = 70;

/// A process as the network sees it.
#[derive(Debug)]
pub struct Seen {
    /// What it runs as.
    pub post: Post,
    /// Whether it still runs.
    pub alive: bool,
    /// It does nothing from this time on.
    pub paused_from: u64,
    /// It goes on at this time.
    pub paused_until: u64,
    /// How much its clock of boot time, which counts sleep, is ahead.
    pub clock_ahead: u64,
    /// How much its wall clock is ahead, or behind, in milliseconds.
    pub wall_ahead_ms: i64,
}

#[derive(Debug)]
struct Item(u64, u64, Event);

impl PartialEq for Item {
    fn eq(&self, other: &Self) -> bool {
        self.cmp(other).is_eq()
    }
}

impl Eq for Item {}

impl PartialOrd for Item {
    fn partial_cmp(&self, other: &Self) -> Option<std::cmp::Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for Item {
    // The earliest is the greatest.
    fn cmp(&self, other: &Self) -> std::cmp::Ordering {
        (other.0, other.1).cmp(&(self.0, self.1))
    }
}

/// The world without its processes.
#[derive(Debug)]
pub struct Env {
    /// Virtual time in microseconds.
    pub now: u64,
    /// Chance.
    pub rng: Rng,
    /// The object store.
    pub store: Store,
    /// How hostile the world is.
    pub faults: Faults,
    /// The guard that is taken out.
    pub mutation: Option<Mutation>,
    /// What clients saw.
    pub history: History,
    /// What sequencers granted.
    pub tokens: Tokens,
    /// All processes, by number.
    pub seen: Vec<Seen>,
    /// The first rule that was broken.
    pub broken: Option<String>,
    /// What happened so far, in a number.
    pub hash: DefaultHasher,
    /// Whether to say what happens.
    pub verbose: bool,
    queue: BinaryHeap<Item>,
    sequence: u64,
    /// When the last frame of a connection arrives, by its direction.
    arrivals: BTreeMap<(u64, bool), u64>,
    severed: BTreeSet<u64>,
    connections: u64,
    views: u64,
}

impl Env {
    /// A world at its beginning.
    #[must_use]
    pub fn new(mut rng: Rng, store: Store, faults: Faults, mutation: Option<Mutation>) -> Self {
        let views = rng.draw();
        Self {
            now: 0,
            rng,
            store,
            faults,
            mutation,
            history: History::default(),
            tokens: Tokens::default(),
            seen: Vec::new(),
            broken: None,
            hash: DefaultHasher::new(),
            verbose: false,
            queue: BinaryHeap::new(),
            sequence: 0,
            arrivals: BTreeMap::new(),
            severed: BTreeSet::new(),
            connections: 0,
            views,
        }
    }

    /// Whether this guard is taken out.
    #[must_use]
    pub fn is(&self, mutation: Mutation) -> bool {
        self.mutation == Some(mutation)
    }

    /// A rule is broken: the first one counts.
    pub fn fail(&mut self, what: impl Into<String>) {
        let what = what.into();
        self.note(|| format!("BROKEN {what}"));
        self.broken.get_or_insert(what);
    }

    /// Says what happens, if that is wanted.
    #[allow(clippy::print_stderr, reason = "the trace that was asked for")]
    pub fn note(&self, what: impl FnOnce() -> String) {
        if self.verbose {
            eprintln!(
                "{:>12.6} {}",
                Duration::from_micros(self.now).as_secs_f64(),
                what()
            );
        }
    }

    /// Lets something happen after a time.
    pub fn after(&mut self, pause: u64, event: Event) {
        self.sequence += 1;
        self.queue
            .push(Item(self.now + pause, self.sequence, event));
    }

    /// The next event; time goes on to it.
    pub fn go_on(&mut self) -> Option<Event> {
        let Item(at, _, event) = self.queue.pop()?;
        self.now = at;
        Some(event)
    }

    /// Wakes a process after a time.
    pub fn timer(&mut self, of: ProcId, pause: u64, timer: Timer) {
        self.after(pause, Event::Input(of, Input::Timer(timer)));
    }

    /// A process's clock of boot time.
    #[must_use]
    pub fn clock(&self, of: ProcId) -> Duration {
        Duration::from_micros(1_000_000 + self.now + self.seen[of].clock_ahead)
    }

    /// The same in nanoseconds.
    #[must_use]
    pub fn clock_ns(&self, of: ProcId) -> u64 {
        u64::try_from(self.clock(of).as_nanos()).unwrap_or(u64::MAX)
    }

    /// A process's wall clock in milliseconds. The store's own shows the true time.
    #[must_use]
    pub fn wall_ms(&self, of: ProcId) -> u64 {
        self.true_ms()
            .saturating_add_signed(self.seen[of].wall_ahead_ms)
    }

    fn true_ms(&self) -> u64 {
        START_MS + self.now / MS
    }

    /// The processes of a post that run, the oldest first.
    #[must_use]
    pub fn living(&self, post: Post) -> Vec<ProcId> {
        let all = self.seen.iter().enumerate();
        let of_post = all.filter(|(_, seen)| seen.post == post && seen.alive);
        of_post.map(|(id, _)| id).collect()
    }

    /// Whom a process finds that looks for this post: mostly the newest, if any, and for a while the same.
    pub fn route(&mut self, from: ProcId, post: Post) -> Option<ProcId> {
        let living = self.living(post);
        let mut view = Rng::new((self.now / VIEW) ^ ((from as u64) << 32) ^ self.views);
        if self.faults.calm || view.percent(60) {
            return living.last().copied();
        }
        view.pick(&living)
    }

    /// Sends a datagram: it may be lost, doubled and overtaken.
    pub fn datagram(&mut self, from: ProcId, to: ProcId, bytes: &[u8]) {
        let copies = 1 + u64::from(self.rng.percent(self.faults.doubled));
        for _ in 0..copies {
            if self.faults.is_cut(from, to, self.now) || self.rng.percent(self.faults.lost) {
                continue;
            }
            let late = self.latency();
            self.after(
                late,
                Event::Input(to, Input::Datagram(from, bytes.to_vec())),
            );
        }
    }

    /// Sends a datagram to whoever holds a post; where nobody does, the host may say so.
    pub fn ask(&mut self, from: ProcId, post: Post, bytes: &[u8]) {
        if let Some(to) = self.route(from, post) {
            return self.datagram(from, to, bytes);
        }
        if self.rng.percent(TOLD_CLOSED) && !self.rng.percent(self.faults.lost) {
            let late = 2 * self.latency();
            self.after(late, Event::Input(from, Input::Closed(post)));
        }
    }

    /// A new connection.
    pub fn connect(&mut self) -> u64 {
        self.connections += 1;
        self.connections
    }

    /// Ends a connection for good: what is on its way still arrives.
    pub fn sever(&mut self, conn: u64) {
        self.severed.insert(conn);
    }

    /// Sends an append frame, in the order of the connection.
    pub fn frame(&mut self, (from, to, conn): (ProcId, ProcId, u64), head: Append, body: RunBody) {
        self.stream(
            (from, to, conn, true),
            Input::Append(from, conn, head, body),
        );
    }

    /// Sends an answer, in the order of the connection.
    pub fn ack(&mut self, (from, to, conn): (ProcId, ProcId, u64), ack: Ack) {
        self.stream((from, to, conn, false), Input::Ack(conn, ack));
    }

    /// Sends something in the order of a connection, there or back.
    pub fn stream(&mut self, (from, to, conn, there): (ProcId, ProcId, u64, bool), input: Input) {
        if self.severed.contains(&conn) {
            return;
        }
        // A connection that loses something is gone, and nobody is told for a while.
        let cut = self.faults.is_cut(from, to, self.now);
        if cut || self.rng.below(1000) < self.faults.severed {
            return self.sever(conn);
        }
        let at = self.now + self.latency();
        let last = self.arrivals.entry((conn, there)).or_default();
        *last = at.max(*last + 1);
        let pause = *last - self.now;
        self.after(pause, Event::Input(to, input));
    }

    /// Sends a message that is tried again by whoever sends it: seals and their answers.
    pub fn message(&mut self, from: ProcId, to: ProcId, input: Input) {
        if !self.faults.is_cut(from, to, self.now) && !self.rng.percent(self.faults.lost) {
            let late = self.latency();
            self.after(late, Event::Input(to, input));
        }
    }

    /// Asks a stripe-writer for a seal.
    pub fn seal(&mut self, from: ProcId, to: ProcId, seal: Seal) {
        self.message(from, to, Input::Seal(from, seal));
    }

    fn latency(&mut self) -> u64 {
        let slow = self.rng.percent(self.faults.slow);
        let most = if slow {
            self.faults.latency_slow
        } else {
            self.faults.latency
        };
        self.rng.between(50, most.max(50))
    }

    /// Sends a request to the store. Exactly one answer comes, if only that there was none in time.
    pub fn ask_store(&mut self, from: ProcId, call: CallId, op: Op) {
        let faults = self.faults.store;
        let there = self.rng.between(200, self.faults.store_latency.max(200));
        let event = |op, answered| Event::Store {
            from: Some((from, call)),
            op,
            answered,
        };
        let failed = Event::Input(from, Input::Answer(call, crate::store::Answer::Failed));
        if self.faults.is_out(from, self.now) {
            return self.after(STORE_TIMEOUT, failed);
        }
        if self.rng.percent(faults.lost) {
            // Not answered, or refused at once.
            let refused = self.rng.percent(50);
            let pause = if refused { there } else { STORE_TIMEOUT };
            return self.after(pause, failed);
        }
        if !op.is_create() {
            if self.rng.percent(faults.failed_reads) {
                return self.after(there, failed);
            }
            return self.after(there, event(op, true));
        }
        if self.rng.percent(faults.conflict) {
            // 409: the name is taken by nobody.
            let exists = Input::Answer(call, crate::store::Answer::Exists);
            return self.after(there, Event::Input(from, exists));
        }
        if self.rng.percent(faults.doubled) {
            // The request was sent twice; mostly the second answer is the one that is heard.
            let pause = self.rng.below(there);
            self.after(pause, event(op.clone(), false));
            return self.after(there, event(op, true));
        }
        if self.rng.percent(faults.answer_lost) {
            let timeout = if self.rng.percent(50) {
                there
            } else {
                STORE_TIMEOUT
            };
            self.after(there, event(op, false));
            return self.after(timeout, failed);
        }
        if self.rng.percent(faults.late) {
            let late = self.rng.between(1, 3000) * MS;
            self.after(late, event(op, late < STORE_TIMEOUT));
            if late >= STORE_TIMEOUT {
                self.after(STORE_TIMEOUT, failed);
            }
            return;
        }
        self.after(there, event(op, true));
    }

    /// A request reaches the store.
    pub fn apply(&mut self, from: Option<(ProcId, CallId)>, op: &Op, answered: bool) {
        self.note(|| match op {
            Op::CreateObject(object) => {
                let header = object.index.header;
                let (segment, stripe) = (header.chain.segment, header.chain.stripe);
                let owner = header.author.owner;
                format!(
                    "store: {from:?} object segment={segment} stripe={stripe} [{}, {}) owner={owner}",
                    header.start, header.end
                )
            }
            Op::CreateControl(entry) => format!(
                "store: {from:?} control {} epoch={} start={} reservation={}",
                entry.number, entry.epoch, entry.epoch_start, entry.reservation
            ),
            _ => format!("store: {from:?} {op:?}"),
        });
        let answer = match self.store.apply(op, self.true_ms()) {
            Ok(answer) => answer,
            Err(broken) => return self.fail(broken),
        };
        let durable = self.store.durable();
        self.history.durable = self.history.durable.max(durable);
        if let Some((process, call)) = from.filter(|_| answered) {
            let back = self.rng.between(100, 1000);
            self.after(back, Event::Input(process, Input::Answer(call, answer)));
        }
    }
}
