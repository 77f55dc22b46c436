//! One `stripelog.toml` for all programs.
//!
//! A value comes from the strongest of: `--set section.key=value`, a flag of the program, `--store`, the
//! environment (`STRIPELOG__SECTION__KEY`), the file, the default. Every key stands in one table
//! ([`KEYS`]) with its kind, default, unit and meaning; help, documentation and the text of errors come
//! from there. A key that is not in it is an error, wherever it came from.

mod args;
mod describe;
mod error;
mod key_file;
mod keys;
mod kind;
mod layers;
mod membership;
mod reader;
mod sequencer;
mod types;

pub use args::{COMMON, CommonArgs};
pub use catalog::{Membership, Writer};
pub use error::SettingsError;
pub use keys::{KEYS, Key};
pub use kind::Kind;
#[cfg(feature = "etcd")]
pub(crate) use membership::stripes;
pub use sequencer::{Backend, SequencerSettings, Wait, XdpMode};
pub use types::{ClientSettings, EtcdSettings, LogSettings, Settings, WriterSettings};

#[cfg(test)]
mod tests;
