use std::io;
use std::net::SocketAddr;

use catalog::ErrorKind;
use thiserror::Error;
use wire::WireError;

/// Why a sequencer could not start, or not go on.
///
/// That another sequencer has taken over is not among them: that is [`crate::Ended::Fenced`].
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum SequencerError {
    /// The address cannot be bound.
    #[error("cannot bind: {source} address={address}")]
    Bind {
        /// What the system said.
        source: io::Error,
        /// The address.
        address: SocketAddr,
    },
    /// A thread is to be pinned to a core that this process cannot run on.
    #[error("no such core for this process: core={core} cores={known}")]
    Core {
        /// The core of the settings.
        core: usize,
        /// Those that it may run on.
        known: String,
    },
    /// A thread, a ring or an eventfd cannot be had.
    #[error("cannot set up {what}: {source}")]
    Setup {
        /// What was to be set up.
        what: &'static str,
        /// What the system said.
        source: io::Error,
    },
    /// The program in the driver hook cannot be used.
    #[error("cannot use xdp: {reason}")]
    Xdp {
        /// What is missing, and what to do about it.
        reason: String,
    },
    /// A shard cannot receive any more.
    #[error("shard failed: {source} shard={shard}")]
    Shard {
        /// Number of the shard.
        shard: usize,
        /// What the system said.
        source: io::Error,
    },
    /// The log or its settings do not allow to begin or go on.
    #[error("{reason}")]
    Control {
        /// What a caller does about it.
        kind: ErrorKind,
        /// Why.
        reason: String,
    },
    /// The control chain has an entry that no reign can follow.
    #[error("bad control entry: {0}")]
    Entry(#[from] WireError),
    /// A thread of the sequencer panicked.
    #[error("a thread of the sequencer panicked")]
    Panicked,
}

impl SequencerError {
    /// What a caller does about it.
    #[must_use]
    pub fn kind(&self) -> ErrorKind {
        match self {
            Self::Bind { .. } | Self::Core { .. } | Self::Setup { .. } | Self::Xdp { .. } => {
                ErrorKind::Invalid
            }
            Self::Control { kind, .. } => *kind,
            Self::Entry(_) => ErrorKind::Corrupt,
            Self::Shard { .. } | Self::Panicked => ErrorKind::Internal,
        }
    }
}
