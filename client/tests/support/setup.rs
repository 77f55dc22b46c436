//! A log in a directory, and the command beside it.

use std::process::{Child, Command, Stdio};

use catalog::Store;
use tempfile::TempDir;

use super::Fixture;

/// A log in a directory, with servers in this process.
pub struct Setup {
    pub fixture: Fixture,
    pub directory: TempDir,
}

impl Setup {
    pub async fn new() -> Self {
        let directory = TempDir::new().expect("makes a directory");
        let url = format!("file://{}", directory.path().display());
        let store = Store::open(&url).expect("valid URL");
        let fixture = Fixture::in_store(store, 4, 8).await;
        Self { fixture, directory }
    }

    /// The arguments that lead to the log.
    pub fn arguments(&self) -> Vec<String> {
        let membership = self.fixture.membership();
        let writer = membership.writers[0].address;
        vec![
            format!("--store=file://{}", self.directory.path().display()),
            format!("--sequencer={}", membership.sequencers[0]),
            format!("--writer={writer}"),
        ]
    }
}

/// Starts the command, with pipes to and from it.
pub fn start<A: AsRef<std::ffi::OsStr>>(arguments: &[A]) -> Child {
    Command::new(env!("CARGO_BIN_EXE_stripelog"))
        .args(arguments)
        .current_dir(std::env::temp_dir())
        .env_remove("RUST_LOG")
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("starts")
}
