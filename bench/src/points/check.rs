//! Reads a whole log back and holds it against a history.

use std::time::Duration;

use anyhow::{Context, Result};
use serde_json::Value;
use stripelog::{Content, Log, Position, Tail};
use tokio::time::timeout;

use crate::cluster::Cluster;
use crate::logic::history::{Append, Findings, Found, Token, check};
use crate::report::Report;

/// Longest time until the durable tail reaches the issued one: seal, hole time-outs and all.
const TAIL_TIMEOUT: Duration = Duration::from_secs(120);

/// Reads every record of a log, up to a tail that everything acknowledged before this call lies below.
///
/// # Errors
/// If the log cannot be read, or its tail does not become durable.
pub(crate) async fn read_all(log: &Log) -> Result<(Position, Vec<Found>)> {
    let tail = timeout(TAIL_TIMEOUT, log.tail(Tail::Linearizable)).await;
    let tail = tail.context("the tail does not become durable")??;
    let mut scan = log.read(Position(0)..tail);
    let mut found = Vec::new();
    while let Some(item) = scan.next().await? {
        if let Content::Record(record) = item.content {
            found.push((item.position, record));
        }
    }
    Ok((tail, found))
}

/// Holds the log against the history, runs `stripelog verify`, and reports both.
///
/// # Errors
/// If the log cannot be read.
pub(crate) async fn judge(
    cluster: &Cluster,
    appends: &[Append],
    tokens: &[Token],
    report: &mut Report,
) -> Result<(Findings, Vec<Found>)> {
    judge_by(&cluster.client().await?, cluster, appends, tokens, report).await
}

/// The same, read by a client that is open already.
///
/// # Errors
/// If the log cannot be read.
pub(crate) async fn judge_by(
    log: &Log,
    cluster: &Cluster,
    appends: &[Append],
    tokens: &[Token],
    report: &mut Report,
) -> Result<(Findings, Vec<Found>)> {
    let (tail, scan) = read_all(log).await?;
    let findings = check(appends, &scan, tokens);
    let verified = cluster.command(&["verify"]).await;
    report.figure("records", findings.in_log);
    report.figure("tail", tail.0);
    report.figure("acknowledged", findings.acknowledged);
    report.figure("unknown", findings.unknown);
    report.figure("unused_tokens", tokens.len());
    for (name, value) in [
        ("lost", findings.lost),
        ("changed", findings.changed),
        ("doubled", findings.doubled),
        ("foreign", findings.foreign),
        ("granted_twice", findings.granted_twice),
        ("order_broken", findings.order_broken),
        ("scan_broken", findings.scan_broken),
    ] {
        report.exactly(name, value, 0);
    }
    report.exactly("history_kept", findings.is_clean(), true);
    report.exactly("verify_clean", verified.is_ok(), true);
    match verified {
        Ok(summary) => report.figure("objects", summary.get("objects").unwrap_or(&Value::Null)),
        Err(error) => report.figure("verify_error", format!("{error:#}")),
    }
    Ok((findings, scan))
}
