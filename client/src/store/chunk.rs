//! One chain, read from the store in chunks.

use std::sync::Arc;

use bytes::Bytes;
use catalog::{CatalogError, Chain, Store};
use wire::object::{Index, IndexRun};
use wire::{Run, Slot, WireError};

use crate::Result;

/// Where reading of a chain goes on. A cursor is a value: a load that fails or is dropped leaves the one
/// that it started from as it was.
#[derive(Debug, Clone)]
pub(crate) struct Cursor {
    store: Store,
    chain: Chain,
    /// First slot that is still readable, or below.
    trim: Slot,
    /// A slot at or before `next` where an object of the chain starts or will start.
    boundary: Slot,
    /// The object that was read last.
    index: Option<Arc<Index>>,
    /// First slot that was not loaded.
    pub(crate) next: Slot,
    /// First slot that is not wanted.
    pub(crate) until: Slot,
    /// Where a range read ends, in bytes, with the run that reaches it.
    chunk_bytes: usize,
}

/// What a load brought.
#[derive(Debug)]
pub(crate) enum Loaded {
    /// Runs that follow one another; the first covers the slot that was next.
    Runs(Vec<Run>),
    /// The chain ends before the slot that was next.
    End,
}

/// A read that another's work on the chain got into the way of.
enum Changed {
    /// The object is not there any more, or not the same any more.
    Moved,
    Failed(CatalogError),
}

impl Cursor {
    pub(crate) fn new(
        store: Store,
        chain: Chain,
        trim: Slot,
        next: Slot,
        until: Slot,
        chunk_bytes: usize,
    ) -> Self {
        Self {
            boundary: chain.first_slot(),
            store,
            chain,
            trim,
            index: None,
            next,
            until,
            chunk_bytes,
        }
    }

    /// Whether the next load needs no search for its object.
    pub(crate) fn is_placed(&self) -> bool {
        self.boundary == self.next
            || self
                .index
                .as_ref()
                .is_some_and(|i| i.header.end > self.next)
    }

    /// Goes on behind runs that came another way.
    pub(crate) fn advance(&mut self, next: Slot) {
        self.next = self.next.max(next);
    }

    /// Forgets what is known of the chain's objects.
    pub(crate) fn search_again(&mut self) {
        (self.index, self.boundary) = (None, self.chain.first_slot());
    }

    /// Loads the next runs. If compaction or collection changed the chain meanwhile, looks again.
    ///
    /// # Errors
    /// If the store failed, or an object is corrupt.
    pub(crate) async fn load(mut self) -> Result<(Loaded, Self)> {
        match self.try_load().await {
            Ok(loaded) => return Ok((loaded, self)),
            Err(Changed::Failed(error)) => return Err(error.into()),
            Err(Changed::Moved) => {}
        }
        self.search_again();
        match self.try_load().await {
            Ok(loaded) => Ok((loaded, self)),
            Err(Changed::Failed(error)) => Err(error.into()),
            Err(Changed::Moved) => {
                let name = self.chain.id().object_name(self.boundary);
                Err(CatalogError::Missing { name }.into())
            }
        }
    }

    async fn try_load(&mut self) -> Result<Loaded, Changed> {
        let here =
            |index: &Arc<Index>| index.header.start <= self.next && self.next < index.header.end;
        let index = match self.index.take().filter(here) {
            Some(index) => index,
            None => match self.find().await.map_err(Changed::Failed)? {
                Some(index) => Arc::new(index),
                None => return Ok(Loaded::End),
            },
        };
        self.boundary = index.header.start;
        self.index = Some(index.clone());
        let runs = self.read(&index).await?;
        if let Some(last) = runs.last() {
            self.next = last.end();
        }
        if self.next == index.header.end {
            self.boundary = self.next;
        }
        Ok(Loaded::Runs(runs))
    }

    /// The chain's object that covers the next slot.
    async fn find(&mut self) -> Result<Option<Index>, CatalogError> {
        if self.boundary == self.next {
            return self.chain.index_at(self.next).await;
        }
        // What trimming leaves starts at the trim point; before that, with what straddles it.
        if self.boundary < self.trim
            && self.trim <= self.next
            && self.chain.index_at(self.trim).await?.is_some()
        {
            self.boundary = self.trim;
        }
        let walk = self.chain.walk(self.boundary).await?;
        let next = self.next;
        let covers = |h: &&wire::object::Header| h.start <= next && next < h.end;
        match walk.headers.iter().find(covers) {
            Some(header) => self.chain.index_at(header.start).await,
            None => {
                if walk.end <= next {
                    self.boundary = walk.end;
                }
                Ok(None)
            }
        }
    }

    /// Reads the runs of an object from the next slot on, up to a chunk of bytes.
    async fn read(&self, index: &Index) -> Result<Vec<Run>, Changed> {
        let from = index.runs.partition_point(|run| run.end() <= self.next);
        let rest = index.runs.get(from..).unwrap_or(&[]);
        let (mut count, mut bytes) = (0, 0_usize);
        for run in rest {
            let len = run.records.map_or(0, |records| records.len as usize);
            let full = bytes > 0 && bytes.saturating_add(len) > self.chunk_bytes;
            if count > 0 && (full || run.first >= self.until) {
                break;
            }
            count += 1;
            bytes = bytes.saturating_add(len);
        }
        let chunk = rest.get(..count).unwrap_or(&[]);
        let places = || chunk.iter().filter_map(|run| run.records);
        let start = places().next().map_or(0, |records| records.offset);
        let end = places()
            .next_back()
            .map_or(0, |r| r.offset + u64::from(r.len));
        let name = self.chain.id().object_name(index.header.start);
        let bytes = if start == end {
            Some(Bytes::new())
        } else {
            let range = self.store.get_range(&name, start..end).await;
            range.map_err(Changed::Failed)?
        };
        let Some(bytes) = bytes else {
            return Err(Changed::Moved);
        };
        let runs: Result<Vec<Run>, WireError> = chunk
            .iter()
            .map(|run| run.with_body(body(&bytes, start, run)?))
            .collect();
        match runs {
            Ok(runs) => Ok(runs),
            Err(source) => Err(self.why(index, name, source).await),
        }
    }

    /// Whether bytes that fail their checks are corrupt, or those of an object that was put in the place
    /// of the one whose index is held.
    async fn why(&self, held: &Index, name: String, source: WireError) -> Changed {
        match self.chain.index_at(held.header.start).await {
            Ok(Some(index)) if index == *held => {
                Changed::Failed(CatalogError::Corrupt { name, source })
            }
            Ok(_) => Changed::Moved,
            Err(error) => Changed::Failed(error),
        }
    }
}

/// The body of a run within the bytes of an object from `start` on.
fn body(bytes: &Bytes, start: u64, run: &IndexRun) -> Result<Bytes, WireError> {
    let Some(records) = run.records else {
        return Ok(Bytes::new());
    };
    let short = WireError::Short {
        got: bytes.len(),
        need: records.len as usize,
    };
    let from = usize::try_from(records.offset.saturating_sub(start)).map_err(|_| short)?;
    let to = from.saturating_add(records.len as usize);
    if to > bytes.len() {
        return Err(short);
    }
    Ok(bytes.slice(from..to))
}
