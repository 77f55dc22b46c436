//! Sockets of the shards, and the mechanisms that serve them.
//!
//! A mechanism is a module that receives packets, hands them to the [`worker::Handler`] of a
//! [`worker::Worker`], and sends back what is kept of them: [`poll`] with recvmmsg and sendmmsg, [`uring`]
//! with io_uring. A program in the driver hook may stand before either: [`xdp`].

pub(crate) mod echo;
pub(crate) mod mechanism;
pub(crate) mod others;
mod outbox;
mod poll;
mod run;
pub(crate) mod sleeper;
pub(crate) mod socket;
pub(crate) mod standing;
mod uring;
pub(crate) mod worker;
#[cfg(feature = "xdp")]
pub(crate) mod xdp;
#[cfg(not(feature = "xdp"))]
#[path = "no_xdp.rs"]
pub(crate) mod xdp;

#[cfg(test)]
mod tests;
