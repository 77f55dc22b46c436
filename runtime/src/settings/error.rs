//! What can be wrong with settings.

use thiserror::Error;

/// Why settings were refused, in one line.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[non_exhaustive]
pub enum SettingsError {
    /// The file is not there, or cannot be read.
    #[error("cannot read the settings file: {why} file={file}")]
    File {
        /// Path of the file.
        file: String,
        /// What the system said.
        why: String,
    },
    /// The file is not TOML.
    #[error("not a settings file: {why} file={file}")]
    Syntax {
        /// Path of the file.
        file: String,
        /// Where and what.
        why: String,
    },
    /// A key that no program knows.
    #[error("unknown setting {key} ({from}); allowed: {allowed}")]
    Unknown {
        /// The key as it was given.
        key: String,
        /// Where it was given.
        from: String,
        /// The keys that may stand in its place.
        allowed: String,
    },
    /// A value that its key cannot have.
    #[error("bad setting {key}={value} ({from}); allowed: {allowed}")]
    Value {
        /// The key.
        key: String,
        /// The value as it was given.
        value: String,
        /// Where it was given.
        from: String,
        /// What is allowed.
        allowed: String,
    },
    /// The key file is not there, cannot be read, has no key in it, or can be read by everybody.
    #[error("bad key file: {why} file={file}")]
    KeyFile {
        /// Path of the file.
        file: String,
        /// What is wrong with it.
        why: String,
    },
    /// A variable of the environment that is almost the one of a setting.
    #[error("environment variable {got} is none of ours; meant: {meant}")]
    Variable {
        /// The name that is set.
        got: String,
        /// The name of the setting.
        meant: String,
    },
    /// An override that has no `=` in it.
    #[error("bad argument --set {value}; allowed: section.key=value")]
    Override {
        /// The override.
        value: String,
    },
    /// A key that is missing from the table: an error of this program, not of its user.
    #[error("no such key in the table of settings: key={key}")]
    Table {
        /// The key.
        key: &'static str,
    },
}
