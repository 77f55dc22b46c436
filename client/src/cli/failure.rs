//! How a command fails.

use std::error::Error as _;
use std::io;
use std::process::ExitCode;

use serde_json::json;
use stripelog::{Error, ErrorKind};

/// Why a command did not do what it was asked for.
#[derive(Debug)]
pub(crate) enum Failure {
    /// The arguments or the settings are wrong.
    Usage(String),
    /// Something failed; the text says what was being done.
    Failed { doing: Option<String>, error: Error },
    /// It was done, and what it found is bad; that has been told.
    Found,
    /// The input cannot be taken.
    Input(String),
    /// A file could not be read or written.
    Io { what: String, source: io::Error },
    /// Nobody reads the output any more.
    Unread,
}

impl Failure {
    pub(crate) fn usage(error: impl std::error::Error + 'static) -> Self {
        Self::Usage(runtime::exit::line(&error))
    }

    /// A failed write of the output.
    pub(crate) fn output(source: io::Error) -> Self {
        if source.kind() == io::ErrorKind::BrokenPipe {
            return Self::Unread;
        }
        Self::Io {
            what: "writing the output".to_owned(),
            source,
        }
    }

    /// Tells the failure on standard error, as text or JSON, and returns the exit code.
    pub(crate) fn tell(self, json: bool) -> ExitCode {
        let code = match &self {
            Self::Usage(_) => ExitCode::from(2),
            Self::Unread => ExitCode::SUCCESS,
            _ => ExitCode::FAILURE,
        };
        if let Some(text) = self.text() {
            let (kind, definite) = self.kind();
            let told = json!({ "error": text, "kind": kind, "definite": definite });
            if json {
                eprintln!("{told}");
            } else {
                eprintln!("stripelog: {text}");
            }
        }
        code
    }

    fn text(&self) -> Option<String> {
        match self {
            Self::Usage(text) | Self::Input(text) => Some(text.clone()),
            Self::Failed { doing: None, error } => Some(runtime::exit::line(error)),
            Self::Failed {
                doing: Some(doing),
                error,
            } => Some(format!("{doing}: {}", runtime::exit::line(error))),
            Self::Io { what, source } => Some(match source.source() {
                Some(cause) => format!("{what}: {source}: {cause}"),
                None => format!("{what}: {source}"),
            }),
            Self::Found | Self::Unread => None,
        }
    }

    fn kind(&self) -> (&'static str, bool) {
        let Self::Failed { error, .. } = self else {
            return ("invalid", true);
        };
        let kind = match error.kind() {
            ErrorKind::Retry => "retry",
            ErrorKind::Refresh => "refresh",
            ErrorKind::Fenced => "fenced",
            ErrorKind::Invalid => "invalid",
            ErrorKind::Corrupt => "corrupt",
            ErrorKind::Internal => "internal",
        };
        (kind, error.is_definite())
    }
}

impl From<Error> for Failure {
    fn from(error: Error) -> Self {
        Self::Failed { doing: None, error }
    }
}
