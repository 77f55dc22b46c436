//! The newest control entry that this client knows.

use std::sync::{Arc, Mutex, PoisonError};

use catalog::Log as Catalog;
use wire::Epoch;
use wire::control::ControlEntry;

use crate::{Error, Result};

/// The newest known control entry of a log. It only moves on.
#[derive(Debug)]
pub(crate) struct View {
    log: Catalog,
    known: Mutex<Arc<ControlEntry>>,
}

impl View {
    pub(crate) async fn open(log: Catalog) -> Result<Self> {
        let known = Mutex::new(Arc::new(log.last().await?));
        Ok(Self { log, known })
    }

    pub(crate) fn log(&self) -> &Catalog {
        &self.log
    }

    /// What is known now.
    pub(crate) fn known(&self) -> Arc<ControlEntry> {
        self.known
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .clone()
    }

    /// Reads the end of the control chain.
    pub(crate) async fn refresh(&self) -> Result<Arc<ControlEntry>> {
        let last = Arc::new(self.log.last().await?);
        let mut known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        if last.number > known.number {
            *known = last;
        }
        Ok(known.clone())
    }

    /// An entry of at least this epoch: its segments hold for every position that was granted in it.
    pub(crate) async fn at_least(&self, epoch: Epoch) -> Result<Arc<ControlEntry>> {
        let known = self.known();
        if known.epoch >= epoch {
            return Ok(known);
        }
        let last = self.refresh().await?;
        if last.epoch < epoch {
            let known = last.epoch;
            let what = format!("epoch: the log does not know it: epoch={epoch} known={known}");
            return Err(Error::Invalid { what });
        }
        Ok(last)
    }
}
