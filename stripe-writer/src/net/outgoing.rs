//! What goes out on a connection.

use std::sync::Arc;

use bytes::Bytes;
use tokio::io::{AsyncWrite, AsyncWriteExt, BufWriter};
use tokio::sync::mpsc::error::TrySendError;
use tokio::sync::{OwnedSemaphorePermit, mpsc};
use wire::frame::{Ack, AckStatus, Frame, Place};
use wire::{RequestId, SegmentId, Slot, StripeId};

use super::memory::Room;
use super::pulse::Owed;

/// A frame to send.
#[derive(Debug)]
pub(crate) struct Outgoing {
    /// Its head.
    pub(crate) frame: Frame,
    /// Its body.
    pub(crate) body: Bytes,
    /// What the body takes of the bounds on pushes, until it is written.
    pub(crate) memory: Vec<OwnedSemaphorePermit>,
}

impl Outgoing {
    /// A frame with a small body.
    #[must_use]
    pub(crate) fn new(frame: Frame, body: Bytes) -> Self {
        let memory = Vec::new();
        Self {
            frame,
            body,
            memory,
        }
    }
}

impl From<Frame> for Outgoing {
    fn from(frame: Frame) -> Self {
        Self::new(frame, Bytes::new())
    }
}

/// Whom to answer about an append, and the memory that its records take until then.
#[derive(Debug, Clone)]
pub(crate) struct Token {
    replies: mpsc::Sender<Outgoing>,
    segment: SegmentId,
    stripe: StripeId,
    request: RequestId,
    owed: Owed,
    _memory: Arc<Room>,
}

impl Token {
    /// Answers go to `replies`, and `owed` is cut if one finds no room; `memory` is given back with the
    /// last clone.
    #[must_use]
    pub(crate) fn new(
        replies: mpsc::Sender<Outgoing>,
        place: Place,
        request: RequestId,
        owed: Owed,
        memory: Room,
    ) -> Self {
        Self {
            replies,
            segment: place.segment,
            stripe: place.stripe,
            request,
            owed,
            _memory: Arc::new(memory),
        }
    }

    /// Tells what became of slots `[first, end)`. A connection whose client does not read its answers
    /// loses them and is cut off: the client asks again on the next one.
    pub(crate) fn answer(&self, first: Slot, end: Slot, status: AckStatus) {
        let place = Place {
            segment: self.segment,
            stripe: self.stripe,
            first,
        };
        let count = u32::try_from(first.until(end)).unwrap_or(u32::MAX);
        let ack = Ack::new(place, count, self.request, status);
        // A connection that is gone needs no answer.
        if let Err(TrySendError::Full(_)) = self.replies.try_send(Frame::Ack(ack).into()) {
            self.owed.cut();
        }
    }
}

/// Bytes gathered before they are written to the socket.
const WRITE_BUFFER_BYTES: usize = 64 << 10;

/// Writes frames until all senders are gone or the socket fails. Flushes whenever nothing waits.
pub(super) async fn write<W>(socket: W, mut frames: mpsc::Receiver<Outgoing>) -> std::io::Result<()>
where
    W: AsyncWrite + Unpin,
{
    let mut socket = BufWriter::with_capacity(WRITE_BUFFER_BYTES, socket);
    while let Some(outgoing) = frames.recv().await {
        send(&mut socket, outgoing).await?;
        while let Ok(outgoing) = frames.try_recv() {
            send(&mut socket, outgoing).await?;
        }
        socket.flush().await?;
    }
    Ok(())
}

async fn send<W: AsyncWrite + Unpin>(socket: &mut W, outgoing: Outgoing) -> std::io::Result<()> {
    let Outgoing {
        frame,
        body,
        memory,
    } = outgoing;
    let head = frame.encode(body.len()).map_err(std::io::Error::other)?;
    socket.write_all(&head).await?;
    socket.write_all(&body).await?;
    drop(memory);
    Ok(())
}
