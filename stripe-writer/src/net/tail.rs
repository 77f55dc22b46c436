//! Reads and subscriptions from the memory of a stripe's owner.

use std::sync::Arc;

use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc};
use wire::Slot;
use wire::frame::{Ask, End, EndReason, Frame, Place, Push};

use super::Outgoing;
use crate::limits::{MEMORY_UNIT, PUSH_BYTES_A_CONNECTION};
use crate::logic::recent::Found;
use crate::store::StripeHandle;

/// Sends the runs of a stripe from `ask.place.first` on, up to `ask.until`; a reader that is slower than
/// memory forgets is sent to the store. With `follow` it waits for runs that are not durable yet.
pub(super) async fn serve(
    handle: StripeHandle,
    ask: Ask,
    follow: bool,
    out: mpsc::Sender<Outgoing>,
    pushes: Arc<Semaphore>,
) {
    let mut frontier = handle.frontier.clone();
    let mut next = ask.place.first;
    let reason = loop {
        if next >= ask.until {
            break EndReason::Done;
        }
        // Waits while the reader is slow, with no run in hand: memory may forget meanwhile, never wait.
        let Ok(room) = Arc::clone(&pushes).acquire_many_owned(LARGEST).await else {
            return;
        };
        frontier.borrow_and_update();
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
                let memory = kept(room, body.len());
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
            Found::NotYet if !follow => break EndReason::Done,
            Found::NotYet => {
                drop(room);
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

/// Room for the largest run there is.
const LARGEST: u32 = 4097;

const _: () = assert!(LARGEST as usize == wire::limits::MAX_RUN_BYTES / MEMORY_UNIT + 1);
const _: () = assert!(LARGEST as usize <= PUSH_BYTES_A_CONNECTION / MEMORY_UNIT);

/// Gives back what a run does not need of the room for the largest.
fn kept(mut room: OwnedSemaphorePermit, bytes: usize) -> Option<OwnedSemaphorePermit> {
    room.split((bytes / MEMORY_UNIT).saturating_add(1))
}

fn place(ask: Ask, first: Slot) -> Place {
    Place { first, ..ask.place }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_push_takes_what_it_needs() {
        let room = Arc::new(Semaphore::new(PUSH_BYTES_A_CONNECTION / MEMORY_UNIT));
        let all = room.available_permits();
        let taken = Arc::clone(&room).try_acquire_many_owned(LARGEST);
        let kept = kept(taken.expect("room"), 3000);
        assert_eq!(room.available_permits(), all - 3);
        drop(kept);
        assert_eq!(room.available_permits(), all);
    }
}
