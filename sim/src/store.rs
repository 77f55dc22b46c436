//! The object store: names that are created once, and the truth about every position.
//!
//! Requests are applied one at a time; what is lost, late or doubled is decided by [`crate::env`]. With every
//! object that lands the truth is written on, and compared with what was true before (C-1).

use std::collections::{BTreeMap, BTreeSet};
use std::rc::Rc;

use stripe_writer::logic::members::Key;
use wire::control::ControlEntry;
use wire::object::{Header, Index, Object};
use wire::{Epoch, Position, Segment, Slot, StripeId, WriterId};

use crate::rng::Rng;
use crate::writer::chain_of;

mod chain;

use chain::Stripe;

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
    Index(Key, Slot),
    /// Names of objects from a slot on.
    List(Key, Slot),
    /// Headers of these objects.
    Headers(Key, Vec<Slot>),
    /// The run at a slot, as a reader finds it that looks the chain up.
    RunAt(Key, Slot),
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

/// The store.
#[derive(Debug)]
pub struct Store {
    control: BTreeMap<u64, (Rc<ControlEntry>, u64)>,
    stripes: BTreeMap<Key, Stripe>,
    /// Of the newest entry.
    segments: Vec<Segment>,
    /// Segments in front that are complete.
    complete: usize,
    durable: Position,
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

/// The store's clock at the beginning, in milliseconds.
pub const START_MS: u64 = 10_000_000;

/// A rule that was broken, and how.
pub type Broken = String;

impl Store {
    /// A store with a new log in it.
    #[must_use]
    pub fn new(first: ControlEntry) -> Self {
        let mut store = Self {
            control: BTreeMap::new(),
            stripes: BTreeMap::new(),
            segments: Vec::new(),
            complete: 0,
            durable: Position(0),
            starts: BTreeMap::new(),
            reserved: BTreeMap::new(),
            found_over: BTreeMap::new(),
            newest_start: Position(0),
            places: BTreeMap::new(),
            refused: BTreeSet::new(),
            told: Position(0),
        };
        for segment in &first.segments {
            store.open(*segment);
        }
        store.control.insert(first.number, (Rc::new(first), 0));
        store
    }

    fn open(&mut self, segment: Segment) {
        for stripe in segment.layout.all() {
            let chain = Stripe::new(chain_of(&segment, stripe), segment.first_slot(stripe));
            self.stripes.insert((segment.id, stripe), chain);
        }
        self.segments.push(segment);
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
            Op::Index(key, slot) => {
                let found = self.stripes.get(key).and_then(|chain| chain.index(*slot));
                Answer::Index(found.map(|found| Box::new(found.clone())))
            }
            Op::List(key, from) => {
                let chain = self.stripes.get(key);
                Answer::Starts(chain.map_or_else(Vec::new, |chain| chain.starts(*from)))
            }
            Op::Headers(key, starts) => {
                let chain = self.stripes.get(key);
                let header = |start: &Slot| Some((*start, chain?.index(*start)?.header));
                Answer::Headers(starts.iter().filter_map(header).collect())
            }
            Op::RunAt(key, slot) => {
                let chain = self.stripes.get(key);
                Answer::Run(chain.and_then(|chain| chain.run_at(*slot)))
            }
        })
    }

    fn create_control(&mut self, entry: &Rc<ControlEntry>, now_ms: u64) -> Result<Answer, Broken> {
        if self.control.contains_key(&entry.number) {
            return Ok(Answer::Exists);
        }
        self.control
            .insert(entry.number, (Rc::clone(entry), now_ms));
        let reserved = self.reserved.entry(entry.epoch).or_default();
        *reserved = entry.reservation.max(*reserved);
        let newest = self.control.last_key_value();
        if newest.is_some_and(|(number, _)| *number == entry.number) {
            self.begins(entry)?;
            self.newest_start = self.newest_start.max(entry.epoch_start);
            self.starts.entry(entry.epoch).or_insert(entry.epoch_start);
            self.segmented(entry)?;
        }
        Ok(Answer::Done)
    }

    /// [H-5] Segments stay what they are. One that is new begins where nothing was granted, behind segments that are
    /// complete but for the last one.
    fn segmented(&mut self, entry: &ControlEntry) -> Result<(), Broken> {
        let count = self.segments.len();
        if entry.segments.get(..count) != Some(&*self.segments) {
            return Err(format!(
                "H-5: the segments before {:?} are others",
                entry.segments
            ));
        }
        for segment in entry.segments.get(count..).unwrap_or(&[]) {
            let (id, start) = (segment.id, segment.start);
            if self.told > start {
                let told = self.told;
                return Err(format!(
                    "H-5: segment {id} from {start}, granted up to {told}"
                ));
            }
            if let Some((key, _)) = self.stripes.iter().find(|(_, chain)| chain.reaches(start)) {
                return Err(format!(
                    "H-5: segment {id} from {start}, {key:?} goes beyond"
                ));
            }
            if self.complete + 1 < self.segments.len() {
                let complete = self.complete;
                return Err(format!("H-5: segment {id} opened, {complete} are complete"));
            }
            self.open(*segment);
        }
        self.go_on();
        Ok(())
    }

    /// First position that is not decided, from where it was found last.
    fn go_on(&mut self) {
        while let Some(segment) = self.segments.get(self.complete) {
            let end = self.segments.get(self.complete + 1).map(|next| next.start);
            let chains = self.stripes.range((segment.id, StripeId(0))..);
            let of_segment = chains.take_while(|((id, _), _)| *id == segment.id);
            let ends = of_segment.map(|(_, chain)| chain.end_position());
            let durable = ends.min().unwrap_or_default();
            match end {
                Some(end) if durable >= end => self.complete += 1,
                _ => {
                    self.durable = self.durable.max(durable);
                    return;
                }
            }
        }
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
        let key = (header.chain.segment, header.chain.stripe);
        let Some(chain) = self.stripes.get_mut(&key) else {
            return Err(format!(
                "H-5: an object of {key:?}, which the log does not have"
            ));
        };
        if chain.index(header.start).is_some() {
            return Ok(Answer::Exists);
        }
        let end = chain.end();
        chain.insert(object, now_ms)?;
        if header.start <= end {
            self.settle(key, header.start == end)?;
        }
        Ok(Answer::Done)
    }

    /// The chain may be longer than before, and has to be the same in all that was decided.
    fn settle(&mut self, key: Key, at_end: bool) -> Result<(), Broken> {
        let junk_below = self.told.max(self.newest_start);
        let mut later = self.segments.iter().filter(|segment| segment.id > key.0);
        let behind = later.next().map(|segment| segment.start);
        let Some(chain) = self.stripes.get_mut(&key) else {
            return Ok(());
        };
        for (position, content) in chain.settle(at_end)? {
            if let Some(end) = behind.filter(|end| position >= *end) {
                return Err(format!("H-5: {position} in {key:?}, which ends at {end}"));
            }
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
        self.go_on();
        Ok(())
    }

    /// First position that is not decided.
    #[must_use]
    pub fn durable(&self) -> Position {
        self.durable
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
        let keys: Vec<_> = self.stripes.keys().copied().collect();
        let Some(key) = rng.pick(&keys) else {
            return Ok(());
        };
        if let Some(chain) = self.stripes.get_mut(&key) {
            chain.merge(rng, START_MS + now_us / 1000, doom_us)?;
        }
        self.settle(key, false)
    }

    /// Deletes what is due, in ascending order.
    pub fn delete_due(&mut self, now_us: u64) {
        for chain in self.stripes.values_mut() {
            chain.delete_due(now_us);
        }
    }
}
