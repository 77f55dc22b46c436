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
#[derive(Debug)]
pub(crate) struct Taking {
    /// What the tasks of all stripes share.
    pub(crate) workers: Workers,
    /// An open object closes this long after its first record at the latest.
    pub(crate) linger: Duration,
    /// Age at which a create is verified before it is acknowledged (C-7).
    pub(crate) max_commit_age: Duration,
    /// Bytes of durable runs to keep for readers, all stripes of a segment together.
    pub(crate) recent_bytes: usize,
}

impl Shared {
    /// Takes a stripe of an open segment over and serves it from now on.
    ///
    /// # Errors
    /// If the store failed, or an object of the chain is corrupt. Nothing has changed then.
    pub(crate) async fn take(
        &self,
        entry: &ControlEntry,
        segment: Segment,
        stripe: StripeId,
    ) -> Result<(), CatalogError> {
        let (taking, chain) = (&self.taking, self.log.chain(&segment, stripe));
        let slot = |position| segment.layout.slot_at_or_after(stripe, position);
        let start = Start {
            taken: take_over(&chain, entry.epoch, self.writer).await?,
            chain,
            // [H-3] It starts sealed: the entry was read before this process puts anything.
            seal_to: slot(entry.sealed_to(&segment)),
            end: entry.segment_end(&segment).map(slot),
            config: Config {
                linger: taking.linger,
                target_bytes: OBJECT_TARGET_BYTES,
                max_commit_age: taking.max_commit_age,
            },
            recent_bytes: taking.recent_bytes / self.most(&segment).max(1),
        };
        let (handle, task) = StripeHandle::start(start, taking.workers.clone());
        self.serve(Arc::new(handle), task, entry).await;
        Ok(())
    }
}

#[cfg(test)]
mod tests;
