//! Which mechanism serves the shards.

use std::fmt;
use std::io;

use super::poll;
use super::uring;
use super::worker::Worker;
use crate::config::Backend;

/// How datagrams are received and sent.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Mechanism {
    /// poll, recvmmsg and sendmmsg.
    Poll,
    /// io_uring.
    Uring,
}

impl fmt::Display for Mechanism {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Poll => f.write_str("poll"),
            Self::Uring => f.write_str("io_uring"),
        }
    }
}

impl Mechanism {
    /// Serves a shard until it is told to quit.
    ///
    /// # Errors
    /// What makes it impossible to go on; a failure to receive or send one datagram does not.
    pub(crate) fn serve(self, worker: Worker) -> io::Result<()> {
        match self {
            Self::Poll => poll::serve(worker),
            Self::Uring => uring::serve(worker),
        }
    }
}

/// Chooses a mechanism that this system allows.
///
/// # Errors
/// If io_uring was asked for and is refused.
pub(crate) fn choose(backend: Backend) -> io::Result<Mechanism> {
    match backend {
        Backend::Poll => Ok(Mechanism::Poll),
        Backend::IoUring => uring::probe().map(|()| Mechanism::Uring),
        Backend::Auto => Ok(uring::probe().map_or_else(fall_back, |()| Mechanism::Uring)),
    }
}

fn fall_back(reason: io::Error) -> Mechanism {
    tracing::warn!(%reason, "io_uring cannot be used here: the poll backend serves instead");
    Mechanism::Poll
}
