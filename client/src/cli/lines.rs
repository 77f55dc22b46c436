//! Lines of an input, gathered into batches of records.

use std::io::{self, BufRead, BufReader, Read};

use bytes::Bytes;
use tokio::sync::mpsc;
use wire::limits::MAX_RECORD_BYTES;

/// Records and bytes of one append call.
const BATCH: (usize, usize) = (8192, 1 << 20);

/// Bytes of one read of the input: as many as a batch has, which ends with them.
const READ_BYTES: usize = 1 << 20;

/// Lines that follow one another.
pub(super) struct Batch {
    pub(super) records: Vec<Bytes>,
    /// With a newline each.
    pub(super) bytes: u64,
}

/// Why an input was not read to its end.
pub(super) enum ReadError {
    TooLarge { line: u64 },
    Io(io::Error),
}

/// Reads lines into batches. A batch goes out when it is full, or when reading on may have to wait.
pub(super) fn read_lines(input: impl Read, to: &mpsc::Sender<Batch>) -> Result<(), ReadError> {
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
            // The rest of a line may be long in coming.
            if done || outcome.is_err() || !input.buffer().contains(&b'\n') {
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
