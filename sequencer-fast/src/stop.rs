//! Telling a sequencer to stop.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use tokio::sync::Notify;

/// Raised once, for ever.
#[derive(Debug, Default)]
pub struct Stop {
    raised: AtomicBool,
    notify: Notify,
}

impl Stop {
    /// Tells the sequencer to stop: to grant nothing more and to write its exact tail.
    pub fn raise(&self) {
        self.raised.store(true, Ordering::SeqCst);
        self.notify.notify_waiters();
    }

    pub(crate) async fn raised(&self) {
        let notified = self.notify.notified();
        tokio::pin!(notified);
        // Before the look at the flag, so that no raise is missed in between.
        notified.as_mut().enable();
        if !self.raised.load(Ordering::SeqCst) {
            notified.await;
        }
    }

    pub(crate) fn raise_on_drop(self: &Arc<Self>) -> RaiseOnDrop {
        RaiseOnDrop(Some(Arc::clone(self)))
    }
}

/// Raises the stop when it goes.
#[derive(Debug)]
pub(crate) struct RaiseOnDrop(Option<Arc<Stop>>);

impl RaiseOnDrop {
    /// It goes without that.
    pub(crate) fn forget(mut self) {
        self.0 = None;
    }
}

impl Drop for RaiseOnDrop {
    fn drop(&mut self) {
        if let Some(stop) = &self.0 {
            stop.raise();
        }
    }
}
