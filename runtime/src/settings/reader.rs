//! From texts to typed values.

use std::net::SocketAddr;
use std::ops::RangeInclusive;
use std::path::PathBuf;
use std::time::Duration;

use catalog::Writer;

use super::SettingsError;
use super::keys::{self, Key};
use super::kind::{self, Kind};
use super::layers::{Given, Layers};
use super::membership;

/// Reads keys by name, each with the check of its kind.
#[derive(Debug)]
pub(super) struct Reader(pub(super) Layers);

impl Reader {
    pub(super) fn number(&self, name: &'static str) -> Result<u64, SettingsError> {
        self.read(name, Kind::count)
    }

    pub(super) fn size(&self, name: &'static str) -> Result<usize, SettingsError> {
        self.read(name, |kind, text| usize::try_from(kind.count(text)?).ok())
    }

    pub(super) fn small(&self, name: &'static str) -> Result<u32, SettingsError> {
        self.read(name, |kind, text| u32::try_from(kind.count(text)?).ok())
    }

    pub(super) fn mebibytes(&self, name: &'static str) -> Result<usize, SettingsError> {
        self.read(name, |kind, text| {
            usize::try_from(kind.count(text)?)
                .ok()?
                .checked_mul(1 << 20)
        })
    }

    pub(super) fn millis(&self, name: &'static str) -> Result<Duration, SettingsError> {
        Ok(Duration::from_millis(self.number(name)?))
    }

    pub(super) fn word(&self, name: &'static str) -> Result<&'static str, SettingsError> {
        self.read(name, Kind::word)
    }

    pub(super) fn url(&self, name: &'static str) -> Result<String, SettingsError> {
        self.read(name, Kind::url)
    }

    pub(super) fn address(&self, name: &'static str) -> Result<SocketAddr, SettingsError> {
        self.read(name, |_, text| kind::address(text))
    }

    pub(super) fn addresses(&self, name: &'static str) -> Result<Vec<SocketAddr>, SettingsError> {
        self.read(name, |_, text| kind::addresses(text))
    }

    pub(super) fn optional_address(
        &self,
        name: &'static str,
    ) -> Result<Option<SocketAddr>, SettingsError> {
        self.read(name, |_, text| match text.trim() {
            "" => Some(None),
            text => kind::address(text).map(Some),
        })
    }

    pub(super) fn optional_interface(
        &self,
        name: &'static str,
    ) -> Result<Option<String>, SettingsError> {
        self.read(name, |_, text| kind::interface(text.trim()))
    }

    pub(super) fn optional_file(
        &self,
        name: &'static str,
    ) -> Result<Option<PathBuf>, SettingsError> {
        self.read(name, |_, text| {
            let file = Some(PathBuf::from(text)).filter(|_| !text.is_empty());
            (!text.chars().any(char::is_control)).then_some(file)
        })
    }

    pub(super) fn cores(&self, name: &'static str) -> Result<Vec<usize>, SettingsError> {
        self.read(name, |_, text| kind::cores(text))
    }

    pub(super) fn writers(&self, name: &'static str) -> Result<Vec<Writer>, SettingsError> {
        self.read(name, |_, text| membership::writers(text))
    }

    pub(super) fn stripes(&self, name: &'static str) -> Result<RangeInclusive<u16>, SettingsError> {
        self.read(name, |_, text| membership::stripes(text))
    }

    pub(super) fn endpoints(&self, name: &'static str) -> Result<Vec<String>, SettingsError> {
        self.read(name, |_, text| kind::endpoints(text))
    }

    pub(super) fn prefix(&self, name: &'static str) -> Result<String, SettingsError> {
        self.read(name, |_, text| kind::prefix(text))
    }

    /// Refuses the value of a key for a reason that its kind does not know.
    pub(super) fn refuse(&self, name: &'static str, allowed: String) -> SettingsError {
        match self.given(name) {
            Ok((key, given)) => refused(key, given, allowed),
            Err(error) => error,
        }
    }

    fn read<T>(
        &self,
        name: &'static str,
        parse: impl FnOnce(&Kind, &str) -> Option<T>,
    ) -> Result<T, SettingsError> {
        let (key, given) = self.given(name)?;
        parse(&key.kind, &given.text).ok_or_else(|| refused(key, given, key.kind.allowed()))
    }

    fn given(&self, name: &'static str) -> Result<(&'static Key, Given), SettingsError> {
        let key = keys::find(name).ok_or(SettingsError::Table { key: name })?;
        let default = || Given {
            text: key.default.to_owned(),
            from: "default".to_owned(),
        };
        let given = self.0.get(name).cloned().unwrap_or_else(default);
        Ok((key, given))
    }
}

fn refused(key: &Key, given: Given, allowed: String) -> SettingsError {
    SettingsError::Value {
        key: key.name.to_owned(),
        value: one_line(&given.text),
        from: given.from,
        allowed,
    }
}

/// A value as it can be shown: one line, not too long, and visible if it is empty.
fn one_line(text: &str) -> String {
    const MOST: usize = 200;
    let shown: String = text
        .chars()
        .take(MOST)
        .flat_map(char::escape_debug)
        .collect();
    if shown.is_empty() {
        "\"\"".to_owned()
    } else {
        shown
    }
}
