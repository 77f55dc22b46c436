//! What is on the disk before a create counts (C-9, lesson 24): system calls of a child process.
//!
//! Needs `strace`. Without it the tests say so and pass, unless `STRIPELOG_REQUIRE_STRACE=1`.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use bytes::Bytes;
use catalog::{Create, Log, Put, Store};
use wire::{Slot, name};

use crate::common::{bytes_of, chain, layout, next, object};

/// What the child does, and below which directory.
const TASK: &str = "STRIPELOG_TEST_DURABLE";

fn open(root: &Path) -> Store {
    Store::open(&format!("file://{}", root.display())).expect("opened")
}

/// The child that the other tests run under strace: does its task and then makes a directory, to be seen in
/// the trace. Without a task it does nothing.
#[tokio::test]
async fn child() {
    let Ok(task) = std::env::var(TASK) else {
        return;
    };
    let (task, root) = task.split_once(':').expect("task");
    let root = Path::new(root);
    let store = open(root);
    match task {
        "create" => {
            let body = [Bytes::from_static(b"x")];
            let created = store.create("a/b/c", &body).await.expect("ok");
            assert_eq!(created, Create::Done);
        }
        "append" => {
            let log = Log::open(store).await.expect("opened");
            let last = log.last().await.expect("last");
            log.append(&last).await.expect("mine");
        }
        "put-mine" | "put-taken" => {
            let log = Log::open(store).await.expect("opened");
            let chain = chain(&log).await;
            let writer = if task == "put-mine" { 1 } else { 2 };
            let put = chain
                .put(&object(&chain, writer, 0, &["a"]))
                .await
                .expect("put");
            assert_eq!(put == Put::Committed, task == "put-mine");
        }
        "walk" => {
            let log = Log::open(store).await.expect("opened");
            let chain = chain(&log).await;
            let walk = chain.walk(chain.first_slot()).await.expect("walked");
            chain.ensure_durable(&walk).await.expect("synced");
        }
        other => panic!("unknown task {other}"),
    }
    fs::create_dir(root.with_extension("returned")).expect("marked");
}

/// The calls of the child until the create returned, or `None` if there is no strace.
fn trace(task: &str, root: &Path) -> Option<Vec<String>> {
    let output = root.with_extension("trace");
    let this = std::env::current_exe().expect("executable");
    let status = Command::new("strace")
        .args([
            "-f",
            "-y",
            "-s",
            "4096",
            "-e",
            "trace=fsync,fdatasync,link,linkat,mkdir,mkdirat",
            "-o",
        ])
        .arg(&output)
        .arg(this)
        .args(["--exact", "durable::child"])
        .env(TASK, format!("{task}:{}", root.display()))
        .output();
    let Ok(status) = status else {
        let required = std::env::var("STRIPELOG_REQUIRE_STRACE").is_ok_and(|v| v == "1");
        assert!(!required, "strace is not installed");
        return None;
    };
    let said = String::from_utf8_lossy(&status.stdout);
    assert!(status.status.success(), "{said}");
    let text = fs::read_to_string(output).expect("trace");
    let lines: Vec<_> = text.lines().map(str::to_owned).collect();
    let returned = lines.iter().position(|line| line.contains(".returned"));
    Some(lines[..returned.expect("the child returned")].to_vec())
}

fn synced(lines: &[String], path: &Path) -> Option<usize> {
    let call = format!("<{}>", path.display());
    lines
        .iter()
        .position(|line| line.contains("sync(") && line.contains(&call))
}

fn root(directory: &tempfile::TempDir) -> PathBuf {
    let root = directory.path().canonicalize().expect("path").join("root");
    fs::create_dir(&root).expect("root");
    root
}

fn assert_tree_synced(lines: &[String], root: &Path, path: &Path) {
    for place in path.ancestors().take_while(|place| place.starts_with(root)) {
        let found = synced(lines, place).is_some();
        assert!(found, "not synced: {} in {lines:#?}", place.display());
    }
}

#[test]
fn c9_data_and_directories_are_synced_before_a_create_returns() {
    let directory = tempfile::tempdir().expect("directory");
    let root = root(&directory);
    let Some(lines) = trace("create", &root) else {
        return;
    };
    let linked = lines.iter().position(|line| line.contains("link"));
    let linked = linked.expect("linked");
    let data = synced(&lines[..linked], &root.join("a/b/c#1"));
    assert!(
        data.is_some(),
        "data is not synced before its name: {lines:#?}"
    );
    let named = synced(&lines[linked..], &root.join("a/b"));
    assert!(named.is_some(), "name is not synced: {lines:#?}");
    assert_tree_synced(&lines, &root, &root.join("a/b"));
}

/// The directories are another process's, which may not have synced them (yet, or ever).
#[test]
fn c9_directories_of_others_are_synced_too() {
    let directory = tempfile::tempdir().expect("directory");
    let root = root(&directory);
    fs::create_dir_all(root.join("a/b")).expect("directories");
    let Some(lines) = trace("create", &root) else {
        return;
    };
    assert_tree_synced(&lines, &root, &root.join("a/b"));
}

/// What is found under the name on "exists", mine or another's, is synced before it counts.
#[tokio::test]
async fn c9_what_is_adopted_is_synced_first() {
    for task in ["append", "put-mine", "put-taken", "walk"] {
        let directory = tempfile::tempdir().expect("directory");
        let root = root(&directory);
        let log = Log::create(open(&root), layout()).await.expect("created");
        let entry = next(&log.last().await.expect("last"), 1);
        let chain = chain(&log).await;
        let (path, bytes) = if task == "append" {
            let bytes = entry.encode().expect("valid").to_vec();
            (name::control(log.id(), entry.number), bytes)
        } else {
            let bytes = bytes_of(&object(&chain, 1, 0, &["a"]));
            (chain.id().object_name(Slot(0)), bytes)
        };
        let path = root.join(path);
        fs::create_dir_all(path.parent().expect("parent")).expect("directories");
        fs::write(&path, bytes).expect("written");
        let Some(lines) = trace(task, &root) else {
            return;
        };
        assert_tree_synced(&lines, &root, &path);
    }
}

/// Staging files of a crash are hidden; the sweep takes the old ones.
#[tokio::test]
async fn staging_files_are_hidden_and_swept() {
    let directory = tempfile::tempdir().expect("directory");
    let root = root(&directory);
    let store = open(&root);
    store
        .create("a/b/c", &[Bytes::from_static(b"x")])
        .await
        .expect("ok");
    let (old, young) = (root.join("a/b/c#1"), root.join("a/b/d#2"));
    for path in [&old, &young] {
        fs::write(path, b"half").expect("written");
    }
    let two_hours = std::time::Duration::from_secs(7200);
    let file = fs::File::options().write(true).open(&old).expect("opened");
    let written = file.metadata().and_then(|m| m.modified()).expect("time");
    file.set_modified(written - two_hours).expect("aged");
    let listed = store.list("a", None).await.expect("listed");
    assert_eq!(listed.len(), 1);
    // A rest of a crash is no obstacle to a create of the same name.
    store.create("a/b/d", &[]).await.expect("ok");
    assert_eq!(store.sweep_staging().await.expect("swept"), 1);
    assert!(!old.exists() && young.exists());
    assert!(store.get("a/b/c").await.expect("ok").is_some());
}
