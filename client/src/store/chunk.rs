//! One chain in the store: which object covers a slot, and the runs of an object in chunks.

use std::ops::Range;
use std::sync::Arc;

use bytes::Bytes;
use catalog::{CatalogError, Chain, Located, Sought, Store};
use wire::object::{Index, IndexRun};
use wire::{Run, Slot, WireError};

use crate::Error;
use crate::store::cache::Cache;
use crate::store::cached::Cached;

/// Finds the objects of a chain. A finder is a value: a search that fails or is dropped leaves the one that
/// it started from as it was.
#[derive(Debug, Clone)]
pub(crate) struct Finder {
    store: Store,
    chain: Chain,
    /// First slot that is still readable, or below.
    trim: Slot,
    /// A slot where an object of the chain starts or will start.
    boundary: Slot,
    cache: Option<Cache>,
    /// What the cache has of this chain did not hold.
    distrusts: bool,
}

/// An object whose index is known.
#[derive(Debug, Clone)]
pub(crate) struct Opened {
    store: Store,
    chain: Chain,
    index: Arc<Index>,
    /// What was read of its start, with the index.
    head: Bytes,
    /// Whether the head came from the cache, which is not believed.
    cached_head: bool,
    cached: Option<Cached>,
}

/// Why runs did not come.
#[derive(Debug)]
pub(crate) enum Changed {
    /// The object is not there any more, or not the same any more: another worked on the chain.
    Moved,
    Failed(CatalogError),
    Broken(Error),
}

impl From<CatalogError> for Changed {
    fn from(error: CatalogError) -> Self {
        Self::Failed(error)
    }
}

impl Finder {
    pub(crate) fn new(store: Store, chain: Chain, trim: Slot, cache: Option<Cache>) -> Self {
        Self {
            boundary: chain.first_slot(),
            store,
            chain,
            trim,
            cache,
            distrusts: false,
        }
    }

    /// Whether an object that starts at a slot is found by its name alone.
    pub(crate) fn is_at(&self, slot: Slot) -> bool {
        self.boundary == slot
    }

    /// Forgets what is known of the chain's objects.
    pub(crate) fn search_again(&mut self) {
        (self.boundary, self.distrusts) = (self.chain.first_slot(), true);
    }

    /// Name of the object that starts at the last known end of an object.
    pub(crate) fn boundary_name(&self) -> String {
        self.chain.id().object_name(self.boundary)
    }

    /// An object of the chain has been gone through.
    pub(crate) fn passed(&mut self, object: &Opened) {
        let header = &object.index.header;
        (self.boundary, self.distrusts) = (header.end, false);
    }

    /// The chain's object that covers a slot, with its first `probe` bytes; `None` if the chain ends before.
    ///
    /// # Errors
    /// If the store failed, or an object is corrupt.
    pub(crate) async fn find(
        mut self,
        slot: Slot,
        probe: u64,
    ) -> Result<(Option<Opened>, Self), CatalogError> {
        if self.boundary == slot {
            let opened = self.open(slot, probe).await?;
            return Ok((opened, self));
        }
        if slot < self.boundary {
            self.boundary = self.chain.first_slot();
        }
        // Near what is known of the chain its objects are looked at, elsewhere its snapshots.
        let known = self.boundary > self.chain.first_slot();
        let near = match known {
            true => Some(self.chain.locate(self.boundary, slot).await?),
            false => None,
        };
        let sought = match near {
            Some(Located::Behind(end)) => Sought::Behind(end),
            Some(Located::In(header)) => {
                self.boundary = header.start;
                let opened = self.open(header.start, probe).await?;
                return Ok((opened.filter(|opened| opened.covers(slot)), self));
            }
            None => {
                let from = self.first(slot).await?;
                self.chain.seek(from, slot, probe).await?
            }
        };
        match sought {
            Sought::In(index, head) => {
                self.boundary = index.header.start;
                let opened = self.opened(*index, head);
                Ok((Some(opened), self))
            }
            Sought::Behind(end) => {
                if end <= slot {
                    self.boundary = end;
                }
                Ok((None, self))
            }
        }
    }

    /// Where what is left of the chain starts. Trimming leaves it at the trim point; before that, with what
    /// straddles it.
    async fn first(&self, slot: Slot) -> Result<Slot, CatalogError> {
        let first = self.chain.first_slot();
        let trimmed = first < self.trim && self.trim <= slot;
        match trimmed && self.chain.header_at(self.trim).await?.is_some() {
            true => Ok(self.trim),
            false => Ok(first),
        }
    }

    async fn open(&self, start: Slot, probe: u64) -> Result<Option<Opened>, CatalogError> {
        let name = || self.chain.id().object_name(start);
        let cache = self.cache.as_ref();
        if let Some(cache) = cache.filter(|_| !self.distrusts)
            && let Some(head) = cache.get(&name()).await
            && let Ok(index) = Index::decode(&head)
            && (index.header.chain, index.header.start) == (self.chain.id(), start)
        {
            return Ok(Some(Opened {
                cached_head: true,
                ..self.opened(index, head)
            }));
        }
        let Some((index, head)) = self.chain.open_at(start, probe).await? else {
            return Ok(None);
        };
        if let Some(cache) = cache {
            let entry = Self::kept(&index, &head);
            cache.insert(name(), Bytes::copy_from_slice(&entry));
        }
        Ok(Some(self.opened(index, head)))
    }

    /// What is kept of an object's start where there is a cache: of a large object only the index, since the
    /// rest has entries of its own.
    fn kept(index: &Index, head: &Bytes) -> Bytes {
        let whole = head.len() as u64 >= index.header.object_len;
        let end = index.header.index_end().min(head.len());
        head.slice(..if whole { head.len() } else { end })
    }

    fn opened(&self, index: Index, mut head: Bytes) -> Opened {
        if self.cache.is_some() {
            head = Self::kept(&index, &head);
        }
        let index = Arc::new(index);
        let cached = self.cache.clone().map(|cache| Cached::new(cache, &index));
        Opened {
            store: self.store.clone(),
            chain: self.chain.clone(),
            index,
            head,
            cached_head: false,
            cached,
        }
    }
}

impl Opened {
    pub(crate) fn covers(&self, slot: Slot) -> bool {
        self.index.header.start <= slot && slot < self.index.header.end
    }

    /// First slot behind the object.
    pub(crate) fn end(&self) -> Slot {
        self.index.header.end
    }

    /// Bytes of the object.
    pub(crate) fn size(&self) -> u64 {
        self.index.header.object_len
    }

    /// Bytes of it that are here.
    pub(crate) fn head_bytes(&self) -> usize {
        self.head.len()
    }

    /// Which runs to read next: from the one that covers a slot on, so many bytes or up to twice as many, but
    /// none that starts at or behind `until`. What is here comes at once, and of the cache a whole entry. With
    /// how many bytes they are, and where they end.
    pub(crate) fn chunk(&self, slot: Slot, until: Slot, bytes: usize) -> Chunk {
        let runs = &self.index.runs;
        let first = runs.partition_point(|run| run.end() <= slot);
        let in_head = runs.get(first).is_some_and(|run| self.is_here(run));
        let (last, bytes) = match self.cached.as_ref() {
            _ if in_head => (runs.len(), usize::MAX),
            Some(cached) => (cached.entry_of(first).end, usize::MAX),
            None => (runs.len(), bytes),
        };
        let mut chunk = Chunk {
            runs: first..first,
            bytes: 0,
            end: slot,
            in_head,
        };
        for run in runs.get(first..last).unwrap_or(&[]) {
            let len = run.records.map_or(0, |records| records.len as usize);
            // What would be left of the object is not worth a request of its own.
            let rest = self
                .size()
                .saturating_sub(run.records.map_or(0, |r| r.offset));
            let enough = (chunk.bytes >= bytes && rest >= bytes as u64) || run.first >= until;
            if !chunk.runs.is_empty() && (enough || (in_head && !self.is_here(run))) {
                break;
            }
            chunk.runs.end += 1;
            chunk.bytes = chunk.bytes.saturating_add(len);
            chunk.end = run.end();
        }
        chunk
    }

    /// Whether the body of a run was read with the object's start.
    fn is_here(&self, run: &IndexRun) -> bool {
        let end = run.records.map_or(0, |r| r.offset + u64::from(r.len));
        end <= self.head.len() as u64
    }

    /// Reads and checks runs, which a chunk has.
    pub(crate) async fn read(&self, runs: Range<usize>) -> Result<Vec<Run>, Changed> {
        let wanted = self.index.runs.get(runs.clone()).unwrap_or(&[]);
        let name = self.chain.id().object_name(self.index.header.start);
        if wanted.iter().all(|run| self.is_here(run)) {
            match (self.checked(runs.clone(), &self.head, 0), &self.cached) {
                (Ok(runs), _) => return Ok(runs),
                // What the disk made of it is not what decides.
                (Err(_), Some(cached)) if self.cached_head => cached.forget_head(&self.index),
                (Err(source), _) => return Err(self.why(name, source).await),
            }
        } else if let Some(cached) = self.cached.as_ref() {
            let entry = cached.entry_of(runs.start);
            let place = place(self.index.runs.get(entry).unwrap_or(&[]));
            let bytes = cached.read(&self.store, &self.index, &place).await?;
            let bytes = bytes.ok_or(Changed::Moved)?;
            // What the disk made of it is not what decides.
            if let Ok(checked) = self.checked(runs.clone(), &bytes, place.start) {
                return Ok(checked);
            }
            cached.forget(&self.index, &place);
        }
        let place = place(wanted);
        let bytes = self.store.get_known_range(&name, place.clone()).await?;
        let bytes = bytes.ok_or(Changed::Moved)?;
        match self.checked(runs, &bytes, place.start) {
            Ok(runs) => Ok(runs),
            Err(source) => Err(self.why(name, source).await),
        }
    }

    /// Runs of the object, from its bytes from `start` on.
    fn checked(
        &self,
        runs: Range<usize>,
        bytes: &Bytes,
        start: u64,
    ) -> Result<Vec<Run>, WireError> {
        let runs = self.index.runs.get(runs).unwrap_or(&[]);
        runs.iter()
            .map(|run| run.with_body(body(bytes, start, run)?))
            .collect()
    }

    /// Whether bytes that fail their checks are corrupt, or those of an object that was put in the place
    /// of the one whose index is held.
    async fn why(&self, name: String, source: WireError) -> Changed {
        match self.chain.index_at(self.index.header.start).await {
            Ok(Some(index)) if index == *self.index => {
                Changed::Failed(CatalogError::Corrupt { name, source })
            }
            Ok(_) => Changed::Moved,
            Err(error) => Changed::Failed(error),
        }
    }
}

/// Where the bodies of runs that follow one another are in their object.
fn place(runs: &[IndexRun]) -> Range<u64> {
    let mut places = runs.iter().filter_map(|run| run.records);
    let first = places.next();
    let last = places.next_back().or(first);
    let start = first.map_or(0, |records| records.offset);
    start..last.map_or(start, |r| r.offset + u64::from(r.len))
}

/// Runs to read together.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Chunk {
    /// Their numbers in the object's index.
    pub(crate) runs: Range<usize>,
    /// Bytes of their bodies.
    pub(crate) bytes: usize,
    /// First slot behind them.
    pub(crate) end: Slot,
    /// Whether they were read with the object's start.
    pub(crate) in_head: bool,
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

#[cfg(test)]
mod tests {
    use super::*;
    use wire::object::{Author, Object};
    use wire::{
        ClientId, Epoch, Identity, Layout, OwnerNumber, RequestId, RunBody, StripeId, WriterId,
    };

    #[tokio::test(flavor = "multi_thread")]
    async fn a_rotten_small_object_in_the_cache_is_read_from_the_store() {
        let store = Store::open("memory:///").expect("opened");
        let log = catalog::Log::create(store.clone(), Layout::new(1, 4).expect("valid"))
            .await
            .expect("created");
        let entry = log.last().await.expect("last");
        let chain = log.chain(entry.last_segment().expect("segment"), StripeId(0));
        let author = Author {
            epoch: Epoch(1),
            owner: OwnerNumber(1),
            writer: WriterId([1; 16]),
        };
        let identity = Identity {
            client: ClientId(1),
            request: RequestId(1),
        };
        let body = RunBody::new(&["abcdef", "ghijkl"]).expect("valid");
        let object = Object::build(chain.id(), author, &[Run::records(Slot(0), identity, body)])
            .expect("valid");
        chain.put(&object).await.expect("put");
        let directory = tempfile::tempdir().expect("dir");
        let cache = Cache::open(directory.path(), 64 << 20)
            .await
            .expect("opens");
        let name = chain.id().object_name(Slot(0));
        let mut bytes = store
            .get(&name)
            .await
            .expect("reads")
            .expect("there")
            .to_vec();
        let at = object.index.header.index_end() + 9;
        bytes[at] ^= 1;
        cache.insert(name, bytes.into());
        let finder = Finder::new(store, chain, Slot(0), Some(cache));
        let (opened, _) = finder.find(Slot(0), 1 << 16).await.expect("finds");
        let runs = opened.expect("there").read(0..1).await;
        assert!(runs.is_ok(), "{runs:?}");
    }
}
