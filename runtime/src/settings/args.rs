//! Arguments that every program takes.

use std::path::PathBuf;

use clap::builder::{OsStringValueParser, PossibleValuesParser, TypedValueParser};

use super::SettingsError;
use super::layers::Layers;
use crate::logging::LEVELS;

/// Where `--help` lists arguments that are the same everywhere.
pub const COMMON: &str = "Common options";

/// Arguments that every program takes, to be flattened into its own.
#[derive(Debug, Clone, Default, clap::Args)]
pub struct CommonArgs {
    /// Settings file; without it ./stripelog.toml if that exists, or else the defaults
    // An empty name, as an empty variable gives it, is as none.
    #[arg(long, global = true, help_heading = COMMON, env = "STRIPELOG_CONFIG", value_name = "FILE",
          value_parser = OsStringValueParser::new().map(PathBuf::from))]
    pub config: Option<PathBuf>,
    /// URL of the object store that holds the log: file:///, s3://, gs:// or az://
    #[arg(long, global = true, help_heading = COMMON, value_name = "URL")]
    pub store: Option<String>,
    /// File with the key of the log; datagrams to and from the sequencer are signed and checked with it
    #[arg(long, global = true, help_heading = COMMON, value_name = "FILE")]
    pub key_file: Option<String>,
    /// Changes any setting; may be given more than once, and is stronger than everything else
    #[arg(long, global = true, help_heading = COMMON, value_name = "SECTION.KEY=VALUE")]
    pub set: Vec<String>,
    /// Least important log lines to write to standard error; RUST_LOG wins
    #[arg(long, global = true, help_heading = COMMON, value_name = "LEVEL", default_value = "info",
          value_parser = PossibleValuesParser::new(LEVELS))]
    pub log_level: String,
}

/// The file that is read if it is there and no other is named.
const DEFAULT_FILE: &str = "stripelog.toml";

impl CommonArgs {
    pub(super) fn file(&self) -> Option<PathBuf> {
        let default = || Some(PathBuf::from(DEFAULT_FILE)).filter(|file| file.exists());
        let named = self.config.clone();
        named
            .filter(|file| !file.as_os_str().is_empty())
            .or_else(default)
    }

    pub(super) fn overrides(
        &self,
        layers: &mut Layers,
        flags: &[(String, String)],
    ) -> Result<(), SettingsError> {
        if let Some(store) = &self.store {
            layers.set("store", store, "--store")?;
        }
        if let Some(file) = &self.key_file {
            layers.set("membership.key_file", file, "--key-file")?;
        }
        for (key, value) in flags {
            layers.set(key, value, "argument")?;
        }
        for text in &self.set {
            let value = text.clone();
            let (key, given) = text
                .split_once('=')
                .ok_or(SettingsError::Override { value })?;
            layers.set(key.trim(), given, "--set")?;
        }
        Ok(())
    }
}
