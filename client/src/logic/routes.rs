//! Which stripe-writer is asked for a stripe.
//!
//! The membership says who should own it. One that says that it does not, or cannot be reached, sends the
//! client to the next of the list, and the last to the first: whoever has taken the stripe over (C-6) is
//! found by asking. Who serves a stripe is asked on, whether a new membership has it or not: a list may be
//! wrong, an answer is not.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use catalog::Membership;
use wire::StripeId;

use crate::limits::{MOVED, MOVED_FOR};

/// Times that a pause doubles, at most.
const DOUBLINGS: u32 = 10;

/// The routes of an open log.
#[derive(Debug)]
pub struct Routes(Mutex<State>);

#[derive(Debug)]
struct State {
    membership: Membership,
    /// Stripes that have left the writer that the membership names.
    moved: BTreeMap<StripeId, Moved>,
    /// Who acknowledged something of a stripe last.
    served: BTreeMap<StripeId, SocketAddr>,
}

#[derive(Debug, Clone, Copy)]
struct Moved {
    to: SocketAddr,
    /// Moves one after the other.
    times: u32,
    at: Duration,
}

impl Routes {
    /// Those of a membership.
    #[must_use]
    pub fn new(membership: Membership) -> Self {
        Self(Mutex::new(State {
            membership,
            moved: BTreeMap::new(),
            served: BTreeMap::new(),
        }))
    }

    /// The membership is another now. Stripes that have moved to a writer that it still has stay there, and those that
    /// were served stay with who served them, whether it names that one or not, until it does not serve them.
    pub fn relist(&self, membership: Membership) {
        let mut state = self.state();
        let served = state.served.iter().map(|(stripe, at)| (*stripe, *at));
        let served = served.filter(|(stripe, at)| state.owner(*stripe) == Some(*at));
        let served: Vec<_> = served.collect();
        state.membership = membership;
        let State {
            membership, moved, ..
        } = &mut *state;
        moved.retain(|_, moved| membership.addresses().any(|address| address == moved.to));
        for (stripe, to) in served {
            if membership.owner(stripe) != Some(to) {
                let (times, at) = (0, Duration::ZERO);
                moved.entry(stripe).or_insert(Moved { to, times, at });
            }
        }
    }

    /// Whether a writer is asked for something, or may be: the membership has it, or it served a stripe last.
    #[must_use]
    pub fn has(&self, address: SocketAddr) -> bool {
        let state = self.state();
        let mut served = state.served.values();
        state.is_listed(address) || served.any(|at| *at == address)
    }

    /// A writer has acknowledged something of a stripe.
    pub fn served(&self, stripe: StripeId, by: SocketAddr) {
        let mut state = self.state();
        if state.served.get(&stripe) != Some(&by) {
            state.served.insert(stripe, by);
        }
    }

    /// A writer cannot be reached, or is another log's: if the membership does not have it, nothing stays with it. Whether
    /// that is so.
    pub fn forget(&self, address: SocketAddr) -> bool {
        let mut state = self.state();
        if state.is_listed(address) {
            return false;
        }
        state.moved.retain(|_, moved| moved.to != address);
        state.served.retain(|_, at| *at != address);
        true
    }

    /// Whether the membership has a writer at all.
    #[must_use]
    pub fn has_any(&self) -> bool {
        !self.state().membership.writers.is_empty()
    }

    /// Whether the membership has another writer than this.
    #[must_use]
    pub fn has_other(&self, address: SocketAddr) -> bool {
        self.state()
            .membership
            .addresses()
            .any(|one| one != address)
    }

    /// Whom to ask for a stripe.
    #[must_use]
    pub fn owner(&self, stripe: StripeId) -> Option<SocketAddr> {
        self.state().owner(stripe)
    }

    /// Nominal pause before the next one is asked for a stripe. Short at first, as a stripe that moves is soon served
    /// again; while nobody has it, its records are not sent about all the time.
    #[must_use]
    pub fn pause(&self, stripe: StripeId) -> Duration {
        let times = self
            .state()
            .moved
            .get(&stripe)
            .map_or(0, |moved| moved.times);
        let doubled = MOVED.0 * (1 << times.saturating_sub(1).min(DOUBLINGS));
        doubled.min(MOVED.1)
    }

    /// The writer at `from` does not serve the stripe: whom to ask from now on, which is another writer unless
    /// there is none.
    pub fn leave(&self, stripe: StripeId, from: SocketAddr, now: Duration) -> SocketAddr {
        let mut state = self.state();
        match state.owner(stripe) {
            // Others have found that out before.
            Some(owner) if owner != from => return owner,
            _ => {}
        }
        let State {
            membership,
            moved,
            served,
        } = &mut *state;
        // Who is named for it first, then the others, and last whoever served it, should the membership lack that one.
        let mut order: Vec<_> = membership.addresses().collect();
        let place = |of| order.iter().position(|address| Some(*address) == of);
        let named = place(membership.owner(stripe));
        let served = served.get(&stripe).copied();
        let served = served.filter(|at| place(Some(*at)).is_none());
        order.rotate_left(named.unwrap_or(0));
        order.extend(served);
        let behind = order.iter().position(|address| *address == from);
        let behind = behind.map_or(0, |at| at + 1);
        let mut all = order.iter().cycle().skip(behind).take(order.len());
        let next = all.find(|address| **address != from).copied();
        let next = next.unwrap_or(from);
        let before = moved
            .get(&stripe)
            .filter(|before| now.saturating_sub(before.at) < MOVED_FOR);
        let times = before.map_or(0, |before| before.times).saturating_add(1);
        let (to, at) = (next, now);
        moved.insert(stripe, Moved { to, times, at });
        next
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    fn is_listed(&self, address: SocketAddr) -> bool {
        self.membership.addresses().any(|one| one == address)
    }

    fn owner(&self, stripe: StripeId) -> Option<SocketAddr> {
        let moved = self.moved.get(&stripe).map(|moved| moved.to);
        moved.or_else(|| self.membership.owner(stripe))
    }
}

#[cfg(test)]
mod tests {
    use std::ops::RangeInclusive;

    use catalog::Writer;

    use super::*;

    const NOW: Duration = Duration::from_secs(77);

    fn address(port: u16) -> SocketAddr {
        ([127, 0, 0, 1], port).into()
    }

    fn routes(writers: u16) -> Routes {
        Routes::new(members(1..=writers))
    }

    fn members(writers: RangeInclusive<u16>) -> Membership {
        let writers = writers.map(|n| Writer {
            address: address(n),
            stripes: n * 10..=n * 10 + 9,
        });
        Membership {
            sequencers: vec![address(99)],
            writers: writers.collect(),
        }
    }

    #[test]
    fn c6_a_stripe_that_its_writer_does_not_own_is_looked_for_in_turn() {
        let (routes, stripe) = (routes(3), StripeId(20));
        assert_eq!(routes.owner(stripe), Some(address(2)));
        assert_eq!(routes.leave(stripe, address(2), NOW), address(3));
        assert_eq!(routes.leave(stripe, address(2), NOW), address(3), "known");
        assert_eq!(routes.leave(stripe, address(3), NOW), address(1));
        // Whoever served it last is no reason to pass others over.
        routes.served(stripe, address(2));
        assert_eq!(routes.leave(stripe, address(1), NOW), address(2));
        assert_eq!(routes.leave(stripe, address(2), NOW), address(3));
        assert_eq!(routes.leave(stripe, address(3), NOW), address(1));
        assert_eq!(routes.owner(StripeId(21)), Some(address(2)), "not this one");
    }

    #[test]
    fn h5_a_stripe_that_the_membership_does_not_name_is_looked_for_in_turn() {
        let (routes, stripe) = (routes(3), StripeId(900));
        assert_eq!(routes.owner(stripe), Some(address(1)));
        assert_eq!(routes.leave(stripe, address(1), NOW), address(2));
        assert_eq!(routes.owner(stripe), Some(address(2)));
    }

    #[test]
    fn pauses_double_while_nobody_serves_a_stripe_and_begin_anew() {
        let (routes, stripe) = (routes(3), StripeId(20));
        let mut now = NOW;
        let mut pauses = Vec::new();
        for _ in 0..6 {
            let owner = routes.owner(stripe).expect("one");
            routes.leave(stripe, owner, now);
            routes.leave(stripe, owner, now);
            let pause = routes.pause(stripe);
            pauses.push(pause.as_millis());
            now += pause;
        }
        assert_eq!(pauses, [10, 20, 40, 80, 160, 250]);
        assert_eq!(routes.pause(StripeId(21)), MOVED.0, "of each stripe");
        let owner = routes.owner(stripe).expect("one");
        routes.leave(stripe, owner, now + MOVED_FOR);
        assert_eq!(routes.pause(stripe), MOVED.0);
    }

    #[test]
    fn with_one_writer_there_is_nobody_else() {
        let routes = routes(1);
        assert_eq!(routes.leave(StripeId(10), address(1), NOW), address(1));
    }

    #[test]
    fn c6_a_stripe_stays_where_it_was_found_when_the_membership_changes() {
        let (routes, stripe) = (routes(3), StripeId(20));
        assert_eq!(routes.leave(stripe, address(2), NOW), address(3));
        routes.relist(members(3..=4));
        assert_eq!(routes.owner(stripe), Some(address(3)));
        assert!(!routes.has(address(2)) && routes.has_other(address(3)));
        routes.relist(members(4..=5));
        let owner = routes.owner(stripe).expect("one of the two");
        assert!(
            [address(4), address(5)].contains(&owner),
            "who had it is gone"
        );
        assert_eq!(routes.leave(stripe, address(3), NOW), owner, "asked before");
        assert_ne!(routes.leave(stripe, owner, NOW), owner);
        assert_eq!(routes.owner(StripeId(40)), Some(address(4)), "in its range");
    }

    #[test]
    fn c6_a_stripe_stays_with_who_serves_it_when_the_membership_has_it_no_more() {
        let (routes, stripe, other) = (routes(3), StripeId(20), StripeId(21));
        routes.served(stripe, address(2));
        routes.relist(members(3..=5));
        assert_eq!(routes.owner(stripe), Some(address(2)), "it answers");
        assert!(routes.has(address(2)) && routes.has_other(address(2)));
        assert_ne!(routes.owner(other), Some(address(2)), "never served");
        routes.relist(members(4..=5));
        assert_eq!(routes.owner(stripe), Some(address(2)), "of every list");
        // It may have been left by mistake: it is asked in its turn.
        let mut asked = vec![address(2)];
        for _ in 0..3 {
            let last = asked[asked.len() - 1];
            asked.push(routes.leave(stripe, last, NOW));
        }
        assert_eq!(asked[3], address(2), "{asked:?}");
        assert!(asked[1..3].contains(&address(4)) && asked[1..3].contains(&address(5)));
        routes.leave(stripe, address(2), NOW);
        routes.served(stripe, address(5));
        assert!(!routes.has(address(2)), "another serves it");
    }

    #[test]
    fn c6_who_is_missing_from_the_list_is_left_for_the_one_that_it_names() {
        let (routes, stripe) = (routes(3), StripeId(50));
        while let Some(owner) = routes.owner(stripe).filter(|owner| *owner != address(2)) {
            routes.leave(stripe, owner, NOW);
        }
        routes.served(stripe, address(2));
        routes.relist(members(3..=6));
        assert_eq!(routes.leave(stripe, address(2), NOW), address(5));
    }

    #[test]
    fn c6_a_stripe_stays_with_who_serves_it_when_a_newcomer_is_named() {
        let (routes, stripe) = (routes(3), StripeId(40));
        while let Some(owner) = routes.owner(stripe).filter(|owner| *owner != address(2)) {
            routes.leave(stripe, owner, NOW);
        }
        routes.served(stripe, address(2));
        routes.relist(members(1..=4));
        assert_eq!(routes.owner(stripe), Some(address(2)), "not served yet");
        assert_eq!(routes.owner(StripeId(41)), Some(address(4)));
    }

    #[test]
    fn c6_nothing_stays_with_one_that_is_gone_from_the_list_and_from_its_address() {
        let (routes, stripe) = (routes(3), StripeId(20));
        routes.served(stripe, address(2));
        assert!(!routes.forget(address(2)), "the membership has it");
        routes.relist(members(3..=4));
        assert!(routes.forget(address(2)) && !routes.has(address(2)));
        assert_ne!(routes.owner(stripe), Some(address(2)));
        routes.relist(members(3..=5));
        assert_ne!(routes.owner(stripe), Some(address(2)));
    }
}
