//! What a local directory needs beyond an object store.

use std::collections::HashSet;
use std::fs::{DirEntry, File};
use std::io::ErrorKind;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, SystemTime};

use crate::{CatalogError, Store};

/// Age at which a staging file is the rest of a crash: no put takes so long.
const STAGING_AGE: Duration = Duration::from_secs(3600);

/// Directories that are remembered as synced; a bound, not a need.
const REMEMBERED_DIRECTORIES: usize = 1 << 14;

/// A local directory.
#[derive(Debug)]
pub(super) struct Local {
    root: PathBuf,
    /// Directories whose own names are known to be synced, each up to the root.
    reachable: Mutex<HashSet<PathBuf>>,
}

impl Local {
    pub(super) fn new(root: PathBuf) -> Self {
        let reachable = Mutex::default();
        Self { root, reachable }
    }

    fn reachable(&self) -> MutexGuard<'_, HashSet<PathBuf>> {
        self.reachable
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
    }
}

impl Store {
    /// Makes durable what an interrupted or foreign create left visible (C-9): its file, its directory
    /// and the directories above. A cloud store has nothing to do here.
    pub(crate) async fn ensure_durable(&self, name: &str) -> Result<(), CatalogError> {
        let Some(local) = self.local.clone() else {
            return Ok(());
        };
        let path = local.root.join(name);
        blocking(path.clone(), move || sync_up(&path, &local.root)).await
    }

    /// Makes durable the directories that a finished create is in. A create syncs its own directory and
    /// those that it made; one that another process made a moment ago, or made and then crashed, may
    /// still be unsynced (C-9). Once for each directory.
    pub(super) async fn ensure_reachable(&self, name: &str) -> Result<(), CatalogError> {
        let Some(local) = self.local.clone() else {
            return Ok(());
        };
        let Some(directory) = local.root.join(name).parent().map(Path::to_path_buf) else {
            return Ok(());
        };
        if local.reachable().contains(&directory) {
            return Ok(());
        }
        blocking(directory.clone(), move || {
            sync_up(&directory, &local.root)?;
            let mut reachable = local.reachable();
            if reachable.len() >= REMEMBERED_DIRECTORIES {
                reachable.clear();
            }
            reachable.insert(directory);
            Ok(())
        })
        .await
    }

    /// Removes the directory of a prefix if nothing is left in it. A cloud store has no directories.
    pub(super) async fn remove_directory(&self, prefix: &str) -> Result<(), CatalogError> {
        let Some(local) = self.local.clone() else {
            return Ok(());
        };
        let directory = local.root.join(prefix);
        blocking(directory.clone(), move || {
            match std::fs::remove_dir(directory) {
                Err(error) if error.kind() != ErrorKind::NotFound => Err(error),
                _ => Ok(()),
            }
        })
        .await
    }

    /// Deletes staging files that crashes left in a local directory. They are hidden from listings.
    ///
    /// # Errors
    /// [`CatalogError::Local`] if the directory cannot be read.
    pub async fn sweep_staging(&self) -> Result<usize, CatalogError> {
        let Some(local) = self.local.clone() else {
            return Ok(0);
        };
        #[allow(clippy::disallowed_methods, reason = "the clock of file times")]
        let now = SystemTime::now();
        blocking(local.root.clone(), move || sweep(&local.root, now)).await
    }
}

async fn blocking<T, F>(path: PathBuf, work: F) -> Result<T, CatalogError>
where
    T: Send + 'static,
    F: FnOnce() -> std::io::Result<T> + Send + 'static,
{
    let joined = tokio::task::spawn_blocking(work).await;
    let result = joined.unwrap_or_else(|error| Err(std::io::Error::other(error)));
    let path = path.display().to_string();
    result.map_err(|source| CatalogError::Local { path, source })
}

fn sync_up(path: &Path, root: &Path) -> std::io::Result<()> {
    for place in path.ancestors() {
        File::open(place)?.sync_all()?;
        if place == root {
            break;
        }
    }
    Ok(())
}

/// What vanishes meanwhile is another process's finished put, or its sweep.
fn sweep(directory: &Path, now: SystemTime) -> std::io::Result<usize> {
    let mut swept = 0;
    for entry in std::fs::read_dir(directory)? {
        match sweep_entry(&entry?, now) {
            Ok(number) => swept += number,
            Err(error) if error.kind() == ErrorKind::NotFound => {}
            Err(error) => return Err(error),
        }
    }
    Ok(swept)
}

fn sweep_entry(entry: &DirEntry, now: SystemTime) -> std::io::Result<usize> {
    if entry.file_type()?.is_dir() {
        return sweep(&entry.path(), now);
    }
    if !is_staging(&entry.file_name().to_string_lossy()) {
        return Ok(0);
    }
    let written = entry.metadata()?.modified()?;
    if now.duration_since(written).unwrap_or_default() < STAGING_AGE {
        return Ok(0);
    }
    std::fs::remove_file(entry.path())?;
    Ok(1)
}

/// The local store writes `name#N` first and links it to `name` when it is complete.
fn is_staging(name: &str) -> bool {
    let number = name.rsplit_once('#').map(|(_, number)| number);
    number.is_some_and(|n| !n.is_empty() && n.bytes().all(|b| b.is_ascii_digit()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sweeps_old_staging_files_and_nothing_else() {
        let root = tempfile::tempdir().expect("directory");
        let deep = root.path().join("a/b");
        std::fs::create_dir_all(&deep).expect("directories");
        for name in ["0001", "0001#1", "x#y"] {
            std::fs::write(deep.join(name), b"x").expect("file");
        }
        #[allow(clippy::disallowed_methods, reason = "ages files")]
        let now = SystemTime::now();
        assert_eq!(sweep(root.path(), now).expect("swept"), 0);
        let later = now + STAGING_AGE * 2;
        assert_eq!(sweep(root.path(), later).expect("swept"), 1);
        assert!(deep.join("0001").exists() && deep.join("x#y").exists());
    }

    #[test]
    fn sweepers_do_not_trip_over_one_another() {
        let root = tempfile::tempdir().expect("directory");
        for number in 0..2000 {
            std::fs::write(root.path().join(format!("x#{number}")), b"").expect("file");
        }
        #[allow(clippy::disallowed_methods, reason = "ages files")]
        let later = SystemTime::now() + STAGING_AGE * 2;
        let swept: usize = std::thread::scope(|scope| {
            let sweepers: Vec<_> = (0..4)
                .map(|_| scope.spawn(|| sweep(root.path(), later).expect("swept")))
                .collect();
            sweepers
                .into_iter()
                .map(|s| s.join().expect("joined"))
                .sum()
        });
        assert_eq!(swept, 2000);
    }
}
