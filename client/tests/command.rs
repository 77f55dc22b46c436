//! The `stripelog` command as its users meet it.

mod support;

use std::io::Write;
use std::path::Path;
use std::process::{Command, Output, Stdio};

use catalog::Store;
use serde_json::Value;
use support::setup::{Setup, start};
use tempfile::TempDir;
use wire::Layout;

trait Run {
    async fn run(&self, arguments: &[&str], input: &[u8]) -> Output;
}

impl Run for Setup {
    async fn run(&self, arguments: &[&str], input: &[u8]) -> Output {
        let mut all = self.arguments();
        all.extend(arguments.iter().map(|a| (*a).to_owned()));
        let input = input.to_vec();
        let run = move || stripelog(&all, &input);
        tokio::task::spawn_blocking(run).await.expect("runs")
    }
}

fn url(directory: &Path) -> String {
    format!("file://{}", directory.display())
}

fn stripelog<A: AsRef<std::ffi::OsStr>>(arguments: &[A], input: &[u8]) -> Output {
    let mut child = start(arguments);
    // A command that does not read its input may be gone already.
    let _ = child.stdin.take().expect("piped").write_all(input);
    child.wait_with_output().expect("ends")
}

/// The command fails with this code and one line that says all of this.
fn assert_refused(output: &Output, code: i32, says: &[&str]) {
    let text = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(code), "{text}");
    assert_eq!(text.trim_end().lines().count(), 1, "{text}");
    for part in says {
        assert!(text.contains(part), "{part}: {text}");
    }
    assert!(!text.contains("panicked"), "{text}");
}

fn json(output: &Output) -> Value {
    let text = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{text}");
    serde_json::from_slice(&output.stdout).expect("one JSON object")
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_appended_is_read_back_byte_for_byte() {
    let setup = Setup::new().await;
    let mut input = Vec::new();
    for i in 0..3000_u32 {
        input.extend(format!("{i},some text, \u{e9}\r").into_bytes());
        input.extend([0, 0xff, b'\t']);
        input.push(b'\n');
        if i % 7 == 0 {
            input.push(b'\n');
        }
    }
    let summary = json(&setup.run(&["append", "--json"], &input).await);
    let lines = input.iter().filter(|b| **b == b'\n').count() as u64;
    assert_eq!(summary["records"], lines);
    assert_eq!(summary["bytes"], input.len() as u64 - lines);
    assert_eq!(
        (&summary["first"], &summary["last"]),
        (&0.into(), &(lines - 1).into())
    );

    let read = setup.run(&["read"], b"").await;
    assert!(read.status.success(), "{read:?}");
    assert!(read.stdout == input, "bytes differ");

    let out = setup.directory.path().join("out");
    let out = out.to_str().expect("text");
    let part = setup
        .run(
            &["read", "--from=1", "--to=9", "--count=3", "--out", out],
            b"",
        )
        .await;
    assert!(part.status.success(), "{part:?}");
    let expected: Vec<_> = input
        .split_inclusive(|b| *b == b'\n')
        .skip(1)
        .take(3)
        .collect();
    assert_eq!(std::fs::read(out).expect("written"), expected.concat());

    let follow = setup.run(&["follow", "--from=1", "--count=3"], b"").await;
    assert_eq!(follow.stdout, expected.concat());

    let file = setup.directory.path().join("in");
    std::fs::write(&file, b"a line\nlast, without newline").expect("writes");
    let appended = setup
        .run(&["append", file.to_str().expect("text")], b"")
        .await;
    let text = String::from_utf8_lossy(&appended.stdout);
    assert!(text.starts_with("appended records=2 bytes=27 "), "{text}");
    assert!(
        appended.stderr.is_empty(),
        "no progress bar without a terminal"
    );

    let verified = json(&setup.run(&["verify", "--json"], b"").await);
    assert_eq!(
        (&verified["clean"], &verified["records"]),
        (&true.into(), &(lines + 2).into())
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn json_holds_text_binary_and_junk() {
    let setup = Setup::new().await;
    setup.run(&["append"], b"text\n\xff\x00\n").await;
    setup
        .fixture
        .sequencer
        .state
        .lock()
        .expect("not poisoned")
        .next = 5;
    setup.fixture.writer.fill_to(wire::Position(5)).await;
    let read = setup.run(&["read", "--json", "--junk"], b"").await;
    let lines: Vec<Value> = String::from_utf8(read.stdout)
        .expect("JSON is text")
        .lines()
        .map(|line| serde_json::from_str(line).expect("JSON"))
        .collect();
    assert_eq!(
        lines[0],
        serde_json::json!({ "position": 0, "text": "text" })
    );
    assert_eq!(
        lines[1],
        serde_json::json!({ "position": 1, "base64": "/wA=" })
    );
    assert_eq!(lines[2], serde_json::json!({ "position": 2, "junk": 3 }));
    let read = setup.run(&["read", "--positions", "--junk"], b"").await;
    assert_eq!(read.stdout, b"0\ttext\n1\t\xff\x00\njunk first=2 count=3\n");
    let tail = json(&setup.run(&["tail", "--json"], b"").await);
    assert_eq!(
        tail,
        serde_json::json!({ "tail": "linearizable", "position": 5 })
    );
    let tail = setup.run(&["tail", "issued"], b"").await;
    assert_eq!(tail.stdout, b"5\n");
    let status = json(&setup.run(&["status", "--json"], b"").await);
    assert_eq!(status["stripes"].as_array().expect("stripes").len(), 4);
    assert_eq!(status["sequencer"]["issued"], 5);
}

#[tokio::test(flavor = "multi_thread")]
async fn lessons_28_a_line_above_the_limit_is_named_and_what_was_done_is_told() {
    let setup = Setup::new().await;
    let mut input = b"one\ntwo\n".to_vec();
    input.extend(vec![b'x'; wire::limits::MAX_RECORD_BYTES + 1]);
    input.extend(b"\nfour\n");
    let output = setup.run(&["append"], &input).await;
    assert_refused(
        &output,
        1,
        &["line 3", "limit=1048576", "records=2", "last=1"],
    );
    let read = setup.run(&["read"], b"").await;
    assert_eq!(read.stdout, b"one\ntwo\n");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_server_that_does_not_answer_is_told_in_time() {
    let setup = Setup::new().await;
    setup
        .fixture
        .sequencer
        .state
        .lock()
        .expect("not poisoned")
        .silent = true;
    let short = "--set=client.append_timeout_ms=300";
    let output = setup.run(&[short, "append"], b"one\n").await;
    assert_refused(
        &output,
        1,
        &[
            "append failed",
            "certainly not in the log",
            "sequencer is not available",
            "records=0",
        ],
    );
    let output = setup.run(&[short, "tail"], b"").await;
    assert_refused(&output, 1, &["sequencer", "not available"]);
    let output = setup.run(&[short, "--json", "tail"], b"").await;
    let told: Value = serde_json::from_slice(&output.stderr).expect("JSON");
    assert_eq!(
        (&told["kind"], &told["definite"]),
        (&"retry".into(), &true.into())
    );
    // Reading a given range needs the store alone.
    setup.fixture.writer.stop().await;
    let output = setup.run(&["read", "--to=0"], b"").await;
    assert!(output.status.success(), "{output:?}");
    let status = setup.run(&["status"], b"").await;
    assert!(String::from_utf8_lossy(&status.stdout).contains("problem: "));
    assert_eq!(status.status.code(), Some(1), "something does not answer");
}

#[tokio::test(flavor = "multi_thread")]
async fn verify_says_what_is_lost_and_exits_with_1() {
    let setup = Setup::new().await;
    for _ in 0..3 {
        setup.run(&["append"], &b"line\n".repeat(8 * 4)).await;
    }
    let prefix = format!("{}/stripes", setup.fixture.catalog.id());
    let store = setup.fixture.catalog.store();
    let listed = store.list(&prefix, None).await.expect("lists");
    store.delete(&listed[1].name).await.expect("deletes");
    let output = setup.run(&["verify", "--fast"], b"").await;
    assert_eq!(output.status.code(), Some(1));
    let text = String::from_utf8_lossy(&output.stdout);
    assert!(
        text.contains("missing: segment=0 stripe=0 from=32 to=64"),
        "{text}"
    );
    assert!(text.contains("NOT CLEAN"), "{text}");
    assert!(output.stderr.is_empty());
    let output = setup.run(&["read"], b"").await;
    assert_refused(&output, 1, &["missing object", &listed[1].name]);
}

#[tokio::test(flavor = "multi_thread")]
async fn nobody_who_reads_the_output_is_no_error() {
    let setup = Setup::new().await;
    setup
        .run(
            &["append"],
            &[&[b'x'; 5000][..], b"\n"].concat().repeat(300),
        )
        .await;
    let mut child = Command::new(env!("CARGO_BIN_EXE_stripelog"))
        .args(setup.arguments())
        .arg("read")
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("starts");
    drop(child.stdout.take());
    let output = tokio::task::spawn_blocking(move || child.wait_with_output());
    let output = output.await.expect("runs").expect("ends");
    assert!(output.status.success(), "{output:?}");
    assert!(output.stderr.is_empty(), "{output:?}");
}

#[test]
fn wrong_settings_are_wrong_usage() {
    let cases: [(&[&str], &[&str]); 8] = [
        (&["read", "--from=10", "--to=5"], &["--to", "10", "5"]),
        (&["read", "--cache="], &["--cache", "directory"]),
        (
            &["--store=ftp://host/log", "read"],
            &["store", "ftp://host/log"],
        ),
        (&["--set=client.colour=1", "tail"], &["client.colour"]),
        (
            &["--sequencer=nowhere", "tail"],
            &["membership.sequencer", "nowhere"],
        ),
        (
            &["--writer=1.2.3.4", "tail"],
            &["membership.writers", "1.2.3.4"],
        ),
        (&["create", "--stripes=0"], &["log.stripes", "0"]),
        (
            &["--config=/no/such/file.toml", "tail"],
            &["/no/such/file.toml"],
        ),
    ];
    for (arguments, says) in cases {
        assert_refused(&stripelog(arguments, b""), 2, says);
    }
    let unknown = stripelog(&["remember"], b"");
    assert_eq!(unknown.status.code(), Some(2));
}

#[test]
fn an_unknown_key_in_the_file_is_named_with_the_file() {
    let directory = TempDir::new().expect("makes a directory");
    let file = directory.path().join("stripelog.toml");
    std::fs::write(&file, "[client]\nappend_timeout = 3\n").expect("writes");
    let config = format!("--config={}", file.display());
    let output = stripelog(&[config.as_str(), "tail"], b"");
    assert_refused(&output, 2, &["client.append_timeout", "stripelog.toml"]);
}

#[test]
fn a_store_without_a_log_or_a_directory_is_said_to_be() {
    let directory = TempDir::new().expect("makes a directory");
    let empty = format!("--store={}", url(directory.path()));
    assert_refused(
        &stripelog(&[empty.as_str(), "read"], b""),
        1,
        &["no log here", "stripelog create"],
    );
    let missing = format!("--store={}/missing", url(directory.path()));
    for command in ["create", "status"] {
        assert_refused(
            &stripelog(&[missing.as_str(), command], b""),
            1,
            &["missing"],
        );
    }
    let input = stripelog(&[empty.as_str(), "append", "/no/such/file"], b"");
    assert_eq!(input.status.code(), Some(1));
}

#[test]
fn a_log_is_created_once() {
    let directory = TempDir::new().expect("makes a directory");
    let store = format!("--store={}", url(directory.path()));
    let create = [
        store.as_str(),
        "create",
        "--stripes=3",
        "--unit=5",
        "--json",
    ];
    let created = json(&stripelog(&create, b""));
    assert_eq!(
        (&created["stripes"], &created["unit"]),
        (&3.into(), &5.into())
    );
    assert_refused(
        &stripelog(&create[..2], b""),
        1,
        &["there is a log already"],
    );
    let layout = Layout::new(3, 5).expect("valid");
    let store = Store::open(&url(directory.path())).expect("valid");
    let runtime = tokio::runtime::Runtime::new().expect("starts");
    let entry = runtime.block_on(async {
        let log = catalog::Log::open(store).await.expect("opens");
        log.last().await.expect("reads")
    });
    assert_eq!(entry.segments[0].layout, layout);
}

#[test]
fn a_key_is_written_to_a_new_file_of_its_owner_and_is_one() {
    use std::os::unix::fs::PermissionsExt;

    let directory = TempDir::new().expect("makes a directory");
    let file = directory.path().join("key");
    let name = file.to_str().expect("text");
    let made = stripelog(&["key", name], b"");
    assert!(made.status.success(), "{made:?}");
    assert_eq!(made.stdout, format!("key_file={name}\n").into_bytes());
    let mode = std::fs::metadata(&file)
        .expect("there")
        .permissions()
        .mode();
    assert_eq!(mode & 0o777, 0o600);
    let text = std::fs::read_to_string(&file).expect("read");
    assert!(text.ends_with('\n') && wire::mac::Key::parse(&text).is_ok());
    assert_refused(&stripelog(&["key", name], b""), 1, &[name, "exists"]);
    assert_eq!(std::fs::read_to_string(&file).expect("read"), text);

    let shown = stripelog(&["key"], b"");
    let shown = String::from_utf8(shown.stdout).expect("text");
    assert!(wire::mac::Key::parse(&shown).is_ok());
    assert_ne!(shown, text, "drawn anew");
    let refused = stripelog(&["--key-file=/nowhere/key", "tail"], b"");
    assert_refused(&refused, 2, &["bad key file", "/nowhere/key"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn with_the_key_file_of_the_sequencer_everything_goes_on() {
    let setup = Setup::new().await;
    let file = setup.directory.path().join("key");
    let flag = format!("--key-file={}", file.display());
    stripelog(&["key", file.to_str().expect("text")], b"");
    let text = std::fs::read_to_string(&file).expect("read");
    let key = wire::mac::Key::parse(&text).expect("a key");
    let state = &setup.fixture.sequencer.state;
    state.lock().expect("not poisoned").key = Some(key);
    let appended = setup.run(&[&flag, "append"], b"one\n").await;
    assert!(appended.status.success(), "{appended:?}");
    let short = "--set=client.append_timeout_ms=300";
    let refused = setup.run(&[short, "append"], b"two\n").await;
    assert_refused(&refused, 1, &["no answer; if it has a key file"]);
    let status = setup.run(&[&flag, "status"], b"").await;
    assert!(status.status.success(), "{status:?}");
}
