//! Programs that are run with settings that cannot work.

use std::collections::BTreeMap;
use std::path::Path;
use std::process::Stdio;

use anyhow::{Context, Result};
use tokio::process::Command;
use tokio::time::timeout;
use wire::limits::MAX_RECORD_BYTES;

use super::ANSWER;
use crate::cluster::{Cluster, free_tcp_port, free_udp_port};
use crate::process::binary;

/// A program, and the arguments that cannot work.
struct Case {
    name: String,
    program: &'static str,
    args: Vec<String>,
    /// What the error has to speak of.
    told: &'static str,
}

/// Runs all programs with settings that cannot work. Of each case the one line that it said, or what is
/// wrong with what it said.
pub(super) async fn commands(
    cluster: &Cluster,
) -> Result<BTreeMap<String, Result<String, String>>> {
    let config = cluster.config();
    let directory = config.parent().context("a settings file in a directory")?;
    let config = config.display().to_string();
    let mut cases = settings(directory, &config)?;
    cases.extend(files(directory, &config)?);
    let mut outcomes = BTreeMap::new();
    for case in cases {
        let outcome = one_clear_error(&case).await?;
        outcomes.insert(format!("{}: {}", case.program, case.name), outcome);
    }
    Ok(outcomes)
}

fn case(name: &str, program: &'static str, args: &[&str], told: &'static str) -> Case {
    // The command needs a subcommand to come as far as its settings.
    let command = (program == "stripelog" && !args.contains(&"append")).then_some("tail");
    let args = command.into_iter().chain(args.iter().copied());
    Case {
        name: name.to_owned(),
        program,
        args: args.map(str::to_owned).collect(),
        told,
    }
}

fn settings(directory: &Path, config: &str) -> Result<Vec<Case>> {
    let unknown = directory.join("unknown.toml");
    std::fs::write(&unknown, "[writer]\nlingr_ms = 5\n")?;
    let unknown = unknown.display().to_string();
    let empty = directory.join("empty");
    std::fs::create_dir(&empty)?;
    let no_log = format!("file://{}", empty.display());
    let missing = format!("file://{}/nowhere", directory.display());
    // The ports of the settings are in use.
    let sequencer = format!("sequencer.listen={}", free_udp_port()?);
    let writer = format!("writer.listen={}", free_tcp_port()?);
    let admin = format!("sequencer.admin={}", free_tcp_port()?);
    let elsewhere = ["--set", &sequencer, "--set", &writer, "--set", &admin];
    let mut cases = Vec::new();
    for program in ["sequencer-fast", "stripe-writer", "stripelog"] {
        let store = |name, url, told| {
            let args = [&["--config", config, "--store", url], elsewhere.as_slice()].concat();
            case(name, program, &args, told)
        };
        let value = ["--config", config, "--set", "writer.linger_ms=soon"];
        cases.extend([
            case(
                "unknown key",
                program,
                &["--config", &unknown],
                "writer.lingr_ms",
            ),
            case("bad value", program, &value, "writer.linger_ms=soon"),
            store("missing directory", &missing, "no such directory"),
            store("no log", &no_log, "no log here"),
            store("bad scheme", "ftp://x/y", "s3://"),
        ]);
    }
    Ok(cases)
}

fn files(directory: &Path, config: &str) -> Result<Vec<Case>> {
    let large = directory.join("large");
    std::fs::write(&large, vec![b'x'; MAX_RECORD_BYTES + 1])?;
    let large = large.display().to_string();
    let append = |name, file, told| {
        let args = ["append", file, "--config", config];
        case(name, "stripelog", &args, told)
    };
    let in_use = |program| case("port in use", program, &["--config", config], "in use");
    Ok(vec![
        in_use("sequencer-fast"),
        in_use("stripe-writer"),
        append("record above the limit", &large, "line 1"),
        append("missing file", "/nowhere/at/all", "/nowhere/at/all"),
    ])
}

async fn one_clear_error(case: &Case) -> Result<Result<String, String>> {
    let program = case.program;
    let mut command = Command::new(binary(program)?);
    command
        .args(&case.args)
        .stdin(Stdio::null())
        .kill_on_drop(true);
    let Ok(output) = timeout(ANSWER, command.output()).await else {
        return Ok(Err("does not end".to_owned()));
    };
    let output = output?;
    let stderr = String::from_utf8_lossy(&output.stderr).into_owned();
    let errors: Vec<_> = stderr
        .lines()
        .filter(|line| line.starts_with(program))
        .collect();
    match errors.as_slice() {
        _ if output.status.success() => Ok(Err("succeeds".to_owned())),
        _ if stderr.contains("panicked") => Ok(Err(format!("panics: {stderr}"))),
        [line] if line.contains(case.told) => Ok(Ok((*line).to_owned())),
        [line] => Ok(Err(format!("does not speak of '{}': {line}", case.told))),
        _ => Ok(Err(format!("no single line: {stderr}"))),
    }
}
