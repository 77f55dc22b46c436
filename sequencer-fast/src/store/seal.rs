//! Sealing: before a reign grants, every stripe refuses older epochs and is complete up to where the
//! reign starts (H-3, H-4).

use std::io;
use std::net::SocketAddr;
use std::time::Duration;

use thiserror::Error;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::task::JoinSet;
use tokio::time::timeout;
use wire::frame::{Frame, Hello, PREFIX_BYTES, Prefix, Seal};
use wire::{ClientId, LogId, WireError};

use super::begin::Backoff;

/// Longest wait for a connection, and for each frame but the last.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(5);

/// Longest wait for a seal, which makes durable what the writer holds. Afterwards it is asked again.
const SEAL_TIMEOUT: Duration = Duration::from_secs(60);

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

/// Has all writers seal, however long it takes.
pub(crate) async fn seal_all(writers: &[SocketAddr], log: LogId, client: ClientId, seal: Seal) {
    let mut tasks = JoinSet::new();
    for writer in writers {
        tasks.spawn(seal_one(*writer, log, client, seal));
    }
    // [H-4] A task that breaks off has sealed nothing: its panic goes on here, and nothing is granted.
    tasks.join_all().await;
}

async fn seal_one(writer: SocketAddr, log: LogId, client: ClientId, seal: Seal) {
    let mut pause = Backoff::default();
    // [H-4] There is no way around a writer that does not answer.
    while let Err(error) = attempt(writer, log, client, seal).await {
        let attempts = pause.attempts();
        if attempts % LOG_EVERY == 1 {
            tracing::warn!(%error, %writer, attempts, "stripe-writer has not sealed: trying again");
        }
        pause.wait().await;
    }
    tracing::info!(%writer, epoch = %seal.epoch, position = %seal.position, "stripe-writer has sealed");
}

async fn attempt(
    writer: SocketAddr,
    log: LogId,
    client: ClientId,
    seal: Seal,
) -> Result<(), SealError> {
    let mut stream = timeout(ANSWER_TIMEOUT, TcpStream::connect(writer)).await??;
    stream.set_nodelay(true)?;
    let hello = Frame::Hello(Hello { log, client });
    stream.write_all(&hello.encode(0)?).await?;
    match timeout(ANSWER_TIMEOUT, receive(&mut stream)).await?? {
        Frame::Welcome(_) => {}
        frame => return Err(SealError::Unexpected(frame)),
    }
    stream.write_all(&Frame::Seal(seal).encode(0)?).await?;
    match timeout(SEAL_TIMEOUT, receive(&mut stream)).await?? {
        // [H-3] Of this seal, and nothing less.
        Frame::Sealed(sealed) if sealed == seal => Ok(()),
        frame => Err(SealError::Unexpected(frame)),
    }
}

/// Reads one frame; a refusal is an error with its text.
async fn receive(stream: &mut TcpStream) -> Result<Frame, SealError> {
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
        frame => Ok(frame),
    }
}
