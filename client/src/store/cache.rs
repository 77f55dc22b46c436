//! A cache on a local disk of what was read from the store.
//!
//! It is never believed. What comes out of it passes the same checksums as what comes from the store,
//! and bytes that do not are read again from there. The name of an entry has the identity of the object that
//! it is of, so that an entry of an object that was replaced is not found any more.

use std::fmt;
use std::fs::{File, TryLockError};
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::sync::Arc;

use bytes::Bytes;
use catalog::CatalogError;
use foyer::{
    BlockEngineConfig, DeviceBuilder, FsDeviceBuilder, HybridCache, HybridCacheBuilder,
    HybridCachePolicy, RecoverMode,
};

use crate::limits::{CACHE_BLOCK_BYTES, CACHE_MEMORY_BYTES, CACHE_WRITE_BYTES};
use crate::{Error, Result};

/// A cache on disk. Cheap to clone.
#[derive(Clone)]
pub(crate) struct Cache {
    entries: HybridCache<String, Bytes>,
    /// Locked as long as the cache is open: two processes would overwrite each other's entries.
    lock: Arc<File>,
}

/// Unit in which the system counts what a file takes.
const BLOCK_BYTES: u64 = 512;

/// Why a fetch brings no entry.
#[derive(Debug, thiserror::Error)]
enum NoEntry {
    #[error("no such object")]
    NotThere,
    #[error(transparent)]
    Catalog(#[from] CatalogError),
}

impl Cache {
    /// Opens the cache of a directory, with what is left in it from before, up to so many bytes.
    ///
    /// # Errors
    /// If the directory cannot be used.
    pub(crate) async fn open(directory: &Path, bytes: usize) -> Result<Self> {
        let failed = |why: &dyn fmt::Display| {
            let directory = directory.display();
            Error::invalid(format!(
                "cache directory: directory={directory} reason={why}"
            ))
        };
        std::fs::create_dir_all(directory).map_err(|e| failed(&e))?;
        let lock = File::create(directory.join("lock")).map_err(|e| failed(&e))?;
        lock.try_lock().map_err(|error| match error {
            TryLockError::Error(source) => failed(&source),
            TryLockError::WouldBlock => failed(&"another process uses it"),
        })?;
        let other = |error: foyer::Error| failed(&error.message());
        let entries = directory.join("entries");
        std::fs::create_dir_all(&entries).map_err(|e| failed(&e))?;
        if let Some(why) = no_room(&entries, bytes).map_err(|e| failed(&e))? {
            return Err(failed(&why));
        }
        let device = FsDeviceBuilder::new(entries)
            .with_capacity(bytes)
            .build()
            .map_err(other)?;
        let engine = BlockEngineConfig::new(device)
            .with_block_size(CACHE_BLOCK_BYTES)
            .with_buffer_pool_size(CACHE_WRITE_BYTES)
            .with_submit_queue_size_threshold(CACHE_WRITE_BYTES);
        let entries = HybridCacheBuilder::new()
            .with_name("stripelog")
            .with_policy(HybridCachePolicy::WriteOnInsertion)
            // What is in memory is on the disk already: a second copy would drive out something else.
            .with_flush_on_close(false)
            .memory(CACHE_MEMORY_BYTES.min(bytes))
            .with_weighter(|key: &String, value: &Bytes| key.len() + value.len())
            .storage()
            .with_engine_config(engine)
            .with_recover_mode(RecoverMode::Quiet)
            .build()
            .await
            .map_err(other)?;
        let lock = Arc::new(lock);
        Ok(Self { entries, lock })
    }

    /// An entry, or what `fetch` brings, which becomes the entry; callers at the same time share one fetch.
    /// `None` if that finds nothing.
    ///
    /// # Errors
    /// Those of `fetch`.
    pub(crate) async fn get_or_fetch<F>(
        &self,
        name: &str,
        fetch: impl Fn() -> F,
    ) -> Result<Option<Bytes>, CatalogError>
    where
        F: Future<Output = Result<Option<Bytes>, CatalogError>> + Send + 'static,
    {
        let fetched = || {
            let fetch = fetch();
            async move { fetch.await?.ok_or(NoEntry::NotThere) }
        };
        match self.entries.get_or_fetch(name, fetched).await {
            Ok(entry) => Ok(Some(entry.value().clone())),
            // Whether the store failed or the disk: the store is asked once more, and gives its own answer.
            Err(error) => {
                tracing::debug!(%error, name, "doing without the cache");
                fetch().await
            }
        }
    }

    /// An entry, if there is one.
    pub(crate) async fn get(&self, name: &str) -> Option<Bytes> {
        let entry = self.entries.get(name).await.ok().flatten()?;
        Some(entry.value().clone())
    }

    /// Puts an entry in the place of what there is.
    pub(crate) fn insert(&self, name: String, bytes: Bytes) {
        self.entries.insert(name, bytes);
    }

    /// Drops an entry.
    pub(crate) fn remove(&self, name: &str) {
        self.entries.remove(name);
    }

    /// Writes what is not on the disk yet, and lets another process use the directory.
    pub(crate) async fn close(&self) {
        if let Err(error) = self.entries.close().await {
            tracing::debug!(%error, "closing the cache");
        }
        // What is unlocked here is unlocked by the end of the process otherwise.
        let _ = self.lock.unlock();
    }
}

/// What is wrong with the disk, which has to hold so many bytes with what is there of them: the library does not
/// bear a disk that becomes full.
fn no_room(entries: &Path, bytes: usize) -> std::io::Result<Option<String>> {
    let disk = rustix::fs::statvfs(entries)?;
    let free = disk.f_bavail.saturating_mul(disk.f_frsize);
    let mut there = 0_u64;
    for entry in std::fs::read_dir(entries)? {
        let metadata = entry?.metadata()?;
        there = there.saturating_add(metadata.blocks().saturating_mul(BLOCK_BYTES));
    }
    let room = free.saturating_add(there);
    let missing = room < u64::try_from(bytes).unwrap_or(u64::MAX);
    let (room, bytes) = (room >> 20, bytes >> 20);
    Ok(missing.then(|| format!("the disk has room for {room} MiB, client.cache_mib={bytes}")))
}

impl fmt::Debug for Cache {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Cache").finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(flavor = "multi_thread")]
    async fn a_cache_that_cannot_be_is_refused_in_a_line() {
        let directory = tempfile::tempdir().expect("directory");
        let refused = async |bytes| {
            let error = Cache::open(directory.path(), bytes).await;
            let error = error.expect_err("no cache");
            assert_eq!(error.kind(), crate::ErrorKind::Invalid);
            error.to_string()
        };
        let text = refused(1 << 44).await;
        assert!(text.contains("the disk has room for"), "{text}");
        std::fs::remove_dir(directory.path().join("entries")).expect("there");
        std::fs::write(directory.path().join("entries"), "a file").expect("written");
        let text = refused(64 << 20).await;
        let named = directory.path().display().to_string();
        assert!(text.contains(&named) && text.contains("exists"), "{text}");
    }
}
