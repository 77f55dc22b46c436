//! Stores that are measured: a directory in memory, one on a disk, an S3 server, or any URL.

use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};
use catalog::Store;
use rand::Rng;
use serde::Serialize;
use tempfile::TempDir;

/// Where objects in memory go.
const MEMORY: &str = "/dev/shm";

/// Prefix of everything that is written to an S3 server.
const PREFIX: &str = "s3://stripelog/bench";

/// Which store.
#[derive(Debug, Clone, clap::Args)]
pub(crate) struct StoreArgs {
    /// memory: a directory in /dev/shm; disk: one in --disk, with sync; s3: the bucket "stripelog" of the server in AWS_ENDPOINT; or a URL
    #[arg(long, value_name = "STORE", default_value = "memory")]
    pub(crate) store: String,
    /// Directory on the disk that is measured
    #[arg(long, value_name = "DIRECTORY", default_value = "target")]
    pub(crate) disk: PathBuf,
}

/// What kind of store it is: bars differ.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Kind {
    /// A directory in memory: client, daemons and store share the same cores.
    Memory,
    /// Everything else.
    Remote,
}

/// A store of a measurement's own. What is in a directory goes when this is dropped.
#[derive(Debug)]
pub(crate) struct Scratch {
    url: String,
    directory: Option<TempDir>,
}

impl StoreArgs {
    /// What kind of store it is.
    #[must_use]
    pub(crate) fn kind(&self) -> Kind {
        match self.store == "memory" || self.store.starts_with("file:///dev/shm/") {
            true => Kind::Memory,
            false => Kind::Remote,
        }
    }

    /// A store with nothing in it.
    ///
    /// # Errors
    /// If there is no such directory.
    pub(crate) fn scratch(&self) -> Result<Scratch> {
        match self.store.as_str() {
            "memory" => Scratch::local(Path::new(MEMORY)),
            "disk" => Scratch::local(&self.disk),
            "s3" => Ok(Scratch::below(PREFIX)),
            url if url.contains("://") => Ok(Scratch::below(url)),
            other => bail!("--store: memory, disk, s3 or a URL, not '{other}'"),
        }
    }
}

impl Scratch {
    fn local(parent: &Path) -> Result<Self> {
        let parent = parent.canonicalize();
        let parent = parent.context("no directory for the store, see --disk")?;
        let directory = tempfile::Builder::new()
            .prefix("stripelog-bench-")
            .tempdir_in(parent)?;
        let path = directory
            .path()
            .to_str()
            .context("a path that is no UTF-8")?;
        Ok(Self {
            url: format!("file://{path}"),
            directory: Some(directory),
        })
    }

    fn below(prefix: &str) -> Self {
        let number = rand::rng().random::<u64>();
        Self {
            url: format!("{prefix}-{number:016x}"),
            directory: None,
        }
    }

    /// Its URL.
    #[must_use]
    pub(crate) fn url(&self) -> &str {
        &self.url
    }

    /// Its directory, if it has one.
    #[must_use]
    pub(crate) fn directory(&self) -> Option<&Path> {
        self.directory.as_ref().map(TempDir::path)
    }

    /// The store, by the client and with the settings of all programs.
    ///
    /// # Errors
    /// What is wrong with the URL.
    pub(crate) fn open(&self) -> Result<Store> {
        Ok(Store::open(&self.url)?)
    }
}
