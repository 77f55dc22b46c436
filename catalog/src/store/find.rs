//! Which object of a chain covers a slot, without a walk over all of the chain.
//!
//! Snapshots say where objects start. They are hints: what they lead to is looked at before it is believed,
//! and where there is none, or it does not hold, the chain is walked. Only objects that are in the chain for
//! ever are named by one, so that an old one is not wrong.

use bytes::Bytes;
use wire::object::{Header, Index};
use wire::snapshot::Snapshot;
use wire::{Slot, WireError, name};

use crate::logic::walk::Walk;
use crate::{CatalogError, Chain};

/// What a slot was found in.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Sought {
    /// In this object. With the bytes of its start that were read for the index.
    In(Box<Index>, Bytes),
    /// Behind the end of the chain, which is here.
    Behind(Slot),
}

/// Where a slot of a chain is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Located {
    /// In the object with this header.
    In(Header),
    /// Behind the end of the chain, which is here.
    Behind(Slot),
}

impl Chain {
    /// Finds the object of the chain that covers a slot and reads its index, with at least `probe` bytes of
    /// the object if it has so many. Costs three requests where a snapshot names the object; where none does,
    /// what [`Self::locate`] does, from the last snapshot before or else from `from`, a slot at or before it
    /// where an object of the chain starts or will start.
    ///
    /// # Errors
    /// If the store failed, or an object of the chain is corrupt.
    pub async fn seek(&self, from: Slot, slot: Slot, probe: u64) -> Result<Sought, CatalogError> {
        if let Some(snapshot) = self.snapshot_at(slot).await
            && let Some(sought) = self.seek_by(&snapshot, slot, probe).await?
        {
            return Ok(sought);
        }
        let located = self.locate(from, slot).await?;
        self.open_located(located, slot, probe).await
    }

    /// What a snapshot leads to, if it holds.
    async fn seek_by(
        &self,
        snapshot: &Snapshot,
        slot: Slot,
        probe: u64,
    ) -> Result<Option<Sought>, CatalogError> {
        if let Some(object) = snapshot.object_at(slot) {
            let opened = self.open_at(object.start, probe).await?;
            return Ok(opened
                .filter(|(index, _)| index.header.end >= object.end)
                .map(|(index, head)| Sought::In(Box::new(index), head)));
        }
        let Some(last) = snapshot.last() else {
            return Ok(None);
        };
        let located = self.locate(last.end, slot).await?;
        if let Located::Behind(_) = located {
            // An end of the chain is told only by objects that are there.
            let header = self.header_at(last.start).await?;
            if header.is_none_or(|header| header.end != last.end) {
                return Ok(None);
            }
        }
        Ok(Some(self.open_located(located, slot, probe).await?))
    }

    async fn open_located(
        &self,
        located: Located,
        slot: Slot,
        probe: u64,
    ) -> Result<Sought, CatalogError> {
        let header = match located {
            Located::Behind(end) => return Ok(Sought::Behind(end)),
            Located::In(header) => header,
        };
        let opened = self.open_at(header.start, probe).await?;
        let opened = opened.filter(|(index, _)| slot < index.header.end);
        let (index, head) = opened.ok_or_else(|| CatalogError::Missing {
            name: self.id().object_name(header.start),
        })?;
        Ok(Sought::In(Box::new(index), head))
    }

    /// The last snapshot that starts at or before a slot: two requests. One that cannot be read is as none.
    pub async fn snapshot_at(&self, slot: Slot) -> Option<Snapshot> {
        match self.read_snapshot(slot).await {
            Ok(snapshot) => snapshot,
            Err(error) => {
                tracing::debug!(%error, "doing without a snapshot");
                None
            }
        }
    }

    async fn read_snapshot(&self, slot: Slot) -> Result<Option<Snapshot>, CatalogError> {
        let (log, segment, stripe) = (self.id().log, self.id().segment, self.id().stripe);
        let prefix = name::snapshots_prefix(log, segment, stripe);
        let behind = self.id().position(slot).plus(1);
        let after = name::snapshot(log, segment, stripe, behind);
        let Some(listed) = self.store.first_behind(&prefix, &after).await? else {
            return Ok(None);
        };
        let Some(bytes) = self.store.get(&listed.name).await? else {
            return Ok(None);
        };
        let corrupt = |error| CatalogError::corrupt(&listed.name, error);
        let snapshot = Snapshot::decode(&bytes).map_err(corrupt)?;
        if snapshot.chain != self.id() || snapshot.name() != listed.name {
            let what = "snapshot under a name that is not its own";
            return Err(corrupt(WireError::Malformed { what }));
        }
        Ok(Some(snapshot))
    }

    /// Stores a snapshot, if there is none that starts where it does. It may name only objects that are in
    /// the chain for ever.
    ///
    /// # Errors
    /// If the store failed: it may be there or not, and nothing depends on it.
    pub async fn put_snapshot(&self, snapshot: &Snapshot) -> Result<(), CatalogError> {
        let bytes = Bytes::from(snapshot.encode()?);
        self.store.create(&snapshot.name(), &[bytes]).await?;
        Ok(())
    }

    /// Finds the object of the chain that covers a slot, from a slot `from` at or before it where an object
    /// of the chain starts or will start. Costs a listing of the objects between the two, and one read for
    /// each of them.
    ///
    /// # Errors
    /// If the store failed, or an object of the chain is corrupt.
    pub async fn locate(&self, from: Slot, slot: Slot) -> Result<Located, CatalogError> {
        let (starts, cut) = self.listed_starts(from, Some(slot)).await?;
        let (walk, vanished) = self.follow(from, starts).await?;
        if let Some(header) = covering(&walk, slot) {
            return Ok(Located::In(header));
        }
        // A listing that was cut short, or grew old meanwhile, does not show where a chain ends.
        if !cut && vanished.is_empty() {
            return Ok(Located::Behind(walk.end));
        }
        let walk = self.walk(from).await?;
        let header = covering(&walk, slot);
        Ok(header.map_or(Located::Behind(walk.end), Located::In))
    }
}

fn covering(walk: &Walk, slot: Slot) -> Option<Header> {
    let behind = walk.headers.partition_point(|header| header.start <= slot);
    let header = walk.headers.get(behind.checked_sub(1)?)?;
    (slot < header.end).then_some(*header)
}
