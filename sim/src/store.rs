//! The object store: names that are created once, and the truth about every position.
//!
//! Requests are applied one at a time; what is lost, late or doubled is decided by [`crate::env`]. With every
//! object that lands the truth is written on, and compared with what was true before (C-1).

use std::cmp::Ordering;
use std::collections::{BTreeMap, BTreeSet};
use std::rc::Rc;

use bytes::Bytes;
use wire::control::ControlEntry;
use wire::object::{Author, ChainId, Header, Index, Object};
use wire::{Epoch, Position, Run, Slot, StripeId, WriterId};

use crate::rng::Rng;

/// What a slot holds for ever.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Content {
    /// Junk.
    Junk,
    /// The record with this number.
    Record(u64),
}

/// One request.
#[derive(Debug, Clone)]
pub enum Op {
    /// Create a control entry.
    CreateControl(Rc<ControlEntry>),
    /// Read one.
    GetControl(u64),
    /// Numbers of control entries, behind one if that is given.
    ListControl(Option<u64>),
    /// Delete one.
    DeleteControl(u64),
    /// Create an object.
    CreateObject(Rc<Object>),
    /// Read an object's header and index.
    Index(StripeId, Slot),
    /// Names of objects from a slot on.
    List(StripeId, Slot),
    /// Headers of these objects.
    Headers(StripeId, Vec<Slot>),
    /// The run at a slot, as a reader finds it that looks the chain up.
    RunAt(StripeId, Slot),
}

impl Op {
    /// Whether it changes anything.
    #[must_use]
    pub fn is_create(&self) -> bool {
        matches!(self, Self::CreateControl(_) | Self::CreateObject(_))
    }
}

/// What the store answers.
#[derive(Debug, Clone)]
pub enum Answer {
    /// Created, or deleted.
    Done,
    /// The name is taken, or so the store says: 412 or 409.
    Exists,
    /// No answer in time, or 500: it may have been applied, now or later.
    Failed,
    /// A control entry.
    Control(Option<Rc<ControlEntry>>),
    /// Numbers and times of creation in milliseconds.
    Numbers(Vec<(u64, u64)>),
    /// Header and index.
    Index(Option<Box<Index>>),
    /// First slots.
    Starts(Vec<Slot>),
    /// Headers of those that were there.
    Headers(BTreeMap<Slot, Header>),
    /// The end of the run at a slot, and what each slot from there on holds, with the run's identity.
    Run(Option<Found>),
}

/// A run as a reader finds it, from the slot that was asked for.
#[derive(Debug, Clone, Copy)]
pub struct Found {
    /// First slot behind.
    pub end: Slot,
    /// Who wrote it; nobody: junk.
    pub identity: Option<wire::Identity>,
    /// What the slot holds.
    pub content: Content,
}

#[derive(Debug)]
struct Stored {
    index: Index,
    runs: Vec<Run>,
    /// When it landed, in milliseconds.
    at: u64,
}

/// A chain and what is true of it.
#[derive(Debug)]
pub struct Stripe {
    chain: ChainId,
    objects: BTreeMap<Slot, Stored>,
    truth: Vec<Content>,
    doomed: Vec<(u64, Slot)>,
    owners: BTreeMap<u64, WriterId>,
}

/// The store.
#[derive(Debug)]
pub struct Store {
    control: BTreeMap<u64, (Rc<ControlEntry>, u64)>,
    stripes: Vec<Stripe>,
    /// Largest reservation that was ever durable, by reign.
    pub reserved: BTreeMap<Epoch, Position>,
    /// Where each reign starts.
    pub starts: BTreeMap<Epoch, Position>,
    /// The entry whose reign a standby found to be over, by who stood by.
    pub found_over: BTreeMap<WriterId, u64>,
    /// Where the newest reign that there ever was starts.
    pub newest_start: Position,
    /// Where each record is.
    pub places: BTreeMap<u64, Position>,
    /// Records of which a caller was told that they are certainly not there.
    pub refused: BTreeSet<u64>,
    /// Largest issued tail that was ever told.
    pub told: Position,
}

/// Signs what the compactor rewrites.
const COMPACTOR: WriterId = WriterId([255; 16]);

/// The store's clock at the beginning, in milliseconds.
pub const START_MS: u64 = 10_000_000;

/// Age from which on objects are merged.
const SETTLED_MS: u64 = 1500;

/// A rule that was broken, and how.
pub type Broken = String;

impl Store {
    /// A store with a new log in it.
    #[must_use]
    pub fn new(first: ControlEntry, chains: Vec<ChainId>) -> Self {
        let stripe = |chain| Stripe {
            chain,
            objects: BTreeMap::new(),
            truth: Vec::new(),
            doomed: Vec::new(),
            owners: BTreeMap::new(),
        };
        Self {
            control: BTreeMap::from([(first.number, (Rc::new(first), 0))]),
            stripes: chains.into_iter().map(stripe).collect(),
            reserved: BTreeMap::new(),
            starts: BTreeMap::new(),
            found_over: BTreeMap::new(),
            newest_start: Position(0),
            places: BTreeMap::new(),
            refused: BTreeSet::new(),
            told: Position(0),
        }
    }

    /// Applies a request.
    ///
    /// # Errors
    /// The rule that is broken by it.
    pub fn apply(&mut self, op: &Op, now_ms: u64) -> Result<Answer, Broken> {
        Ok(match op {
            Op::CreateControl(entry) => return self.create_control(entry, now_ms),
            Op::GetControl(number) => {
                let found = self.control.get(number);
                Answer::Control(found.map(|(entry, _)| Rc::clone(entry)))
            }
            Op::ListControl(after) => {
                let from = after.map_or(0, |after| after + 1);
                let listed = self.control.range(from..);
                Answer::Numbers(listed.map(|(number, (_, at))| (*number, *at)).collect())
            }
            Op::DeleteControl(number) => {
                self.control.remove(number);
                Answer::Done
            }
            Op::CreateObject(object) => return self.create_object(object, now_ms),
            Op::Index(stripe, slot) => {
                let found = self.stripe(*stripe).objects.get(slot);
                Answer::Index(found.map(|found| Box::new(found.index.clone())))
            }
            Op::List(stripe, from) => {
                let listed = self.stripe(*stripe).objects.range(*from..);
                Answer::Starts(listed.map(|(start, _)| *start).collect())
            }
            Op::Headers(stripe, starts) => {
                let objects = &self.stripe(*stripe).objects;
                let header = |start: &Slot| Some((*start, objects.get(start)?.index.header));
                Answer::Headers(starts.iter().filter_map(header).collect())
            }
            Op::RunAt(stripe, slot) => Answer::Run(self.stripe(*stripe).run_at(*slot)),
        })
    }

    fn create_control(&mut self, entry: &Rc<ControlEntry>, now_ms: u64) -> Result<Answer, Broken> {
        if self.control.contains_key(&entry.number) {
            return Ok(Answer::Exists);
        }
        self.begins(entry)?;
        self.control
            .insert(entry.number, (Rc::clone(entry), now_ms));
        let reserved = self.reserved.entry(entry.epoch).or_default();
        *reserved = entry.reservation.max(*reserved);
        let newest = self.control.last_key_value();
        if newest.is_some_and(|(number, _)| *number == entry.number) {
            self.newest_start = self.newest_start.max(entry.epoch_start);
            self.starts.entry(entry.epoch).or_insert(entry.epoch_start);
        }
        Ok(Answer::Done)
    }

    /// [S-4] The first entry of one that stood by is behind the one whose reign it found to be over.
    fn begins(&mut self, entry: &ControlEntry) -> Result<(), Broken> {
        let over = self.found_over.remove(&entry.owner);
        match over.filter(|over| over + 1 != entry.number) {
            None => Ok(()),
            Some(over) => Err(format!(
                "S-4: {} begins epoch {}, and found entry {over} to be over",
                entry.number, entry.epoch
            )),
        }
    }

    fn create_object(&mut self, object: &Object, now_ms: u64) -> Result<Answer, Broken> {
        let header = object.index.header;
        let stripe = header.chain.stripe;
        if self.stripe(stripe).objects.contains_key(&header.start) {
            return Ok(Answer::Exists);
        }
        let of = self.stripe_mut(stripe);
        let end = of.end();
        of.insert(object, now_ms)?;
        match header.start.cmp(&end) {
            Ordering::Less => self.settle(stripe, Slot(0))?,
            Ordering::Equal => self.settle(stripe, end)?,
            Ordering::Greater => {}
        }
        Ok(Answer::Done)
    }

    /// The chain may be longer than before, and has to be the same in all that was decided.
    fn settle(&mut self, id: StripeId, from: Slot) -> Result<(), Broken> {
        let junk_below = self.told.max(self.newest_start);
        let fresh = self.stripe_mut(id).settle(from)?;
        for (slot, content) in fresh {
            let position = self.stripe(id).chain.position(slot);
            match content {
                // [H-1]
                Content::Junk if position >= junk_below => {
                    return Err(format!("H-1: junk at {position}, told {junk_below}"));
                }
                Content::Junk => {}
                Content::Record(record) => {
                    if let Some(before) = self.places.insert(record, position) {
                        return Err(format!("record {record} at {before} and at {position}"));
                    }
                    if self.refused.contains(&record) {
                        return Err(format!(
                            "record {record} at {position}, certainly not there"
                        ));
                    }
                }
            }
        }
        Ok(())
    }

    /// What a position holds, if that is decided.
    #[must_use]
    pub fn truth(&self, stripe: StripeId, slot: Slot) -> Option<Content> {
        let at = usize::try_from(slot.0).ok()?;
        self.stripe(stripe).truth.get(at).copied()
    }

    /// First position that is not decided.
    #[must_use]
    pub fn durable(&self) -> Position {
        let end = |stripe: &Stripe| stripe.chain.position(Slot(stripe.truth.len() as u64));
        self.stripes.iter().map(end).min().unwrap_or_default()
    }

    /// The control chain's newest entry.
    #[must_use]
    pub fn newest(&self) -> Option<Rc<ControlEntry>> {
        self.control
            .last_key_value()
            .map(|(_, (entry, _))| Rc::clone(entry))
    }

    /// Merges neighbours in one chain (T-3); what they replace is deleted at `doom_us`.
    ///
    /// # Errors
    /// The rule that is broken by it.
    pub fn compact(&mut self, rng: &mut Rng, now_us: u64, doom_us: u64) -> Result<(), Broken> {
        let ids: Vec<_> = self.stripes.iter().map(|s| s.chain.stripe).collect();
        let Some(id) = rng.pick(&ids) else {
            return Ok(());
        };
        self.stripe_mut(id)
            .merge(rng, START_MS + now_us / 1000, doom_us)?;
        self.settle(id, Slot(0))
    }

    /// Deletes what is due, in ascending order.
    pub fn delete_due(&mut self, now_us: u64) {
        for stripe in &mut self.stripes {
            stripe.delete_due(now_us);
        }
    }

    fn stripe(&self, id: StripeId) -> &Stripe {
        &self.stripes[usize::from(id.0)]
    }

    fn stripe_mut(&mut self, id: StripeId) -> &mut Stripe {
        &mut self.stripes[usize::from(id.0)]
    }
}

impl Stripe {
    fn insert(&mut self, object: &Object, at: u64) -> Result<(), Broken> {
        let bytes = Bytes::from(object.chunks.concat());
        let (index, runs) = Object::decode(&bytes).map_err(|e| format!("C-2: {e}"))?;
        let start = index.header.start;
        self.objects.insert(start, Stored { index, runs, at });
        Ok(())
    }

    /// End of the chain.
    fn end(&self) -> Slot {
        Slot(self.truth.len() as u64)
    }

    fn walk(&self, from: Slot) -> Vec<Header> {
        let (mut headers, mut end) = (Vec::new(), from);
        while let Some(found) = self.objects.get(&end) {
            headers.push(found.index.header);
            end = found.index.header.end;
        }
        headers
    }

    /// Gives what was decided by the newest object.
    fn settle(&mut self, from: Slot) -> Result<Vec<(Slot, Content)>, Broken> {
        let headers = self.walk(from);
        let end = headers.last().map_or(from.0, |header| header.end.0);
        let stripe = self.chain.stripe;
        if end < self.truth.len() as u64 {
            return Err(format!("C-3: the chain of stripe {stripe} became shorter"));
        }
        let mut fresh = Vec::new();
        for header in headers {
            let Author { owner, writer, .. } = header.author;
            if writer != COMPACTOR && *self.owners.entry(owner.0).or_insert(writer) != writer {
                return Err(format!("C-6: two writers with number {owner}"));
            }
            let Some(stored) = self.objects.get(&header.start) else {
                continue;
            };
            for (slot, content) in contents(&stored.runs) {
                let at = usize::try_from(slot.0).unwrap_or(usize::MAX);
                match self.truth.get(at) {
                    Some(decided) if *decided == content => {}
                    Some(decided) => {
                        let what = format!("stripe {stripe} slot {slot}: {decided:?}, {content:?}");
                        return Err(format!("C-1: {what}"));
                    }
                    None => {
                        self.truth.push(content);
                        fresh.push((slot, content));
                    }
                }
            }
        }
        Ok(fresh)
    }

    fn run_at(&self, slot: Slot) -> Option<Found> {
        let header = self.walk(Slot(0)).into_iter().find(|h| h.end > slot)?;
        let runs = &self.objects.get(&header.start)?.runs;
        let run = runs.iter().find(|r| r.first <= slot && slot < r.end())?;
        let (_, content) = contents(std::slice::from_ref(run)).find(|(at, _)| *at == slot)?;
        Some(Found {
            end: run.end(),
            identity: run.identity(),
            content,
        })
    }

    fn merge(&mut self, rng: &mut Rng, now_ms: u64, doom_us: u64) -> Result<(), Broken> {
        // An owner that verifies a late commit (C-7) looks for its very object: what is young is left alone.
        let old = |header: &Header| {
            let stored = self.objects.get(&header.start);
            stored.is_some_and(|stored| stored.at + SETTLED_MS <= now_ms)
        };
        let headers = self.walk(Slot(0));
        let headers: Vec<_> = headers.into_iter().take_while(old).collect();
        let many = headers.len() as u64;
        if many < 2 {
            return Ok(());
        }
        let from = rng.below(many - 1);
        let to = rng.between(from + 1, many - 1);
        let index = |n: u64| usize::try_from(n).unwrap_or(0);
        let part = &headers[index(from)..=index(to)];
        let runs = part.iter().filter_map(|h| self.objects.get(&h.start));
        let runs: Vec<_> = runs.flat_map(|stored| stored.runs.clone()).collect();
        let (Some(owner), Some(epoch)) = (
            part.iter().map(|h| h.author.owner).max(),
            part.iter().map(|h| h.author.epoch).max(),
        ) else {
            return Ok(());
        };
        let author = Author {
            owner,
            writer: COMPACTOR,
            epoch,
        };
        let object = Object::build(self.chain, author, &runs).map_err(|e| format!("T-3: {e}"))?;
        self.insert(&object, now_ms)?;
        let rest = part.iter().skip(1).map(|header| (doom_us, header.start));
        self.doomed.extend(rest);
        Ok(())
    }

    fn delete_due(&mut self, now_us: u64) {
        if self.doomed.iter().all(|(at, _)| *at > now_us) {
            return;
        }
        let chain: BTreeSet<_> = self
            .walk(Slot(0))
            .iter()
            .map(|header| header.start)
            .collect();
        for (at, slot) in std::mem::take(&mut self.doomed) {
            if at > now_us {
                self.doomed.push((at, slot));
            } else if !chain.contains(&slot) {
                self.objects.remove(&slot);
            }
        }
    }
}

/// What each slot of these runs holds.
fn contents(runs: &[Run]) -> impl Iterator<Item = (Slot, Content)> + '_ {
    runs.iter().flat_map(|run| {
        let records: Vec<Content> = match &run.content {
            None => vec![Content::Junk; usize::try_from(run.count).unwrap_or(0)],
            Some((_, body)) => body.records().map(|bytes| record(&bytes)).collect(),
        };
        (run.first.0..).map(Slot).zip(records)
    })
}

/// The bytes of a record are its number.
fn record(bytes: &[u8]) -> Content {
    let number = bytes.first_chunk::<8>();
    Content::Record(number.map_or(u64::MAX, |bytes| u64::from_le_bytes(*bytes)))
}
