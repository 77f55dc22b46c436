//! What the store has, and what the processes of a stripe believe.

use std::collections::{BTreeMap, BTreeSet};

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(super) enum Content {
    Junk,
    /// The record that has the slot's token, which is of this epoch.
    Record(u8),
}

#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(super) struct Object {
    pub(super) start: u8,
    pub(super) contents: Vec<Content>,
    pub(super) owner: u8,
    pub(super) writer: u8,
}

impl Object {
    pub(super) fn end(&self) -> u8 {
        self.start + u8::try_from(self.contents.len()).expect("few")
    }
}

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(super) enum Seen {
    Nothing,
    Stored,
    Taken(Object),
}

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(super) struct Flight {
    pub(super) object: Object,
    pub(super) seen: Seen,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(super) struct Owner {
    pub(super) writer: u8,
    pub(super) number: u8,
    pub(super) frontier: u8,
    pub(super) held: BTreeMap<u8, Content>,
    pub(super) flights: Vec<Flight>,
    pub(super) sealed: u8,
    pub(super) established: bool,
    pub(super) fenced: bool,
}

impl Owner {
    pub(super) fn planned(&self) -> u8 {
        self.flights
            .last()
            .map_or(self.frontier, |f| f.object.end())
    }

    /// Holes below `to` are filled.
    pub(super) fn fill(&mut self, to: u8) {
        for slot in self.planned()..to {
            self.held.entry(slot).or_insert(Content::Junk);
        }
    }
}

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(super) struct State {
    pub(super) objects: BTreeMap<u8, Object>,
    /// Puts of which nobody waits for the answer.
    pub(super) loose: BTreeSet<Object>,
    pub(super) owners: Vec<Owner>,
    /// Processes that there were.
    pub(super) writers: u8,
    pub(super) epoch: u8,
    pub(super) grants: bool,
    /// Epoch of each slot's token.
    pub(super) tokens: BTreeMap<u8, u8>,
    pub(super) acknowledged: BTreeMap<u8, Content>,
    /// What was decided, and whether that ever changed, or two processes had one number.
    pub(super) truth: Vec<Content>,
    pub(super) changed: bool,
    pub(super) numbers: BTreeMap<u8, u8>,
    pub(super) shared: bool,
}

impl State {
    pub(super) fn walk(&self) -> Vec<&Object> {
        let (mut chain, mut end) = (Vec::new(), 0);
        while let Some(object) = self.objects.get(&end) {
            end = object.end();
            chain.push(object);
        }
        chain
    }

    pub(super) fn settle(&mut self) {
        let chain: Vec<Object> = self.walk().into_iter().cloned().collect();
        let found: Vec<Content> = chain.iter().flat_map(|o| o.contents.clone()).collect();
        self.changed |= !found.starts_with(&self.truth);
        self.truth = found;
        for object in chain {
            let first = *self.numbers.entry(object.owner).or_insert(object.writer);
            self.shared |= first != object.writer;
        }
    }

    /// A put reaches the store.
    pub(super) fn land(&mut self, object: &Object) -> Seen {
        match self.objects.get(&object.start) {
            Some(found) if found == object => Seen::Stored,
            Some(found) => Seen::Taken(found.clone()),
            None => {
                self.objects.insert(object.start, object.clone());
                self.settle();
                Seen::Stored
            }
        }
    }

    pub(super) fn acknowledge(&mut self, object: &Object) {
        for (slot, content) in (object.start..).zip(&object.contents) {
            if *content != Content::Junk {
                self.acknowledged.insert(slot, *content);
            }
        }
    }
}
