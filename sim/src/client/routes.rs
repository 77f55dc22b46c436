//! Which stripe-writer is asked for a stripe: the order of `client/src/net/routes.rs`.

use std::collections::BTreeMap;
use std::time::Duration;

use catalog::{Writer as Member, assigned};
use stripelog::limits::MOVED;
use wire::StripeId;

/// Times that a pause doubles, at most.
const DOUBLINGS: u32 = 10;

/// Time without a move after which the pauses of a stripe begin anew.
const MOVED_FOR: Duration = Duration::from_secs(2);

#[derive(Debug, Clone, Copy)]
struct Moved {
    to: u16,
    /// Moves one after the other.
    times: u32,
    at: Duration,
}

/// The membership, and the stripes that have left whom it names.
#[derive(Debug)]
pub(super) struct Routes {
    members: Vec<Member>,
    moved: BTreeMap<StripeId, Moved>,
}

impl Routes {
    pub(super) fn new(members: &[Member]) -> Self {
        Self {
            members: members.to_vec(),
            moved: BTreeMap::new(),
        }
    }

    /// Whom to ask for a stripe.
    pub(super) fn owner(&self, stripe: StripeId) -> u16 {
        let moved = self.moved.get(&stripe).map(|moved| moved.to);
        let named = || assigned(&self.members, stripe).and_then(|at| u16::try_from(at).ok());
        moved.or_else(named).unwrap_or(0)
    }

    /// Pause before the next one is asked.
    pub(super) fn pause(&self, stripe: StripeId) -> Duration {
        let times = self.moved.get(&stripe).map_or(0, |moved| moved.times);
        let doubled = MOVED.0 * (1 << times.saturating_sub(1).min(DOUBLINGS));
        doubled.min(MOVED.1)
    }

    /// One does not serve the stripe: whom to ask from now on.
    pub(super) fn leave(&mut self, stripe: StripeId, from: u16, now: Duration) -> u16 {
        let owner = self.owner(stripe);
        if owner != from {
            // That has been found out before.
            return owner;
        }
        let count = u16::try_from(self.members.len()).unwrap_or(u16::MAX);
        let to = (from + 1) % count.max(1);
        let before = self.moved.get(&stripe);
        let before = before.filter(|before| now.saturating_sub(before.at) < MOVED_FOR);
        let times = before.map_or(0, |before| before.times).saturating_add(1);
        self.moved.insert(stripe, Moved { to, times, at: now });
        to
    }
}
