//! `stripelog restripe` as its users meet it, with a sequencer of the test's own (H-5).

mod support;

use std::fs::Permissions;
use std::os::unix::fs::PermissionsExt;
use std::process::Output;
use std::time::Duration;

use serde_json::Value;
use support::sequencer::Answer;
use support::setup::{Setup, start};
use tokio::time::{sleep, timeout};
use wire::datagram::{Kind, Status};
use wire::mac::Key;
use wire::{Epoch, Layout, Position, Segment, SegmentId};

const SOON: Duration = Duration::from_secs(20);

async fn run(setup: &Setup, arguments: &[&str]) -> Output {
    let mut all = setup.arguments();
    all.extend(arguments.iter().map(|a| (*a).to_owned()));
    let run = move || start(&all).wait_with_output().expect("ends");
    tokio::task::spawn_blocking(run).await.expect("runs")
}

fn assert_refused(output: &Output, code: i32, says: &str) {
    let text = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(code), "{text}");
    assert_eq!(text.trim_end().lines().count(), 1, "{text}");
    assert!(text.contains(says), "{says}: {text}");
}

/// What a sequencer does that takes the wish up.
async fn opens(setup: &Setup, stripes: u32, unit: u32) {
    let catalog = &setup.fixture.catalog;
    let mut entry = catalog.last().await.expect("reads");
    entry.number += 1;
    entry.epoch = Epoch(2);
    (entry.epoch_start, entry.reservation) = (Position(40), Position(90));
    entry.segments.push(Segment {
        id: SegmentId(9),
        epoch: Epoch(2),
        start: Position(40),
        layout: Layout::new(stripes, unit).expect("valid"),
    });
    catalog.append(&entry).await.expect("appends");
    let state = &setup.fixture.sequencer.state;
    state.lock().expect("not poisoned").epoch = Epoch(2);
}

async fn is_asked(setup: &Setup, times: usize) {
    let asked = async {
        loop {
            let state = &setup.fixture.sequencer.state;
            let asked = {
                let state = state.lock().expect("not poisoned");
                let wishes = state.datagrams.iter().filter(|d| d.0 == Kind::Restripe);
                wishes.count()
            };
            if asked >= times {
                return;
            }
            sleep(Duration::from_millis(5)).await;
        }
    };
    timeout(SOON, asked).await.expect("asked");
}

/// It asks again until the segment is there, of whoever reigns by then.
#[tokio::test(flavor = "multi_thread")]
async fn h5_the_command_ends_when_positions_are_granted_in_the_new_segment() {
    let setup = Setup::new().await;
    setup
        .fixture
        .sequencer
        .script([Answer::Status(Status::NotReigning)]);
    let longest = format!("--timeout={}", u64::MAX);
    let arguments = ["--json", "restripe", "--stripes=6", "--unit=16", &longest];
    let does = async {
        is_asked(&setup, 3).await;
        opens(&setup, 6, 16).await;
    };
    let (output, ()) = tokio::join!(run(&setup, &arguments), does);
    let text = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{text}");
    let told: Value = serde_json::from_slice(&output.stdout).expect("JSON");
    for (name, value) in [
        ("segment", 9),
        ("epoch", 2),
        ("start", 40),
        ("stripes", 6),
        ("unit", 16),
    ] {
        assert_eq!(told[name], value, "{name}");
    }
    let output = run(&setup, &["restripe", "--stripes=6"]).await;
    assert_refused(&output, 2, "that of the newest segment: stripes=6 unit=16");
}

#[tokio::test(flavor = "multi_thread")]
async fn h5_a_layout_that_cannot_be_is_one_error_and_nobody_is_asked() {
    let setup = Setup::new().await;
    let writer = setup.fixture.membership().writers[0].address;
    let narrow = format!("--writer={writer}=0-7");
    for (stripes, unit, says) in [
        ("0", "8", "stripes out of bounds: got=0 limit=1024"),
        ("1025", "8", "stripes out of bounds: got=1025 limit=1024"),
        (
            "1000000",
            "8",
            "stripes out of bounds: got=1000000 limit=1024",
        ),
        ("8", "0", "unit out of bounds: got=0 limit=1048576"),
        (
            "8",
            "1048577",
            "unit out of bounds: got=1048577 limit=1048576",
        ),
        ("4", "8", "newest segment: stripes=4 unit=8"),
    ] {
        let arguments = ["restripe", "--stripes", stripes, "--unit", unit];
        assert_refused(&run(&setup, &arguments).await, 2, says);
    }
    // The unit stays as it is.
    let output = run(&setup, &["restripe", "--stripes=4"]).await;
    assert_refused(&output, 2, "newest segment: stripes=4 unit=8");
    let mut all = setup.arguments();
    all.pop();
    all.extend([narrow, "restripe".to_owned(), "--stripes=9".to_owned()]);
    let narrow = move || start(&all).wait_with_output().expect("ends");
    let output = tokio::task::spawn_blocking(narrow).await.expect("runs");
    assert_refused(&output, 2, "stripe=8 owners=0");
    let state = setup.fixture.sequencer.state.lock().expect("not poisoned");
    assert!(state.datagrams.iter().all(|d| d.0 != Kind::Restripe));
}

#[tokio::test(flavor = "multi_thread")]
async fn h5_what_the_sequencer_does_not_take_up_is_one_error() {
    let setup = Setup::new().await;
    let arguments = ["restripe", "--stripes=6", "--timeout=1"];
    let script = |status| setup.fixture.sequencer.script([Answer::Status(status)]);
    script(Status::Invalid);
    assert_refused(
        &run(&setup, &arguments).await,
        2,
        "the sequencer refuses it",
    );
    script(Status::Busy);
    assert_refused(&run(&setup, &arguments).await, 1, "yet another layout");
    // Taken up, and never done.
    assert_refused(&run(&setup, &arguments).await, 1, "it may still come");
    opens(&setup, 7, 8).await;
    let state = &setup.fixture.sequencer.state;
    state.lock().expect("not poisoned").silent = true;
    assert_refused(
        &run(&setup, &arguments).await,
        1,
        "sequencer is not available",
    );
}

/// Two ask at the same time, and the other one is first.
#[tokio::test(flavor = "multi_thread")]
async fn h5_another_layout_that_came_first_is_told() {
    let setup = Setup::new().await;
    let does = async {
        is_asked(&setup, 1).await;
        opens(&setup, 7, 8).await;
    };
    let arguments = ["restripe", "--stripes=6"];
    let (output, ()) = tokio::join!(run(&setup, &arguments), does);
    assert_refused(&output, 2, "another one came first: stripes=7 unit=8");
}

/// Before anything is opened: there is no log here at all.
#[test]
fn wrong_arguments_are_wrong_usage() {
    let refused = |arguments: &[&str]| {
        let output = start(arguments).wait_with_output().expect("ends");
        let text = String::from_utf8_lossy(&output.stderr).into_owned();
        assert_eq!(output.status.code(), Some(2), "{arguments:?}: {text}");
        assert!(output.stdout.is_empty() && !text.contains("panicked"));
        let errors = text
            .lines()
            .filter(|line| line.contains("error: ") || line.starts_with("stripelog: "));
        assert_eq!(errors.count(), 1, "{arguments:?}: {text}");
        text
    };
    for (argument, value) in [
        ("stripes", "many"),
        ("stripes", "-1"),
        ("stripes", "4294967296"),
        ("unit", ""),
        ("unit", "1.5"),
        ("timeout", "0"),
        ("timeout", "soon"),
    ] {
        let option = format!("--{argument}={value}");
        let others: &[_] = if argument == "stripes" {
            &[]
        } else {
            &["--stripes=6"]
        };
        let text = refused(&[&["restripe", &option], others].concat());
        assert!(text.contains(&format!("--{argument} <")), "{text}");
        assert!(text.contains(&format!("'{value}'")), "{text}");
    }
    let text = refused(&["restripe"]);
    assert!(text.contains("--stripes <K>"), "{text}");
    for stripes in ["0", "1000000"] {
        let text = refused(&["--store=file:///nowhere", "restripe", "--stripes", stripes]);
        assert!(text.contains("stripes out of bounds"), "{text}");
    }
}

#[test]
fn the_help_tells_every_bound() {
    let output = start(&["restripe", "--help"]).wait_with_output();
    let output = output.expect("ends");
    let text = String::from_utf8(output.stdout).expect("text");
    assert!(output.status.success() && output.stderr.is_empty());
    for part in [
        "--stripes <K>",
        "1 to 1024",
        "--unit <U>",
        "1 to 1048576",
        "--timeout <SECONDS>",
        "[default: 30]",
    ] {
        assert!(text.contains(part), "{part}: {text}");
    }
}

/// The sequencer hears only who has its key.
#[tokio::test(flavor = "multi_thread")]
async fn h5_without_the_key_the_command_fails_and_says_why() {
    let setup = Setup::new().await;
    let [right, wrong] = [1, 2].map(|byte: u8| {
        let file = setup.directory.path().join(format!("key{byte}"));
        let text = format!("{byte:02x}").repeat(32);
        std::fs::write(&file, &text).expect("writes");
        let of_its_owner = Permissions::from_mode(0o600);
        std::fs::set_permissions(&file, of_its_owner).expect("sets");
        (
            Key::parse(&text).expect("a key"),
            format!("--key-file={}", file.display()),
        )
    });
    let state = &setup.fixture.sequencer.state;
    state.lock().expect("not poisoned").key = Some(right.0);
    let restripe = ["restripe", "--stripes=6", "--unit=16", "--timeout=1"];
    let output = run(&setup, &restripe).await;
    assert_refused(&output, 1, "no answer; if it has a key file");
    let output = run(&setup, &[&[wrong.1.as_str()][..], &restripe].concat()).await;
    assert_refused(
        &output,
        1,
        "no answer, to requests that are signed with our key",
    );
    assert!(state.lock().expect("not poisoned").datagrams.is_empty());
    let signed = [right.1.as_str(), "restripe", "--stripes=6", "--unit=16"];
    let does = async {
        is_asked(&setup, 1).await;
        opens(&setup, 6, 16).await;
    };
    let (output, ()) = tokio::join!(run(&setup, &signed), does);
    assert!(output.status.success(), "{output:?}");
}
