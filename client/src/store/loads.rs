//! What is read ahead of one chain: loads under way, in the order of their slots, within the scan's budget.

use std::collections::VecDeque;
use std::sync::Arc;

use catalog::CatalogError;
use futures::FutureExt;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::task::{JoinError, JoinHandle};
use wire::{Run, Slot};

use crate::limits::{READ_AHEAD_UNIT, SCAN_READS};
use crate::store::chunk::{Changed, Finder, Opened};
use crate::{Error, Result};

/// What the readers of one scan share.
#[derive(Debug, Clone)]
pub(crate) struct Budget {
    /// Bytes that were asked for and are not handed out yet.
    bytes: Arc<Semaphore>,
    units: u32,
    /// Requests under way.
    reads: Arc<Semaphore>,
    /// Bytes of one load, about.
    chunk_bytes: usize,
}

impl Budget {
    /// So many bytes, for so many stripes.
    pub(crate) fn new(bytes: usize, stripes: usize, chunk: (usize, usize)) -> Self {
        let units = u32::try_from(bytes / READ_AHEAD_UNIT)
            .unwrap_or(u32::MAX)
            .max(1);
        Self {
            bytes: Arc::new(Semaphore::new(units as usize)),
            units,
            reads: Arc::new(Semaphore::new(SCAN_READS)),
            // In each stripe one is handed out in part: as much again, and more, is to be ahead of them.
            chunk_bytes: (bytes / 4 / stripes.max(1)).clamp(chunk.0, chunk.1),
        }
    }

    fn take(&self, bytes: usize) -> Option<OwnedSemaphorePermit> {
        let units = u32::try_from(bytes.div_ceil(READ_AHEAD_UNIT)).unwrap_or(u32::MAX);
        let bytes = self.bytes.clone();
        bytes.try_acquire_many_owned(units.min(self.units)).ok()
    }
}

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
    permit: Option<OwnedSemaphorePermit>,
}

type Found = Result<(Option<Opened>, Finder)>;

/// Reads one chain ahead.
#[derive(Debug)]
pub(crate) struct Loads {
    budget: Budget,
    finder: Finder,
    opened: Option<Opened>,
    finding: Option<Task<Found>>,
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
    held: VecDeque<(Slot, OwnedSemaphorePermit)>,
}

impl Loads {
    pub(crate) fn new(budget: Budget, finder: Finder, next: Slot, until: Slot) -> Self {
        Self {
            budget,
            finder,
            opened: None,
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
        self.opened = None;
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
        if self.finding.is_none() && !self.ended && !self.failed && self.planned < self.until {
            self.start_finding();
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
                        let held = load.and_then(|load| Some((load.end, load.permit?)));
                        self.held.extend(held);
                        self.moved = false;
                        return Ok(Loaded::Runs(runs));
                    }
                    Err(changed) => self.look_again(slot, changed)?,
                }
            } else if let Some(task) = self.finding.as_mut() {
                let found = (&mut task.0).await;
                self.finding = None;
                self.found(found.map_err(broke_off)??);
            } else if self.ended || self.planned >= self.until {
                self.ended = false;
                return Ok(Loaded::End);
            } else if self.covering() {
                self.start_load(true);
            } else {
                self.start_finding();
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

    fn start_finding(&mut self) {
        let (finder, slot, reads) = (self.finder.clone(), self.planned, self.budget.reads.clone());
        self.failed = false;
        self.finding = Some(Task(tokio::spawn(async move {
            let _read = reads.acquire_owned().await.map_err(|_| Error::Closed)?;
            Ok(finder.find(slot).await?)
        })));
    }

    /// Takes in what a search has found, if it has ended. One that failed is begun anew by the reader when
    /// it gets there: then it matters.
    fn harvest(&mut self) {
        let ended = self
            .finding
            .as_mut()
            .and_then(|f| (&mut f.0).now_or_never());
        match ended {
            Some(Ok(Ok(found))) => {
                self.finding = None;
                self.found(found);
            }
            Some(_) => (self.finding, self.failed) = (None, true),
            None => {}
        }
    }

    fn found(&mut self, (opened, finder): (Option<Opened>, Finder)) {
        (self.finder, self.ended) = (finder, opened.is_none());
        self.opened = opened;
    }

    /// Starts to load what is next of the object that is open. Returns whether there was room for it; an
    /// urgent load needs none.
    fn start_load(&mut self, urgent: bool) -> bool {
        let Some(opened) = self.opened.clone() else {
            return false;
        };
        let chunk = opened.chunk(self.planned, self.until, self.budget.chunk_bytes);
        let permit = self.budget.take(chunk.bytes);
        if permit.is_none() && !urgent {
            return false;
        }
        (self.planned, self.failed) = (chunk.end, false);
        if chunk.end >= opened.end() {
            self.finder.passed(&opened);
            self.opened = None;
        }
        let reads = self.budget.reads.clone();
        let task = tokio::spawn(async move {
            let _read = reads.acquire_owned().await;
            opened.read(chunk.runs).await
        });
        self.loads.push_back(Load {
            task: Task(task),
            end: chunk.end,
            permit,
        });
        true
    }
}

fn broke_off(error: JoinError) -> Error {
    Error::Io {
        what: "reading ahead",
        source: std::io::Error::other(error),
    }
}
