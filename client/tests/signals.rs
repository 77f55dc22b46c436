//! The `stripelog` command while it runs: signals, and servers that are not there.

mod support;

use std::io::Write;
use std::process::{Child, Command, Output};
use std::time::Duration;

use support::setup::{Setup, start};
use support::*;
use tokio::time::sleep;

trait Run {
    fn start(&self, arguments: &[&str]) -> Child;
    fn silent(&self, silent: bool);
}

impl Run for Setup {
    fn start(&self, arguments: &[&str]) -> Child {
        let mut all = self.arguments();
        all.extend(arguments.iter().map(|a| (*a).to_owned()));
        start(&all)
    }

    /// Sets whether the sequencer answers nothing.
    fn silent(&self, silent: bool) {
        let mut state = self.fixture.sequencer.state.lock().expect("not poisoned");
        state.silent = silent;
    }
}

fn interrupt(child: &Child) {
    let pid = child.id().to_string();
    let sent = Command::new("kill").args(["-INT", &pid]).status();
    assert!(sent.expect("kill is there").success());
}

async fn output(child: Child) -> (Option<i32>, String, String) {
    let ended = tokio::task::spawn_blocking(move || child.wait_with_output());
    let Output {
        status,
        stdout,
        stderr,
    } = ended.await.expect("runs").expect("ends");
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    (status.code(), text(&stdout), text(&stderr))
}

#[tokio::test(flavor = "multi_thread")]
async fn follow_ends_with_success_at_sigint() {
    let setup = Setup::new().await;
    let log = setup.fixture.open().await;
    append(&log, vec![record("one")]).await;
    let child = setup.start(&["follow"]);
    sleep(Duration::from_millis(700)).await;
    interrupt(&child);
    assert_eq!(
        output(child).await,
        (Some(0), "one\n".to_owned(), String::new())
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn follow_says_once_that_it_waits_for_servers() {
    let setup = Setup::new().await;
    setup.silent(true);
    setup.fixture.writer.stop().await;
    let child = setup.start(&["follow"]);
    sleep(Duration::from_secs(7)).await;
    interrupt(&child);
    let (code, _, told) = output(child).await;
    assert_eq!(code, Some(0), "{told}");
    let waits = "waiting for servers that do not answer";
    assert_eq!(told.matches(waits).count(), 1, "{told}");
    assert!(
        told.contains("sequencer") && told.contains("stripe-writer"),
        "{told}"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn an_interrupted_append_tells_what_was_appended() {
    let setup = Setup::new().await;
    let mut child = setup.start(&["append"]);
    let mut input = child.stdin.take().expect("piped");
    input.write_all(b"one\ntwo\nunfinished").expect("written");
    sleep(Duration::from_millis(700)).await;
    interrupt(&child);
    let (code, summary, told) = output(child).await;
    assert_eq!(code, Some(1), "{told}");
    assert!(
        summary.starts_with("appended records=2 bytes=6 "),
        "{summary}"
    );
    assert_eq!(
        told,
        "stripelog: interrupted: the input was not appended to its end\n"
    );
    drop(input);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_append_that_is_interrupted_twice_waits_no_longer() {
    let setup = Setup::new().await;
    setup.silent(true);
    let mut child = setup.start(&["append"]);
    let mut input = child.stdin.take().expect("piped");
    input.write_all(b"one\n").expect("written");
    sleep(Duration::from_millis(700)).await;
    interrupt(&child);
    sleep(Duration::from_millis(300)).await;
    assert!(child.try_wait().expect("asked").is_none(), "it waits");
    interrupt(&child);
    let (code, summary, told) = output(child).await;
    assert_eq!(code, Some(1), "{told}");
    assert!(summary.starts_with("appended records=0 "), "{summary}");
    assert_eq!(
        told,
        "stripelog: interrupted twice: bytes=4 more are sent, and may be in the log\n"
    );
    drop(input);
}
