//! Watches the other stripe-writers of the membership: asks each what it owns, again and again.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use thiserror::Error;
use tokio::io::AsyncWriteExt;
use tokio::net::TcpStream;
use tokio::time::{sleep, timeout};
use wire::frame::{Frame, Frontier, Frontiers, Hello};
use wire::{ClientId, Epoch, Fixed, LogId, OwnerNumber, WireError};

use super::connection::{ConnectionError, read_body, read_head};
use crate::keeper::Board;
use crate::logic::members::{Key, TICKS};

#[derive(Debug, Error)]
enum PeerError {
    #[error("{0}")]
    Io(#[from] std::io::Error),
    #[error("{0}")]
    Frame(#[from] ConnectionError),
    #[error("{0}")]
    Wire(#[from] WireError),
    #[error("no answer in time")]
    Silent(#[from] tokio::time::error::Elapsed),
    #[error("it ended the connection, or answered with another frame")]
    Unexpected,
}

/// A peer that is watched.
#[derive(Debug)]
pub(crate) struct Peer {
    /// Its number in the membership.
    pub(crate) member: usize,
    /// Where it is.
    pub(crate) address: SocketAddr,
    /// The log that it serves.
    pub(crate) log: LogId,
    /// Who asks.
    pub(crate) client: ClientId,
    /// Without an answer for so long a connection is given up.
    pub(crate) timeout: Duration,
}

impl Peer {
    /// Asks it for ever, and writes down what it says.
    pub(crate) async fn watch(self, board: Arc<Board>) {
        let mut reached = true;
        loop {
            let Err(error) = self.ask(&board, &mut reached).await;
            board.unreachable(self.member);
            // Once each time: it may be down for days.
            if std::mem::take(&mut reached) {
                tracing::info!(peer = %self.address, %error, "a stripe-writer does not answer");
            }
            sleep(self.pause()).await;
        }
    }

    async fn ask(
        &self,
        board: &Board,
        reached: &mut bool,
    ) -> Result<std::convert::Infallible, PeerError> {
        let mut stream = timeout(self.timeout, TcpStream::connect(self.address)).await??;
        stream.set_nodelay(true)?;
        let (log, client) = (self.log, self.client);
        let hello = Frame::Hello(Hello { log, client });
        stream.write_all(&hello.encode(0)?).await?;
        let (Frame::Welcome(_), _) = self.receive(&mut stream).await? else {
            return Err(PeerError::Unexpected);
        };
        let question = Frontiers {
            epoch: Epoch(0),
            leaving: 0,
        };
        let question = Frame::AskFrontiers(question).encode(0)?;
        loop {
            stream.write_all(&question).await?;
            self.hear(&mut stream, board).await?;
            if !std::mem::replace(reached, true) {
                tracing::info!(peer = %self.address, "a stripe-writer answers again");
            }
            let (pause, mut first) = (sleep(self.pause()), [0]);
            tokio::pin!(pause);
            loop {
                tokio::select! {
                    () = &mut pause => break,
                    // What it leaves to others it tells unasked. Not by `readable`, which may say so of what was read.
                    peeked = stream.peek(&mut first) => { peeked?; }
                }
                self.hear(&mut stream, board).await?;
            }
        }
    }

    async fn hear(&self, stream: &mut TcpStream, board: &Board) -> Result<(), PeerError> {
        let (Frame::Frontiers(told), body) = self.receive(stream).await? else {
            return Err(PeerError::Unexpected);
        };
        board.heard(self.member, claims(&body)?, told.leaving != 0);
        Ok(())
    }

    async fn receive(&self, stream: &mut TcpStream) -> Result<(Frame, Vec<u8>), PeerError> {
        let receiving = async {
            let head = read_head(stream).await?;
            let (prefix, frame) = head.ok_or(PeerError::Unexpected)?;
            let body = read_body(stream, prefix.body_len).await?;
            Ok((frame, body.to_vec()))
        };
        timeout(self.timeout, receiving).await?
    }

    fn pause(&self) -> Duration {
        self.timeout / TICKS
    }
}

fn claims(body: &[u8]) -> Result<BTreeMap<Key, OwnerNumber>, WireError> {
    let frontiers = body.chunks(Frontier::SIZE).map(|bytes| {
        let frontier = Frontier::read(bytes)?;
        let key = (frontier.place.segment, frontier.place.stripe);
        Ok((key, frontier.owner))
    });
    frontiers.collect()
}
