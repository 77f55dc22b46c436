//! `stripelog append`.

use std::fs::File;
use std::io::{self, BufRead, BufReader, Read};
use std::path::{Path, PathBuf};

use bytes::Bytes;
use futures::StreamExt;
use futures::stream::FuturesOrdered;
use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};
use serde::Serialize;
use stripelog::{Error, Log, Position};
use tokio::sync::mpsc;
use tokio::time::Instant;
use wire::limits::MAX_RECORD_BYTES;

use super::failure::Failure;
use super::output::Output;

/// Records and bytes of one append call.
const BATCH: (usize, usize) = (8192, 1 << 20);

/// Append calls under way at once.
const CALLS: usize = 8;

/// Batches that are read ahead of them.
const READ_AHEAD: usize = 2;

/// Bytes of one read of the input.
const READ_BYTES: usize = 256 << 10;

/// Lines that follow one another.
struct Batch {
    records: Vec<Bytes>,
    /// With a newline each.
    bytes: u64,
}

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
    let appended = append_all(log, &mut queue, &mut summary, &bar).await;
    // The reader ends when nobody takes what it reads.
    drop(queue);
    bar.finish_and_clear();
    summary.seconds = started.elapsed().as_secs_f64();
    summary.reappended = log.stats().records_reappended;
    if let Err(error) = appended {
        let doing = Some(format!(
            "append failed; acknowledged before: {}",
            summary.text()
        ));
        return Err(Failure::Failed { doing, error });
    }
    match reader.await {
        Ok(Ok(())) => {}
        Ok(Err(ReadError::TooLarge { line })) => {
            return Err(Failure::Input(format!(
                "line {line} is larger than a record may be: limit={MAX_RECORD_BYTES}; the lines before it are appended: {}",
                summary.text()
            )));
        }
        Ok(Err(ReadError::Io(source))) => {
            let what = format!("reading the input; appended before: {}", summary.text());
            return Err(Failure::Io { what, source });
        }
        Err(stopped) => {
            let (what, source) = ("reading the input".to_owned(), io::Error::other(stopped));
            return Err(Failure::Io { what, source });
        }
    }
    let mut out = Output::stdout();
    if json {
        out.json(&summary)?;
    } else {
        out.line(format!("appended {}", summary.text()))?;
    }
    out.flush()
}

/// Appends batches in order, several at once.
async fn append_all(
    log: &Log,
    queue: &mut mpsc::Receiver<Batch>,
    summary: &mut Summary,
    bar: &ProgressBar,
) -> Result<(), Error> {
    let mut calls = FuturesOrdered::new();
    let mut failed = None;
    let mut open = true;
    while open || !calls.is_empty() {
        tokio::select! {
            batch = queue.recv(), if open && calls.len() < CALLS => match batch {
                Some(batch) => calls.push_back(append(log, batch)),
                None => open = false,
            },
            Some((bytes, outcome)) = calls.next(), if !calls.is_empty() => match outcome {
                Ok(positions) => {
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
    failed.map_or(Ok(()), Err)
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

enum ReadError {
    TooLarge { line: u64 },
    Io(io::Error),
}

/// Reads lines into batches. A batch goes out when it is full, or when reading on may have to wait.
fn read_lines(input: impl Read, to: &mpsc::Sender<Batch>) -> Result<(), ReadError> {
    let mut input = BufReader::with_capacity(READ_BYTES, input);
    let (mut line, mut done) = (0, false);
    while !done {
        let mut batch = Batch {
            records: Vec::new(),
            bytes: 0,
        };
        let mut outcome = Ok(());
        while batch.records.len() < BATCH.0 && batch.bytes < BATCH.1 as u64 {
            line += 1;
            match read_line(&mut input, line) {
                Ok(Some(record)) => {
                    batch.bytes += record.len() as u64 + 1;
                    batch.records.push(record);
                }
                Ok(None) => done = true,
                Err(error) => outcome = Err(error),
            }
            if done || outcome.is_err() || input.buffer().is_empty() {
                break;
            }
        }
        if !batch.records.is_empty() && to.blocking_send(batch).is_err() {
            return Ok(());
        }
        outcome?;
    }
    Ok(())
}

/// Reads one line, without its newline; `None` at the end of the input.
fn read_line(input: &mut impl BufRead, line: u64) -> Result<Option<Bytes>, ReadError> {
    let mut bytes = Vec::new();
    let limit = MAX_RECORD_BYTES as u64 + 1;
    let mut limited = input.take(limit);
    limited
        .read_until(b'\n', &mut bytes)
        .map_err(ReadError::Io)?;
    if bytes.is_empty() {
        return Ok(None);
    }
    if bytes.last() == Some(&b'\n') {
        bytes.pop();
    }
    if bytes.len() > MAX_RECORD_BYTES {
        return Err(ReadError::TooLarge { line });
    }
    Ok(Some(bytes.into()))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn batches(input: &[u8]) -> (Vec<Bytes>, Result<(), ReadError>) {
        let (to, mut from) = mpsc::channel(100);
        let outcome = read_lines(input, &to);
        drop(to);
        let mut records = Vec::new();
        while let Ok(batch) = from.try_recv() {
            records.extend(batch.records);
        }
        (records, outcome)
    }

    #[test]
    fn lines_are_records_whatever_is_in_them() {
        let (records, outcome) = batches(b"a\n\n\xff\x00\r\nlast");
        assert!(outcome.is_ok());
        let expected: [&[u8]; 4] = [b"a", b"", b"\xff\x00\r", b"last"];
        assert_eq!(records, expected);
        assert!(batches(b"").0.is_empty());
        assert_eq!(batches(b"\n").0, [&b""[..]]);
    }

    #[test]
    fn the_largest_line_fits_and_a_larger_one_is_named() {
        let mut input = vec![b'x'; MAX_RECORD_BYTES];
        input.push(b'\n');
        assert!(batches(&input).1.is_ok());
        let mut large = b"first\n".to_vec();
        large.extend(vec![b'x'; MAX_RECORD_BYTES + 1]);
        let (records, outcome) = batches(&large);
        assert_eq!(records, [&b"first"[..]]);
        assert!(matches!(outcome, Err(ReadError::TooLarge { line: 2 })));
    }
}
