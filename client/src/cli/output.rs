//! What commands write: text or JSON, to standard output or a file.

use std::fs::File;
use std::io::{self, BufWriter, Write};
use std::path::Path;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde::Serialize;
use stripelog::{Content, Item};

use super::Shown;
use super::failure::Failure;

/// Bytes that are gathered before they are written.
const BUFFER_BYTES: usize = 256 << 10;

/// Where a command writes.
pub(crate) struct Output {
    to: BufWriter<Box<dyn Write + Send>>,
}

impl Output {
    pub(crate) fn stdout() -> Self {
        Self::to(Box::new(io::stdout()))
    }

    /// A new file, or standard output.
    pub(crate) fn file(path: Option<&Path>) -> Result<Self, Failure> {
        let Some(path) = path else {
            return Ok(Self::stdout());
        };
        let file = File::create(path).map_err(|source| Failure::Io {
            what: format!("creating the file {}", path.display()),
            source,
        })?;
        Ok(Self::to(Box::new(file)))
    }

    fn to(to: Box<dyn Write + Send>) -> Self {
        let to = BufWriter::with_capacity(BUFFER_BYTES, to);
        Self { to }
    }

    /// Writes bytes and a newline.
    pub(crate) fn line(&mut self, bytes: impl AsRef<[u8]>) -> Result<(), Failure> {
        let written = self.to.write_all(bytes.as_ref());
        written
            .and_then(|()| self.to.write_all(b"\n"))
            .map_err(Failure::output)
    }

    /// Writes a value as one line of JSON.
    pub(crate) fn json(&mut self, value: &impl Serialize) -> Result<(), Failure> {
        serde_json::to_writer(&mut self.to, value).map_err(|e| Failure::output(e.into()))?;
        self.line("")
    }

    /// Writes what a scan hands out.
    pub(crate) fn item(&mut self, item: &Item, shown: &Shown, json: bool) -> Result<(), Failure> {
        if json {
            return self.json(&JsonItem::of(item));
        }
        let position = item.position;
        match &item.content {
            Content::Junk { count } => self.line(format!("junk first={position} count={count}")),
            Content::Record(record) => {
                if shown.positions {
                    let written = write!(self.to, "{position}\t");
                    written.map_err(Failure::output)?;
                }
                self.line(record)
            }
        }
    }

    /// Hands everything on.
    pub(crate) fn flush(&mut self) -> Result<(), Failure> {
        self.to.flush().map_err(Failure::output)
    }
}

/// A record, as text where that is possible, or junk.
#[derive(Serialize)]
struct JsonItem<'a> {
    position: u64,
    #[serde(skip_serializing_if = "Option::is_none")]
    text: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    base64: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    junk: Option<u64>,
}

impl<'a> JsonItem<'a> {
    fn of(item: &'a Item) -> Self {
        let (text, base64, junk) = match &item.content {
            Content::Junk { count } => (None, None, Some(*count)),
            Content::Record(record) => match std::str::from_utf8(record) {
                Ok(text) => (Some(text), None, None),
                Err(_) => (None, Some(STANDARD.encode(record)), None),
            },
        };
        Self {
            position: item.position.0,
            text,
            base64,
            junk,
        }
    }
}

#[cfg(test)]
mod tests {
    use stripelog::Position;

    use super::*;

    fn json(record: &'static [u8]) -> String {
        let item = Item {
            position: Position(3),
            content: Content::Record(record.into()),
        };
        serde_json::to_string(&JsonItem::of(&item)).expect("plain data")
    }

    #[test]
    fn records_are_text_if_they_are_and_base64_if_not() {
        assert_eq!(json(b"a\"b"), r#"{"position":3,"text":"a\"b"}"#);
        assert_eq!(json(b"\xff\x00"), r#"{"position":3,"base64":"/wA="}"#);
    }
}
