//! Sealing: before a reign grants, every stripe refuses older epochs and is complete up to where the
//! reign starts (H-3, H-4).

use std::io;
use std::net::SocketAddr;
use std::time::Duration;

use catalog::Membership;
use runtime::members::changed;
use thiserror::Error;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio::time::timeout;
use wire::frame::{Frame, Hello, PREFIX_BYTES, Prefix, Seal, SealedStripe};
use wire::{ClientId, Fixed, LogId, WireError};

use super::begin::Backoff;
use crate::logic::Sealing;

/// Longest wait for a connection, and for each frame but the last.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(5);

/// Longest wait for a seal, which makes durable what the writer holds. Afterwards it is asked again.
const SEAL_TIMEOUT: Duration = Duration::from_secs(60);

/// Pause before a writer is asked again that has answered while stripes are missing: it may own them by then.
const ASK_AGAIN: Duration = Duration::from_millis(250);

/// Writers that are asked at the same time, at most. A list has far fewer.
const WRITERS: usize = 1024;

/// Failures of one writer between two log lines.
const LOG_EVERY: u32 = 10;

#[derive(Debug, Error)]
enum SealError {
    #[error("{0}")]
    Io(#[from] io::Error),
    #[error("no answer in time")]
    Timeout(#[from] tokio::time::error::Elapsed),
    #[error("bad frame: {0}")]
    Wire(#[from] WireError),
    #[error("refused: {0}")]
    Refused(String),
    #[error("answered with another frame: {0:?}")]
    Unexpected(Frame),
}

/// Asks the writers until every stripe is sealed, however long it takes and whoever owns it by then.
pub(crate) async fn seal_all(
    mut writers: Writers,
    log: LogId,
    client: ClientId,
    sealing: &mut Sealing,
) {
    let seal = sealing.seal();
    let mut asking = JoinSet::new();
    for writer in &writers.known {
        asking.spawn(Asked::new(*writer).again(log, client, seal));
    }
    // [H-4] There is no way around a stripe of which nobody says that it is sealed.
    while !sealing.is_complete() {
        let asked = tokio::select! {
            // Without anybody to ask nothing is ever sealed.
            Some(asked) = asking.join_next() => asked,
            writer = writers.next() => {
                asking.spawn(Asked::new(writer).again(log, client, seal));
                continue;
            }
        };
        let mut asked = match asked {
            Ok(asked) => asked,
            // A task that breaks off has sealed nothing: its panic goes on here, and nothing is granted.
            Err(error) if error.is_panic() => std::panic::resume_unwind(error.into_panic()),
            Err(_) => continue,
        };
        asked.note(sealing);
        if writers.has(asked.writer) {
            asking.spawn(asked.again(log, client, seal));
        }
    }
    tracing::info!(epoch = %seal.epoch, position = %seal.position, "every stripe is sealed");
}

/// The stripe-writers of the log, and those that come.
#[derive(Debug)]
pub(crate) struct Writers {
    known: Vec<SocketAddr>,
    changes: Option<watch::Receiver<Membership>>,
    new: Vec<SocketAddr>,
}

impl Writers {
    pub(crate) fn new(
        known: Vec<SocketAddr>,
        changes: Option<watch::Receiver<Membership>>,
    ) -> Self {
        Self {
            known,
            changes,
            new: Vec::new(),
        }
    }

    /// Whether a writer is to be asked.
    fn has(&self, writer: SocketAddr) -> bool {
        self.known.contains(&writer)
    }

    /// The next one that was not there before. One that has left the list may own stripes as before, and is asked as
    /// long as there is room. Cancel-safe.
    async fn next(&mut self) -> SocketAddr {
        loop {
            if let Some(new) = self.new.pop() {
                self.known.push(new);
                return new;
            }
            let membership = changed(&mut self.changes).await;
            let listed: Vec<_> = membership.addresses().take(WRITERS).collect();
            let new = listed.iter().filter(|writer| !self.has(**writer));
            self.new = new.copied().collect();
            if self.known.len() + self.new.len() > WRITERS {
                self.known.retain(|writer| listed.contains(writer));
            }
        }
    }
}

/// A writer, and what became of the last question.
struct Asked {
    writer: SocketAddr,
    failures: Backoff,
    /// Answers that left stripes missing.
    in_vain: u32,
    /// Before it is asked again.
    pause: Duration,
    answer: Result<Vec<SealedStripe>, SealError>,
}

impl Asked {
    fn new(writer: SocketAddr) -> Self {
        Self {
            writer,
            failures: Backoff::default(),
            in_vain: 0,
            pause: Duration::ZERO,
            answer: Ok(Vec::new()),
        }
    }

    async fn again(mut self, log: LogId, client: ClientId, seal: Seal) -> Self {
        tokio::time::sleep(self.pause).await;
        self.answer = attempt(self.writer, log, client, seal).await;
        self
    }

    fn note(&mut self, sealing: &mut Sealing) {
        let writer = self.writer;
        match &self.answer {
            Ok(stripes) => {
                sealing.sealed(sealing.seal(), stripes);
                self.failures = Backoff::default();
                self.pause = ASK_AGAIN;
                let (sealed, missing) = (stripes.len(), sealing.missing());
                tracing::debug!(%writer, sealed, missing, "stripe-writer has sealed what it owns");
                self.in_vain = self.in_vain.wrapping_add(u32::from(missing > 0));
                if missing > 0 && self.in_vain.is_multiple_of(LOG_EVERY) {
                    let stripe = sealing.first_missing();
                    tracing::warn!(%writer, sealed, missing, ?stripe, "stripes that no stripe-writer says are sealed: asking again");
                }
            }
            Err(error) => {
                let attempts = self.failures.attempts();
                if attempts % LOG_EVERY == 1 {
                    let (missing, stripe) = (sealing.missing(), sealing.first_missing());
                    tracing::warn!(%error, %writer, attempts, missing, ?stripe, "stripe-writer has not sealed: trying again");
                }
                self.pause = self.failures.next_pause();
            }
        }
    }
}

async fn attempt(
    writer: SocketAddr,
    log: LogId,
    client: ClientId,
    seal: Seal,
) -> Result<Vec<SealedStripe>, SealError> {
    let mut stream = timeout(ANSWER_TIMEOUT, TcpStream::connect(writer)).await??;
    stream.set_nodelay(true)?;
    let hello = Frame::Hello(Hello { log, client });
    stream.write_all(&hello.encode(0)?).await?;
    match timeout(ANSWER_TIMEOUT, receive(&mut stream)).await?? {
        (Frame::Welcome(_), _) => {}
        (frame, _) => return Err(SealError::Unexpected(frame)),
    }
    stream.write_all(&Frame::Seal(seal).encode(0)?).await?;
    match timeout(SEAL_TIMEOUT, receive(&mut stream)).await?? {
        // [H-3] Of this seal, and nothing less.
        (Frame::Sealed(sealed), body) if sealed == seal => {
            let stripes = body.chunks(SealedStripe::SIZE).map(SealedStripe::read);
            Ok(stripes.collect::<Result<_, _>>()?)
        }
        (frame, _) => Err(SealError::Unexpected(frame)),
    }
}

/// Reads one frame and its body; a refusal is an error with its text.
async fn receive(stream: &mut TcpStream) -> Result<(Frame, Vec<u8>), SealError> {
    let mut prefix = [0; PREFIX_BYTES];
    stream.read_exact(&mut prefix).await?;
    let prefix = Prefix::decode(&prefix)?;
    let mut head = vec![0; prefix.head_len];
    stream.read_exact(&mut head).await?;
    let frame = Frame::decode(&prefix, &head)?;
    // The bound of a body is that of its kind, checked by the prefix.
    let mut body = vec![0; prefix.body_len];
    stream.read_exact(&mut body).await?;
    match frame {
        Frame::Refusal(_) => {
            let text = String::from_utf8_lossy(&body).into_owned();
            Err(SealError::Refused(text))
        }
        frame => Ok((frame, body)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn writer(port: usize) -> SocketAddr {
        ([10, 0, 0, 1], u16::try_from(port).expect("a port")).into()
    }

    fn membership(writers: &[SocketAddr]) -> Membership {
        let writers = writers.iter().map(|address| catalog::Writer {
            address: *address,
            stripes: 0..=1023,
        });
        Membership {
            writers: writers.collect(),
            ..Membership::default()
        }
    }

    /// However many have come and gone, the next one that comes is asked; those that are gone make room.
    #[tokio::test]
    async fn h4_a_writer_that_comes_is_asked_however_many_have_gone() {
        let (tell, told) = watch::channel(membership(&[writer(1)]));
        let mut writers = Writers::new(Vec::new(), Some(told));
        for port in 1..=WRITERS + 10 {
            tell.send_replace(membership(&[writer(port)]));
            let next = timeout(ANSWER_TIMEOUT, writers.next()).await;
            assert_eq!(next.ok(), Some(writer(port)), "asked");
            assert!(writers.has(writer(port)) && writers.known.len() <= WRITERS);
            let kept = port == 1 || writers.has(writer(port - 1));
            assert!(kept || port == WRITERS + 1, "while there is room: {port}");
        }
        assert!(!writers.has(writer(1)));
    }
}
