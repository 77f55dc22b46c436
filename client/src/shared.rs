//! What the tasks of an open log share.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tokio::sync::{Notify, Semaphore};
use tokio::time::Instant;
use wire::{ClientId, LogId};

use crate::Options;
use crate::call::Queue;
use crate::logic::routes::Routes;
use crate::net::sequencer::Sequencer;
use crate::net::writers::Writers;
use crate::patience::Sign;
use crate::stats::Counters;
use crate::store::cache::Cache;
use crate::store::view::View;

#[derive(Debug)]
pub(crate) struct Shared {
    pub(crate) view: View,
    pub(crate) options: Options,
    pub(crate) cache: Option<Cache>,
    pub(crate) client: ClientId,
    pub(crate) sequencer: Sequencer,
    pub(crate) queue: Queue,
    /// Permits for the bytes of all appends under way. Every queue of records is bounded by it.
    pub(crate) memory: Arc<Semaphore>,
    pub(crate) routes: Routes,
    pub(crate) writers: Writers,
    /// Told when a connection has room for more frames.
    pub(crate) room: Notify,
    /// That anything gets on: any answer of a stripe-writer.
    pub(crate) sign: Sign,
    pub(crate) counters: Arc<Counters>,
    pub(crate) opened: Instant,
    pub(crate) last_problem: Mutex<Option<String>>,
}

impl Shared {
    pub(crate) fn id(&self) -> LogId {
        self.view.log().id()
    }

    /// Time since the log was opened.
    pub(crate) fn elapsed(&self) -> Duration {
        self.opened.elapsed()
    }

    /// Waits until there are stripe-writers, and no connection has more frames than it can send soon.
    pub(crate) async fn has_room(&self) {
        loop {
            let mut told = std::pin::pin!(self.room.notified());
            told.as_mut().enable();
            if self.routes.has_any() && !self.writers.any_is_full() {
                return;
            }
            told.await;
        }
    }

    /// Remembers what went wrong last, for the error of an append that runs out of time.
    pub(crate) fn problem(&self, text: String) {
        tracing::debug!(problem = %text, "trying again");
        *self
            .last_problem
            .lock()
            .unwrap_or_else(PoisonError::into_inner) = Some(text);
    }

    /// What an append that runs out of time is told, and whether it has got its tokens.
    pub(crate) fn take_problem(&self, placed: bool) -> String {
        let problem = self
            .last_problem
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .clone();
        problem.unwrap_or_else(|| {
            // The time of an append may be shorter than that after which the request itself calls it a problem.
            if !placed && self.sequencer.owes_grant() {
                self.sequencer.silent().to_string()
            } else {
                "none, it is slow".to_owned()
            }
        })
    }
}
