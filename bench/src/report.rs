//! One line of JSON a point: its figures, and the bar beside them.

use std::io::Write;

use serde::Serialize;
use serde_json::{Map, Value, json};

/// The line that a verification point prints.
#[derive(Debug)]
pub(crate) struct Report {
    point: &'static str,
    figures: Map<String, Value>,
    missed: Vec<String>,
}

/// What a bar of speed is multiplied with in a short form. Its turns are too short, and the machines that
/// run it too busy, for the bar of the long form, which is what the documentation quotes.
#[must_use]
pub(crate) fn slack(short: bool) -> f64 {
    if short { 0.6 } else { 1.0 }
}

impl Report {
    /// A report on a point, without figures yet.
    #[must_use]
    pub(crate) fn new(point: &'static str) -> Self {
        Self {
            point,
            figures: Map::new(),
            missed: Vec::new(),
        }
    }

    /// A figure without a bar.
    pub(crate) fn figure(&mut self, name: &str, value: impl Serialize) {
        let value = serde_json::to_value(value).unwrap_or(Value::Null);
        self.figures.insert(name.to_owned(), value);
    }

    /// The fields of a structure, each a figure without a bar.
    pub(crate) fn figures(&mut self, all: &impl Serialize) {
        if let Ok(Value::Object(fields)) = serde_json::to_value(all) {
            self.figures.extend(fields);
        }
    }

    /// A figure that has to be exactly `bar`.
    pub(crate) fn exactly(&mut self, name: &str, value: impl Serialize, bar: impl Serialize) {
        let value = serde_json::to_value(value).unwrap_or(Value::Null);
        let bar = serde_json::to_value(bar).unwrap_or(Value::Null);
        if value != bar {
            self.missed.push(name.to_owned());
        }
        self.figures
            .insert(name.to_owned(), json!({ "value": value, "bar": bar }));
    }

    /// A figure that has to be at least `bar`.
    pub(crate) fn at_least(&mut self, name: &str, value: f64, bar: f64) {
        if value.is_nan() || value < bar {
            self.missed.push(name.to_owned());
        }
        let figure = json!({ "value": value, "bar": format!(">= {bar}") });
        self.figures.insert(name.to_owned(), figure);
    }

    /// A figure that has to be at most `bar`.
    pub(crate) fn at_most(&mut self, name: &str, value: f64, bar: f64) {
        if value.is_nan() || value > bar {
            self.missed.push(name.to_owned());
        }
        let figure = json!({ "value": value, "bar": format!("<= {bar}") });
        self.figures.insert(name.to_owned(), figure);
    }

    /// Whether every bar was met so far.
    #[must_use]
    pub(crate) fn holds(&self) -> bool {
        self.missed.is_empty()
    }

    /// The line.
    #[must_use]
    pub(crate) fn line(&self) -> Value {
        json!({
            "point": self.point,
            "figures": self.figures,
            "missed": self.missed,
            "ok": self.missed.is_empty(),
        })
    }

    /// Prints the line. Gives whether every bar was met.
    ///
    /// # Errors
    /// What standard output says.
    pub(crate) fn print(self) -> std::io::Result<bool> {
        writeln!(std::io::stdout().lock(), "{}", self.line())?;
        Ok(self.missed.is_empty())
    }
}
