//! Each rule by itself. What the state machine does is compared as text.

mod bounds;
mod chains;
mod fence;
mod holes;
mod late;
mod repeats;
mod seals;

use std::time::Duration;

use wire::object::{Author, ChainId, Object};
use wire::{
    ClientId, Epoch, Identity, Layout, LogId, OwnerNumber, RequestId, Run, RunBody, SegmentId,
    Slot, StripeId, WriterId,
};

use super::*;
use crate::logic::action::PutOutcome;

/// Bytes of the body of a run of one record.
const RECORD: usize = 100;

/// A stripe of owner 2 in epoch 1, whose chain ends at slot 10, behind this owner's fence.
fn stripe() -> Stripe<u32> {
    let mut stripe = newcomer();
    stripe.established = true;
    stripe
}

/// The same before the fence is put.
fn newcomer() -> Stripe<u32> {
    let config = Config {
        linger: Duration::from_millis(50),
        target_bytes: 4 * RECORD,
        max_commit_age: Duration::from_millis(1000),
    };
    Stripe::new(chain(), author(2), Slot(10), config, at(0))
}

fn chain() -> ChainId {
    ChainId {
        log: LogId([1; 16]),
        segment: SegmentId(1),
        stripe: StripeId(0),
        layout: Layout::new(1, 1).expect("valid"),
    }
}

/// The writer of an owner number is that number.
fn author(owner: u8) -> Author {
    Author {
        epoch: Epoch(1),
        owner: OwnerNumber(owner.into()),
        writer: WriterId([owner; 16]),
    }
}

/// Time in milliseconds since the stripe was taken over.
fn at(ms: u64) -> Duration {
    Duration::from_secs(1000) + Duration::from_millis(ms)
}

/// Records in slots `[first, end)` of a request.
fn run(first: u64, end: u64, request: u64) -> Run {
    let count = usize::try_from(end - first).expect("small");
    let identity = Identity {
        client: ClientId(1),
        request: RequestId(request),
    };
    let body = RunBody::new(&vec![vec![1; RECORD - 4]; count]).expect("valid");
    Run::records(Slot(first), identity, body)
}

fn junk(first: u64, end: u64) -> Run {
    Run::junk(Slot(first), end - first)
}

fn taken(author: Author, runs: &[Run]) -> PutOutcome {
    let object = Object::build(chain(), author, runs).expect("valid");
    PutOutcome::Taken(Box::new(object.index))
}

/// What is to be done, a line each.
fn done(stripe: &mut Stripe<u32>) -> Vec<String> {
    stripe.actions().into_iter().map(line).collect()
}

fn line(action: Action<u32>) -> String {
    match action {
        Action::Answer {
            token,
            first,
            end,
            status,
        } => format!("tell {token} [{first}, {end}) {status:?}"),
        Action::Lookup {
            token,
            first,
            end,
            identity,
        } => format!(
            "look up for {token} [{first}, {end}) of {}",
            identity.request
        ),
        Action::Committed { header, runs } => {
            assert_eq!(runs.first().map(|run| run.first), Some(header.start));
            assert_eq!(runs.last().map(Run::end), Some(header.end));
            format!("committed [{}, {})", header.start, header.end)
        }
        Action::Adopted(index) => {
            format!("adopted [{}, {})", index.header.start, index.header.end)
        }
        Action::Verify { id, header } => {
            format!("verify {} of owner {}", id.0, header.author.owner)
        }
        Action::Fenced => "fenced".to_owned(),
    }
}

/// Closes what is due; the runs of the object as `r[first, end)` or `j[first, end)`.
fn close(stripe: &mut Stripe<u32>, now: Duration) -> Option<(FlightId, String)> {
    let (id, object) = stripe.close(now)?;
    let runs = object.index.runs.iter().map(|run| {
        let kind = if run.records.is_some() { "r" } else { "j" };
        format!("{kind}[{}, {})", run.first, run.end())
    });
    Some((id, runs.collect::<Vec<_>>().join(" ")))
}

/// An append in epoch 1 by a token that is the number of the request.
fn append(stripe: &mut Stripe<u32>, first: u64, end: u64, request: u32, now: Duration) {
    stripe.append(&run(first, end, request.into()), Epoch(1), &request, now);
}

/// Puts `[10, 11)`, `[11, 12)`, ... of requests 0, 1, ... under way, an object each.
fn fly(stripe: &mut Stripe<u32>, count: u32, now: Duration) -> Vec<FlightId> {
    let mut flights = Vec::new();
    for request in 0..count {
        let slot = stripe.held.planned().0;
        append(stripe, slot, slot + 1, request, now);
        flights.push(close(stripe, now + stripe.config.linger).expect("due").0);
    }
    assert_eq!(done(stripe), [""; 0]);
    flights
}
