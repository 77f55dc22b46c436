//! Where values come from.

use std::collections::BTreeMap;
use std::path::Path;

use config::{Environment, File, FileFormat, Map, Source, Value, ValueKind};

use super::SettingsError;
use super::keys;

/// A value as text, and where it was given.
#[derive(Debug, Clone)]
pub(super) struct Given {
    pub(super) text: String,
    pub(super) from: String,
}

/// What was given, by key. Only known keys are ever in it.
#[derive(Debug, Clone, Default)]
pub(super) struct Layers(BTreeMap<&'static str, Given>);

impl Layers {
    /// Adds the values of a file.
    pub(super) fn file(&mut self, path: &Path) -> Result<(), SettingsError> {
        let file = path.display().to_string();
        let unreadable = |why: std::io::Error| SettingsError::File {
            file: file.clone(),
            why: why.to_string(),
        };
        let text = std::fs::read_to_string(path).map_err(unreadable)?;
        let source = File::from_str(&text, FileFormat::Toml);
        let values = source.collect().map_err(|error| SettingsError::Syntax {
            file: file.clone(),
            why: syntax(&error.to_string()),
        })?;
        self.tree("", values, &|_| file.clone())
    }

    /// Adds the values of the environment: of these variables, or of the process's own.
    pub(super) fn environment(
        &mut self,
        variables: Option<Map<String, String>>,
    ) -> Result<(), SettingsError> {
        match &variables {
            Some(variables) => refuse_almost(variables.keys().map(String::as_str))?,
            None => {
                let names: Vec<String> = std::env::vars_os()
                    .filter_map(|(name, _)| name.into_string().ok())
                    .collect();
                refuse_almost(names.iter().map(String::as_str))?;
            }
        }
        let source = Environment::with_prefix("STRIPELOG")
            .prefix_separator("__")
            .separator("__")
            .source(variables);
        let values = source.collect().map_err(|error| SettingsError::Syntax {
            file: "environment".to_owned(),
            why: syntax(&error.to_string()),
        })?;
        let variable = |key: &str| format!("environment variable {}", variable_of(key));
        self.tree("", values, &variable)
    }

    /// Adds one value.
    pub(super) fn set(&mut self, name: &str, text: &str, from: &str) -> Result<(), SettingsError> {
        let key = keys::find(name).ok_or_else(|| unknown(name, from))?;
        let (text, from) = (text.to_owned(), from.to_owned());
        self.0.insert(key.name, Given { text, from });
        Ok(())
    }

    pub(super) fn get(&self, name: &str) -> Option<&Given> {
        self.0.get(name)
    }

    fn tree(
        &mut self,
        prefix: &str,
        values: Map<String, Value>,
        from: &dyn Fn(&str) -> String,
    ) -> Result<(), SettingsError> {
        for (key, value) in values {
            let name = format!("{prefix}{key}");
            match value.kind {
                ValueKind::Table(inner) if keys::find(&name).is_none() && prefix.is_empty() => {
                    if inner.is_empty() && !is_section(&name) {
                        return Err(unknown(&name, &from(&name)));
                    }
                    self.tree(&format!("{name}."), inner, from)?;
                }
                kind => {
                    let from = from(&name);
                    keys::find(&name).ok_or_else(|| unknown(&name, &from))?;
                    let text = text(&name, kind, &from)?;
                    self.set(&name, &text, &from)?;
                }
            }
        }
        Ok(())
    }
}

/// Refuses names that would be those of a setting if their underscores were doubled: who sets one means
/// the setting, which would go unnoticed. Others are left alone, since where programs are run as services
/// of the name `stripelog` there are variables such as `STRIPELOG_SERVICE_HOST`.
fn refuse_almost<'a>(names: impl Iterator<Item = &'a str>) -> Result<(), SettingsError> {
    for got in names {
        let Some(rest) = got.strip_prefix("STRIPELOG_") else {
            continue;
        };
        let is_meant = |key: &&keys::Key| {
            let mut name = key.name.replace('.', "_");
            name.make_ascii_uppercase();
            rest == name
        };
        if let Some(key) = keys::KEYS.iter().find(is_meant) {
            return Err(SettingsError::Variable {
                got: got.to_owned(),
                meant: variable_of(key.name),
            });
        }
    }
    Ok(())
}

fn variable_of(key: &str) -> String {
    let name = key.to_uppercase().replace('.', "__");
    format!("STRIPELOG__{name}")
}

fn is_section(name: &str) -> bool {
    let section = |key: &keys::Key| key.name.split_once('.').is_some_and(|(s, _)| s == name);
    keys::KEYS.iter().any(section)
}

fn unknown(name: &str, from: &str) -> SettingsError {
    SettingsError::Unknown {
        key: name.to_owned(),
        from: from.to_owned(),
        allowed: keys::near(name),
    }
}

/// The one text form of a value: numbers as they are, lists with commas between, and a member of a list
/// of writers as `ADDRESS=FIRST-LAST`.
fn text(name: &str, kind: ValueKind, from: &str) -> Result<String, SettingsError> {
    match kind {
        ValueKind::Nil => Ok(String::new()),
        ValueKind::Array(members) => {
            let members: Vec<String> = members
                .into_iter()
                .enumerate()
                .map(|(at, member)| text(&format!("{name}[{at}]"), member.kind, from))
                .collect::<Result<_, _>>()?;
            Ok(members.join(","))
        }
        ValueKind::Table(mut fields) => {
            let mut field = |key: &str| fields.remove(key).map(|value| value.to_string());
            let (address, stripes) = (field("address"), field("stripes"));
            if let Some(key) = fields.keys().next() {
                return Err(SettingsError::Unknown {
                    key: format!("{name}.{key}"),
                    from: from.to_owned(),
                    allowed: "address, stripes".to_owned(),
                });
            }
            let address = address.unwrap_or_default();
            Ok(stripes.map_or(address.clone(), |stripes| format!("{address}={stripes}")))
        }
        scalar => Ok(scalar.to_string()),
    }
}

/// A parser's message without the lines that draw an arrow below the text.
fn syntax(message: &str) -> String {
    let drawing = |line: &&str| {
        let line = line.trim();
        let numbered = line.split('|').next().unwrap_or("").trim();
        !(line.contains('|') && numbered.bytes().all(|byte| byte.is_ascii_digit()))
    };
    let lines: Vec<&str> = message.lines().filter(drawing).map(str::trim).collect();
    let lines = lines.into_iter().filter(|line| !line.is_empty());
    lines.collect::<Vec<_>>().join(": ")
}
