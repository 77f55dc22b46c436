//! How a process takes a stripe over (C-6), at its start or later.

use std::sync::Arc;
use std::time::Duration;

use catalog::CatalogError;
use wire::control::ControlEntry;
use wire::limits::OBJECT_TARGET_BYTES;
use wire::{Segment, StripeId};

use crate::logic::action::Config;
use crate::shared::Shared;
use crate::store::{Start, StripeHandle, Workers, take_over};

/// What every stripe is taken over with.
#[derive(Debug, Clone)]
pub(crate) struct Taker {
    /// What is served.
    pub(crate) shared: Arc<Shared>,
    /// What the tasks of all stripes share.
    pub(crate) workers: Workers,
    /// An open object closes this long after its first record at the latest.
    pub(crate) linger: Duration,
    /// Age at which a create is verified before it is acknowledged (C-7).
    pub(crate) max_commit_age: Duration,
    /// Bytes of durable runs that each stripe keeps for readers.
    pub(crate) recent_bytes: usize,
}

impl Taker {
    /// Takes a stripe over and serves it from now on.
    ///
    /// # Errors
    /// If the store failed, or an object of the chain is corrupt. Nothing has changed then.
    pub(crate) async fn take(
        &self,
        entry: &ControlEntry,
        segment: &Segment,
        stripe: StripeId,
    ) -> Result<(), CatalogError> {
        let chain = self.shared.log.chain(segment, stripe);
        let start = Start {
            taken: take_over(&chain, entry.epoch, self.shared.writer).await?,
            chain,
            // [H-3] It starts sealed: the entry was read before this process puts anything.
            seal_to: segment.layout.slot_at_or_after(stripe, entry.epoch_start),
            config: Config {
                linger: self.linger,
                target_bytes: OBJECT_TARGET_BYTES,
                max_commit_age: self.max_commit_age,
            },
            recent_bytes: self.recent_bytes,
        };
        let (handle, task) = StripeHandle::start(start, self.workers.clone());
        self.shared.serve(Arc::new(handle), task, entry.epoch).await;
        Ok(())
    }
}
