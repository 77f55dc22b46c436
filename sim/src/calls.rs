//! Calls of one process to the store that take several requests, as `catalog` makes them: each answer leads to
//! the next request, until the outcome is known. What an attempt to create has come to, which objects are the
//! chain, and what may be collected is decided by `catalog::logic`.

use std::collections::BTreeMap;
use std::rc::Rc;

use catalog::Walk;
use catalog::logic::collect::{Keep, is_old};
use catalog::logic::create::{Seen, Step, resolve};
use catalog::logic::walk::resolve as follow;
use stripe_writer::logic::action::PutOutcome;
use stripe_writer::logic::members::Key;
use wire::Slot;
use wire::control::ControlEntry;
use wire::object::{Index, Object};

use crate::env::{Env, MS};
use crate::event::{CallId, ProcId, Timer};
use crate::mutation::Mutation;
use crate::store::{Answer, Found, Op};

/// What is never collected here: little, so that names are free again soon.
const KEEP: Keep = Keep {
    entries: 2,
    grace_ms: 2500,
};

/// What a process wants.
#[derive(Debug, Clone)]
pub enum What {
    /// The newest control entry.
    Last,
    /// Append this one (S-3).
    Append(Rc<ControlEntry>),
    /// Whether no entry follows.
    IsLast(u64),
    /// Collect what is older than this one.
    Collect(u64),
    /// Put an object (C-5).
    Put(Rc<Object>),
    /// Follow a chain.
    Walk(Key, Slot),
    /// What a slot holds.
    RunAt(Key, Slot),
}

/// What came of it.
#[derive(Debug)]
pub enum Outcome {
    /// The newest control entry.
    Last(Rc<ControlEntry>),
    /// The entry is the chain's last.
    Appended,
    /// Another process has gone on with the chain.
    Fenced,
    /// Whether no entry follows.
    IsLast(bool),
    /// The object is stored, or another has its name.
    Put(PutOutcome),
    /// The chain.
    Walk(Walk),
    /// What was found.
    Run(Option<Found>),
    /// The store failed; of a call that is not tried again.
    Failed,
    /// Nothing more to say.
    Done,
}

#[derive(Debug, Clone)]
enum Stage {
    Creating,
    Comparing,
    Listing,
    Reading(u64),
    Taken,
    Headers(Vec<Slot>),
    Deleting(Vec<u64>),
}

#[derive(Debug)]
struct Call<T> {
    what: What,
    stage: Stage,
    attempt: u32,
    tag: T,
    /// Whether it is tried until it succeeds.
    insists: bool,
}

/// All calls of a process; `T` says what each is for.
#[derive(Debug)]
pub struct Calls<T> {
    me: ProcId,
    next: CallId,
    open: BTreeMap<CallId, Call<T>>,
}

/// What an answer leads to.
enum Then {
    Ask(Stage),
    Pause,
    End(Outcome),
}

impl<T> Calls<T> {
    /// No calls yet.
    #[must_use]
    pub fn new(me: ProcId) -> Self {
        Self {
            me,
            next: 0,
            open: BTreeMap::new(),
        }
    }

    /// Begins a call that is tried until it succeeds.
    pub fn insist(&mut self, what: What, tag: T, env: &mut Env) {
        self.begin(what, tag, true, env);
    }

    /// Begins a call that may fail.
    pub fn attempt(&mut self, what: What, tag: T, env: &mut Env) {
        self.begin(what, tag, false, env);
    }

    fn begin(&mut self, what: What, tag: T, insists: bool, env: &mut Env) {
        let id = self.next;
        self.next += 1;
        let stage = match what {
            What::Append(_) | What::Put(_) => Stage::Creating,
            _ => Stage::Listing,
        };
        let call = Call {
            what,
            stage,
            attempt: 1,
            tag,
            insists,
        };
        self.open.insert(id, call);
        self.ask(id, env);
    }

    /// The pause before another attempt is over.
    pub fn retry(&mut self, id: CallId, env: &mut Env) {
        if self.open.contains_key(&id) {
            self.ask(id, env);
        }
    }

    /// The store has answered. Gives what the call was for and its outcome, when it has ended.
    pub fn answer(&mut self, id: CallId, answer: Answer, env: &mut Env) -> Option<(T, Outcome)> {
        let me = self.me;
        let call = self.open.get_mut(&id)?;
        match call.answer(answer, env, me) {
            Then::Ask(stage) => {
                call.stage = stage;
                self.ask(id, env);
                None
            }
            Then::Pause => {
                let most = 20 << call.attempt.min(6);
                let pause = env.rng.between(1, most) * MS;
                env.timer(me, pause, Timer::Retry(id));
                None
            }
            Then::End(outcome) => {
                let call = self.open.remove(&id)?;
                Some((call.tag, outcome))
            }
        }
    }

    fn ask(&mut self, id: CallId, env: &mut Env) {
        let Some(call) = self.open.get(&id) else {
            return;
        };
        let op = match (&call.stage, &call.what) {
            (Stage::Creating, What::Append(entry)) => Op::CreateControl(Rc::clone(entry)),
            (Stage::Comparing, What::Append(entry)) => Op::GetControl(entry.number),
            (Stage::Listing, What::Append(entry)) => Op::ListControl(Some(entry.number)),
            (Stage::Listing, What::IsLast(number)) => Op::ListControl(Some(*number)),
            (Stage::Reading(number), _) => Op::GetControl(*number),
            (Stage::Deleting(numbers), _) => {
                Op::DeleteControl(numbers.first().copied().unwrap_or(u64::MAX))
            }
            (Stage::Creating, What::Put(object)) => Op::CreateObject(Rc::clone(object)),
            (_, What::Put(object)) => {
                let header = object.index.header;
                Op::Index((header.chain.segment, header.chain.stripe), header.start)
            }
            (Stage::Headers(starts), What::Walk(key, _)) => Op::Headers(*key, starts.clone()),
            (_, What::Walk(key, from)) => Op::List(*key, *from),
            (_, What::RunAt(key, slot)) => Op::RunAt(*key, *slot),
            _ => Op::ListControl(None),
        };
        env.ask_store(self.me, id, op);
    }
}

impl<T> Call<T> {
    fn answer(&mut self, answer: Answer, env: &mut Env, me: ProcId) -> Then {
        if matches!(answer, Answer::Failed) {
            return self.failed(env);
        }
        match (&self.what, &self.stage, answer) {
            (What::Append(_) | What::Put(_), Stage::Creating, Answer::Done) => self.mine(env),
            (What::Append(_) | What::Put(_), Stage::Creating, Answer::Exists) => {
                if env.is(Mutation::ExistsIsMine) {
                    return self.mine(env);
                }
                Then::Ask(Stage::Comparing)
            }
            (What::Append(entry), Stage::Comparing, Answer::Control(found)) => {
                let seen = seen(found.map(|found| found == *entry));
                self.resolved(seen, env)
            }
            (What::Put(object), Stage::Comparing, Answer::Index(found)) => {
                let seen = seen(found.map(|found| found.header == object.index.header));
                self.resolved(seen, env)
            }
            (What::Put(object), Stage::Taken, Answer::Index(found)) => taken(found, object),
            (What::Append(_), Stage::Listing, Answer::Numbers(behind)) => {
                // [S-3] The name may have been free only because it was collected.
                Then::End(if behind.is_empty() {
                    Outcome::Appended
                } else {
                    Outcome::Fenced
                })
            }
            (What::IsLast(_), _, Answer::Numbers(behind)) => {
                Then::End(Outcome::IsLast(behind.is_empty()))
            }
            (What::Last, _, Answer::Numbers(numbers)) => match numbers.last() {
                Some((number, _)) => Then::Ask(Stage::Reading(*number)),
                None => Then::End(Outcome::Failed),
            },
            (What::Last, _, Answer::Control(Some(entry))) => Then::End(Outcome::Last(entry)),
            (What::Last, _, Answer::Control(None)) => Then::Ask(Stage::Listing),
            (What::Collect(last), Stage::Listing, Answer::Numbers(numbers)) => {
                let newest = numbers.last().map_or(0, |(number, _)| *number);
                let now = env.wall_ms(me);
                let old = numbers
                    .into_iter()
                    .take_while(|entry| is_old(*entry, (*last, newest), KEEP, now));
                delete(old.map(|(number, _)| number).collect())
            }
            (What::Collect(_), Stage::Deleting(numbers), _) => {
                delete(numbers.iter().skip(1).copied().collect())
            }
            (What::Walk(..), Stage::Listing, Answer::Starts(starts)) => {
                Then::Ask(Stage::Headers(starts))
            }
            (What::Walk(_, from), Stage::Headers(starts), Answer::Headers(found)) => {
                let walk = follow(*from, &found);
                let vanished = starts.contains(&walk.end) && !found.contains_key(&walk.end);
                // It was merged into the one before it since the listing.
                if vanished {
                    Then::Ask(Stage::Listing)
                } else {
                    Then::End(Outcome::Walk(walk))
                }
            }
            (What::RunAt(..), _, Answer::Run(run)) => Then::End(Outcome::Run(run)),
            (what, stage, answer) => {
                env.fail(format!("simulation: {answer:?} to {what:?} at {stage:?}"));
                Then::End(Outcome::Failed)
            }
        }
    }

    fn failed(&mut self, env: &mut Env) -> Then {
        match self.what {
            What::Put(_) if env.is(Mutation::DoubtIsDone) => self.mine(env),
            What::Append(_) | What::Put(_) if !matches!(self.stage, Stage::Listing) => {
                let (definite, retry) = (false, true);
                self.resolved(Seen::Failed { definite, retry }, env)
            }
            What::Append(_) => {
                // [S-3] In doubt: the same entry again.
                (self.stage, self.attempt) = (Stage::Creating, 1);
                Then::Pause
            }
            _ if self.insists => {
                self.attempt += 1;
                Then::Pause
            }
            _ => Then::End(Outcome::Failed),
        }
    }

    fn resolved(&mut self, seen: Seen, env: &mut Env) -> Then {
        match resolve(seen, self.attempt) {
            Step::Mine => self.mine(env),
            Step::Other => match self.what {
                What::Append(_) => Then::End(Outcome::Fenced),
                _ => Then::Ask(Stage::Taken),
            },
            step @ (Step::Again | Step::Unknown | Step::Refused) => {
                // [C-8] [S-3] Whoever put it tries the same again, however long that takes.
                self.attempt = if step == Step::Again {
                    self.attempt + 1
                } else {
                    1
                };
                self.stage = Stage::Creating;
                Then::Pause
            }
        }
    }

    fn mine(&mut self, env: &Env) -> Then {
        match self.what {
            What::Append(_) if env.is(Mutation::NoListing) => Then::End(Outcome::Appended),
            What::Append(_) => Then::Ask(Stage::Listing),
            _ => Then::End(Outcome::Put(PutOutcome::Stored)),
        }
    }
}

fn seen(same: Option<bool>) -> Seen {
    match same {
        Some(true) => Seen::Same,
        Some(false) => Seen::Another,
        None => Seen::Nothing,
    }
}

/// Another's object has the name; if it is gone meanwhile, all begins anew.
fn taken(found: Option<Box<Index>>, object: &Object) -> Then {
    match found {
        Some(index) if index.header == object.index.header => {
            Then::End(Outcome::Put(PutOutcome::Stored))
        }
        Some(index) => Then::End(Outcome::Put(PutOutcome::Taken(index))),
        None => Then::Ask(Stage::Creating),
    }
}

fn delete(numbers: Vec<u64>) -> Then {
    if numbers.is_empty() {
        Then::End(Outcome::Done)
    } else {
        Then::Ask(Stage::Deleting(numbers))
    }
}
