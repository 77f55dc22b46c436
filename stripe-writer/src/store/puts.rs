//! Puts and walks that go on until their outcome is known.

use std::sync::Arc;
use std::time::Duration;

use catalog::{Backoff, CatalogError, Chain, Put};
use wire::Slot;
use wire::object::{Header, Object};

use super::clock;
use super::places::{Place, Places};
use crate::logic::action::{FlightId, PutOutcome};
use crate::metrics::Metrics;

/// Bounds of the wait after a put that failed.
const WAITS: (Duration, Duration) = (Duration::from_millis(200), Duration::from_secs(5));

/// Work of a stripe that has ended.
#[derive(Debug)]
pub(super) enum Done {
    Put(FlightId, PutOutcome),
    Verified { id: FlightId, in_chain: bool },
}

/// Puts an object until it is known what became of it: nothing behind it may be acknowledged before that
/// (C-8). While it waits to try again, another stripe has its place among the puts.
pub(super) async fn put(
    chain: Chain,
    object: Object,
    id: FlightId,
    (places, mut place): (Arc<Places>, Place),
    metrics: Arc<Metrics>,
) -> Done {
    let mut backoff = Backoff::within(WAITS);
    let attempts = metrics.store.begin();
    loop {
        match place.hold(chain.put(&object)).await {
            Ok(Put::Committed) => return Done::Put(id, PutOutcome::Stored),
            Ok(Put::Taken(index)) => return Done::Put(id, PutOutcome::Taken(index)),
            Err(error) => {
                metrics.put_failed(error.fault());
                attempts.failed(clock::now(), error.to_string());
                warn("put", &chain, &error);
            }
        }
        drop(place);
        backoff.wait().await;
        place = Arc::clone(&places).take().await;
    }
}

/// Says whether the chain has an object, by a walk from `from`, an object that the chain certainly had.
/// If that one is gone, because it was compacted or collected, the whole chain is walked (C-7).
pub(super) async fn verify(chain: Chain, header: Header, from: Slot, id: FlightId) -> Done {
    let mut backoff = Backoff::within(WAITS);
    loop {
        match in_chain(&chain, &header, from).await {
            Ok(in_chain) => return Done::Verified { id, in_chain },
            Err(error) => warn("verification", &chain, &error),
        }
        backoff.wait().await;
    }
}

async fn in_chain(chain: &Chain, header: &Header, from: Slot) -> Result<bool, CatalogError> {
    let near = chain.walk(from).await?;
    if near.headers.contains(header) && near.headers.first() != Some(header) {
        return Ok(true);
    }
    let whole = chain.walk(chain.first_slot()).await?;
    Ok(whole.headers.contains(header))
}

fn warn(what: &str, chain: &Chain, error: &CatalogError) {
    let stripe = chain.id().stripe;
    tracing::warn!(%error, kind = ?error.kind(), %stripe, "{what} failed, trying again");
}
