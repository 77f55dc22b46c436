//! A log and its control chain.

use bytes::Bytes;
use ulid::Ulid;
use wire::control::{ControlEntry, LogHead};
use wire::{
    Epoch, Layout, LogId, Position, Segment, SegmentId, StripeId, WireError, WriterId, name,
};

use super::Resolved;
use crate::logic::collect::{Keep, is_old};
use crate::{CatalogError, Chain, Listed, Store};

/// Control entries that one collection deletes, at most.
pub const COLLECTED_AT_ONCE: usize = 64;

/// Control entries that are never collected.
const KEPT: Keep = Keep {
    entries: 64,
    grace_ms: 3_600_000,
};

/// Reads of the newest entry that may find it collected meanwhile.
const LAST_ATTEMPTS: u32 = 4;

/// A log in a store.
///
/// Cheap to clone. Holds no state of the log: every call asks the store.
#[derive(Debug, Clone)]
pub struct Log {
    store: Store,
    id: LogId,
}

impl Log {
    /// Creates a log after a check of the store (C-10).
    ///
    /// # Errors
    /// [`CatalogError::Invalid`] if there is a log already, [`CatalogError::Dishonest`] if the store
    /// cannot carry one. After an error that is not definite the log may have been created: open it.
    pub async fn create(store: Store, layout: Layout) -> Result<Self, CatalogError> {
        let there_is_one = || {
            let url = store.url();
            CatalogError::Invalid(format!("there is a log already: store={url}"))
        };
        if store.get(name::HEAD).await?.is_some() {
            return Err(there_is_one());
        }
        store.check().await?;
        let id = LogId::from(Ulid::generate());
        let log = Self {
            store: store.clone(),
            id,
        };
        // The chain comes first: a head that others can find always has a chain.
        log.append(&first_entry(id, layout)).await?;
        let head = LogHead {
            log: id,
            created_unix_ms: Ulid::from_bytes(id.0).timestamp_ms(),
        };
        let bytes = head.encode()?;
        let same = || async {
            let found = store.get(name::HEAD).await?;
            Ok(found.map(|found| found == bytes))
        };
        match store
            .create_resolved(name::HEAD, std::slice::from_ref(&bytes), same)
            .await?
        {
            Resolved::Mine => Ok(log),
            Resolved::Other => {
                if let Err(error) = store.delete(&name::control(id, 0)).await {
                    tracing::warn!(%error, log = %id, "the log that lost the race leaves an entry behind");
                }
                Err(there_is_one())
            }
        }
    }

    /// Opens the log of a store.
    ///
    /// # Errors
    /// [`CatalogError::NoLog`] if there is none; a head that cannot be read is an error, not "none".
    pub async fn open(store: Store) -> Result<Self, CatalogError> {
        let Some(bytes) = store.get(name::HEAD).await? else {
            let url = store.url().to_owned();
            return Err(CatalogError::NoLog { url });
        };
        let head = LogHead::decode(&bytes).map_err(|e| CatalogError::corrupt(name::HEAD, e))?;
        let id = head.log;
        Ok(Self { store, id })
    }

    /// Identity of the log.
    #[must_use]
    pub fn id(&self) -> LogId {
        self.id
    }

    /// The store that the log is in.
    #[must_use]
    pub fn store(&self) -> &Store {
        &self.store
    }

    /// The chain of a stripe in a segment.
    #[must_use]
    pub fn chain(&self, segment: &Segment, stripe: StripeId) -> Chain {
        Chain::new(self.store.clone(), self.id, segment, stripe)
    }

    /// The newest entry of the control chain.
    ///
    /// # Errors
    /// [`CatalogError::Missing`] for a chain without entries and [`CatalogError::Corrupt`] for an entry
    /// that does not pass its checks: neither is ever taken for a new log (S-4).
    pub async fn last(&self) -> Result<ControlEntry, CatalogError> {
        let prefix = name::control_prefix(self.id);
        for _ in 0..LAST_ATTEMPTS {
            let listed = self.numbers(None).await?;
            let Some((number, object)) = listed.last() else {
                return Err(CatalogError::Missing { name: prefix });
            };
            if let Some(bytes) = self.store.get(&object.name).await? {
                return self.decode(&object.name, *number, &bytes);
            }
        }
        Err(CatalogError::Missing { name: prefix })
    }

    /// Appends the next entry to the control chain, and makes sure that the chain ends with it (S-3).
    /// All doubt about earlier calls with the same entry is resolved.
    ///
    /// # Errors
    /// [`CatalogError::Fenced`] if another process has this number or a later one. After an error that
    /// is not definite the entry may be there: call again with the same entry, nothing else.
    pub async fn append(&self, entry: &ControlEntry) -> Result<(), CatalogError> {
        if entry.log != self.id {
            let (got, own) = (entry.log, self.id);
            return Err(CatalogError::Invalid(format!(
                "control entry of another log: entry={got} log={own}"
            )));
        }
        let name = name::control(self.id, entry.number);
        let bytes = entry.encode()?;
        let same = || async {
            let found = self.store.get(&name).await?;
            Ok(found.map(|found: Bytes| found == bytes))
        };
        let fenced = |why: &str| {
            let (number, epoch) = (entry.number, entry.epoch);
            CatalogError::Fenced(format!("{why}: number={number} epoch={epoch}"))
        };
        match self
            .store
            .create_resolved(&name, std::slice::from_ref(&bytes), same)
            .await?
        {
            Resolved::Other => Err(fenced("another process wrote this control entry")),
            // [S-3] The name may have been free only because it was collected.
            Resolved::Mine => match self.is_last(entry.number).await {
                Ok(true) => Ok(()),
                Ok(false) => Err(fenced("the control chain has gone on without this process")),
                Err(error) => Err(error.in_doubt()),
            },
        }
    }

    /// Whether no entry follows `number`. One listing.
    ///
    /// # Errors
    /// If the store failed.
    pub async fn is_last(&self, number: u64) -> Result<bool, CatalogError> {
        Ok(self.numbers(Some(number)).await?.is_empty())
    }

    /// Deletes control entries that nobody needs any more, neither among the newest nor young: the oldest, at most
    /// [`COLLECTED_AT_ONCE`], so that whoever has better things to do soon goes on with them.
    ///
    /// # Errors
    /// If the store failed. What was deleted until then stays deleted; nothing depends on it.
    pub async fn collect_control(
        &self,
        last: u64,
        now_unix_ms: u64,
    ) -> Result<usize, CatalogError> {
        let listed = self.numbers(None).await?;
        let newest = listed.last().map_or(0, |(number, _)| *number);
        let old = |(number, object): &(u64, Listed)| {
            let entry = (*number, object.modified_unix_ms);
            is_old(entry, (last, newest), KEPT, now_unix_ms)
        };
        let mut collected = 0;
        let old = listed.into_iter().take_while(old);
        for (_, object) in old.take(COLLECTED_AT_ONCE) {
            self.store.delete(&object.name).await?;
            collected += 1;
        }
        Ok(collected)
    }

    async fn numbers(&self, after: Option<u64>) -> Result<Vec<(u64, Listed)>, CatalogError> {
        let after = after.map(|number| name::control(self.id, number));
        let prefix = name::control_prefix(self.id);
        let listed = self.store.list(&prefix, after.as_deref()).await?;
        let parsed = listed.into_iter().map(|object| {
            let number = name::parse_control(&object.name)
                .ok()
                .filter(|number| object.name == name::control(self.id, *number));
            let what = "name in the control chain";
            let stray = || CatalogError::corrupt(&object.name, WireError::Malformed { what });
            Ok((number.ok_or_else(stray)?, object))
        });
        parsed.collect()
    }

    fn decode(&self, name: &str, number: u64, bytes: &[u8]) -> Result<ControlEntry, CatalogError> {
        let entry = ControlEntry::decode(bytes).map_err(|e| CatalogError::corrupt(name, e))?;
        if entry.log != self.id || entry.number != number {
            let what = "control entry under a name that is not its own";
            return Err(CatalogError::corrupt(name, WireError::Malformed { what }));
        }
        Ok(entry)
    }
}

/// The entry before the first reign: nothing granted, one segment.
fn first_entry(log: LogId, layout: Layout) -> ControlEntry {
    ControlEntry {
        log,
        number: 0,
        epoch: Epoch(0),
        owner: WriterId(log.0),
        epoch_start: Position(0),
        reservation: Position(0),
        clean: true,
        trim: Position(0),
        segments: vec![Segment {
            id: SegmentId(0),
            epoch: Epoch(1),
            start: Position(0),
            layout,
        }],
    }
}
