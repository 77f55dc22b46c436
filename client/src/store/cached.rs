//! The entries that the cache has of an object: runs that follow one another, the same ones whoever reads.

use std::ops::Range;
use std::sync::Arc;

use bytes::Bytes;
use catalog::{CatalogError, Store};
use wire::object::{Header, Index};

use crate::limits::CACHE_ENTRY_BYTES;
use crate::store::cache::Cache;

/// An object and the cache.
#[derive(Debug, Clone)]
pub(crate) struct Cached {
    cache: Cache,
    /// Number of the first run behind each entry.
    ends: Arc<[usize]>,
}

impl Cached {
    pub(crate) fn new(cache: Cache, index: &Index) -> Self {
        let ends = ends(index).into();
        Self { cache, ends }
    }

    /// The runs of the entry that a run is in.
    pub(crate) fn entry_of(&self, run: usize) -> Range<usize> {
        let at = self.ends.partition_point(|end| *end <= run);
        let start = at.checked_sub(1).and_then(|i| self.ends.get(i).copied());
        start.unwrap_or(0)..self.ends.get(at).copied().unwrap_or(run)
    }

    /// The bytes of an entry, from the cache or from the store.
    pub(crate) async fn read(
        &self,
        store: &Store,
        index: &Index,
        place: &Range<u64>,
    ) -> Result<Option<Bytes>, CatalogError> {
        let object = index.header.chain.object_name(index.header.start);
        let fetch = || {
            let (store, object, place) = (store.clone(), object.clone(), place.clone());
            async move { store.get_known_range(&object, place).await }
        };
        let name = name(&index.header, place);
        self.cache.get_or_fetch(&name, fetch).await
    }

    /// Drops the entry of an object's start, which does not pass its checks.
    pub(crate) fn forget_head(&self, index: &Index) {
        let name = index.header.chain.object_name(index.header.start);
        tracing::warn!(
            name,
            "an entry of the cache does not pass its checks, reading the object"
        );
        self.cache.remove(&name);
    }

    /// Drops an entry that does not pass its checks.
    pub(crate) fn forget(&self, index: &Index, place: &Range<u64>) {
        let name = name(&index.header, place);
        tracing::warn!(
            name,
            "an entry of the cache does not pass its checks, reading the object"
        );
        self.cache.remove(&name);
    }
}

/// Another object under the same name, after a compaction, has another end or another writer.
fn name(header: &Header, place: &Range<u64>) -> String {
    let object = header.chain.object_name(header.start);
    let (end, len, writer) = (header.end, header.object_len, header.author.writer);
    format!(
        "{object} {end} {len} {writer} {}-{}",
        place.start, place.end
    )
}

fn ends(index: &Index) -> Vec<usize> {
    let (mut ends, mut bytes) = (Vec::new(), 0);
    for (number, run) in (1..).zip(&index.runs) {
        bytes += run.records.map_or(0, |records| records.len as usize);
        if bytes >= CACHE_ENTRY_BYTES || number == index.runs.len() {
            ends.push(number);
            bytes = 0;
        }
    }
    ends
}
