//! One connection: reads frames and passes them on.

use std::collections::HashMap;
use std::net::SocketAddr;
use std::sync::Arc;

use bytes::{Bytes, BytesMut};
use thiserror::Error;
use tokio::io::{AsyncRead, AsyncReadExt, BufReader};
use tokio::net::TcpStream;
use tokio::sync::{Semaphore, mpsc};
use tokio::task::{AbortHandle, JoinSet};
use wire::frame::{
    AckStatus, Append, Ask, End, EndReason, Frame, Frontiers, PREFIX_BYTES, Prefix, Refusal, Seal,
    Welcome,
};
use wire::{Fixed, Run, RunBody, WireError};

use super::memory::Room;
use super::outgoing::{self, Outgoing, Token};
use super::pulse::{self, Owed};
use super::tail::{self, Pushes};
use crate::limits::{
    ASKS_A_CONNECTION, BODY_TIMEOUT, FRAMES_A_CONNECTION, HELLO_TIMEOUT, MOVING,
    PUSHES_A_CONNECTION, TASKS_A_CONNECTION,
};
use crate::shared::Shared;
use crate::store::{self, Event, StripeHandle};

/// Bytes read from the socket at once, beside bodies: what is left of a larger body is read to where it
/// stays, so that at most so much of it is copied.
const READ_BUFFER_BYTES: usize = 8 << 10;

/// How long what a refused peer still sends is read and thrown away.
const LINGER: std::time::Duration = std::time::Duration::from_secs(1);

/// Why a connection ends.
#[derive(Debug, Error)]
pub(super) enum ConnectionError {
    #[error("broken frame: {0}")]
    Wire(#[from] WireError),
    #[error("connection failed: {0}")]
    Io(#[from] std::io::Error),
    #[error("{0}")]
    Refused(String),
    #[error("no hello in time")]
    Silent,
    #[error("a body did not come in time")]
    Stalled,
}

struct Connection {
    shared: Arc<Shared>,
    out: mpsc::Sender<Outgoing>,
    owed: Owed,
    pushes: Pushes,
    asks: HashMap<u32, AbortHandle>,
    tasks: JoinSet<()>,
    /// Whether the peer is told of moves.
    told: bool,
}

/// Serves a connection until it ends. Whatever a peer sends, only its own connection suffers.
pub(super) async fn serve(shared: Arc<Shared>, socket: TcpStream, peer: SocketAddr) {
    // Acknowledgements are small and awaited.
    let _ = socket.set_nodelay(true);
    let (read, write) = socket.into_split();
    let (out, frames) = mpsc::channel(FRAMES_A_CONNECTION);
    let mut writer = tokio::spawn(outgoing::write(write, frames));
    let pushes = Pushes {
        own: Arc::new(Semaphore::new(PUSHES_A_CONNECTION)),
        all: Arc::clone(&shared.pushes),
    };
    let (owed, beating) = (Owed::default(), (Arc::clone(&shared), out.clone()));
    let mut connection = Connection {
        shared,
        out,
        owed: owed.clone(),
        pushes,
        asks: HashMap::new(),
        tasks: JoinSet::new(),
        told: false,
    };
    let mut read = BufReader::with_capacity(READ_BUFFER_BYTES, read);
    let ended = tokio::select! {
        ended = connection.read(&mut read) => ended,
        // The peer is gone.
        _ = &mut writer => return,
        // It does not read its answers, and one was lost: it learns by the end of the connection.
        () = owed.is_cut() => {
            tracing::info!(%peer, "connection cut off: its answers are not read");
            return writer.abort();
        }
        () = pulse::beat(&beating.0, &owed, &beating.1) => return,
    };
    match ended {
        Ok(()) => {}
        Err(ConnectionError::Io(error)) => tracing::debug!(%peer, %error, "connection ended"),
        Err(error) => {
            connection.shared.metrics.refused();
            tracing::info!(%peer, %error, "connection refused");
            let text = Bytes::from(error.to_string());
            // Who was late may have been held up, and is welcome to come again.
            let late = matches!(error, ConnectionError::Silent | ConnectionError::Stalled);
            let retry = u32::from(late);
            let frame = Frame::Refusal(Refusal { retry });
            let _ = connection.out.try_send(Outgoing::new(frame, text));
            // To close with bytes unread would reset the connection and lose the text on its way.
            let mut nowhere = tokio::io::sink();
            let rest = tokio::io::copy(&mut read, &mut nowhere);
            let _ = tokio::time::timeout(LINGER, rest).await;
        }
    }
    // Answers that are still to come have nobody to read them.
    writer.abort();
}

impl Connection {
    async fn read<R: AsyncRead + Unpin>(&mut self, socket: &mut R) -> Result<(), ConnectionError> {
        let hello = tokio::time::timeout(HELLO_TIMEOUT, self.hello(socket));
        hello.await.map_err(|_| ConnectionError::Silent)??;
        while let Some((prefix, frame)) = read_head(socket).await? {
            let appends = matches!(frame, Frame::Append(_));
            // Only who appends is told that it waits. What holds nothing has no need to: a seal that waited for
            // memory could wait for holes that are filled only behind it.
            let waits = appends.then(|| self.owed.clone());
            let room = match appends || prefix.body_len > 0 {
                true => self.shared.memory.take(prefix.body_len).await,
                false => Some(self.shared.memory.none()),
            };
            let Some(room) = room else {
                return Ok(());
            };
            drop(waits);
            let body = tokio::time::timeout(BODY_TIMEOUT, read_body(socket, prefix.body_len));
            let body = body.await.map_err(|_| ConnectionError::Stalled)??;
            self.frame(frame, body, room).await?;
        }
        Ok(())
    }

    async fn hello<R: AsyncRead + Unpin>(&self, socket: &mut R) -> Result<(), ConnectionError> {
        let refused = |why: &str| Err(ConnectionError::Refused(why.to_owned()));
        match read_head(socket).await? {
            Some((_, Frame::Hello(hello))) if hello.log == self.shared.log.id() => {}
            Some((_, Frame::Hello(hello))) => {
                let (got, expected) = (hello.log, self.shared.log.id());
                return Err(WireError::Log { got, expected }.into());
            }
            Some(_) => return refused("the first frame has to be a hello"),
            None => return Ok(()),
        }
        let welcome = Welcome {
            writer: self.shared.writer,
            epoch: self.shared.epoch(),
        };
        self.send(Frame::Welcome(welcome).into()).await;
        Ok(())
    }

    async fn frame(
        &mut self,
        frame: Frame,
        body: Bytes,
        room: Room,
    ) -> Result<(), ConnectionError> {
        match frame {
            Frame::Append(append) => return self.append(append, body, room).await,
            Frame::Read(ask) => self.ask(ask, false).await,
            Frame::Subscribe(ask) => self.ask(ask, true).await,
            Frame::Unsubscribe(ask) => {
                if let Some(task) = self.asks.remove(&ask.id) {
                    task.abort();
                }
            }
            Frame::Seal(seal) => self.seal(seal).await,
            Frame::AskFrontiers(_) => {
                self.send(frontiers(&self.shared)).await;
                self.tell_moves();
            }
            _ => {
                let why = "a frame that only a stripe-writer sends";
                return Err(ConnectionError::Refused(why.to_owned()));
            }
        }
        Ok(())
    }

    async fn append(
        &mut self,
        append: Append,
        body: Bytes,
        mut room: Room,
    ) -> Result<(), ConnectionError> {
        let body = RunBody::checked(append.count, append.crc, body)?;
        let run = Run::records(append.place.first, append.identity, body);
        let handle = self.handle(&append).await;
        // All of it is counted, also what is over the share.
        let charged = handle.as_ref().is_none_or(|h| {
            self.shared.memory.charge(&mut room, &h.taken) || h.pressure.wants(run.first, run.end())
        });
        let token = Token::new(
            self.out.clone(),
            append.place,
            append.identity.request,
            self.owed.clone(),
            room,
        );
        let refuse = |status| token.answer(run.first, run.end(), status);
        let Some(handle) = handle else {
            let place = append.place;
            // Soon it is served here: to look for it elsewhere would take longer.
            let taking = self.shared.owned.is_taking((place.segment, place.stripe));
            match self.shared.closed(place) {
                Some(closed) => closed.answer(&run, token),
                None if taking => refuse(AckStatus::Busy),
                None => refuse(AckStatus::NotOwner),
            }
            return Ok(());
        };
        if !charged {
            handle.pressure.put_off(store::now());
            refuse(AckStatus::Busy);
            return Ok(());
        }
        if run.end().0 > wire::limits::MAX_POSITION {
            refuse(AckStatus::Invalid);
            return Ok(());
        }
        let events = handle.events.clone();
        if append.epoch > self.shared.epoch()
            && self.shared.learn(append.epoch).await < append.epoch
        {
            // Not in the control chain yet, as far as can be told now.
            refuse(AckStatus::Busy);
            return Ok(());
        }
        let epoch = append.epoch;
        if let Err(mpsc::error::SendError(event)) =
            events.send(Event::Append { run, epoch, token }).await
            && let Event::Append { run, token, .. } = event
        {
            // It has ended: its segment is complete, or this process stops.
            match self.shared.closed(append.place) {
                Some(closed) => closed.answer(&run, token),
                None => token.answer(run.first, run.end(), AckStatus::NotOwner),
            }
        }
        Ok(())
    }

    /// The stripe of an append. One that is not known may be of a segment that a newer reign has opened; one that is on
    /// its way here, or away, is waited for a little: who is told to look elsewhere, or to come again, takes longer.
    async fn handle(&self, append: &Append) -> Option<Arc<StripeHandle>> {
        let (shared, place) = (&self.shared, append.place);
        if let Some(handle) = shared.stripe(place) {
            return Some(handle);
        }
        if append.epoch > shared.epoch() {
            shared.learn(append.epoch).await;
        }
        let settled = shared.owned.settled((place.segment, place.stripe));
        let _ = tokio::time::timeout(MOVING, settled).await;
        shared.stripe(place)
    }

    async fn ask(&mut self, ask: Ask, follow: bool) {
        while self.tasks.try_join_next().is_some() {}
        self.asks.retain(|_, task| !task.is_finished());
        let end = |reason| Frame::End(End::new(ask.id, ask.place, reason)).into();
        if self.asks.len() >= ASKS_A_CONNECTION {
            return self.send(end(EndReason::Lagged)).await;
        }
        let Some(handle) = self.shared.stripe(ask.place) else {
            let reason = match self.shared.closed(ask.place) {
                Some(_) => EndReason::Lagged,
                None => EndReason::NotOwner,
            };
            return self.send(end(reason)).await;
        };
        let task = tail::serve(handle, ask, follow, self.out.clone(), self.pushes.clone());
        let task = self.tasks.spawn(task);
        if let Some(former) = self.asks.insert(ask.id, task) {
            former.abort();
        }
    }

    async fn seal(&mut self, seal: Seal) {
        while self.tasks.try_join_next().is_some() {}
        if self.tasks.len() >= TASKS_A_CONNECTION {
            let frame = Frame::Refusal(Refusal { retry: 1 });
            let text = Bytes::from_static(b"too many questions at once");
            return self.send(Outgoing::new(frame, text)).await;
        }
        let (shared, out) = (Arc::clone(&self.shared), self.out.clone());
        self.tasks.spawn(async move {
            let answer = match shared.seal(seal).await {
                Ok(stripes) => {
                    let body: Vec<u8> = stripes.iter().flat_map(Fixed::to_vec).collect();
                    Outgoing::new(Frame::Sealed(seal), body.into())
                }
                Err(error) => {
                    tracing::warn!(%error, epoch = %seal.epoch, "cannot seal");
                    let frame = Frame::Refusal(Refusal { retry: 1 });
                    let body = Bytes::from(error);
                    Outgoing::new(frame, body)
                }
            };
            let _ = out.send(answer).await;
        });
    }

    /// Tells a peer that has asked once what is left to it, unasked: it would find out late.
    fn tell_moves(&mut self) {
        if std::mem::replace(&mut self.told, true) {
            return;
        }
        let (shared, out) = (Arc::clone(&self.shared), self.out.clone());
        self.tasks.spawn(async move {
            let mut moves = shared.leaving.subscribe();
            while moves.changed().await.is_ok() {
                if out.send(frontiers(&shared)).await.is_err() {
                    return;
                }
            }
        });
    }

    async fn send(&self, outgoing: Outgoing) {
        // The writer's end is noticed by `serve`.
        let _ = self.out.send(outgoing).await;
    }
}

fn frontiers(shared: &Shared) -> Outgoing {
    let claims = shared.owned.claims();
    let body: Vec<u8> = claims.iter().flat_map(Fixed::to_vec).collect();
    let frontiers = Frontiers {
        epoch: shared.epoch(),
        leaving: u32::from(*shared.leaving.borrow()),
    };
    Outgoing::new(Frame::Frontiers(frontiers), body.into())
}

/// Reads prefix and head of the next frame; `None` at the end of the connection between two frames.
pub(super) async fn read_head<R>(socket: &mut R) -> Result<Option<(Prefix, Frame)>, ConnectionError>
where
    R: AsyncRead + Unpin,
{
    let mut prefix = [0; PREFIX_BYTES];
    let first = socket.read(&mut prefix).await?;
    if first == 0 {
        return Ok(None);
    }
    let rest = prefix.get_mut(first..).unwrap_or(&mut []);
    socket.read_exact(rest).await?;
    let prefix = Prefix::decode(&prefix)?;
    let mut head = vec![0; prefix.head_len];
    socket.read_exact(&mut head).await?;
    let frame = Frame::decode(&prefix, &head)?;
    Ok(Some((prefix, frame)))
}

/// Reads a body.
pub(super) async fn read_body<R: AsyncRead + Unpin>(
    socket: &mut R,
    len: usize,
) -> std::io::Result<Bytes> {
    let mut body = BytesMut::with_capacity(len);
    let mut rest = socket.take(u64::try_from(len).unwrap_or(u64::MAX));
    while body.len() < len {
        if rest.read_buf(&mut body).await? == 0 {
            return Err(std::io::ErrorKind::UnexpectedEof.into());
        }
    }
    Ok(body.freeze())
}
