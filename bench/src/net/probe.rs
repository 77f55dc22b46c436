//! Asks for tokens and never uses them: a witness of every grant, besides the clients.

use std::net::{Ipv4Addr, SocketAddr};
use std::time::Duration;

use anyhow::Result;
use tokio::net::UdpSocket;
use tokio::time::{Instant, timeout_at};
use wire::datagram::{self, Datagram, Grant, Header, Kind, MAX_DATAGRAM_BYTES, Reply, Status};
use wire::{ClientId, Lane, LogId, RequestId};

use crate::logic::history::Token;

/// A client that speaks only to the sequencer.
#[derive(Debug)]
pub(crate) struct Probe {
    socket: UdpSocket,
    log: LogId,
    client: ClientId,
    request: u64,
}

impl Probe {
    /// A probe of the sequencer at an address.
    ///
    /// # Errors
    /// What the system says about the socket.
    pub(crate) async fn new(sequencer: SocketAddr, log: LogId, client: u64) -> Result<Self> {
        let socket = UdpSocket::bind((Ipv4Addr::UNSPECIFIED, 0)).await?;
        socket.connect(sequencer).await?;
        let client = ClientId(client);
        Ok(Self {
            socket,
            log,
            client,
            request: 0,
        })
    }

    /// Asks for the issued tail, a few times if need be.
    ///
    /// # Errors
    /// If nobody answers.
    pub(crate) async fn tail(&mut self, limit: Duration) -> Result<u64> {
        for _ in 0..5 {
            let entry = Grant::new(Lane(0), RequestId(0), 0);
            if let Some(reply) = self.ask(Kind::Tail, entry, limit).await? {
                return Ok(reply.first.0);
            }
        }
        anyhow::bail!("the sequencer tells no tail")
    }

    /// Asks once for `count` positions and waits at most `limit`. `None` if no token came: a token that
    /// was granted all the same is a hole.
    ///
    /// # Errors
    /// None in practice: a socket whose peer is down counts as no answer.
    pub(crate) async fn grant(&mut self, count: u32, limit: Duration) -> Result<Option<Token>> {
        self.request += 1;
        let request = RequestId(self.request);
        let entry = Grant::new(Lane(0), request, count);
        let reply = self.ask(Kind::Grant, entry, limit).await?;
        let granted = |reply: &Reply| reply.status() == Ok(Status::Ok) && reply.count > 0;
        Ok(reply.filter(granted).map(|reply| Token {
            first: reply.first.0,
            count: u64::from(reply.count),
        }))
    }

    async fn ask(&mut self, kind: Kind, entry: Grant, limit: Duration) -> Result<Option<Reply>> {
        let header = Header::request(kind, self.log, self.client, 1);
        let mut buffer = [0; MAX_DATAGRAM_BYTES];
        let len = datagram::write(header, &[entry], &mut buffer)?;
        let _ = self.socket.send(buffer.get(..len).unwrap_or(&[])).await;
        #[allow(clippy::disallowed_methods, reason = "a deadline on a socket")]
        let deadline = Instant::now() + limit;
        loop {
            let received = timeout_at(deadline, self.socket.recv(&mut buffer)).await;
            let Ok(Ok(len)) = received else {
                return Ok(None);
            };
            let bytes = buffer.get(..len).unwrap_or(&[]);
            let Ok(datagram) = Datagram::parse(bytes, self.log) else {
                continue;
            };
            let mine = |reply: &Reply| reply.request == entry.request;
            if let Some(reply) = datagram.entries::<Reply>().flatten().find(mine) {
                return Ok(Some(reply));
            }
        }
    }
}
