//! The `stripelog` command while it runs: signals, and servers that are not there.

mod support;

use std::io::{Read, Write};
use std::process::{Child, Command, Output};
use std::time::Duration;

use support::setup::{Setup, start};
use support::*;
use tokio::time::{sleep, timeout};
use wire::Position;

/// Far longer than anything takes that does happen.
const LONG: Duration = Duration::from_secs(60);

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

/// Waits until the command has said a text, and returns all that it has said, and where it says more.
async fn heard<R: Read + Send + 'static>(
    child: &mut Child,
    from: Option<R>,
    text: &'static str,
) -> (String, Option<R>) {
    let mut from = from.expect("piped");
    let hearing = tokio::task::spawn_blocking(move || {
        let (mut all, mut byte) = (Vec::new(), [0]);
        while !all.ends_with(text.as_bytes()) {
            from.read_exact(&mut byte).expect("it has more to say");
            all.extend(byte);
        }
        (String::from_utf8_lossy(&all).into_owned(), Some(from))
    });
    match timeout(LONG, hearing).await {
        Ok(heard) => heard.expect("is heard"),
        Err(_) => {
            child.kill().expect("is there");
            panic!("it did not say {text:?}");
        }
    }
}

async fn comes_true(fact: impl Fn() -> bool) {
    let waiting = async {
        while !fact() {
            sleep(Duration::from_millis(5)).await;
        }
    };
    timeout(LONG, waiting).await.expect("in time");
}

#[tokio::test(flavor = "multi_thread")]
async fn follow_ends_with_success_at_sigint() {
    let setup = Setup::new().await;
    let log = setup.fixture.open().await;
    append(&log, vec![record("one")]).await;
    let mut child = setup.start(&["follow"]);
    let stdout = child.stdout.take();
    let (said, stdout) = heard(&mut child, stdout, "\n").await;
    assert_eq!(said, "one\n");
    child.stdout = stdout;
    interrupt(&child);
    assert_eq!(output(child).await, (Some(0), String::new(), String::new()));
}

#[tokio::test(flavor = "multi_thread")]
async fn follow_says_once_that_it_waits_for_servers() {
    let setup = Setup::new().await;
    setup.silent(true);
    setup.fixture.writer.stop().await;
    let mut child = setup.start(&["follow"]);
    let stderr = child.stderr.take();
    let waits = "waiting for servers that do not answer";
    let (mut told, stderr) = heard(&mut child, stderr, waits).await;
    child.stderr = stderr;
    sleep(Duration::from_secs(3)).await;
    interrupt(&child);
    let (code, _, rest) = output(child).await;
    told.push_str(&rest);
    assert_eq!(code, Some(0), "{told}");
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
    let (writer, both) = (&setup.fixture.writer, Position(2));
    comes_true(|| writer.durable(both) == both).await;
    interrupt(&child);
    let (code, summary, told) = output(child).await;
    assert_eq!(code, Some(1), "{told}");
    assert!(
        summary.starts_with("appended records=2 bytes=6 "),
        "{summary}"
    );
    // The answer may have been on its way, so that it was waited for.
    let last = told.lines().last();
    let ends = "stripelog: interrupted: the input was not appended to its end";
    assert_eq!(last, Some(ends), "{told}");
    drop(input);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_append_that_is_interrupted_twice_waits_no_longer() {
    let setup = Setup::new().await;
    setup.silent(true);
    let mut child = setup.start(&["append"]);
    let mut input = child.stdin.take().expect("piped");
    input.write_all(b"one\n").expect("written");
    let sequencer = &setup.fixture.sequencer.state;
    let is_asked = || !sequencer.lock().expect("not poisoned").datagrams.is_empty();
    comes_true(is_asked).await;
    interrupt(&child);
    let stderr = child.stderr.take();
    let stopping = "stopping: waiting for what is sent, unless there is another signal";
    (_, child.stderr) = heard(&mut child, stderr, stopping).await;
    sleep(Duration::from_millis(300)).await;
    assert!(child.try_wait().expect("asked").is_none(), "it waits");
    interrupt(&child);
    let (code, summary, told) = output(child).await;
    assert_eq!(code, Some(1), "{told}");
    assert!(summary.starts_with("appended records=0 "), "{summary}");
    let ends = "stripelog: interrupted twice: bytes=4 more are sent, and may be in the log";
    assert_eq!(told.lines().last(), Some(ends), "{told}");
    drop(input);
}
