//! Which stripe-writer is asked for a stripe: the product's routes, with posts for addresses.

use std::net::SocketAddr;
use std::time::Duration;

use catalog::{Membership, Writer as Member};
use stripelog::logic::routes::Routes as Known;
use wire::StripeId;

/// The routes of one client.
#[derive(Debug)]
pub(super) struct Routes {
    known: Known,
    addresses: Vec<SocketAddr>,
}

impl Routes {
    pub(super) fn new(members: &[Member]) -> Self {
        let membership = Membership {
            sequencers: Vec::new(),
            writers: members.to_vec(),
        };
        Self {
            known: Known::new(membership),
            addresses: members.iter().map(|member| member.address).collect(),
        }
    }

    /// Whom to ask for a stripe.
    pub(super) fn owner(&self, stripe: StripeId) -> u16 {
        self.post(self.known.owner(stripe))
    }

    /// Pause before the next one is asked.
    pub(super) fn pause(&self, stripe: StripeId) -> Duration {
        self.known.pause(stripe)
    }

    /// One does not serve the stripe: whom to ask from now on.
    pub(super) fn leave(&self, stripe: StripeId, from: u16, now: Duration) -> u16 {
        self.post(
            self.address(from)
                .map(|from| self.known.leave(stripe, from, now)),
        )
    }

    /// One has acknowledged something of a stripe.
    pub(super) fn served(&self, stripe: StripeId, by: u16) {
        if let Some(by) = self.address(by) {
            self.known.served(stripe, by);
        }
    }

    fn address(&self, post: u16) -> Option<SocketAddr> {
        self.addresses.get(usize::from(post)).copied()
    }

    fn post(&self, address: Option<SocketAddr>) -> u16 {
        let post = self
            .addresses
            .iter()
            .position(|known| Some(*known) == address);
        post.and_then(|post| u16::try_from(post).ok()).unwrap_or(0)
    }
}
