//! Stripes of segments that are complete: every slot is decided, and the store alone has the answers.

use std::sync::Arc;

use catalog::Chain;
use wire::frame::AckStatus;
use wire::{Run, Slot};

use super::history::{Decided, History};
use super::task::Workers;
use crate::net::Token;

/// A stripe of a complete segment. It has no owner any more: whoever is asked can tell.
#[derive(Debug)]
pub(crate) struct Closed {
    history: History,
    end: Slot,
    workers: Workers,
}

impl Closed {
    /// The stripe of a chain that ends for good at `end`.
    #[must_use]
    pub(crate) fn new(chain: Chain, end: Slot, workers: Workers) -> Self {
        let history = History::new(chain, &[], end, 0);
        Self {
            history,
            end,
            workers,
        }
    }

    /// Answers an append that is repeated so late (H-2), in a task of its own.
    pub(crate) fn answer(self, run: &Run, token: Token) {
        let (first, end) = (run.first, run.end().min(self.end));
        let metrics = Arc::clone(&self.workers.metrics);
        let tell = move |decided: Decided| {
            let Decided { first, end, status } = decided;
            if first < end {
                metrics.answered(status, first.until(end));
                token.answer(first, end, status);
            }
        };
        // Behind the segment there is no such slot.
        tell(Decided {
            first: first.max(self.end),
            end: run.end(),
            status: AckStatus::Invalid,
        });
        let Some(identity) = run.identity().filter(|_| first < end) else {
            return;
        };
        let (threads, lookups) = (self.workers.threads.clone(), self.workers.lookups.clone());
        threads.spawn(async move {
            let _place = lookups.acquire().await;
            let all = self.history.look_up(first, end, identity).await;
            all.into_iter().for_each(tell);
        });
    }
}
