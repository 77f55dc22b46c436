//! `stripelog key`.

use std::fs::OpenOptions;
use std::io::{self, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;

use rand::TryRngCore;
use rand::rngs::OsRng;
use serde_json::json;
use wire::mac::KEY_BYTES;

use super::failure::Failure;
use super::output::Output;

/// Only its owner may use a new key file.
const MODE: u32 = 0o600;

pub(crate) fn run(file: Option<&Path>, json: bool) -> Result<(), Failure> {
    let mut bytes = [0; KEY_BYTES];
    let drawn = OsRng.try_fill_bytes(&mut bytes);
    drawn.map_err(|error| Failure::Io {
        what: "drawing a key".to_owned(),
        source: io::Error::other(error),
    })?;
    let digits: String = bytes.iter().map(|byte| format!("{byte:02x}")).collect();
    let mut out = Output::stdout();
    match file {
        Some(path) => {
            let failed = |source| Failure::Io {
                what: format!("creating the key file {}", path.display()),
                source,
            };
            write_new(path, &digits).map_err(failed)?;
            let file = path.display().to_string();
            if json {
                out.json(&json!({ "key_file": file }))?;
            } else {
                out.line(format!("key_file={file}"))?;
            }
        }
        None if json => out.json(&json!({ "key": digits }))?,
        None => out.line(digits)?,
    }
    out.flush()
}

/// Writes a file that must not be there yet: a key that is in use is not overwritten.
fn write_new(path: &Path, digits: &str) -> io::Result<()> {
    let mut options = OpenOptions::new();
    let mut file = options.write(true).create_new(true).mode(MODE).open(path)?;
    file.write_all(format!("{digits}\n").as_bytes())?;
    file.sync_all()
}
