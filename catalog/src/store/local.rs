//! What a local directory needs beyond an object store.

use std::fs::File;
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use crate::{CatalogError, Store};

/// Age at which a staging file is the rest of a crash: no put takes so long.
const STAGING_AGE: Duration = Duration::from_secs(3600);

impl Store {
    /// Makes durable what an interrupted or foreign create left visible (C-9): its file, its directory
    /// and the directories above. A cloud store has nothing to do here.
    pub(crate) async fn ensure_durable(&self, name: &str) -> Result<(), CatalogError> {
        let Some(root) = self.local.clone() else {
            return Ok(());
        };
        let path = root.join(name);
        blocking(root.to_path_buf(), move || sync_up(&path, &root)).await
    }

    /// Deletes staging files that crashes left in a local directory. They are hidden from listings.
    ///
    /// # Errors
    /// [`CatalogError::Local`] if the directory cannot be read.
    pub async fn sweep_staging(&self) -> Result<usize, CatalogError> {
        let Some(root) = self.local.clone() else {
            return Ok(0);
        };
        let directory = root.to_path_buf();
        #[allow(
            clippy::disallowed_methods,
            reason = "the age of a file is measured by the clock that stamped it"
        )]
        let now = SystemTime::now();
        blocking(directory, move || sweep(&root, now)).await
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

fn sweep(directory: &Path, now: SystemTime) -> std::io::Result<usize> {
    let mut swept = 0;
    for entry in std::fs::read_dir(directory)? {
        let entry = entry?;
        let kind = entry.file_type()?;
        if kind.is_dir() {
            swept += sweep(&entry.path(), now)?;
        } else if is_staging(&entry.file_name().to_string_lossy()) {
            let written = entry.metadata()?.modified()?;
            if now.duration_since(written).unwrap_or_default() >= STAGING_AGE {
                std::fs::remove_file(entry.path())?;
                swept += 1;
            }
        }
    }
    Ok(swept)
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
}
