//! A fake store with one chain in it, its collector, and the truth about every slot.

use std::collections::BTreeMap;
use std::time::Duration;

use bytes::Bytes;
use wire::object::{Author, ChainId, Header, Index, Object};
use wire::{Identity, OwnerNumber, Run, Slot, WriterId};

use super::record;
use super::rng::Rng;
use crate::logic::action::PutOutcome;

/// What a slot holds for ever.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Content {
    Junk,
    Record(Identity),
}

impl Content {
    fn of(identity: Option<Identity>) -> Self {
        identity.map_or(Self::Junk, Self::Record)
    }
}

/// The chain as a walk finds it.
#[derive(Debug)]
pub(super) struct Walk {
    pub(super) headers: Vec<Header>,
    pub(super) end: Slot,
    pub(super) owner: OwnerNumber,
}

#[derive(Debug)]
struct Stored {
    index: Index,
    runs: Vec<Run>,
}

#[derive(Debug)]
pub(super) struct Store {
    chain: ChainId,
    objects: BTreeMap<Slot, Stored>,
    /// Where the chain starts since it was trimmed, published before anything is deleted.
    start: Slot,
    /// Largest owner number of what was trimmed.
    floor: OwnerNumber,
    /// Contents of all slots from 0 to the chain's end.
    truth: Vec<Content>,
    doomed: Vec<(Duration, Slot)>,
    /// Whose each owner number of the chain is.
    owners: BTreeMap<OwnerNumber, WriterId>,
}

impl Store {
    pub(super) fn new(chain: ChainId) -> Self {
        Self {
            chain,
            objects: BTreeMap::new(),
            start: Slot(0),
            floor: OwnerNumber(0),
            truth: Vec::new(),
            doomed: Vec::new(),
            owners: BTreeMap::new(),
        }
    }

    pub(super) fn start(&self) -> Slot {
        self.start
    }

    /// End of the chain.
    pub(super) fn end(&self) -> Slot {
        Slot(self.truth.len() as u64)
    }

    /// What a slot holds, if that is decided.
    pub(super) fn truth(&self, slot: Slot) -> Option<Content> {
        self.truth.get(usize::try_from(slot.0).ok()?).copied()
    }

    /// Creates an object, or tells which other has its name (C-5).
    pub(super) fn put(&mut self, object: &Object) -> PutOutcome {
        let start = object.index.header.start;
        if let Some(found) = self.objects.get(&start) {
            return if found.index.header == object.index.header {
                PutOutcome::Stored
            } else {
                PutOutcome::Taken(Box::new(found.index.clone()))
            };
        }
        self.insert(object);
        self.settle();
        PutOutcome::Stored
    }

    /// Follows the chain from its published start.
    pub(super) fn walk(&self) -> Walk {
        let (mut headers, mut end, mut owner) = (Vec::new(), self.start, self.floor);
        while let Some(found) = self.objects.get(&end) {
            headers.push(found.index.header);
            owner = owner.max(found.index.header.author.owner);
            end = found.index.header.end;
        }
        Walk {
            headers,
            end,
            owner,
        }
    }

    fn insert(&mut self, object: &Object) {
        let bytes = Bytes::from(object.chunks.concat());
        let (index, runs) = Object::decode(&bytes).expect("objects are sound");
        for run in &runs {
            let Some((identity, body)) = &run.content else {
                continue;
            };
            for (slot, found) in (run.first.0..).zip(body.records()) {
                assert_eq!(found, record(*identity, Slot(slot)), "record in its slot");
            }
        }
        self.objects
            .insert(object.index.header.start, Stored { index, runs });
    }

    /// The chain may be longer than before, and has to be the same in all that was decided.
    fn settle(&mut self) {
        let walk = self.walk();
        assert!(walk.end >= self.end(), "c3: the chain became shorter");
        for header in walk.headers {
            let Author { owner, writer, .. } = header.author;
            if writer != COLLECTOR {
                let first = *self.owners.entry(owner).or_insert(writer);
                assert_eq!(first, writer, "c6: two writers with number {owner}");
            }
            for run in &self.objects[&header.start].runs {
                for slot in run.first.0..run.end().0 {
                    let content = Content::of(run.identity());
                    match self.truth(Slot(slot)) {
                        Some(decided) => assert_eq!(decided, content, "c1: slot {slot} changed"),
                        None => self.truth.push(content),
                    }
                }
            }
        }
    }

    /// Merges neighbours of the chain (T-3), or starts it further on (T-2); deletes after `grace`.
    pub(super) fn collect(&mut self, rng: &mut Rng, now: Duration, grace: Duration) {
        let headers = self.walk().headers;
        if headers.len() < 2 {
            return;
        }
        let from = rng.index(headers.len() - 1);
        if rng.percent(50) {
            let to = rng.between(from as u64 + 1, headers.len() as u64 - 1);
            self.merge(
                &headers[from..=usize::try_from(to).expect("fits")],
                now + grace,
            );
        } else {
            self.trim(rng, headers[from + 1], now + grace);
        }
        let inside = |slot: &Slot| {
            let first = headers.iter().find(|h| h.start < *slot && *slot < h.end);
            first.is_some() && *slot != self.start
        };
        let orphans: Vec<_> = self.objects.keys().copied().filter(inside).collect();
        let doomed = orphans.into_iter().map(|slot| (now + grace, slot));
        self.doomed.extend(doomed.collect::<Vec<_>>());
        self.settle();
    }

    fn merge(&mut self, headers: &[Header], at: Duration) {
        let runs: Vec<_> = headers
            .iter()
            .flat_map(|header| self.objects[&header.start].runs.clone())
            .collect();
        let owner = headers.iter().map(|h| h.author.owner).max();
        self.rewrite(&runs, owner.expect("some"), headers);
        for header in &headers[1..] {
            self.doomed.push((at, header.start));
        }
    }

    fn trim(&mut self, rng: &mut Rng, header: Header, at: Duration) {
        let mut to = Slot(rng.between(header.start.0, header.end.0 - 1));
        if to > header.start && self.objects.contains_key(&to) {
            to = header.start;
        }
        if to > header.start {
            let runs: Vec<_> = self.objects[&header.start]
                .runs
                .iter()
                .filter(|run| run.end() > to)
                .map(|run| run.part(run.first.max(to), run.end()).expect("its own"))
                .collect();
            self.rewrite(&runs, header.author.owner, &[header]);
        }
        let gone = self.walk().headers.into_iter().filter(|h| h.start < to);
        self.floor = gone
            .map(|h| h.author.owner)
            .fold(self.floor, OwnerNumber::max);
        self.start = to;
        let names: Vec<_> = self.objects.range(..to).map(|(name, _)| *name).collect();
        self.doomed.extend(names.into_iter().map(|name| (at, name)));
    }

    fn rewrite(&mut self, runs: &[Run], owner: OwnerNumber, of: &[Header]) {
        let author = Author {
            owner,
            writer: COLLECTOR,
            epoch: of.iter().map(|h| h.author.epoch).max().expect("some"),
        };
        let object = Object::build(self.chain, author, runs).expect("valid");
        self.insert(&object);
    }

    /// Deletes the first of the names that are due.
    pub(super) fn delete_one(&mut self, now: Duration) -> bool {
        let due = self.doomed.iter().filter(|(at, _)| *at <= now);
        let Some(&(at, name)) = due.min_by_key(|(_, name)| *name) else {
            return false;
        };
        self.doomed.retain(|doomed| *doomed != (at, name));
        if self
            .walk()
            .headers
            .iter()
            .all(|header| header.start != name)
        {
            self.objects.remove(&name);
            self.settle();
        }
        true
    }
}

/// Signs what the collector rewrites.
const COLLECTOR: WriterId = WriterId([255; 16]);
