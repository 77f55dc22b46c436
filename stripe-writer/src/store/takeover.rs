//! How a new owner takes a stripe (C-6).

use std::time::Duration;

use catalog::{CatalogError, Chain, Walk};
use wire::limits::MAX_POSITION;
use wire::object::{Author, Header};
use wire::snapshot::Snapshot;
use wire::{Epoch, OwnerNumber, Position, Slot, WriterId};

use super::clock;

/// A stripe that this process takes.
#[derive(Debug)]
pub(crate) struct Taken {
    /// How its objects are signed: with the next owner number after all of the chain.
    pub(crate) author: Author,
    /// Headers of the newest objects of the chain, up to its end; of all where no snapshot names the others.
    pub(crate) headers: Vec<Header>,
    /// First slot that no snapshot names.
    pub(crate) named: Slot,
    /// End of the chain.
    pub(crate) frontier: Slot,
    /// When the walk began that found it.
    pub(crate) walked_at: Duration,
}

/// Finds a chain's end, from its last snapshot on if that holds and from its first object otherwise. The first
/// object that this process puts there is its fence: a former owner's next put in chain order meets it and is
/// told (C-6).
///
/// # Errors
/// If the store failed, or an object of the chain is corrupt.
pub(crate) async fn take_over(
    chain: &Chain,
    epoch: Epoch,
    writer: WriterId,
) -> Result<Taken, CatalogError> {
    let walked_at = clock::now();
    let last = chain.snapshot_at(last_slot(chain)).await;
    let named = last.as_ref().map_or(chain.first_slot(), |last| last.end);
    let (walk, below) = match &last {
        Some(last) => walk_from(chain, last).await?,
        None => (chain.walk(chain.first_slot()).await?, OwnerNumber(0)),
    };
    // [C-9] Repeated appends are answered from what was found, before this process has put anything.
    chain.ensure_durable(&walk).await?;
    let owners = walk.headers.iter().map(|header| header.author.owner);
    let newest = owners.max().unwrap_or_default().max(below);
    let author = Author {
        epoch,
        owner: OwnerNumber(newest.0 + 1),
        writer,
    };
    Ok(Taken {
        author,
        named,
        headers: walk.headers,
        frontier: walk.end,
        walked_at,
    })
}

/// Walks a chain from the last object that a snapshot names, if that object is there, and else all of it.
/// Returns the highest owner number below what was walked, too.
///
/// A snapshot names what is in the chain for ever, and owners with higher numbers than it tells come behind its
/// end: its writer, who knew of none, has nothing durable behind the fence of one.
async fn walk_from(chain: &Chain, last: &Snapshot) -> Result<(Walk, OwnerNumber), CatalogError> {
    if let Some(object) = last.last() {
        let walk = chain.walk(object.start).await?;
        let first = walk.headers.first();
        if first.is_some_and(|header| header.end >= object.end) {
            return Ok((walk, last.owner));
        }
    }
    tracing::warn!(snapshot = %last.name(), "a snapshot does not fit its chain, which is walked");
    Ok((chain.walk(chain.first_slot()).await?, OwnerNumber(0)))
}

/// The last slot that the chain's stripe can have.
fn last_slot(chain: &Chain) -> Slot {
    let id = chain.id();
    let behind = id
        .layout
        .slot_at_or_after(id.stripe, Position(MAX_POSITION));
    Slot(behind.0.saturating_sub(1))
}

#[cfg(test)]
mod tests;
