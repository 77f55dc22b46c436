//! Sockets of the shards, and the mechanisms that serve them.
//!
//! A mechanism is a module that receives into a [`worker::Worker`], lets it settle, and sends what comes
//! out: [`poll`] with recvmmsg and sendmmsg, [`uring`] with io_uring.

pub(crate) mod mechanism;
mod poll;
mod run;
pub(crate) mod sleeper;
pub(crate) mod socket;
mod uring;
pub(crate) mod worker;

#[cfg(test)]
mod tests;
