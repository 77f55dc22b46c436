//! One chain of objects, and what is true of it.

use std::collections::{BTreeMap, BTreeSet};

use bytes::Bytes;
use wire::object::{Author, ChainId, Header, Index, Object};
use wire::{Position, Run, Slot, WriterId};

use super::{Broken, Content, Found};
use crate::rng::Rng;

/// Signs what the compactor rewrites.
const COMPACTOR: WriterId = WriterId([255; 16]);

/// Age from which on objects are merged.
const SETTLED_MS: u64 = 1500;

#[derive(Debug)]
struct Stored {
    index: Index,
    runs: Vec<Run>,
    /// When it landed, in milliseconds.
    at: u64,
}

/// A chain and what is true of it.
#[derive(Debug)]
pub(super) struct Stripe {
    chain: ChainId,
    first: Slot,
    objects: BTreeMap<Slot, Stored>,
    /// What slots hold, from the first on.
    truth: Vec<Content>,
    doomed: Vec<(u64, Slot)>,
    owners: BTreeMap<u64, WriterId>,
}

impl Stripe {
    /// A chain without objects, whose first slot is this.
    pub(super) fn new(chain: ChainId, first: Slot) -> Self {
        Self {
            chain,
            first,
            objects: BTreeMap::new(),
            truth: Vec::new(),
            doomed: Vec::new(),
            owners: BTreeMap::new(),
        }
    }

    /// Header and index of the object that starts at a slot.
    pub(super) fn index(&self, start: Slot) -> Option<&Index> {
        self.objects.get(&start).map(|stored| &stored.index)
    }

    /// Where objects start, from a slot on.
    pub(super) fn starts(&self, from: Slot) -> Vec<Slot> {
        self.objects
            .range(from..)
            .map(|(start, _)| *start)
            .collect()
    }

    /// The position of the first slot that is not decided.
    pub(super) fn end_position(&self) -> Position {
        self.chain.position(self.end())
    }

    /// Whether a slot at or above a position is decided.
    pub(super) fn reaches(&self, position: Position) -> bool {
        let layout = self.chain.layout;
        self.end() > layout.slot_at_or_after(self.chain.stripe, position)
    }

    pub(super) fn insert(&mut self, object: &Object, at: u64) -> Result<(), Broken> {
        let bytes = Bytes::from(object.chunks.concat());
        let (index, runs) = Object::decode(&bytes).map_err(|e| format!("C-2: {e}"))?;
        let start = index.header.start;
        self.objects.insert(start, Stored { index, runs, at });
        Ok(())
    }

    /// End of the chain.
    pub(super) fn end(&self) -> Slot {
        self.first.plus(self.truth.len() as u64)
    }

    fn walk(&self, from: Slot) -> Vec<Header> {
        let (mut headers, mut end) = (Vec::new(), from);
        while let Some(found) = self.objects.get(&end) {
            headers.push(found.index.header);
            end = found.index.header.end;
        }
        headers
    }

    /// Gives what was decided by the newest object, and where.
    pub(super) fn settle(&mut self, at_end: bool) -> Result<Vec<(Position, Content)>, Broken> {
        let from = if at_end { self.end() } else { self.first };
        let headers = self.walk(from);
        let end = headers.last().map_or(from, |header| header.end);
        let (segment, stripe) = (self.chain.segment, self.chain.stripe);
        if end < self.end() {
            return Err(format!(
                "C-3: the chain of segment {segment} stripe {stripe} became shorter"
            ));
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
                let at = usize::try_from(self.first.until(slot)).unwrap_or(usize::MAX);
                match self.truth.get(at) {
                    Some(decided) if *decided == content => {}
                    Some(decided) => {
                        let what = format!("stripe {stripe} slot {slot}: {decided:?}, {content:?}");
                        return Err(format!("C-1: {what}"));
                    }
                    None => {
                        self.truth.push(content);
                        fresh.push((self.chain.position(slot), content));
                    }
                }
            }
        }
        Ok(fresh)
    }

    pub(super) fn run_at(&self, slot: Slot) -> Option<Found> {
        let header = self.walk(self.first).into_iter().find(|h| h.end > slot)?;
        let runs = &self.objects.get(&header.start)?.runs;
        let run = runs.iter().find(|r| r.first <= slot && slot < r.end())?;
        let (_, content) = contents(std::slice::from_ref(run)).find(|(at, _)| *at == slot)?;
        Some(Found {
            end: run.end(),
            identity: run.identity(),
            content,
        })
    }

    pub(super) fn merge(&mut self, rng: &mut Rng, now_ms: u64, doom_us: u64) -> Result<(), Broken> {
        // An owner that verifies a late commit (C-7) looks for its very object: what is young is left alone.
        let old = |header: &Header| {
            let stored = self.objects.get(&header.start);
            stored.is_some_and(|stored| stored.at + SETTLED_MS <= now_ms)
        };
        let headers = self.walk(self.first);
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

    pub(super) fn delete_due(&mut self, now_us: u64) {
        if self.doomed.iter().all(|(at, _)| *at > now_us) {
            return;
        }
        let chain: BTreeSet<_> = self
            .walk(self.first)
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
