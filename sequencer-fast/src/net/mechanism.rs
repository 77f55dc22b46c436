//! Which mechanism serves the shards.

use std::fmt;
use std::io;

use super::poll;
use super::uring;
use super::worker::{Handler, Worker};
use crate::config::{Backend, Wait};

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
    /// Serves a handler until it is told to quit.
    ///
    /// # Errors
    /// What makes it impossible to go on; a failure to receive or send one datagram does not.
    pub(crate) fn serve<H: Handler>(self, worker: Worker<H>) -> io::Result<()> {
        match self {
            Self::Poll => poll::serve(worker),
            Self::Uring => uring::serve(worker),
        }
    }
}

/// Chooses a mechanism that this system allows, and that can wait like this.
///
/// # Errors
/// If io_uring was asked for, or is needed, and is refused.
pub(crate) fn choose(backend: Backend, wait: Wait) -> io::Result<Mechanism> {
    let probed = || uring::probe(wait).map(|()| Mechanism::Uring);
    match (backend, wait) {
        (Backend::Poll, Wait::SqPoll { .. }) => Err(io::Error::new(
            io::ErrorKind::InvalidInput,
            "wait = sqpoll needs the io_uring backend",
        )),
        (Backend::Poll, _) => Ok(Mechanism::Poll),
        (Backend::IoUring, _) | (Backend::Auto | Backend::Xdp, Wait::SqPoll { .. }) => probed(),
        (Backend::Auto | Backend::Xdp, _) => Ok(probed().unwrap_or_else(fall_back)),
    }
}

fn fall_back(reason: io::Error) -> Mechanism {
    tracing::warn!(%reason, "io_uring cannot be used here: the poll backend serves instead");
    Mechanism::Poll
}
