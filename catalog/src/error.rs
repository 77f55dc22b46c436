use thiserror::Error;
use wire::WireError;

/// What a caller does about an error.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum ErrorKind {
    /// Try again later; the fault is likely to pass.
    Retry,
    /// Read the control chain again: what the caller knows is out of date.
    Refresh,
    /// Stop: another process has taken over.
    Fenced,
    /// Mend the request or the settings.
    Invalid,
    /// Stored bytes are not what was written.
    Corrupt,
    /// Neither the caller nor the store is at fault.
    Internal,
}

/// How a store failed, for counters and messages. What a caller does about it is [`ErrorKind`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum StoreFault {
    /// It asks to be asked less often: 503 (`SlowDown`) or 429.
    SlowDown,
    /// Another server error, 5xx.
    Server,
    /// No answer in time.
    TimedOut,
    /// No connection, or one that broke off.
    Connection,
    /// It refuses for good: 401, 403, or a request that it does not know.
    Refused,
    /// Anything else.
    Other,
}

impl StoreFault {
    fn of(error: &object_store::Error) -> Self {
        use object_store::client::{HttpError, HttpErrorKind};
        if refuses(error) {
            return Self::Refused;
        }
        let mut cause: Option<&(dyn std::error::Error + 'static)> = Some(error);
        let mut text = String::new();
        while let Some(error) = cause {
            if let Some(http) = error.downcast_ref::<HttpError>() {
                return match http.kind() {
                    HttpErrorKind::Timeout => Self::TimedOut,
                    _ => Self::Connection,
                };
            }
            text = error.to_string();
            cause = error.source();
        }
        // The innermost error has the status, in words only.
        let status = text.split_once("status code: ").map(|(_, rest)| rest);
        match status.and_then(|status| status.get(..3)) {
            Some("429" | "503") => Self::SlowDown,
            Some(status) if status.starts_with('5') => Self::Server,
            _ => Self::Other,
        }
    }
}

fn refuses(error: &object_store::Error) -> bool {
    use object_store::Error as E;
    matches!(
        error,
        E::InvalidPath { .. }
            | E::NotSupported { .. }
            | E::NotImplemented { .. }
            | E::PermissionDenied { .. }
            | E::Unauthenticated { .. }
            | E::UnknownConfigurationKey { .. }
    )
}

/// A failure of the catalog.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum CatalogError {
    /// The store failed. Whether a write was applied is not known unless `definite`.
    #[error("store failed: operation={operation} name={name}: {source}")]
    Store {
        /// What was tried.
        operation: &'static str,
        /// On which object.
        name: String,
        /// Whether the operation was certainly not applied.
        definite: bool,
        /// How it failed.
        fault: StoreFault,
        /// What the store said.
        source: Box<object_store::Error>,
    },
    /// A create was answered with "exists" again and again, though nothing is there.
    #[error(
        "store keeps refusing to create a name that it does not have: name={name} attempts={attempts}"
    )]
    Contended {
        /// The name.
        name: String,
        /// How often it was tried.
        attempts: u32,
    },
    /// The store does not keep the promise that everything rests on (C-10).
    #[error("store refused: {0}")]
    Dishonest(String),
    /// Another process has taken over.
    #[error("fenced: {0}")]
    Fenced(String),
    /// A URL, a setting or a request that cannot work.
    #[error("{0}")]
    Invalid(String),
    /// No log at this URL.
    #[error("no log here: create it with 'stripelog create': store={url}")]
    NoLog {
        /// The URL.
        url: String,
    },
    /// Stored bytes are not what was written.
    #[error("corrupt object: name={name}: {source}")]
    Corrupt {
        /// The object.
        name: String,
        /// The check that failed.
        source: WireError,
    },
    /// An object that has to be there is not.
    #[error("missing object: name={name}")]
    Missing {
        /// The object.
        name: String,
    },
    /// An I/O error on the local file system.
    #[error("local store failed: path={path}: {source}")]
    Local {
        /// The path.
        path: String,
        /// What the system said.
        source: std::io::Error,
    },
    /// What was to be written breaks a bound of the format.
    #[error("cannot encode: {0}")]
    Encode(#[from] WireError),
}

impl CatalogError {
    /// What a caller does about it.
    #[must_use]
    pub fn kind(&self) -> ErrorKind {
        match self {
            Self::Store { definite: true, .. }
            | Self::Dishonest(_)
            | Self::Invalid(_)
            | Self::NoLog { .. } => ErrorKind::Invalid,
            Self::Store { .. } | Self::Contended { .. } | Self::Local { .. } => ErrorKind::Retry,
            Self::Fenced(_) => ErrorKind::Fenced,
            Self::Corrupt { .. } | Self::Missing { .. } => ErrorKind::Corrupt,
            Self::Encode(_) => ErrorKind::Internal,
        }
    }

    /// Whether what was asked for was certainly not applied.
    #[must_use]
    pub fn is_definite(&self) -> bool {
        match self {
            Self::Store { definite, .. } => *definite,
            Self::Local { .. }
            | Self::Contended { .. }
            | Self::Corrupt { .. }
            | Self::Missing { .. } => false,
            _ => true,
        }
    }

    /// How the store failed, if it was the store that did.
    #[must_use]
    pub fn fault(&self) -> Option<StoreFault> {
        match self {
            Self::Store { fault, .. } => Some(*fault),
            Self::Local { .. } => Some(StoreFault::Other),
            _ => None,
        }
    }

    /// The same error where an earlier attempt may have been applied: however definite this failure is
    /// by itself, it does not tell what the earlier one did (C-8).
    pub(crate) fn in_doubt(mut self) -> Self {
        if let Self::Store { definite, .. } = &mut self {
            *definite = false;
        }
        self
    }

    pub(crate) fn corrupt(name: &str, source: WireError) -> Self {
        let name = name.to_owned();
        Self::Corrupt { name, source }
    }

    pub(crate) fn store(operation: &'static str, name: &str, source: object_store::Error) -> Self {
        let fault = StoreFault::of(&source);
        Self::Store {
            operation,
            name: name.to_owned(),
            definite: fault == StoreFault::Refused,
            fault,
            source: Box::new(source),
        }
    }
}
