//! How a new owner takes a stripe (C-6).

use catalog::{CatalogError, Chain, Put};
use wire::object::{Author, Header, Object};
use wire::{Epoch, OwnerNumber, Run, Slot, WriterId};

use crate::limits::FENCE_ATTEMPTS;

/// A stripe that this process owns.
#[derive(Debug)]
pub(crate) struct Owned {
    /// How its objects are signed.
    pub(crate) author: Author,
    /// Headers of all objects of the chain, the fence last.
    pub(crate) headers: Vec<Header>,
    /// End of the chain, behind the fence.
    pub(crate) frontier: Slot,
}

/// Takes a stripe over: creates, at the end of its chain, an object of junk with the next owner number. A
/// former owner's next put in chain order meets it and is fenced. Slots below `fill_to`, which tokens of
/// sealed epochs alone could write, become junk on the way (H-3).
///
/// # Errors
/// If the store failed, or others keep appending to the chain.
pub(crate) async fn take_over(
    chain: &Chain,
    epoch: Epoch,
    fill_to: Slot,
    writer: WriterId,
) -> Result<Owned, CatalogError> {
    let walk = chain.walk(chain.first_slot()).await?;
    let (mut headers, mut end) = (walk.headers, walk.end);
    for _ in 0..FENCE_ATTEMPTS {
        let newest = headers.iter().map(|header| header.author.owner).max();
        let owner = OwnerNumber(newest.unwrap_or_default().0 + 1);
        let author = Author {
            epoch,
            owner,
            writer,
        };
        let junk = Run::junk(end, end.until(fill_to).max(1));
        let fence = Object::build(chain.id(), author, &[junk])?;
        match chain.put(&fence).await? {
            Put::Committed => {
                let frontier = fence.index.header.end;
                headers.push(fence.index.header);
                return Ok(Owned {
                    author,
                    headers,
                    frontier,
                });
            }
            // [C-6] A late put of a former owner came first: it is the chain's next object.
            Put::Taken(index) => {
                end = index.header.end;
                headers.push(index.header);
            }
        }
    }
    let (name, attempts) = (chain.id().object_name(end), FENCE_ATTEMPTS);
    Err(CatalogError::Contended {
        name,
        attempts: u32::try_from(attempts).unwrap_or(u32::MAX),
    })
}
