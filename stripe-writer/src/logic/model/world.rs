//! Everything that is under way, and what happens next.

use std::time::Duration;

use wire::object::{ChainId, Header, Object};
use wire::{Epoch, Identity, Layout, LogId, SegmentId, Slot, StripeId};

use super::client::{Clients, Token};
use super::owner::{Owner, Stage};
use super::rng::Rng;
use super::store::Store;
use crate::limits::FLIGHTS_A_STRIPE;
use crate::logic::action::{Config, FlightId, PutOutcome};

/// Something that happens some time, in any order.
#[derive(Debug)]
pub(super) enum Op {
    /// A put reaches the store; without `key` nobody waits for its answer any more.
    Put {
        owner: usize,
        object: Object,
        key: Option<FlightId>,
    },
    /// The answer reaches the owner.
    PutDone {
        owner: usize,
        key: FlightId,
        outcome: PutOutcome,
    },
    /// A walk that an owner began (C-7).
    Walk {
        owner: usize,
        id: FlightId,
        header: Header,
    },
    Walked {
        owner: usize,
        id: FlightId,
        in_chain: bool,
    },
    Lookup {
        owner: usize,
        token: Token,
        slots: (Slot, Slot),
        identity: Identity,
    },
    Append {
        owner: usize,
        frame: usize,
    },
    Seal {
        owner: usize,
    },
}

/// How hostile the world is, in percent.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Faults {
    pub(super) lost_answers: u64,
    pub(super) repeated_puts: u64,
    pub(super) late_puts: u64,
}

#[derive(Debug)]
pub(super) struct World {
    pub(super) rng: Rng,
    pub(super) now: Duration,
    pub(super) chain: ChainId,
    pub(super) config: Config,
    pub(super) faults: Faults,
    pub(super) store: Store,
    pub(super) owners: Vec<Owner>,
    pub(super) clients: Clients,
    pub(super) ops: Vec<Op>,
    /// The reign and where it began; whether the stripe is sealed and it grants; its issued tail.
    pub(super) control: (Epoch, Slot),
    pub(super) grants: bool,
    pub(super) issued: Slot,
    pub(super) verbose: bool,
}

impl World {
    pub(super) fn new(seed: u64, verbose: bool) -> Self {
        let mut rng = Rng::new(seed);
        let chain = ChainId {
            log: LogId([1; 16]),
            segment: SegmentId(1),
            stripe: StripeId(0),
            layout: Layout::new(1, 1).expect("valid"),
        };
        let config = Config {
            linger: Duration::from_millis(rng.between(0, 20)),
            target_bytes: if rng.percent(50) { 1 } else { 150 },
            max_commit_age: MAX_COMMIT_AGE,
        };
        let faults = Faults {
            lost_answers: rng.below(40),
            repeated_puts: rng.below(30),
            late_puts: rng.below(90),
        };
        Self {
            rng,
            now: Duration::from_secs(1),
            chain,
            config,
            faults,
            store: Store::new(chain),
            owners: Vec::new(),
            clients: Clients::default(),
            ops: Vec::new(),
            control: (Epoch(1), Slot(0)),
            grants: true,
            issued: Slot(0),
            verbose,
        }
    }

    pub(super) fn note(&self, text: impl FnOnce() -> String) {
        if self.verbose {
            eprintln!("{:>9.3} {}", self.now.as_secs_f64(), text());
        }
    }

    /// Something that is under way happens, if it can.
    pub(super) fn one_op(&mut self) -> bool {
        let able: Vec<_> = (0..self.ops.len()).filter(|op| self.is_able(*op)).collect();
        if able.is_empty() {
            return false;
        }
        let mut op = able[self.rng.index(able.len())];
        while matches!(self.ops[op], Op::Put { .. }) && self.rng.percent(self.faults.late_puts) {
            op = able[self.rng.index(able.len())];
        }
        let op = self.ops.swap_remove(op);
        self.note(|| match &op {
            Op::Put { owner, object, key } => {
                let (from, to) = (object.index.header.start, object.index.header.end);
                format!("owner {owner} put {key:?} [{from}, {to}) reaches the store")
            }
            op => format!("{op:?}").chars().take(150).collect(),
        });
        match op {
            Op::Put { owner, object, key } => self.put(owner, object, key),
            Op::PutDone {
                owner,
                key,
                outcome,
            } => self.put_done(owner, key, outcome),
            Op::Walk { owner, id, header } => {
                let in_chain = self.store.walk().headers.contains(&header);
                self.ops.push(Op::Walked {
                    owner,
                    id,
                    in_chain,
                });
            }
            Op::Walked {
                owner,
                id,
                in_chain,
            } => {
                let now = self.now;
                self.with(owner, |stripe| stripe.verified(id, in_chain, now));
            }
            Op::Lookup {
                owner,
                token,
                slots,
                identity,
            } => self.look_up(owner, token, slots, identity),
            Op::Append { owner, frame } => self.append(owner, frame),
            Op::Seal { owner } => {
                let (control, now) = (self.control, self.now);
                self.owners[owner].hear(control, now);
                self.act(owner);
            }
        }
        true
    }

    /// Puts on their way need nobody; all else needs a process that runs.
    fn is_able(&self, op: usize) -> bool {
        let owner = match &self.ops[op] {
            Op::Put { .. } => return true,
            Op::PutDone { owner, .. }
            | Op::Walk { owner, .. }
            | Op::Walked { owner, .. }
            | Op::Lookup { owner, .. }
            | Op::Append { owner, .. }
            | Op::Seal { owner } => *owner,
        };
        !self.owners[owner].paused
    }

    fn with(&mut self, owner: usize, f: impl FnOnce(&mut crate::logic::stripe::Stripe<Token>)) {
        if let Some(stripe) = self.owners[owner].stripe() {
            f(stripe);
        }
        self.act(owner);
    }

    fn put(&mut self, owner: usize, object: Object, key: Option<FlightId>) {
        let outcome = self.store.put(&object);
        let again = self.rng.percent(self.faults.repeated_puts);
        let lost = self.rng.percent(self.faults.lost_answers);
        if again {
            let object = object.clone();
            let key = None;
            self.ops.push(Op::Put { owner, object, key });
        }
        let Some(put) = key else {
            return;
        };
        // [C-8] A put without an answer is repeated until there is one, by a process that lives.
        self.ops.push(if lost {
            Op::Put { owner, object, key }
        } else {
            Op::PutDone {
                owner,
                key: put,
                outcome,
            }
        });
    }

    fn put_done(&mut self, owner: usize, key: FlightId, outcome: PutOutcome) {
        let now = self.now;
        self.with(owner, |stripe| stripe.put_done(key, outcome, now));
    }

    fn append(&mut self, owner: usize, frame: usize) {
        let token = self.clients.ask(frame, owner);
        let (control, now) = (self.control, self.now);
        let (run, epoch) = {
            let frame = &self.clients.frames[frame];
            (frame.run.clone(), frame.epoch)
        };
        let asked = &mut self.owners[owner];
        if epoch > asked.heard.0 {
            asked.hear(control, now);
        }
        match asked.stripe() {
            Some(stripe) => stripe.append(&run, epoch, &token, now),
            None => self.clients.died(owner),
        }
        self.act(owner);
    }

    /// An owner closes what is due.
    pub(super) fn close(&mut self, owner: usize) {
        let (now, chain, config) = (self.now, self.chain, self.config);
        match self.owners[owner].stage {
            Stage::Starting => {
                let (walk, walked_at) = (self.store.walk(), now);
                self.owners[owner].stage = Stage::Walked { walk, walked_at };
                return;
            }
            Stage::Walked { .. } => self.owners[owner].serve(chain, config, now),
            _ => {}
        }
        let told = self.owners[owner].told;
        let Some(stripe) = self.owners[owner].stripe() else {
            return;
        };
        while let Some((id, object)) = stripe.close(now) {
            for run in object.index.runs.iter().filter(|run| run.records.is_none()) {
                assert!(run.end() <= told, "h1: filled what was not told");
            }
            let key = Some(id);
            self.ops.push(Op::Put { owner, object, key });
        }
        assert!(stripe.flights() <= FLIGHTS_A_STRIPE, "too many flights");
        self.act(owner);
    }
}

/// Age at which creates are verified.
pub(super) const MAX_COMMIT_AGE: Duration = Duration::from_secs(1);

/// Names are deleted so much later than they became superfluous.
pub(super) const GRACE: Duration = Duration::from_secs(20);
