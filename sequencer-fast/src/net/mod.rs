//! Sockets of the shards, and the mechanisms that serve them.
//!
//! A mechanism is a module that receives packets, hands them to the [`worker::Handler`] of a
//! [`worker::Worker`], and sends back what is kept of them: [`poll`] with recvmmsg and sendmmsg, [`uring`]
//! with io_uring.

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

#[cfg(test)]
mod tests;
