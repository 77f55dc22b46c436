//! The chain of objects of one stripe in one segment.

use std::collections::{BTreeMap, BTreeSet};

use bytes::Bytes;
use futures::{StreamExt, stream};
use wire::object::{ChainId, HEADER_BYTES, Header, Index, IndexRun, Object};
use wire::{LogId, Run, Segment, Slot, StripeId, WireError, name};

use super::Resolved;
use crate::logic::walk::{Walk, resolve};
use crate::{CatalogError, Store};

/// Bytes of the first read of an index: header, more than a thousand runs, and the whole of a small object.
const INDEX_READ_BYTES: u64 = 64 << 10;

/// Headers that a walk reads at the same time.
const WALK_READS: usize = 16;

/// Walks that may find the object at the end of the chain deleted since their listing.
const WALK_ATTEMPTS: u32 = 4;

/// One stripe's chain. Cheap to clone; holds no state of the chain.
#[derive(Debug, Clone)]
pub struct Chain {
    pub(super) store: Store,
    id: ChainId,
    first: Slot,
}

/// Outcome of a put whose doubt is resolved.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Put {
    /// The object is stored, by this call or an earlier one with the same object.
    Committed,
    /// Another object has the name. It is the chain's next object and decides its positions (C-3, C-5).
    Taken(Box<Index>),
}

impl Chain {
    pub(crate) fn new(store: Store, log: LogId, segment: &Segment, stripe: StripeId) -> Self {
        let id = ChainId {
            log,
            segment: segment.id,
            stripe,
            layout: segment.layout,
        };
        let first = segment.first_slot(stripe);
        Self { store, id, first }
    }

    /// Which chain this is.
    #[must_use]
    pub fn id(&self) -> ChainId {
        self.id
    }

    /// Slot where the chain starts: the stripe's first of the segment.
    #[must_use]
    pub fn first_slot(&self) -> Slot {
        self.first
    }

    /// Creates an object under its name, and finds out what the answer means (C-5).
    ///
    /// # Errors
    /// Unless the error is definite, the object may be stored: call again with the same object. Nothing
    /// behind it may be acknowledged before that (C-8).
    pub async fn put(&self, object: &Object) -> Result<Put, CatalogError> {
        let start = object.index.header.start;
        if object.index.header.chain != self.id {
            let (chain, own) = (object.index.header.chain.prefix(), self.id.prefix());
            return Err(CatalogError::Invalid(format!(
                "object of another chain: object={chain} chain={own}"
            )));
        }
        let same = || async {
            let found = self.header_at(start).await?;
            Ok(found.map(|header| header == object.index.header))
        };
        let name = self.id.object_name(start);
        match self
            .store
            .create_resolved(&name, &object.chunks, same)
            .await?
        {
            Resolved::Mine => Ok(Put::Committed),
            Resolved::Other => {
                let index = self.index_at(start).await?;
                let index = index.ok_or(CatalogError::Missing { name })?;
                Ok(Put::Taken(Box::new(index)))
            }
        }
    }

    /// Reads the header of the object that starts at a slot; `None` if there certainly is none.
    ///
    /// # Errors
    /// If the store failed, or the object is corrupt.
    pub async fn header_at(&self, start: Slot) -> Result<Option<Header>, CatalogError> {
        let name = self.id.object_name(start);
        let Some(bytes) = self.read(&name, 0, HEADER_BYTES as u64).await? else {
            return Ok(None);
        };
        let header = Header::decode(&bytes).map_err(|e| CatalogError::corrupt(&name, e))?;
        self.check(&name, start, &header)?;
        Ok(Some(header))
    }

    /// Reads header and index of the object that starts at a slot; `None` if there certainly is none.
    ///
    /// # Errors
    /// If the store failed, or the object is corrupt.
    pub async fn index_at(&self, start: Slot) -> Result<Option<Index>, CatalogError> {
        let opened = self.open_at(start, INDEX_READ_BYTES).await?;
        Ok(opened.map(|(index, _)| index))
    }

    /// Reads header and index of the object that starts at a slot, and gives them with all bytes from the
    /// object's start that were read for it: `probe` of them, if the object has so many, or what the index
    /// takes. `None` if there certainly is no such object.
    ///
    /// # Errors
    /// If the store failed, or header or index are corrupt.
    pub async fn open_at(
        &self,
        start: Slot,
        probe: u64,
    ) -> Result<Option<(Index, Bytes)>, CatalogError> {
        let name = self.id.object_name(start);
        let probe = probe.max(HEADER_BYTES as u64);
        let Some(mut bytes) = self.read(&name, 0, probe).await? else {
            return Ok(None);
        };
        let corrupt = |error| CatalogError::corrupt(&name, error);
        let header = Header::decode(&bytes).map_err(corrupt)?;
        if bytes.len() < header.index_end() {
            let missing = || CatalogError::Missing { name: name.clone() };
            let end = header.index_end() as u64;
            bytes = self.read(&name, 0, end).await?.ok_or_else(missing)?;
        }
        let index = Index::decode(&bytes).map_err(corrupt)?;
        self.check(&name, start, &index.header)?;
        Ok(Some((index, bytes)))
    }

    /// Reads and checks one run of an object.
    ///
    /// # Errors
    /// If the store failed, or the run is corrupt or gone.
    pub async fn read_run(&self, index: &Index, run: &IndexRun) -> Result<Run, CatalogError> {
        let name = self.id.object_name(index.header.start);
        let body = match run.records {
            None => Bytes::new(),
            Some(at) => {
                let missing = || CatalogError::Missing { name: name.clone() };
                let end = at.offset + u64::from(at.len);
                self.read(&name, at.offset, end)
                    .await?
                    .ok_or_else(missing)?
            }
        };
        run.with_body(body)
            .map_err(|e| CatalogError::corrupt(&name, e))
    }

    /// Reads and checks a whole object; `None` if there certainly is none.
    ///
    /// # Errors
    /// If the store failed, or the object is corrupt.
    pub async fn read_object(
        &self,
        start: Slot,
    ) -> Result<Option<(Index, Vec<Run>)>, CatalogError> {
        let name = self.id.object_name(start);
        let Some(bytes) = self.store.get(&name).await? else {
            return Ok(None);
        };
        let (index, runs) = Object::decode(&bytes).map_err(|e| CatalogError::corrupt(&name, e))?;
        self.check(&name, start, &index.header)?;
        Ok(Some((index, runs)))
    }

    /// Follows the chain from a slot where an object of it starts or will start: its first slot, or the
    /// end of an object that is known to be in the chain. Costs a listing and one read an object.
    ///
    /// # Errors
    /// If the store failed, or an object of the chain is corrupt.
    pub async fn walk(&self, from: Slot) -> Result<Walk, CatalogError> {
        for _ in 0..WALK_ATTEMPTS {
            let (walk, vanished) = self.walk_once(from).await?;
            // A compaction that merged it into the one before may have deleted the next object between
            // the read of the one before and the read of this: the chain does not end here.
            if !vanished.contains(&walk.end) {
                return Ok(walk);
            }
        }
        let name = self.id.prefix();
        Err(CatalogError::Missing { name })
    }

    /// Makes durable what a walk found (C-9): another process may have been killed between the moment at
    /// which its object could be seen and the one at which its name was on the disk. All names of a chain
    /// are in one directory, so that the last one stands for all. A cloud store has nothing to do.
    ///
    /// # Errors
    /// If the store failed: nothing may be built on the walk then.
    pub async fn ensure_durable(&self, walk: &Walk) -> Result<(), CatalogError> {
        match walk.headers.last() {
            Some(last) => {
                let name = self.id.object_name(last.start);
                self.store.ensure_durable(&name).await
            }
            None => Ok(()),
        }
    }

    async fn walk_once(&self, from: Slot) -> Result<(Walk, BTreeSet<Slot>), CatalogError> {
        let starts = self.listed_starts(from, None).await?.0;
        self.follow(from, starts).await
    }

    /// Follows the chain from `from` over the objects that start at these slots. Returns the starts of those
    /// that were not there any more, too.
    pub(super) async fn follow(
        &self,
        from: Slot,
        starts: Vec<Slot>,
    ) -> Result<(Walk, BTreeSet<Slot>), CatalogError> {
        let headers = stream::iter(starts)
            .map(|start| async move { (start, self.header_at(start).await) })
            .buffered(WALK_READS);
        let mut found = BTreeMap::new();
        let mut corrupt = BTreeMap::new();
        let mut vanished = BTreeSet::new();
        let mut headers = std::pin::pin!(headers);
        while let Some((start, header)) = headers.next().await {
            match header {
                Ok(Some(header)) => drop(found.insert(start, header)),
                Ok(None) => drop(vanished.insert(start)),
                Err(error @ CatalogError::Corrupt { .. }) => drop(corrupt.insert(start, error)),
                Err(error) => return Err(error),
            }
        }
        let walk = resolve(from, &found);
        // An object that cannot be read hurts only where the chain needs it.
        match corrupt.remove(&walk.end) {
            Some(error) => Err(error),
            None => Ok((walk, vanished)),
        }
    }

    /// Where objects start at or behind `from`, up to and with `last` if that is given, and whether any
    /// behind that were left out.
    pub(super) async fn listed_starts(
        &self,
        from: Slot,
        last: Option<Slot>,
    ) -> Result<(Vec<Slot>, bool), CatalogError> {
        let prefix = self.id.prefix();
        let first = self.id.position(from).0;
        let after = first.checked_sub(1).map(|position| {
            let (log, segment) = (self.id.log, self.id.segment);
            name::object(log, segment, self.id.stripe, position.into())
        });
        let (listed, cut) = match last {
            None => (self.store.list(&prefix, after.as_deref()).await?, false),
            Some(last) => {
                let last = self.id.object_name(last);
                self.store.list_to(&prefix, after.as_deref(), &last).await?
            }
        };
        let starts = listed.into_iter().map(|object| {
            let corrupt = |error| CatalogError::corrupt(&object.name, error);
            let position = name::parse_object(&object.name).map_err(corrupt)?;
            let slot = self.id.layout.slot(position);
            if object.name != self.id.object_name(slot) {
                let what = "name in a stripe's chain";
                return Err(corrupt(WireError::Malformed { what }));
            }
            Ok(slot)
        });
        let starts: Result<Vec<_>, _> = starts.collect();
        Ok((starts?, cut))
    }

    async fn read(&self, name: &str, from: u64, to: u64) -> Result<Option<Bytes>, CatalogError> {
        if from == to {
            return Ok(Some(Bytes::new()));
        }
        self.store.get_range(name, from..to).await
    }

    fn check(&self, name: &str, start: Slot, header: &Header) -> Result<(), CatalogError> {
        if header.chain != self.id || header.start != start {
            let what = "object under a name that is not its own";
            return Err(CatalogError::corrupt(name, WireError::Malformed { what }));
        }
        Ok(())
    }
}
