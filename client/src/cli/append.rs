//! `stripelog append`.

use std::fs::File;
use std::io::{self, Read};
use std::path::{Path, PathBuf};

use futures::StreamExt;
use futures::stream::FuturesOrdered;
use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};
use serde::Serialize;
use stripelog::{Error, Log, Position};
use tokio::sync::mpsc;
use tokio::task::JoinError;
use tokio::time::Instant;
use wire::limits::MAX_RECORD_BYTES;

use super::failure::Failure;
use super::lines::{Batch, ReadError, read_lines};
use super::output::Output;

/// Append calls under way at once.
const CALLS: usize = 8;

/// Batches that are read ahead of them.
const READ_AHEAD: usize = 2;

/// What was acknowledged.
#[derive(Debug, Default, Serialize)]
struct Summary {
    records: u64,
    /// Of the records, without newlines.
    bytes: u64,
    first: Option<u64>,
    last: Option<u64>,
    seconds: f64,
    reappended: u64,
}

impl Summary {
    fn add(&mut self, bytes: u64, positions: &[Position]) {
        self.records += positions.len() as u64;
        self.bytes += bytes.saturating_sub(positions.len() as u64);
        let first = positions.iter().min().map(|p| p.0);
        let last = positions.iter().max().map(|p| p.0);
        self.first = self.first.into_iter().chain(first).min();
        self.last = self.last.max(last);
    }

    fn text(&self) -> String {
        let shown = |p: Option<u64>| p.map_or("-".to_owned(), |p| p.to_string());
        format!(
            "records={} bytes={} first={} last={} seconds={:.3} reappended={}",
            self.records,
            self.bytes,
            shown(self.first),
            shown(self.last),
            self.seconds,
            self.reappended
        )
    }
}

pub(crate) async fn run(log: &Log, file: Option<PathBuf>, json: bool) -> Result<(), Failure> {
    let (input, size) = open(file.as_deref())?;
    let started = Instant::now();
    let bar = progress_bar(size);
    let (batches, mut queue) = mpsc::channel(READ_AHEAD);
    let reader = tokio::task::spawn_blocking(move || read_lines(input, &batches));
    let mut summary = Summary::default();
    let appended = append_all(log, &mut queue, &mut summary, &bar).await?;
    // The reader ends when nobody takes what it reads.
    drop(queue);
    bar.finish_and_clear();
    summary.seconds = started.elapsed().as_secs_f64();
    summary.reappended = log.stats().records_reappended;
    match appended {
        Appended::All => check_input(reader.await, &summary)?,
        // What reads the input may wait for it for ever.
        Appended::Interrupted { .. } => {}
        Appended::Failed(error) => {
            let doing = Some(format!(
                "append failed; acknowledged before: {}",
                summary.text()
            ));
            return Err(Failure::Failed { doing, error });
        }
    }
    let mut out = Output::stdout();
    if json {
        out.json(&summary)?;
    } else {
        out.line(format!("appended {}", summary.text()))?;
    }
    out.flush()?;
    match appended {
        Appended::Interrupted { left: 0 } => Err(Failure::Input(
            "interrupted: the input was not appended to its end".to_owned(),
        )),
        Appended::Interrupted { left } => Err(Failure::Input(format!(
            "interrupted twice: bytes={left} more are sent, and may be in the log"
        ))),
        _ => Ok(()),
    }
}

/// How the input came to its end.
fn check_input(
    ended: Result<Result<(), ReadError>, JoinError>,
    summary: &Summary,
) -> Result<(), Failure> {
    match ended {
        Ok(Ok(())) => Ok(()),
        Ok(Err(ReadError::TooLarge { line })) => Err(Failure::Input(format!(
            "line {line} is larger than a record may be: limit={MAX_RECORD_BYTES}; the lines before it are appended: {}",
            summary.text()
        ))),
        Ok(Err(ReadError::Io(source))) => {
            let what = format!("reading the input; appended before: {}", summary.text());
            Err(Failure::Io { what, source })
        }
        Err(stopped) => {
            let (what, source) = ("reading the input".to_owned(), io::Error::other(stopped));
            Err(Failure::Io { what, source })
        }
    }
}

/// How an append ended.
enum Appended {
    All,
    Failed(Error),
    /// By a signal. Of what was sent, so many bytes have no answer.
    Interrupted {
        left: u64,
    },
}

/// The next signal to stop.
fn signal() -> Result<impl Future<Output = &'static str>, Failure> {
    runtime::stop::signal().map_err(|source| Failure::Io {
        what: "listening for signals".to_owned(),
        source,
    })
}

/// Appends batches in order, several at once. At a signal no more are taken, and those under way are waited
/// for, until there is another signal.
async fn append_all(
    log: &Log,
    queue: &mut mpsc::Receiver<Batch>,
    summary: &mut Summary,
    bar: &ProgressBar,
) -> Result<Appended, Failure> {
    let mut calls = FuturesOrdered::new();
    let (mut failed, mut interrupted) = (None, false);
    let (mut open, mut under_way) = (true, 0);
    let mut stop = Box::pin(signal()?);
    while open || !calls.is_empty() {
        tokio::select! {
            _ = &mut stop => {
                if interrupted {
                    return Ok(Appended::Interrupted { left: under_way });
                }
                (open, interrupted) = (false, true);
                stop.set(signal()?);
                if !calls.is_empty() {
                    tracing::warn!(bytes = under_way, "stopping: waiting for what is sent, unless there is another signal");
                }
            }
            batch = queue.recv(), if open && calls.len() < CALLS => match batch {
                Some(batch) => {
                    under_way += batch.bytes;
                    calls.push_back(append(log, batch));
                }
                None => open = false,
            },
            Some((bytes, outcome)) = calls.next(), if !calls.is_empty() => match outcome {
                Ok(positions) => {
                    under_way = under_way.saturating_sub(bytes);
                    summary.add(bytes, &positions);
                    bar.inc(bytes);
                }
                // What is under way already is waited for, so that the summary tells all.
                Err(error) => {
                    open = false;
                    failed = failed.or(Some(error));
                }
            },
        }
    }
    Ok(match failed {
        Some(error) => Appended::Failed(error),
        None if interrupted => Appended::Interrupted { left: 0 },
        None => Appended::All,
    })
}

async fn append(log: &Log, batch: Batch) -> (u64, Result<Vec<Position>, Error>) {
    (batch.bytes, log.append(batch.records).await)
}

fn open(file: Option<&Path>) -> Result<(Box<dyn Read + Send>, Option<u64>), Failure> {
    let Some(path) = file.filter(|path| *path != Path::new("-")) else {
        return Ok((Box::new(io::stdin()), None));
    };
    let failed = |source| Failure::Io {
        what: format!("opening the file {}", path.display()),
        source,
    };
    let file = File::open(path).map_err(failed)?;
    let meta = file.metadata().map_err(failed)?;
    let size = meta.is_file().then_some(meta.len());
    Ok((Box::new(file), size))
}

/// Shown on a terminal only.
fn progress_bar(size: Option<u64>) -> ProgressBar {
    let bar = ProgressBar::with_draw_target(size, ProgressDrawTarget::stderr());
    let template = match size {
        Some(_) => "{wide_bar} {bytes}/{total_bytes} {bytes_per_sec} {eta}",
        None => "{spinner} {bytes} {bytes_per_sec} {elapsed}",
    };
    if let Ok(style) = ProgressStyle::with_template(template) {
        bar.set_style(style);
    }
    bar
}
