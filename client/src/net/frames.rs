//! Frames on a TCP stream.

use std::io::IoSlice;
use std::net::SocketAddr;
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use thiserror::Error;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::timeout;
use wire::frame::{Frame, Hello, MAX_HEAD_BYTES, PREFIX_BYTES, Prefix, Welcome};
use wire::{ClientId, LogId, WireError};

use crate::limits::CONNECT_TIMEOUT;

/// Slices that Linux takes in one call (`IOV_MAX`).
const SLICES: usize = 1024;

/// Why a connection is no more.
#[derive(Debug, Error)]
pub(crate) enum Lost {
    #[error("{0}")]
    Io(#[from] std::io::Error),
    #[error("{0}")]
    Wire(#[from] WireError),
    #[error("refused: {text}")]
    Refused { retry: bool, text: String },
    #[error("no answer in time")]
    Silent,
    #[error("unexpected frame")]
    Unexpected,
}

impl Lost {
    /// Whether trying again is of no use.
    pub(crate) fn is_final(&self) -> bool {
        matches!(self, Self::Refused { retry: false, .. })
    }
}

/// Reads one frame. Not cancel-safe: a future that is dropped may have read a part of it.
pub(crate) async fn read<R: AsyncRead + Unpin>(from: &mut R) -> Result<(Frame, Bytes), Lost> {
    let mut prefix = [0; PREFIX_BYTES];
    from.read_exact(&mut prefix).await?;
    let prefix = Prefix::decode(&prefix)?;
    let mut head = [0; MAX_HEAD_BYTES];
    let head = head.get_mut(..prefix.head_len).unwrap_or(&mut []);
    from.read_exact(head).await?;
    let frame = Frame::decode(&prefix, head)?;
    let mut body = BytesMut::zeroed(prefix.body_len);
    from.read_exact(&mut body).await?;
    if let Frame::Refusal(refusal) = frame {
        let text = String::from_utf8_lossy(&body).into_owned();
        let retry = refusal.retry != 0;
        return Err(Lost::Refused { retry, text });
    }
    Ok((frame, body.freeze()))
}

/// Writes one frame without a body.
pub(crate) async fn write<W: AsyncWrite + Unpin>(to: &mut W, frame: Frame) -> Result<(), Lost> {
    Ok(to.write_all(&frame.encode(0)?).await?)
}

/// Writes all bytes of slices, of which the kernel is given as many at once as it takes.
pub(crate) async fn write_slices<W: AsyncWrite + Unpin>(
    to: &mut W,
    mut slices: &mut [IoSlice<'_>],
) -> Result<(), Lost> {
    while !slices.is_empty() {
        let few = slices.get(..SLICES.min(slices.len())).unwrap_or(&[]);
        match to.write_vectored(few).await? {
            0 => return Err(std::io::Error::from(std::io::ErrorKind::WriteZero).into()),
            written => IoSlice::advance_slices(&mut slices, written),
        }
    }
    Ok(())
}

/// Connects to a stripe-writer and is welcomed.
pub(crate) async fn connect(
    address: SocketAddr,
    log: LogId,
    client: ClientId,
) -> Result<(TcpStream, Welcome), Lost> {
    let connecting = async {
        let mut stream = TcpStream::connect(address).await?;
        stream.set_nodelay(true)?;
        let alive = socket2::TcpKeepalive::new()
            .with_time(Duration::from_secs(10))
            .with_interval(Duration::from_secs(5));
        socket2::SockRef::from(&stream).set_tcp_keepalive(&alive)?;
        write(&mut stream, Frame::Hello(Hello { log, client })).await?;
        match read(&mut stream).await? {
            (Frame::Welcome(welcome), _) => Ok((stream, welcome)),
            _ => Err(Lost::Unexpected),
        }
    };
    timeout(CONNECT_TIMEOUT, connecting)
        .await
        .unwrap_or(Err(Lost::Silent))
}
