//! Log lines on standard error.

use std::io::IsTerminal;

use thiserror::Error;
use tracing_subscriber::EnvFilter;
use tracing_subscriber::filter::ParseError;

/// Levels that `--log-level` takes, from few lines to many.
pub const LEVELS: [&str; 5] = ["error", "warn", "info", "debug", "trace"];

/// Libraries that log, with backtraces, what is told in an error or makes no difference: seen with `RUST_LOG` only.
const SILENT: &str = "foyer=off";

/// Why log lines could not be set up.
#[derive(Debug, Error)]
pub enum LoggingError {
    /// The filter is not one.
    #[error("bad log filter: {source} value={value}")]
    Filter {
        /// What is wrong with it.
        source: ParseError,
        /// The filter.
        value: String,
    },
    /// This process writes log lines already.
    #[error("log lines are set up already")]
    Twice,
}

/// Sends log lines of `level` and above to standard error from now on. `RUST_LOG`, where it is set and
/// not empty, wins.
///
/// # Errors
/// [`LoggingError`] for a filter that cannot be read, or a second call.
pub fn init(level: &str) -> Result<(), LoggingError> {
    let chosen = std::env::var("RUST_LOG")
        .ok()
        .filter(|filter| !filter.is_empty());
    let filter = filter(&chosen.unwrap_or_else(|| format!("{level},{SILENT}")))?;
    tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_ansi(std::io::stderr().is_terminal())
        .with_writer(std::io::stderr)
        .try_init()
        .map_err(|_| LoggingError::Twice)
}

fn filter(text: &str) -> Result<EnvFilter, LoggingError> {
    EnvFilter::try_new(text).map_err(|source| LoggingError::Filter {
        source,
        value: text.to_owned(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn levels_and_targets_are_filters_and_nonsense_is_not() {
        for text in LEVELS.iter().chain(&["info,catalog=debug", SILENT]) {
            assert!(filter(text).is_ok(), "{text}");
        }
        let refused = filter("catalog=loud").expect_err("no such level");
        assert!(refused.to_string().ends_with("value=catalog=loud"));
    }
}
