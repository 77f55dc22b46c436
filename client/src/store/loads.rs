//! What is read ahead of one chain: loads under way, in the order of their slots, within the scan's budget.

use std::collections::VecDeque;
use std::sync::Arc;

use catalog::CatalogError;
use futures::FutureExt;
use tokio::sync::{OwnedSemaphorePermit, oneshot};
use tokio::task::JoinHandle;
use wire::{Run, Slot};

use crate::limits::PROBE_BYTES;
use crate::store::budget::Budget;
use crate::store::chunk::{Changed, Finder, Opened};
use crate::{Error, Result};

/// What the chain has next.
#[derive(Debug)]
pub(crate) enum Loaded {
    /// Runs that follow one another; the first covers the slot that was next.
    Runs(Vec<Run>),
    /// The chain ends before the slot that was next.
    End,
}

/// How far a stripe is read ahead.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Planned {
    /// Everything below this slot is here or under way.
    Until(Slot),
    /// It is not known yet what is there.
    Unknown,
    /// The budget is used up.
    Full,
}

/// A task that stops when it is not wanted any more.
#[derive(Debug)]
struct Task<T>(JoinHandle<T>);

impl<T> Drop for Task<T> {
    fn drop(&mut self) {
        self.0.abort();
    }
}

#[derive(Debug)]
struct Load {
    task: Task<Result<Vec<Run>, Changed>>,
    end: Slot,
    room: Option<Room>,
}

type Found = Result<(Option<Opened>, Finder)>;

/// Room in the budget, given back when the last that shares it is dropped.
type Room = Arc<OwnedSemaphorePermit>;

#[derive(Debug)]
struct Finding {
    found: oneshot::Receiver<Found>,
    room: Option<OwnedSemaphorePermit>,
    _task: Task<()>,
}

/// Reads one chain ahead.
#[derive(Debug)]
pub(crate) struct Loads {
    budget: Budget,
    finder: Finder,
    opened: Option<Opened>,
    /// That of what was read of the open object's start.
    head: Option<Room>,
    finding: Option<Finding>,
    loads: VecDeque<Load>,
    /// First slot that is in no load.
    planned: Slot,
    /// First slot that is not wanted.
    pub(crate) until: Slot,
    /// The chain was found to end at `planned`.
    ended: bool,
    /// The search for what is at `planned` failed.
    failed: bool,
    /// The last object had moved.
    moved: bool,
    /// What was handed out and takes of the budget until the reader is past it.
    held: VecDeque<(Slot, Room)>,
}

impl Loads {
    pub(crate) fn new(budget: Budget, finder: Finder, next: Slot, until: Slot) -> Self {
        Self {
            budget,
            finder,
            opened: None,
            head: None,
            finding: None,
            loads: VecDeque::new(),
            planned: next,
            until,
            ended: false,
            failed: false,
            moved: false,
            held: VecDeque::new(),
        }
    }

    /// Whether the next slot's object is known by its name.
    pub(crate) fn is_placed(&self) -> bool {
        self.finder.is_at(self.planned) || self.covering()
    }

    /// Goes on behind what came another way, or is not wanted.
    pub(crate) fn advance(&mut self, next: Slot) {
        if self.planned < next {
            self.planned = next;
            (self.finding, self.ended) = (None, false);
            self.loads.clear();
        }
    }

    /// The reader is at a slot: what is before it takes no room any more.
    pub(crate) fn passed(&mut self, next: Slot) {
        while self.held.front().is_some_and(|(end, _)| *end <= next) {
            self.held.pop_front();
        }
    }

    /// Drops what is under way: `next` comes another way.
    pub(crate) fn stop(&mut self, next: Slot) {
        self.loads.clear();
        (self.finding, self.ended) = (None, false);
        self.planned = next;
    }

    /// Forgets what is known of the chain's objects.
    pub(crate) fn search_again(&mut self) {
        (self.opened, self.head) = (None, None);
        self.finder.search_again();
    }

    /// Name of the object that the chain should go on with.
    pub(crate) fn boundary_name(&self) -> String {
        self.finder.boundary_name()
    }

    /// Sees to it that a slot is read ahead, if it can be.
    pub(crate) fn plan(&mut self, slot: Slot) -> Planned {
        if self.planned > slot {
            return Planned::Until(self.planned);
        }
        self.harvest();
        if self.covering() {
            return match self.start_load(false) {
                true => Planned::Until(self.planned),
                false => Planned::Full,
            };
        }
        let known = self.ended || self.failed || self.planned >= self.until;
        if self.finding.is_none() && !known && !self.start_finding(false) {
            return Planned::Full;
        }
        Planned::Unknown
    }

    /// Waits for what comes next at a slot. If compaction or collection changed the chain meanwhile, looks
    /// again. Cancel-safe.
    ///
    /// # Errors
    /// If the store failed, or an object is corrupt.
    pub(crate) async fn next(&mut self, slot: Slot) -> Result<Loaded> {
        loop {
            if let Some(load) = self.loads.front_mut() {
                let loaded = (&mut load.task.0).await;
                let load = self.loads.pop_front();
                match loaded.map_err(broke_off).map_err(Changed::Broken).flatten() {
                    Ok(runs) => {
                        let held = load.and_then(|load| Some((load.end, load.room?)));
                        self.held.extend(held);
                        self.moved = false;
                        return Ok(Loaded::Runs(runs));
                    }
                    Err(changed) => self.look_again(slot, changed)?,
                }
            } else if let Some(finding) = self.finding.as_mut() {
                let found = (&mut finding.found).await;
                let room = self.finding.take().and_then(|finding| finding.room);
                self.found(found.map_err(broke_off).flatten()?, room);
            } else if self.ended || self.planned >= self.until {
                self.ended = false;
                return Ok(Loaded::End);
            } else if self.covering() {
                self.start_load(true);
            } else {
                self.start_finding(true);
            }
        }
    }

    fn look_again(&mut self, slot: Slot, changed: Changed) -> Result<()> {
        self.stop(slot);
        let name = self.finder.boundary_name();
        self.search_again();
        match changed {
            Changed::Moved if !self.moved => {
                self.moved = true;
                Ok(())
            }
            Changed::Moved => Err(CatalogError::Missing { name }.into()),
            Changed::Failed(error) => Err(error.into()),
            Changed::Broken(error) => Err(error),
        }
    }

    fn covering(&self) -> bool {
        let opened = self.opened.as_ref();
        opened.is_some_and(|opened| opened.covers(self.planned))
    }

    /// Starts to look for the object that is next. Returns whether there was room for what is read of it; an
    /// urgent search needs none.
    fn start_finding(&mut self, urgent: bool) -> bool {
        let mut probe = self.budget.probe();
        let room = self.budget.take(probe);
        if room.is_none() {
            if !urgent {
                return false;
            }
            probe = PROBE_BYTES;
        }
        let (finder, slot, reads) = (self.finder.clone(), self.planned, self.budget.reads());
        self.failed = false;
        let opened = self.budget.opened();
        let (answer, found) = oneshot::channel();
        let task = tokio::spawn(async move {
            let _read = reads.acquire_owned().await;
            let found = finder.find(slot, probe as u64).await;
            // The end of a chain is nothing to go on from.
            let goes_on = matches!(&found, Ok((Some(_), _)));
            // If nobody waits for it any more, nobody needs it.
            let _ = answer.send(found.map_err(Error::from));
            if goes_on {
                opened.notify_one();
            }
        });
        self.finding = Some(Finding {
            found,
            room,
            _task: Task(task),
        });
        true
    }

    /// Takes in what a search has found, if it has ended. One that failed is begun anew by the reader when
    /// it gets there: then it matters.
    fn harvest(&mut self) {
        let ended = self
            .finding
            .as_mut()
            .and_then(|finding| (&mut finding.found).now_or_never());
        let Some(ended) = ended else {
            return;
        };
        let room = self.finding.take().and_then(|finding| finding.room);
        match ended {
            Ok(Ok(found)) => self.found(found, room),
            _ => self.failed = true,
        }
    }

    fn found(
        &mut self,
        (opened, finder): (Option<Opened>, Finder),
        room: Option<OwnedSemaphorePermit>,
    ) {
        (self.finder, self.ended) = (finder, opened.is_none());
        self.head = None;
        if let Some(opened) = &opened {
            self.budget.found(opened.size());
            self.head = room.map(|mut room| {
                self.budget.resize(&mut room, opened.head_bytes());
                Arc::new(room)
            });
        }
        self.opened = opened;
    }

    /// Starts to load what is next of the object that is open. Returns whether there was room for it; an
    /// urgent load needs none, and what was read of the object's start already has its own.
    fn start_load(&mut self, urgent: bool) -> bool {
        let Some(opened) = self.opened.clone() else {
            return false;
        };
        let mut chunk = opened.chunk(self.planned, self.until, self.budget.chunk_bytes());
        let room = match chunk.in_head {
            true => self.head.clone(),
            false => self.budget.take(chunk.bytes).map(Arc::new),
        };
        if room.is_none() && !chunk.in_head {
            if !urgent {
                return false;
            }
            // As little as there is: one run, or one entry of the cache.
            chunk = opened.chunk(self.planned, self.until, 1);
        }
        (self.planned, self.failed) = (chunk.end, false);
        if chunk.end >= opened.end() {
            self.finder.passed(&opened);
            (self.opened, self.head) = (None, None);
        }
        let reads = (!chunk.in_head).then(|| self.budget.reads());
        let task = tokio::spawn(async move {
            let _read = match reads {
                Some(reads) => reads.acquire_owned().await.ok(),
                None => None,
            };
            opened.read(chunk.runs).await
        });
        self.loads.push_back(Load {
            task: Task(task),
            end: chunk.end,
            room,
        });
        true
    }
}

fn broke_off(error: impl std::error::Error + Send + Sync + 'static) -> Error {
    Error::Io {
        what: "reading ahead",
        source: std::io::Error::other(error),
    }
}
