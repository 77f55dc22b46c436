//! What a network of namespaces left behind on this machine: nothing, if all is well.

use std::collections::BTreeSet;
use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, Result};
use serde::Serialize;
use tokio::process::Command;
use tokio::time::sleep;

/// How often processes that were killed are looked for until they have to be gone, and the time between.
const LOOKS: u32 = 100;
const LOOK_EVERY: Duration = Duration::from_millis(50);

/// What was outside of the namespaces before they were made.
#[derive(Debug, Default)]
pub(crate) struct Before {
    devices: BTreeSet<String>,
    tables: String,
}

/// What stayed.
#[derive(Debug, Default, PartialEq, Eq, Serialize)]
pub(crate) struct Left {
    namespaces: Vec<PathBuf>,
    processes: Vec<u32>,
    devices: Vec<String>,
    /// Tables of nftables outside that are others than before.
    tables_changed: bool,
}

impl Before {
    /// Looks at the machine.
    ///
    /// # Errors
    /// What the system says.
    pub(super) async fn look() -> Result<Self> {
        Ok(Self {
            devices: devices()?,
            tables: tables().await?,
        })
    }
}

impl Left {
    /// Looks at the machine when all has been taken away. The processes are those that were in the namespaces then.
    ///
    /// # Errors
    /// What the system says.
    pub(super) async fn look(
        before: &Before,
        namespaces: &[PathBuf],
        processes: Vec<u32>,
    ) -> Result<Self> {
        let there = namespaces.iter().filter(|path| path.exists());
        let devices = devices()?.difference(&before.devices).cloned().collect();
        Ok(Self {
            namespaces: there.cloned().collect(),
            processes,
            devices,
            tables_changed: tables().await? != before.tables,
        })
    }

    /// Whether that is nothing.
    #[must_use]
    pub(crate) fn is_nothing(&self) -> bool {
        *self == Self::default()
    }

    /// The processes whose network is one of these namespaces.
    pub(super) fn processes(namespaces: &[PathBuf]) -> Vec<u32> {
        let number = |path: &PathBuf| fs::metadata(path).ok().map(|found| found.ino());
        let numbers: BTreeSet<_> = namespaces.iter().filter_map(number).collect();
        let all = fs::read_dir("/proc").into_iter().flatten().flatten();
        let ids = all.filter_map(|entry| entry.file_name().to_str()?.parse::<u32>().ok());
        let inside = |id: &u32| {
            // A process may end meanwhile.
            let found = fs::metadata(Path::new("/proc").join(format!("{id}/ns/net")));
            found.is_ok_and(|found| numbers.contains(&found.ino()))
        };
        ids.filter(inside).collect()
    }

    /// The same, when those that were killed had the time to go.
    pub(super) async fn processes_after_a_while(namespaces: &[PathBuf]) -> Vec<u32> {
        for _ in 0..LOOKS {
            if Self::processes(namespaces).is_empty() {
                break;
            }
            sleep(LOOK_EVERY).await;
        }
        Self::processes(namespaces)
    }
}

/// The network devices outside.
fn devices() -> Result<BTreeSet<String>> {
    let mut names = BTreeSet::new();
    for device in fs::read_dir("/sys/class/net")? {
        names.insert(device?.file_name().to_string_lossy().into_owned());
    }
    Ok(names)
}

/// The names of the tables of nftables outside.
async fn tables() -> Result<String> {
    let listed = Command::new("nft").args(["list", "tables"]).output().await;
    let listed = listed.context("cannot start nft")?;
    Ok(String::from_utf8_lossy(&listed.stdout).into_owned())
}
