//! The control chain as a sequencer uses it.

use std::net::SocketAddr;

use catalog::{CatalogError, Log, Membership};
use tokio::sync::watch;
use wire::control::ControlEntry;

/// The control chain of one log. Implemented by [`catalog::Log`], and by tests in memory.
///
/// The kind of an error says what follows from it: `Retry` is indefinite and means the same call again,
/// `Fenced` that another sequencer reigns.
pub trait Control: 'static {
    /// The newest entry (S-4).
    fn last(&self) -> impl Future<Output = Result<ControlEntry, CatalogError>>;

    /// Creates the next entry and makes sure that the chain ends with it (S-3). After an error that is not
    /// definite only the same entry may be appended.
    fn append(&self, entry: &ControlEntry) -> impl Future<Output = Result<(), CatalogError>>;

    /// Whether the chain ends with this entry.
    fn is_last(&self, number: u64) -> impl Future<Output = Result<bool, CatalogError>>;

    /// Deletes entries that nobody needs any more.
    fn collect(
        &self,
        last: u64,
        now_unix_ms: u64,
    ) -> impl Future<Output = Result<usize, CatalogError>>;
}

impl Control for Log {
    async fn last(&self) -> Result<ControlEntry, CatalogError> {
        Self::last(self).await
    }

    async fn append(&self, entry: &ControlEntry) -> Result<(), CatalogError> {
        Self::append(self, entry).await
    }

    async fn is_last(&self, number: u64) -> Result<bool, CatalogError> {
        Self::is_last(self, number).await
    }

    async fn collect(&self, last: u64, now_unix_ms: u64) -> Result<usize, CatalogError> {
        self.collect_control(last, now_unix_ms).await
    }
}

/// A log that was opened for a reign.
#[derive(Debug)]
pub struct Opened<C> {
    /// Its control chain.
    pub control: C,
    /// The stripe-writers that have to seal before anything is granted (H-4).
    pub writers: Vec<SocketAddr>,
    /// Stripes, counted from the first, that have an owner: no segment is opened that has more (H-5).
    pub stripes: u32,
    /// The membership as it changes, if it does: writers that it brings are asked to seal, too, and a standby watches
    /// the sequencers that it has.
    pub changes: Option<watch::Receiver<Membership>>,
}
