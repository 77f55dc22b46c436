//! The tasks that ask for tokens and hand records to connections, one a lane.
//!
//! One request of a lane is under way; everything that arrives meanwhile is the batch of the next lane that
//! is free. With one lane, as is the default, batches are handed over and get their tokens in the order in
//! which their records came: `docs/decisions/0013-one-lane-for-grants.md`.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::Arc;

use tokio::time::sleep;
use wire::control::ControlEntry;
use wire::datagram::{Grant, Status};
use wire::limits::{MAX_GRANT, MAX_POSITION};
use wire::{Identity, Lane, Position, RequestId, WireError};

use crate::call::{Call, Piece};
use crate::limits::{BACKOFF, GRANT_BYTES};
use crate::logic::backoff::Backoff;
use crate::logic::flight::AppendFrame;
use crate::logic::frames::{Record, make_frames};
use crate::logic::split::{Token, split};
use crate::net::jitter;
use crate::net::sequencer::Told;
use crate::shared::Shared;
use crate::{Error, Result};

/// Serves the queue, for ever.
pub(crate) async fn run(shared: &Shared, lane: Lane) {
    let limit = usize::try_from(MAX_GRANT).unwrap_or(usize::MAX);
    // What is left of a call that is larger than a grant stays with its lane: its positions rise.
    let mut rest = None;
    loop {
        shared.has_room().await;
        let mut batch = shared.queue.take((limit, GRANT_BYTES), &mut rest).await;
        // A request number and its count belong together: a repeated request must be the same.
        let request = shared.sequencer.next_request();
        let count = batch.iter().map(|piece| piece.records.len()).sum();
        let asked = (lane, request);
        let Some((token, entry)) = obtain(shared, &mut batch, asked, count).await else {
            continue;
        };
        shared.counters.grants.add(1);
        // What nobody waits for any more is not written: its positions become a hole at the end.
        batch.retain(|piece| piece.call.is_open());
        if let Err(error) = hand_over(shared, &entry, token, request, batch) {
            shared.problem(format!("token of request {request}: {error}"));
        }
    }
}

/// A token for the batch, and a control entry that knows its epoch; `None` if meanwhile all callers are
/// gone.
async fn obtain(
    shared: &Shared,
    batch: &mut Vec<Piece>,
    asked: (Lane, RequestId),
    count: usize,
) -> Option<(Token, Arc<ControlEntry>)> {
    let mut pauses = Backoff::new(BACKOFF);
    loop {
        let reason = tokio::select! {
            tried = try_once(shared, asked, count) => match tried {
                Ok(granted) => return Some(granted),
                Err(Error::Refused { reason, .. }) => {
                    refuse(batch, &reason);
                    return None;
                }
                Err(error) => error.to_string(),
            },
            () = all_gone(batch) => return None,
        };
        shared.problem(reason);
        batch.retain(|piece| piece.call.is_open());
        if batch.is_empty() {
            return None;
        }
        sleep(pauses.pause(jitter())).await;
    }
}

async fn try_once(
    shared: &Shared,
    (lane, request): (Lane, RequestId),
    count: usize,
) -> Result<(Token, Arc<ControlEntry>)> {
    let what = "grant count";
    let count = u32::try_from(count).map_err(|_| WireError::Malformed { what })?;
    let silent = || shared.problem(shared.sequencer.silent().to_string());
    let grant = Grant::new(lane, request, count);
    let told = shared.sequencer.grant(grant, silent).await?;
    let token = check(shared, &told, count)?;
    let entry = match shared.view.at_least(token.epoch).await {
        Err(error @ Error::Invalid { .. }) => {
            shared.sequencer.is_newest(shared.view.known().epoch);
            return Err(error);
        }
        looked => looked?,
    };
    if entry.epoch > token.epoch {
        shared.sequencer.is_over(token.epoch);
        let (epoch, known) = (token.epoch, entry.epoch);
        let text = format!("token of a former reign: epoch={epoch} known={known}");
        return Err(shared.sequencer.unavailable(text));
    }
    Ok((token, entry))
}

fn check(shared: &Shared, told: &Told, count: u32) -> Result<Token> {
    match told.status {
        Status::Ok => {}
        Status::Invalid => {
            return Err(Error::Refused {
                position: told.first,
                reason: "the sequencer says that the request is invalid".to_owned(),
                definite: true,
            });
        }
        Status::NotReigning => return Err(shared.sequencer.unavailable("it does not reign")),
        Status::Sealing => {
            let text = "its reign has begun, and stripes are still being sealed";
            return Err(shared.sequencer.unavailable(text));
        }
        Status::Busy => return Err(shared.sequencer.unavailable("it is busy")),
        status @ Status::TailMoved => {
            return Err(shared.sequencer.unavailable(format!("{status:?}")));
        }
    }
    let token = Token {
        epoch: told.epoch,
        first: told.first,
        count: u64::from(told.count),
    };
    if told.count != count || token.end().0 > MAX_POSITION {
        let what = "token";
        return Err(WireError::Malformed { what }.into());
    }
    Ok(token)
}

/// Waits until no piece of the batch has a caller any more.
async fn all_gone(batch: &[Piece]) {
    while batch.iter().any(|piece| piece.call.is_open()) {
        sleep(BACKOFF.1).await;
    }
}

fn refuse(batch: &[Piece], reason: &str) {
    for piece in batch {
        piece.call.fail(|definite| Error::Refused {
            position: Position(0),
            reason: reason.to_owned(),
            definite,
        });
    }
}

fn hand_over(
    shared: &Shared,
    entry: &ControlEntry,
    token: Token,
    request: RequestId,
    batch: Vec<Piece>,
) -> Result<()> {
    let mut calls = Vec::with_capacity(batch.len());
    let mut records = Vec::new();
    for (
        piece,
        Piece {
            call,
            first,
            records: bytes,
        },
    ) in batch.into_iter().enumerate()
    {
        calls.push(call);
        let of_piece = |(index, bytes)| Record {
            piece,
            index,
            bytes,
        };
        records.extend((first..).zip(bytes).map(of_piece));
    }
    let used = Token {
        count: records.len() as u64,
        ..token
    };
    let identity = Identity {
        client: shared.client,
        request,
    };
    let frame_bytes = shared.options.frame_bytes;
    let writers = shared.writers.read();
    let mut outgoing: BTreeMap<SocketAddr, Vec<AppendFrame<Arc<Call>>>> = BTreeMap::new();
    for part in split(entry, used)? {
        let what = "stripe without an owner";
        let owner = shared.routes.owner(part.stripe);
        let owner = owner.ok_or(WireError::Malformed { what })?;
        let frames = outgoing.entry(owner).or_default();
        let made = make_frames(
            &part,
            (token.epoch, identity),
            &calls,
            &records,
            frame_bytes,
        )?;
        frames.extend(made);
    }
    for (owner, frames) in outgoing {
        if let Some(connection) = writers.get(&owner) {
            connection.push(frames, shared.elapsed());
        }
    }
    Ok(())
}
