//! Which stripe-writer is asked for a stripe.
//!
//! The membership says who should own it. One that says that it does not, or cannot be reached, sends the
//! client to the next of the list, and the last to the first: whoever has taken the stripe over (C-6) is
//! found by asking.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::{Mutex, MutexGuard, PoisonError};

use catalog::Membership;
use wire::StripeId;

/// The routes of an open log.
#[derive(Debug)]
pub(crate) struct Routes {
    membership: Membership,
    /// Stripes that have left the writer that the membership names.
    moved: Mutex<BTreeMap<StripeId, SocketAddr>>,
}

impl Routes {
    pub(crate) fn new(membership: Membership) -> Self {
        Self {
            membership,
            moved: Mutex::default(),
        }
    }

    /// Whom to ask for a stripe.
    pub(crate) fn owner(&self, stripe: StripeId) -> Option<SocketAddr> {
        let moved = self.moved().get(&stripe).copied();
        moved
            .or_else(|| self.membership.owner(stripe))
            // [H-5] A later segment may have more stripes than the membership knew of: they are looked for as well.
            .or_else(|| self.membership.addresses().next())
    }

    /// The writer at `from` does not serve the stripe: whom to ask from now on, which is another writer unless
    /// there is none.
    pub(crate) fn leave(&self, stripe: StripeId, from: SocketAddr) -> SocketAddr {
        match self.owner(stripe) {
            // Others have found that out before.
            Some(owner) if owner != from => return owner,
            _ => {}
        }
        let mut addresses = self
            .membership
            .addresses()
            .chain(self.membership.addresses());
        addresses.by_ref().find(|address| *address == from);
        let next = addresses.find(|address| *address != from).unwrap_or(from);
        self.moved().insert(stripe, next);
        next
    }

    fn moved(&self) -> MutexGuard<'_, BTreeMap<StripeId, SocketAddr>> {
        self.moved.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use catalog::Writer;

    use super::*;

    fn address(port: u16) -> SocketAddr {
        ([127, 0, 0, 1], port).into()
    }

    fn routes(writers: u16) -> Routes {
        let writers = (1..=writers).map(|n| Writer {
            address: address(n),
            stripes: n * 10..=n * 10 + 9,
        });
        Routes::new(Membership {
            sequencers: vec![address(99)],
            writers: writers.collect(),
        })
    }

    #[test]
    fn c6_a_stripe_that_its_writer_does_not_own_is_looked_for_in_turn() {
        let (routes, stripe) = (routes(3), StripeId(20));
        assert_eq!(routes.owner(stripe), Some(address(2)));
        assert_eq!(routes.leave(stripe, address(2)), address(3));
        assert_eq!(routes.leave(stripe, address(2)), address(3), "known");
        assert_eq!(routes.leave(stripe, address(3)), address(1));
        assert_eq!(routes.leave(stripe, address(1)), address(2));
        assert_eq!(routes.owner(StripeId(21)), Some(address(2)), "not this one");
    }

    #[test]
    fn h5_a_stripe_that_the_membership_does_not_name_is_looked_for_in_turn() {
        let (routes, stripe) = (routes(3), StripeId(900));
        assert_eq!(routes.owner(stripe), Some(address(1)));
        assert_eq!(routes.leave(stripe, address(1)), address(2));
        assert_eq!(routes.owner(stripe), Some(address(2)));
    }

    #[test]
    fn with_one_writer_there_is_nobody_else() {
        let routes = routes(1);
        assert_eq!(routes.leave(StripeId(10), address(1)), address(1));
    }
}
