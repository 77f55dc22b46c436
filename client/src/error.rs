use std::net::SocketAddr;

use catalog::CatalogError;
pub use catalog::ErrorKind;
use thiserror::Error;
use wire::{Position, WireError};

/// Result of this crate.
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// Why something was not done. [`Error::kind`] says what a caller does about it.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum Error {
    /// A record is larger than a log accepts. Nothing was appended.
    #[error("record too large: index={index} bytes={bytes} limit={limit}")]
    RecordTooLarge {
        /// Index of the record in the call.
        index: usize,
        /// Its size.
        bytes: usize,
        /// The largest size that is accepted.
        limit: usize,
    },
    /// An append did not end within its time.
    #[error(
        "append timed out, its records {}: last problem: {reason}",
        if *definite { "are certainly not in the log" } else { "may be in the log" }
    )]
    TimedOut {
        /// Whether certainly none of the records is in the log.
        definite: bool,
        /// What stood in the way last.
        reason: String,
    },
    /// A position holds another record than the one that was to be written there, or a server refused
    /// the records for good.
    #[error("append refused: position={position} reason={reason}")]
    Refused {
        /// First position that was refused.
        position: Position,
        /// Why.
        reason: String,
        /// Whether certainly none of the records of the call is in the log.
        definite: bool,
    },
    /// A server cannot be reached, or cannot do now what it was asked for.
    #[error("{what} is not available: address={address} reason={reason}")]
    Unavailable {
        /// Which server.
        what: &'static str,
        /// Where it should be.
        address: SocketAddr,
        /// What happened.
        reason: String,
    },
    /// Nobody tells who serves the log.
    #[error("no membership of the log: {reason}")]
    NoMembership {
        /// What happened.
        reason: String,
    },
    /// The position is below the trim point, and so is nothing that was handed out before.
    #[error("trimmed: first_readable={first_readable}")]
    Trimmed {
        /// First position that is still readable.
        first_readable: Position,
    },
    /// The position is not durable yet; everything before it was handed out.
    #[error("not durable yet: position={position}")]
    NotYetDurable {
        /// First position that is not durable.
        position: Position,
    },
    /// Stored bytes that do not pass their checks.
    #[error("corrupt object: name={object} reason={reason}")]
    Corrupt {
        /// Name of the object, below the root of the log.
        object: String,
        /// The check that failed.
        reason: WireError,
    },
    /// An argument that makes no sense.
    #[error("invalid {what}")]
    Invalid {
        /// What is wrong with it.
        what: String,
    },
    /// The metadata or the store failed.
    #[error(transparent)]
    Catalog(#[from] CatalogError),
    /// A server sent what no server of this version sends.
    #[error("protocol violated: {0}")]
    Protocol(#[from] WireError),
    /// A local resource failed.
    #[error("{what} failed: {source}")]
    Io {
        /// What was tried.
        what: &'static str,
        /// What the system said.
        source: std::io::Error,
    },
    /// The log was dropped while this was under way.
    #[error("the log was closed")]
    Closed,
}

impl Error {
    /// What a caller does: try again, look again at the log's state, give up.
    #[must_use]
    pub fn kind(&self) -> ErrorKind {
        match self {
            Self::TimedOut { .. }
            | Self::Unavailable { .. }
            | Self::NoMembership { .. }
            | Self::NotYetDurable { .. } => ErrorKind::Retry,
            Self::Trimmed { .. } => ErrorKind::Refresh,
            Self::RecordTooLarge { .. } | Self::Refused { .. } | Self::Invalid { .. } => {
                ErrorKind::Invalid
            }
            Self::Corrupt { .. } => ErrorKind::Corrupt,
            Self::Catalog(error) => error.kind(),
            Self::Protocol(_) | Self::Io { .. } | Self::Closed => ErrorKind::Internal,
        }
    }

    /// Whether certainly nothing was applied. Of an append that failed indefinitely any of its records
    /// may be in the log, now or later.
    #[must_use]
    pub fn is_definite(&self) -> bool {
        match self {
            Self::TimedOut { definite, .. } | Self::Refused { definite, .. } => *definite,
            Self::Catalog(error) => error.is_definite(),
            Self::Closed => false,
            _ => true,
        }
    }

    pub(crate) fn invalid(what: impl Into<String>) -> Self {
        Self::Invalid { what: what.into() }
    }
}
