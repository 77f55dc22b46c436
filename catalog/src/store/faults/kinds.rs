//! The words of the faults: what can go wrong, how often, and how it is counted.

use std::ops::RangeInclusive;
use std::time::Duration;

use rand::Rng;
use rand::rngs::StdRng;

/// A kind of request.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Operation {
    /// A put with the condition that the name is free.
    Create,
    /// A get, whole, of a range, or of the head only.
    Get,
    /// A listing.
    List,
    /// A delete.
    Delete,
    /// A put without that condition.
    Other,
}

/// What goes wrong with one request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fault {
    /// Nothing: lets one request pass in a script.
    None,
    /// It fails before it is applied.
    Fail,
    /// It is not applied, and "permission denied" is answered: an error that is definite.
    Deny,
    /// It is applied, and then an error is answered; the answer of a get or a listing breaks off.
    LoseAnswer,
    /// It fails now and is applied after this time, if it is a create: the worst that a time-out can mean.
    ApplyLate(Duration),
    /// A create is applied, and "already exists" is answered: a retry below met its own write.
    ExistsAfter,
    /// A create is not applied, and "already exists" is answered, whatever is there: S3's 409.
    ExistsBefore,
    /// It is applied after this time.
    Delay(Duration),
    /// It is applied after [`Faults::release`](super::Faults::release).
    Stall,
    /// It is applied now and answered after [`Faults::release`](super::Faults::release).
    StallAnswer,
}

impl Fault {
    pub(super) fn is_failure(self) -> bool {
        matches!(
            self,
            Self::Fail | Self::Deny | Self::LoseAnswer | Self::ApplyLate(_)
        )
    }
}

/// How a store breaks the promise of a conditional create.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Lie {
    /// It keeps it.
    #[default]
    Honest,
    /// It ignores the condition: every create overwrites and succeeds.
    Ignores,
    /// It looks first and writes then: only racing creates show it.
    Racy,
    /// It answers "already exists" and overwrites all the same.
    RefusesButOverwrites,
}

/// Oddities of stores that are honest.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Quirks {
    /// Answers a refused create with "precondition failed".
    pub refuses_with_precondition: bool,
    /// Lists everything, whatever offset is asked for.
    pub ignores_list_offset: bool,
    /// Lists the last name first.
    pub lists_backwards: bool,
}

/// How likely each fault is for each request, from 0 to 1. Drawn in the order of the fields; the first
/// that hits is taken.
#[derive(Debug, Clone, PartialEq)]
pub struct Rates {
    /// [`Fault::Fail`] of a create.
    pub create_fails: f64,
    /// [`Fault::LoseAnswer`] of a create.
    pub create_answer_lost: f64,
    /// [`Fault::ExistsAfter`].
    pub create_exists_after: f64,
    /// [`Fault::ExistsBefore`].
    pub create_exists_before: f64,
    /// [`Fault::ApplyLate`] of a create, with a time drawn from `delay`.
    pub create_late: f64,
    /// [`Fault::Fail`] or [`Fault::LoseAnswer`] of a get.
    pub get_fails: f64,
    /// [`Fault::Fail`] or [`Fault::LoseAnswer`] of a listing.
    pub list_fails: f64,
    /// [`Fault::Fail`] or [`Fault::LoseAnswer`] of a delete.
    pub delete_fails: f64,
    /// [`Fault::Delay`] of any request that none of the above hit.
    pub delays: f64,
    /// Shortest and longest delay.
    pub delay: RangeInclusive<Duration>,
}

impl Default for Rates {
    fn default() -> Self {
        Self {
            create_fails: 0.0,
            create_answer_lost: 0.0,
            create_exists_after: 0.0,
            create_exists_before: 0.0,
            create_late: 0.0,
            get_fails: 0.0,
            list_fails: 0.0,
            delete_fails: 0.0,
            delays: 0.0,
            delay: Duration::ZERO..=Duration::ZERO,
        }
    }
}

impl Rates {
    pub(super) fn draw(&self, operation: Operation, rng: &mut StdRng) -> Fault {
        let (shortest, longest) = (*self.delay.start(), *self.delay.end());
        let delay = shortest + longest.saturating_sub(shortest).mul_f64(rng.random());
        let broken = if rng.random() {
            Fault::Fail
        } else {
            Fault::LoseAnswer
        };
        let chances: &[(f64, Fault)] = match operation {
            Operation::Create => &[
                (self.create_fails, Fault::Fail),
                (self.create_answer_lost, Fault::LoseAnswer),
                (self.create_exists_after, Fault::ExistsAfter),
                (self.create_exists_before, Fault::ExistsBefore),
                (self.create_late, Fault::ApplyLate(delay)),
            ],
            Operation::Get => &[(self.get_fails, broken)],
            Operation::List => &[(self.list_fails, broken)],
            Operation::Delete => &[(self.delete_fails, broken)],
            Operation::Other => &[],
        };
        let delays = (self.delays, Fault::Delay(delay));
        let mut hits = chances
            .iter()
            .chain([&delays])
            .filter(|(rate, _)| *rate > 0.0 && rng.random_bool(rate.min(1.0)));
        hits.next().map_or(Fault::None, |(_, fault)| *fault)
    }
}

/// Requests that reached a faulty store.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Requests {
    /// Puts with the condition.
    pub creates: u64,
    /// Gets, also of ranges and heads.
    pub gets: u64,
    /// Listings.
    pub lists: u64,
    /// Deletes.
    pub deletes: u64,
    /// Puts without the condition.
    pub others: u64,
}

/// Faults that a faulty store has injected.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Injected {
    /// [`Fault::Fail`].
    pub failed: u64,
    /// [`Fault::Deny`].
    pub denied: u64,
    /// [`Fault::LoseAnswer`].
    pub answers_lost: u64,
    /// [`Fault::ApplyLate`].
    pub late: u64,
    /// Late creates that have meanwhile reached the store beneath.
    pub late_applied: u64,
    /// [`Fault::ExistsAfter`].
    pub exists_after: u64,
    /// [`Fault::ExistsBefore`].
    pub exists_before: u64,
    /// [`Fault::Delay`].
    pub delayed: u64,
    /// [`Fault::Stall`] and [`Fault::StallAnswer`].
    pub stalled: u64,
}

/// What a faulty store has seen and done.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Counts {
    /// Requests by kind, faulty or not.
    pub requests: Requests,
    /// Injected faults by kind.
    pub injected: Injected,
}
