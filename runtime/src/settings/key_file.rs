//! The file with the key of a log.

use std::fs::File;
use std::io::{self, Read};
use std::os::unix::fs::PermissionsExt;
use std::path::Path;

use wire::mac::Key;

use super::SettingsError;

/// Bytes of a key file that are read: a key, and white space around it.
const MOST: u64 = 1024;

/// Permissions of a file that give it to users that are neither its owner nor of its group. A group may
/// read it: that is how processes of several users share one.
const OTHERS: u32 = 0o007;

/// Reads a key file.
pub(super) fn read(path: &Path) -> Result<Key, SettingsError> {
    let refused = |why: String| SettingsError::KeyFile {
        file: path.display().to_string(),
        why,
    };
    let (mode, text) = content(path).map_err(|error| refused(error.to_string()))?;
    if mode & OTHERS != 0 {
        let why = format!(
            "every user of this machine can use it, as its mode {:03o} says; chmod 600",
            mode & 0o777
        );
        return Err(refused(why));
    }
    Key::parse(&text).map_err(|error| refused(error.to_string()))
}

fn content(path: &Path) -> io::Result<(u32, String)> {
    let file = File::open(path)?;
    let mode = file.metadata()?.permissions().mode();
    let mut text = String::new();
    file.take(MOST).read_to_string(&mut text)?;
    Ok((mode, text))
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use crate::settings::Settings;

    fn key(content: &[u8], mode: u32) -> Result<bool, String> {
        let file = tempfile::NamedTempFile::new().expect("temporary file");
        std::fs::write(file.path(), content).expect("written");
        let mode = std::fs::Permissions::from_mode(mode);
        std::fs::set_permissions(file.path(), mode).expect("set");
        let name = file.path().display().to_string();
        let settings = Settings::from_pairs(&[("membership.key_file", &name)]).expect("valid");
        let key = settings.key().map(|key| key.is_some());
        key.map_err(|error| error.to_string().replace(&name, "FILE"))
    }

    #[test]
    fn a_key_is_read_if_not_everybody_can_read_it() {
        let digits = "00112233445566778899aabbccddeeff".repeat(2);
        assert_eq!(key(format!("{digits}\n").as_bytes(), 0o600), Ok(true));
        assert_eq!(key(digits.as_bytes(), 0o440), Ok(true));
        let refused = |why: &str| Err(format!("bad key file: {why} file=FILE"));
        let open = "every user of this machine can use it, as its mode 644 says; chmod 600";
        assert_eq!(key(digits.as_bytes(), 0o644), refused(open));
        let short = "a key is one line of 64 hexadecimal digits: got=5 characters";
        assert_eq!(key(b"01234", 0o600), refused(short));
        let binary = "stream did not contain valid UTF-8";
        assert_eq!(key(&[0xff; 32], 0o600), refused(binary));
    }

    #[test]
    fn no_file_is_no_key_and_a_missing_file_is_an_error() {
        let none = Settings::from_pairs(&[]).expect("valid");
        assert!(none.key().is_ok_and(|key| key.is_none()));
        let pair = [("membership.key_file", "/nowhere/key")];
        let missing = Settings::from_pairs(&pair).expect("valid").key();
        let text = missing.expect_err("refused").to_string();
        let start = "bad key file: No such file or directory";
        assert!(
            text.starts_with(start) && text.ends_with("file=/nowhere/key"),
            "{text}"
        );
    }
}
