//! How a program ends.

use std::error::Error;
use std::process::ExitCode;

use crate::settings::SettingsError;

/// Exit code of a program that was used wrongly: its arguments, or its settings.
pub const USAGE: u8 = 2;

/// Ends a program: success, or one line on standard error and exit code 1, or [`USAGE`] if it is the
/// settings that are wrong.
///
/// ```
/// let outcome: Result<(), std::io::Error> = Ok(());
/// assert_eq!(runtime::exit::with("stripelog", outcome), std::process::ExitCode::SUCCESS);
/// ```
pub fn with<E>(program: &str, outcome: Result<(), E>) -> ExitCode
where
    E: Into<Box<dyn Error>>,
{
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            let error = error.into();
            eprintln!("{program}: {}", line(error.as_ref()));
            if is_usage(error.as_ref()) {
                ExitCode::from(USAGE)
            } else {
                ExitCode::FAILURE
            }
        }
    }
}

fn is_usage(error: &(dyn Error + 'static)) -> bool {
    error.is::<SettingsError>() || error.source().is_some_and(is_usage)
}

/// An error and its causes as one line. A cause that the text before it already quotes is left out.
#[must_use]
pub fn line(error: &dyn Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        let part = error.to_string();
        if !text.contains(&part) {
            text = format!("{text}: {part}");
        }
        cause = error.source();
    }
    text.split_whitespace().collect::<Vec<_>>().join(" ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Debug, thiserror::Error)]
    #[error("store failed\n  url=file:///x")]
    struct Outer(#[source] std::io::Error);

    #[derive(Debug, thiserror::Error)]
    #[error("store failed: {0}")]
    struct Quoting(#[source] std::io::Error);

    #[test]
    fn causes_make_one_line_and_are_told_once() {
        let cause = || std::io::Error::other("disk is gone");
        let text = "store failed url=file:///x: disk is gone";
        assert_eq!(line(&Outer(cause())), text);
        assert_eq!(line(&Quoting(cause())), "store failed: disk is gone");
    }

    #[test]
    fn an_error_is_exit_code_1() {
        let outcome = Err(std::io::Error::other("no"));
        assert_eq!(with("test", outcome), ExitCode::FAILURE);
    }

    #[test]
    fn wrong_settings_are_exit_code_2_wherever_they_were_met() {
        let bad = || SettingsError::Table { key: "k" };
        assert_eq!(with("test", Err::<(), _>(bad())), ExitCode::from(USAGE));
        let boxed: Box<dyn Error> = Box::new(bad());
        assert_eq!(with("test", Err::<(), _>(boxed)), ExitCode::from(USAGE));
        let outer = std::io::Error::other(Wrapped(bad()));
        assert_eq!(with("test", Err::<(), _>(outer)), ExitCode::from(USAGE));
    }

    #[derive(Debug, thiserror::Error)]
    #[error("starting")]
    struct Wrapped(#[source] SettingsError);
}
