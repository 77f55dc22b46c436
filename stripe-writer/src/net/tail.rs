//! Reads and subscriptions from the memory of a stripe's owner.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc};
use wire::Slot;
use wire::frame::{Ask, End, EndReason, Frame, Place, Push};

use super::Outgoing;
use crate::logic::recent::Found;
use crate::store::StripeHandle;

/// Room for runs that wait for their reader, in bytes: they stay in memory so long, also when nothing else
/// keeps them.
#[derive(Debug, Clone)]
pub(super) struct Pushes {
    /// Of this connection.
    pub(super) own: Arc<Semaphore>,
    /// Of all connections.
    pub(super) all: Arc<Semaphore>,
}

impl Pushes {
    /// Waits for the reader, but not for other readers.
    async fn take(&self, bytes: usize) -> Option<Vec<OwnedSemaphorePermit>> {
        let bytes = u32::try_from(bytes).ok()?;
        let own = Arc::clone(&self.own).acquire_many_owned(bytes).await.ok()?;
        let all = Arc::clone(&self.all).try_acquire_many_owned(bytes).ok()?;
        Some(vec![own, all])
    }
}

/// Sends the runs of a stripe from `ask.place.first` on, up to `ask.until`; a reader that is slower than
/// memory forgets is sent to the store. With `follow` it waits for runs that are not durable yet.
pub(super) async fn serve(
    handle: Arc<StripeHandle>,
    ask: Ask,
    follow: bool,
    out: mpsc::Sender<Outgoing>,
    pushes: Pushes,
) {
    let mut frontier = handle.frontier.clone();
    let mut next = ask.place.first;
    let reason = loop {
        frontier.borrow_and_update();
        if next >= ask.until.min(handle.end()) {
            break EndReason::Done;
        }
        match handle.history.with_recent(|recent| recent.at(next)) {
            Found::Gone => break EndReason::Lagged,
            Found::Run(run) => {
                let (segment, stripe) = (ask.place.segment, ask.place.stripe);
                let end = run.end().min(ask.until);
                let Ok(run) = run.part(next, end) else {
                    break EndReason::Lagged;
                };
                let frame = Frame::Push(Push::of(ask.id, segment, stripe, &run));
                let body = run.content.map(|(_, body)| body.bytes().clone());
                let body = body.unwrap_or_default();
                // Waits while the reader is slow; memory may forget meanwhile, never wait.
                let Some(memory) = pushes.take(body.len()).await else {
                    break EndReason::Lagged;
                };
                let push = Outgoing {
                    frame,
                    body,
                    memory,
                };
                if out.send(push).await.is_err() {
                    return;
                }
                next = end;
            }
            Found::NotYet if handle.fenced.load(Ordering::Acquire) => break EndReason::NotOwner,
            Found::NotYet if !follow => break EndReason::Done,
            Found::NotYet => {
                if frontier.changed().await.is_err() {
                    break EndReason::NotOwner;
                }
            }
        }
    };
    let end = End::new(ask.id, place(ask, next), reason);
    // A reader that is gone needs no end.
    let _ = out.send(Frame::End(end).into()).await;
}

fn place(ask: Ask, first: Slot) -> Place {
    Place { first, ..ask.place }
}
