//! How a new owner takes a stripe (C-6).

use std::time::Duration;

use catalog::{CatalogError, Chain};
use wire::object::{Author, Header};
use wire::{Epoch, OwnerNumber, Slot, WriterId};

use super::clock;

/// A stripe that this process takes.
#[derive(Debug)]
pub(crate) struct Taken {
    /// How its objects are signed: with the next owner number after all of the chain.
    pub(crate) author: Author,
    /// Headers of all objects of the chain.
    pub(crate) headers: Vec<Header>,
    /// First slot that no snapshot names.
    pub(crate) named: Slot,
    /// End of the chain.
    pub(crate) frontier: Slot,
    /// When the walk began that found it.
    pub(crate) walked_at: Duration,
}

/// Walks a chain to its end. The first object that this process puts there is its fence: a former owner's
/// next put in chain order meets it and is told (C-6).
///
/// # Errors
/// If the store failed, or an object of the chain is corrupt.
pub(crate) async fn take_over(
    chain: &Chain,
    epoch: Epoch,
    writer: WriterId,
) -> Result<Taken, CatalogError> {
    let walked_at = clock::now();
    let walk = chain.walk(chain.first_slot()).await?;
    // [C-9] Repeated appends are answered from what was found, before this process has put anything.
    chain.ensure_durable(&walk).await?;
    let newest = walk.headers.iter().map(|header| header.author.owner).max();
    let owner = OwnerNumber(newest.unwrap_or_default().0 + 1);
    let author = Author {
        epoch,
        owner,
        writer,
    };
    let snapshot = chain.snapshot_at(walk.end).await;
    Ok(Taken {
        author,
        named: snapshot.map_or(chain.first_slot(), |snapshot| snapshot.end),
        headers: walk.headers,
        frontier: walk.end,
        walked_at,
    })
}
