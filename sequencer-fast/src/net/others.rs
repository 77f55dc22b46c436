//! The other sequencers of the log, as a standby asks them: for their tails, which only one that reigns tells.

use std::future::poll_fn;
use std::io;
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr};
use std::task::Poll;

use tokio::io::ReadBuf;
use tokio::net::UdpSocket;
use wire::datagram::{self, Datagram, Grant, Header, Kind, MAX_DATAGRAM_BYTES, Reply, Status};
use wire::mac::{Key, Signer};
use wire::{ClientId, Epoch, Lane, LogId, RequestId};

/// Questions whose answers count: a datagram that was long on its way says nothing about now.
const FRESH: u64 = 12;

/// What is heard of one of the others.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Sign {
    /// It answers for a reign.
    Told(Epoch, Status),
    /// Its host says that nobody listens at its port.
    Gone,
}

/// One socket for each of the others.
#[derive(Debug)]
pub(crate) struct Others {
    sockets: Vec<UdpSocket>,
    log: LogId,
    client: ClientId,
    signer: Option<Signer>,
    asked: u64,
}

impl Others {
    /// Sockets to these addresses. `client` is drawn by chance, so that nobody can guess what is asked.
    ///
    /// # Errors
    /// What the system says.
    pub(crate) async fn new(
        addresses: &[SocketAddr],
        log: LogId,
        client: u64,
        key: Option<&Key>,
    ) -> io::Result<Self> {
        let mut sockets = Vec::new();
        for address in addresses {
            let any: SocketAddr = match address {
                SocketAddr::V4(_) => (Ipv4Addr::UNSPECIFIED, 0).into(),
                SocketAddr::V6(_) => (Ipv6Addr::UNSPECIFIED, 0).into(),
            };
            let socket = UdpSocket::bind(any).await?;
            socket.connect(address).await?;
            sockets.push(socket);
        }
        Ok(Self {
            sockets,
            log,
            client: ClientId(client),
            signer: key.map(Key::signer),
            // Numbers are as hard to guess.
            asked: client.rotate_left(32) >> 1,
        })
    }

    /// Asks all of them. What cannot be sent is lost: the next question follows soon.
    pub(crate) async fn ask(&mut self) {
        self.asked += 1;
        let question = Grant::new(Lane(0), RequestId(self.asked), 0);
        let header = Header::request(Kind::Tail, self.log, self.client, 1);
        let mut buffer = [0; MAX_DATAGRAM_BYTES];
        let Ok(len) = datagram::write(header, &[question], &mut buffer) else {
            return;
        };
        let Some(bytes) = buffer.get_mut(..len) else {
            return;
        };
        if let Some(signer) = &mut self.signer {
            signer.sign(bytes);
        }
        for socket in &self.sockets {
            let _ = socket.send(bytes).await;
        }
    }

    /// Waits for the next sign of any of them, and gives its number among them.
    pub(crate) async fn sign(&mut self) -> (usize, Sign) {
        let mut buffer = [0; MAX_DATAGRAM_BYTES];
        loop {
            let received = poll_fn(|context| {
                for (from, socket) in self.sockets.iter().enumerate() {
                    let mut room = ReadBuf::new(&mut buffer);
                    if let Poll::Ready(received) = socket.poll_recv(context, &mut room) {
                        return Poll::Ready((from, received.map(|()| room.filled().len())));
                    }
                }
                Poll::Pending
            });
            let (from, received) = received.await;
            match received.map(|len| self.read(buffer.get(..len).unwrap_or_default())) {
                Ok(Some((epoch, status))) => return (from, Sign::Told(epoch, status)),
                Ok(None) => {}
                Err(_) => return (from, Sign::Gone),
            }
        }
    }

    fn read(&mut self, bytes: &[u8]) -> Option<(Epoch, Status)> {
        if self
            .signer
            .as_mut()
            .is_some_and(|signer| !signer.verify(bytes))
        {
            return None;
        }
        let datagram = Datagram::parse(bytes, self.log).ok()?;
        let header = datagram.header;
        if !header.is_reply() || header.client != self.client || datagram.kind != Kind::Tail {
            return None;
        }
        let reply: Reply = datagram.entries().next()?.ok()?;
        let age = self.asked.checked_sub(reply.request.0)?;
        let status = reply.status().ok()?;
        (age < FRESH).then_some((header.epoch, status))
    }
}
