//! Small clients of the servers that one would otherwise take for a counter: many additions in one write,
//! over several connections, in one thread.

use std::io::{ErrorKind, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use clap::ValueEnum;
use serde::Serialize;

/// Longest wait for an answer.
const TIMEOUT: Duration = Duration::from_secs(10);

/// Room for answers.
const BUFFER_BYTES: usize = 1 << 16;

/// Which server.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum, Serialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Kind {
    /// INCRBY
    Redis,
    /// incr
    Memcached,
    /// nextval
    Postgresql,
}

/// Connections of a load.
#[derive(Debug)]
pub(crate) struct Connections {
    kind: Kind,
    batch: usize,
    request: Vec<u8>,
    streams: Vec<TcpStream>,
    buffer: Vec<u8>,
    last: u64,
}

impl Connections {
    /// Opens connections, on each of which `batch` additions are always under way.
    ///
    /// # Errors
    /// If nobody answers, or not as expected.
    pub(crate) fn open(kind: Kind, server: SocketAddr, count: usize, batch: usize) -> Result<Self> {
        let request = match kind {
            Kind::Redis => b"*3\r\n$6\r\nINCRBY\r\n$1\r\nk\r\n$1\r\n1\r\n".repeat(batch),
            Kind::Memcached => b"incr k 1\r\n".repeat(batch),
            Kind::Postgresql => query(&format!(
                "select nextval('s') from generate_series(1,{batch})"
            )),
        };
        let mut connections = Self {
            kind,
            batch,
            request,
            streams: Vec::new(),
            buffer: Vec::with_capacity(BUFFER_BYTES),
            last: 0,
        };
        for number in 0..count {
            let mut stream = TcpStream::connect_timeout(&server, TIMEOUT)?;
            stream.set_read_timeout(Some(TIMEOUT))?;
            stream.set_nodelay(true)?;
            greet(kind, &mut stream, number == 0)?;
            stream.set_nonblocking(true)?;
            connections.streams.push(stream);
        }
        Ok(connections)
    }

    /// Adds for `time`, and gives the additions a second. Every answer is looked at.
    ///
    /// # Errors
    /// If a server answers with something else than numbers.
    pub(crate) fn work(&mut self, warm_up: Duration, time: Duration) -> Result<f64> {
        for stream in &mut self.streams {
            stream.write_all(&self.request)?;
        }
        #[allow(clippy::disallowed_methods, reason = "the clock of the load")]
        let epoch = Instant::now();
        let (mut done, mut begun) = (0_u64, None);
        let seconds = 'work: loop {
            for index in 0..self.streams.len() {
                self.answers(index, epoch, warm_up + time + TIMEOUT)?;
                let now = epoch.elapsed();
                match begun {
                    None if now >= warm_up => (done, begun) = (0, Some(now)),
                    Some(begun) if now >= begun + time => break 'work (now - begun).as_secs_f64(),
                    _ => done += self.batch as u64,
                }
                let stream = self.streams.get_mut(index).context("no such connection")?;
                stream.write_all(&self.request)?;
            }
        };
        Ok(done as f64 / seconds)
    }

    /// Reads the answers to one request of a connection.
    fn answers(&mut self, index: usize, epoch: Instant, until: Duration) -> Result<()> {
        self.buffer.clear();
        let stream = self.streams.get_mut(index).context("no such connection")?;
        let mut chunk = [0; 8192];
        loop {
            let len = match stream.read(&mut chunk) {
                // It spins, as the load of the sequencer does: a thread that sleeps wakes up late.
                Err(error) if error.kind() == ErrorKind::WouldBlock => {
                    ensure!(epoch.elapsed() < until, "{:?} does not answer", self.kind);
                    continue;
                }
                len => len?,
            };
            ensure!(len > 0, "{:?} has closed a connection", self.kind);
            self.buffer
                .extend_from_slice(chunk.get(..len).unwrap_or(&[]));
            let numbers = match self.kind {
                Kind::Redis => lines(&self.buffer, b":"),
                Kind::Memcached => lines(&self.buffer, b""),
                Kind::Postgresql => rows(&self.buffer),
            };
            let Some((count, last)) = numbers.with_context(|| format!("{:?}", self.kind))? else {
                continue;
            };
            if count == self.batch {
                self.last = self.last.max(last);
                return Ok(());
            }
            ensure!(count < self.batch, "{:?} answers too much", self.kind);
        }
    }

    /// The largest number that was answered.
    #[must_use]
    pub(crate) fn last(&self) -> u64 {
        self.last
    }
}

/// How many numbers there are, one a line behind a prefix, and the last one; `None` within a line.
fn lines(bytes: &[u8], prefix: &[u8]) -> Result<Option<(usize, u64)>> {
    let Some(text) = bytes.strip_suffix(b"\r\n") else {
        return Ok(None);
    };
    let (mut count, mut last) = (0, 0);
    for line in text.split(|byte| *byte == b'\n') {
        let line = line.strip_suffix(b"\r").unwrap_or(line);
        let digits = line.strip_prefix(prefix).unwrap_or(b"-");
        last = number(digits)?;
        count += 1;
    }
    Ok(Some((count, last)))
}

/// The same for the rows of one query, once the server is ready for the next one.
fn rows(bytes: &[u8]) -> Result<Option<(usize, u64)>> {
    let (mut rest, mut count, mut last) = (bytes, 0, 0);
    while let Some((kind, body, behind)) = message(rest) {
        match kind {
            // One column: its count, its length, its digits.
            b'D' => {
                last = number(body.get(6..).unwrap_or(&[]))?;
                count += 1;
            }
            b'E' => bail!("{}", String::from_utf8_lossy(body)),
            b'Z' if behind.is_empty() => return Ok(Some((count, last))),
            _ => {}
        }
        rest = behind;
    }
    Ok(None)
}

/// The first message of PostgreSQL's protocol: kind, body, and what is behind it.
fn message(bytes: &[u8]) -> Option<(u8, &[u8], &[u8])> {
    let (kind, rest) = bytes.split_first()?;
    let len = u32::from_be_bytes(*rest.first_chunk()?) as usize;
    let body = rest.get(4..len)?;
    Some((*kind, body, rest.get(len..)?))
}

fn number(digits: &[u8]) -> Result<u64> {
    let text = String::from_utf8_lossy(digits);
    text.parse()
        .with_context(|| format!("not a number: {text}"))
}

fn query(text: &str) -> Vec<u8> {
    let mut bytes = vec![b'Q'];
    let len = u32::try_from(text.len() + 5).unwrap_or_default();
    bytes.extend(len.to_be_bytes());
    bytes.extend(text.as_bytes());
    bytes.push(0);
    bytes
}

/// What comes before the first addition. The first connection creates the number.
fn greet(kind: Kind, stream: &mut TcpStream, first: bool) -> Result<()> {
    match kind {
        Kind::Redis => {}
        Kind::Memcached if first => {
            stream.write_all(b"set k 0 0 1\r\n0\r\n")?;
            let mut answer = [0; 8];
            stream.read_exact(&mut answer)?;
            ensure!(&answer == b"STORED\r\n", "memcached stores nothing");
        }
        Kind::Memcached => {}
        Kind::Postgresql => {
            let body = b"\0\x03\0\0user\0postgres\0database\0postgres\0\0";
            let len = u32::try_from(body.len() + 4)?;
            stream.write_all(&[&len.to_be_bytes(), &body[..]].concat())?;
            until_ready(stream)?;
            if first {
                stream.write_all(&query("create sequence if not exists s"))?;
                until_ready(stream)?;
            }
        }
    }
    Ok(())
}

fn until_ready(stream: &mut TcpStream) -> Result<()> {
    let (mut bytes, mut chunk) = (Vec::new(), [0; 4096]);
    while rows(&bytes)?.is_none() {
        let len = stream.read(&mut chunk)?;
        ensure!(len > 0, "postgresql has closed the connection");
        bytes.extend_from_slice(chunk.get(..len).unwrap_or(&[]));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_are_counted_when_they_are_whole() {
        let read = |text: &str| lines(text.as_bytes(), b":").expect("numbers");
        assert_eq!(read(":1\r\n:20\r\n"), Some((2, 20)));
        assert_eq!(read(":1\r\n:2"), None);
        assert_eq!(read(":1\r"), None);
        assert!(lines(b"-ERR no\r\n", b":").is_err());
        assert!(lines(b"NOT_FOUND\r\n", b"").is_err());
    }

    #[test]
    fn rows_are_counted_when_the_server_is_ready() {
        let row = |digits: &str| {
            let len = u32::try_from(digits.len()).expect("small");
            let mut body = vec![0, 1];
            body.extend(len.to_be_bytes());
            body.extend(digits.as_bytes());
            let mut bytes = vec![b'D'];
            bytes.extend((len + 10).to_be_bytes());
            bytes.extend(body);
            bytes
        };
        let mut bytes = [row("7"), row("12")].concat();
        assert_eq!(rows(&bytes).expect("rows"), None);
        bytes.extend(b"Z\0\0\0\x05I");
        assert_eq!(rows(&bytes).expect("rows"), Some((2, 12)));
        assert!(rows(b"E\0\0\0\x08what").is_err());
    }
}
