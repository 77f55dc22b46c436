//! The other sequencers of the log, as a standby asks them: for their tails, which only one that reigns tells.

use std::future::poll_fn;
use std::io;
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr};
use std::task::Poll;

use catalog::{Membership, with_asked};
use runtime::members::changed;
use tokio::io::ReadBuf;
use tokio::net::UdpSocket;
use tokio::sync::watch;
use wire::datagram::{self, Datagram, Grant, Header, Kind, MAX_DATAGRAM_BYTES, Reply, Status};
use wire::mac::{Key, Signer};
use wire::{ClientId, Epoch, Lane, LogId, RequestId};

/// Questions whose answers count: a datagram that was long on its way says nothing about now.
const FRESH: u64 = 3;

/// Questions until a socket is tried again that could not be opened.
const OPEN_AGAIN: u64 = 16;

/// One socket for each of the others.
#[derive(Debug)]
pub(crate) struct Others {
    sockets: Vec<UdpSocket>,
    /// The list, while sockets to some of it could not be opened.
    missing: Option<Vec<SocketAddr>>,
    changes: Option<watch::Receiver<Membership>>,
    /// Who asks, where the list may have it.
    own: Option<SocketAddr>,
    /// Who answered last that it reigns: it stays among those that are asked, whatever the list says.
    reigns: Option<SocketAddr>,
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
    pub(crate) fn new(
        addresses: &[SocketAddr],
        log: LogId,
        client: u64,
        key: Option<&Key>,
    ) -> io::Result<Self> {
        let sockets = addresses.iter().copied().map(connected);
        Ok(Self {
            sockets: sockets.collect::<io::Result<_>>()?,
            missing: None,
            changes: None,
            own: None,
            reigns: None,
            log,
            client: ClientId(client),
            signer: key.map(Key::signer),
            // Numbers are as hard to guess.
            asked: client.rotate_left(32) >> 1,
        })
    }

    /// Asks those of a membership from now on, but for this one, if there is one that changes.
    pub(crate) fn follow(&mut self, changes: Option<watch::Receiver<Membership>>, own: SocketAddr) {
        let Some(changes) = changes else { return };
        self.own = Some(own);
        self.relist(&changes.borrow().sequencers);
        self.changes = Some(changes);
    }

    /// Sockets that are asked.
    pub(crate) fn count(&self) -> usize {
        self.sockets.len()
    }

    fn relist(&mut self, addresses: &[SocketAddr]) {
        let (mut others, _) = with_asked(addresses, self.reigns);
        others.retain(|other| Some(*other) != self.own);
        let mut sockets = Vec::new();
        let told = self.missing.take();
        for address in others {
            let known = |socket: &UdpSocket| socket.peer_addr().ok() == Some(address);
            match self.sockets.iter().position(known) {
                Some(at) => sockets.push(self.sockets.swap_remove(at)),
                None => match connected(address) {
                    Ok(socket) => sockets.push(socket),
                    // The others are asked all the same.
                    Err(error) => {
                        if told.as_deref() != Some(addresses) {
                            tracing::error!(%error, %address, "no socket to a sequencer: trying again");
                        }
                        self.missing = Some(addresses.to_vec());
                    }
                },
            }
        }
        self.sockets = sockets;
    }

    /// Asks all of them. What cannot be sent is lost: the next question follows soon.
    pub(crate) async fn ask(&mut self) {
        self.asked += 1;
        if self.asked.is_multiple_of(OPEN_AGAIN)
            && let Some(listed) = self.missing.clone()
        {
            self.relist(&listed);
        }
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

    /// Waits for the next answer of any of them.
    pub(crate) async fn answer(&mut self) -> (Epoch, Status) {
        let mut buffer = [0; MAX_DATAGRAM_BYTES];
        loop {
            let received = poll_fn(|context| {
                for socket in &self.sockets {
                    let mut room = ReadBuf::new(&mut buffer);
                    // An error tells that a port is closed. It is taken out of the way of what is behind it.
                    while let Poll::Ready(received) = socket.poll_recv(context, &mut room) {
                        if received.is_ok() {
                            return Poll::Ready((room.filled().len(), socket.peer_addr().ok()));
                        }
                    }
                }
                Poll::Pending
            });
            let (len, from) = tokio::select! {
                received = received => received,
                membership = changed(&mut self.changes) => {
                    self.relist(&membership.sequencers);
                    continue;
                }
            };
            if let Some(answer) = self.read(buffer.get(..len).unwrap_or_default()) {
                if answer.1 != Status::NotReigning {
                    self.reigns = from;
                }
                return answer;
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

/// A socket that speaks with one address only.
fn connected(address: SocketAddr) -> io::Result<UdpSocket> {
    let any: SocketAddr = match address {
        SocketAddr::V4(_) => (Ipv4Addr::UNSPECIFIED, 0).into(),
        SocketAddr::V6(_) => (Ipv6Addr::UNSPECIFIED, 0).into(),
    };
    let socket = std::net::UdpSocket::bind(any)?;
    socket.connect(address)?;
    socket.set_nonblocking(true)?;
    UdpSocket::from_std(socket)
}
