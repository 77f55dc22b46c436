//! A client: `stripelog::logic` with the order of steps of its tasks. It appends, reads and asks for tails.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::rc::Rc;
use std::time::Duration;

use bytes::Bytes;
use catalog::{Reigning, Writer as Member};
use stripelog::logic::flight::{Answer, Flight};
use stripelog::logic::frames::{Record, make_frames};
use stripelog::logic::outcome::Outcome;
use stripelog::logic::pack::Asks;
use stripelog::logic::split::{Token, split};
use wire::control::ControlEntry;
use wire::datagram::{self, Datagram, Grant, Header, Kind, Reply, Status};
use wire::frame::{Ack, AckStatus};
use wire::{ClientId, Epoch, Identity, Lane, Position, RequestId};

use crate::calls::{self, Calls};
use crate::env::{Env, LOG, MS};
use crate::event::{Input, Post, ProcId, Timer};
use crate::history::What;
use crate::mutation::Mutation;
use crate::store::Content;
use crate::world::{SEQUENCERS, WRITERS};

mod ask;
mod connection;
mod layout;
mod routes;

/// Records of one grant.
const BATCH: usize = 6;

/// Clients, in percent, that wait long for a stripe-writer that says nothing.
const PATIENT: u64 = 30;

/// Time that an append may take.
const TIMEOUT: u64 = 6000 * MS;

/// Bytes of a frame: two records, so that batches take several.
const FRAME_BYTES: usize = 24;

const GRANTS: Lane = Lane(0);
const TAILS: Lane = Lane(1);

/// Of questions that find out who reigns.
const WHO: Lane = Lane(2);

/// A call of the caller, by its number.
type CallNo = usize;

/// One append call.
#[derive(Debug)]
struct Call {
    called: u64,
    until: u64,
    first_record: u64,
    outcome: Outcome,
    records: usize,
    open: bool,
    acknowledged: bool,
    refused: bool,
}

/// Records of a call that need positions.
#[derive(Debug, Clone, Copy)]
struct Piece {
    call: CallNo,
    first: usize,
    count: usize,
}

#[derive(Debug)]
struct Batch {
    pieces: Vec<Piece>,
    request: RequestId,
    count: u32,
}

/// What a call to the store is for.
#[derive(Debug)]
enum For {
    /// A token waits for an entry that knows its epoch.
    Token(Token),
    /// Whether whoever told this tail reigns: when that was asked, and the tail.
    Tail(u64, Epoch, Position),
    /// Whether the layout that is wanted is there.
    Layout,
    /// The segment of an acknowledged position that is read.
    Segment(u64, Position, u64),
    /// A read of an acknowledged position.
    Read(u64, Position, u64),
}

/// What a question for the tails is for.
#[derive(Debug, Clone, Copy)]
enum Asked {
    Token,
    /// The issued tail, for a question that began then.
    Issued(u64),
    /// Until the durable tail is there.
    Durable(u64, Position),
    /// Another layout.
    Layout,
}

/// One process.
#[derive(Debug)]
pub struct Client {
    me: ProcId,
    calls: Calls<For>,
    known: Option<Rc<ControlEntry>>,
    reigning: Reigning,
    asks: Asks<Asked>,
    next_request: u64,
    queue: VecDeque<Piece>,
    batch: Option<Batch>,
    appends: Vec<Call>,
    connections: BTreeMap<u16, connection::Connection>,
    routes: routes::Routes,
    /// Time without an answer after which a stripe-writer counts as gone.
    silence: u64,
    /// Tails that are asked for, by the time of the call.
    tails: BTreeSet<u64>,
    /// The layout that is wanted.
    wish: Option<layout::Wish>,
    /// When it is woken for its questions.
    due_at: u64,
}

impl Client {
    /// A process that begins.
    #[must_use]
    pub fn new(me: ProcId, members: &[Member]) -> Self {
        let pauses = (Duration::from_millis(40), Duration::from_millis(400));
        let connection = |post| (post, connection::Connection::new());
        Self {
            me,
            calls: Calls::new(me),
            known: None,
            reigning: Reigning::new(SEQUENCERS.len(), Epoch(0)),
            asks: Asks::new(pauses),
            next_request: 1,
            queue: VecDeque::new(),
            batch: None,
            appends: Vec::new(),
            connections: WRITERS.map(connection).collect(),
            routes: routes::Routes::new(members),
            silence: connection::SILENCE.0,
            tails: BTreeSet::new(),
            wish: None,
            due_at: 0,
        }
    }

    /// Whether nothing that was begun is without an outcome.
    #[must_use]
    pub fn is_idle(&self) -> bool {
        self.tails.is_empty() && self.wish.is_none() && self.appends.iter().all(|call| !call.open)
    }

    /// Takes what it is told.
    pub fn handle(&mut self, input: Input, env: &mut Env) {
        match input {
            Input::Start => {
                if env.rng.percent(PATIENT) {
                    self.silence = connection::SILENCE.1;
                }
                env.timer(self.me, 0, Timer::Tick);
            }
            Input::Timer(Timer::Retry(call)) => self.calls.retry(call, env),
            Input::Timer(Timer::Tick) => self.tick(env),
            Input::Timer(Timer::Due) => {}
            Input::Answer(call, answer) => {
                if let Some((tag, outcome)) = self.calls.answer(call, answer, env) {
                    self.done(tag, outcome, env);
                }
            }
            Input::Datagram(from, bytes) => self.told(from, &bytes, env),
            Input::Closed(Post::Sequencer(place)) => self.is_closed(place, env),
            Input::Wish(layout) => self.wants(layout, env),
            Input::Ack(conn, ack) => self.ack(conn, &ack, env),
            Input::Reset(conn) => self.reset(conn, env),
            _ => {}
        }
        self.pump(env);
    }

    fn tick(&mut self, env: &mut Env) {
        let pause = env.rng.between(2, 60) * MS;
        env.timer(self.me, pause, Timer::Tick);
        for number in 0..self.appends.len() {
            // Once the world is calm every append has to come to an end of its own.
            let late = self.appends[number].until <= env.now && !env.faults.calm;
            if self.appends[number].open && late {
                self.give_up(number, env);
            }
        }
        self.watch_connections(env);
        if env.faults.calm {
            return;
        }
        let open = self.appends.iter().filter(|call| call.open).count();
        match env.rng.below(10) {
            0..=5 if open < 3 => self.append(env),
            6 if self.tails.is_empty() => {
                let called = env.history.tick();
                self.tails.insert(called);
                self.ask_tails(Asked::Issued(called), env);
            }
            7 | 8 => self.read(env),
            _ => {}
        }
    }

    fn append(&mut self, env: &mut Env) {
        let records = usize::try_from(env.rng.between(1, 4)).unwrap_or(1);
        let number = self.appends.len();
        let first_record = ((self.me as u64) << 32) + ((number as u64) << 8);
        self.appends.push(Call {
            called: env.history.tick(),
            until: env.now + TIMEOUT,
            first_record,
            outcome: Outcome::new(records),
            records,
            open: true,
            acknowledged: false,
            refused: false,
        });
        self.queue.push_back(Piece {
            call: number,
            first: 0,
            count: records,
        });
    }

    /// The caller does not wait any more.
    fn give_up(&mut self, number: CallNo, env: &mut Env) {
        let call = &mut self.appends[number];
        call.open = false;
        env.history.failed += 1;
        if call.outcome.nothing_written() {
            call.refused = true;
            for record in call.first_record..call.first_record + call.records as u64 {
                env.store.refused.insert(record);
                if let Some(position) = env.store.places.get(&record) {
                    let what = format!("record {record} is at {position}");
                    return env.fail(format!("{what}, and was said to be certainly not there"));
                }
            }
        }
    }

    fn read(&mut self, env: &mut Env) {
        let acknowledged = env.history.acknowledged.len() as u64;
        // Mostly what is new.
        let back = env.rng.below(acknowledged).min(env.rng.below(20));
        let at = usize::try_from(acknowledged.saturating_sub(back + 1)).unwrap_or(0);
        if let Some((position, record)) = env.history.acknowledged.get(at).copied() {
            let called = env.history.tick();
            // Another client may have appended in a segment that is not known here.
            let tag = For::Segment(called, position, record);
            self.calls.attempt(calls::What::Last, tag, env);
        }
    }

    fn done(&mut self, tag: For, outcome: calls::Outcome, env: &mut Env) {
        match (tag, outcome) {
            (For::Layout, calls::Outcome::Last(entry)) => self.looked(entry, env),
            (For::Segment(called, position, record), calls::Outcome::Last(entry)) => {
                self.learn(Rc::clone(&entry));
                let Some(segment) = entry.segment_of(position) else {
                    return;
                };
                let layout = segment.layout;
                let key = (segment.id, layout.stripe(position));
                let what = calls::What::RunAt(key, layout.slot(position));
                let tag = For::Read(called, position, record);
                self.calls.attempt(what, tag, env);
            }
            (For::Read(called, position, record), calls::Outcome::Run(found)) => {
                //
                if found.map(|found| found.content) != Some(Content::Record(record)) {
                    let what = format!("record {record} at {position}: found {found:?}");
                    return env.fail(format!("R-1: {what}"));
                }
                env.history.returns(called, What::Read(position));
            }
            (For::Token(token), calls::Outcome::Last(entry)) => {
                self.learn(entry);
                self.use_token(token, env);
            }
            (For::Token(_), _) => self.ask_again(env),
            (For::Tail(called, epoch, issued), calls::Outcome::Last(entry)) => {
                // The control chain says who reigns, and it is read after the answer.
                let reigns = entry.epoch <= epoch;
                self.learn(entry);
                let next = if reigns {
                    Asked::Durable(called, issued)
                } else {
                    Asked::Issued(called)
                };
                self.ask_tails(next, env);
            }
            (For::Tail(called, ..), _) => self.ask_tails(Asked::Issued(called), env),
            (For::Read(..) | For::Segment(..) | For::Layout, _) => {}
        }
    }

    fn learn(&mut self, entry: Rc<ControlEntry>) {
        if self
            .known
            .as_ref()
            .is_none_or(|known| known.number < entry.number)
        {
            self.known = Some(entry);
        }
    }

    /// Splits a token over stripes, and hands its frames to the connections.
    fn hand_over(&mut self, token: Token, batch: Batch, env: &mut Env) {
        let Some(entry) = self.known.clone() else {
            return;
        };
        let identity = Identity {
            client: self.id(),
            request: batch.request,
        };
        let (mut owners, mut records) = (Vec::new(), Vec::new());
        for piece in batch.pieces {
            let call = &self.appends[piece.call];
            if !call.open {
                continue;
            }
            let place = owners.len();
            owners.push(piece.call);
            records.extend((piece.first..piece.first + piece.count).map(|index| {
                let number = call.first_record + index as u64;
                Record {
                    piece: place,
                    index,
                    bytes: Bytes::copy_from_slice(&number.to_le_bytes()),
                }
            }));
        }
        let used = Token {
            count: records.len() as u64,
            ..token
        };
        let Ok(parts) = split(&entry, used) else {
            return env.fail("a token cannot be split");
        };
        for part in parts {
            let by = (token.epoch, identity);
            let Ok(frames) = make_frames(&part, by, &owners, &records, FRAME_BYTES) else {
                return env.fail("a frame cannot be made");
            };
            let owner = self.routes.owner(part.stripe);
            if let Some(connection) = self.connections.get_mut(&owner) {
                frames
                    .into_iter()
                    .for_each(|frame| connection.flight.push(frame));
            }
        }
    }

    fn id(&self) -> ClientId {
        ClientId(self.me as u64)
    }

    /// Records that lost their positions need a new token.
    fn again(&mut self, answer: &Answer<CallNo>) {
        self.queue.push_front(Piece {
            call: answer.share.owner,
            first: answer.share.first,
            count: usize::try_from(answer.share.count).unwrap_or(0),
        });
    }

    fn commit(&mut self, answer: &Answer<CallNo>, env: &mut Env) {
        let call = &mut self.appends[answer.share.owner];
        call.outcome.answered(answer.positions.len());
        for (record, position) in (answer.share.first..).zip(&answer.positions) {
            let number = call.first_record + record as u64;
            if env.store.places.get(&number) != Some(position) {
                let what = format!("record {number} was committed at {position}");
                return env.fail(format!("C-4: {what}, and is not there"));
            }
            call.outcome.commit(record, *position);
        }
        if let Some(positions) = call.outcome.complete()
            && call.open
        {
            (call.open, call.acknowledged) = (false, true);
            for (record, position) in (call.first_record..).zip(positions) {
                env.history.acknowledged.push((position, record));
                env.history.returns(call.called, What::Append(position));
            }
        }
    }

    /// What is not known to the caller took place, or did not.
    pub fn leave(&self, env: &mut Env) {
        for call in self.appends.iter().filter(|call| !call.acknowledged) {
            for record in call.first_record..call.first_record + call.records as u64 {
                if let Some(position) = env.store.places.get(&record).copied() {
                    env.history.unknown(call.called, position);
                }
            }
        }
    }
}
