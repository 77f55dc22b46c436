//! The other sequencers of the log, as a standby asks them: for their tails, which only one that reigns tells.

use std::future::pending;
use std::io::{self, Read};
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr};

use catalog::{Membership, with_asked};
use futures::future::select_all;
use runtime::members::changed;
use socket2::SockRef;
use tokio::io::Interest;
use tokio::net::UdpSocket;
use tokio::sync::watch;
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

/// One of them, with a socket of its own.
#[derive(Debug)]
struct Other {
    /// Never given to another one.
    number: usize,
    address: SocketAddr,
    socket: UdpSocket,
}

/// Questions until a socket is tried again that could not be opened.
const OPEN_AGAIN: u64 = 16;

/// A port that is closed is an error of the socket, which is nothing to read: who waits for that alone learns of it
/// when something else comes, or never, as the next send takes the error with it.
const ANYTHING: Interest = Interest::READABLE.add(Interest::ERROR);

/// All of them.
#[derive(Debug)]
pub(crate) struct Others {
    others: Vec<Other>,
    /// The number of the next one that comes.
    next: usize,
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
        let others = addresses.iter().copied().enumerate();
        let others = others.map(|(number, address)| Other::new(number, address));
        Ok(Self {
            others: others.collect::<io::Result<_>>()?,
            next: addresses.len(),
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

    /// How many are asked.
    pub(crate) fn count(&self) -> usize {
        self.others.len()
    }

    fn relist(&mut self, addresses: &[SocketAddr]) {
        let (mut listed, _) = with_asked(addresses, self.reigns);
        listed.retain(|other| Some(*other) != self.own);
        let mut others = Vec::new();
        let told = self.missing.take();
        for address in listed {
            let known = |other: &Other| other.address == address;
            match self.others.iter().position(known) {
                Some(at) => others.push(self.others.swap_remove(at)),
                None => match Other::new(self.next, address) {
                    Ok(other) => {
                        self.next += 1;
                        others.push(other);
                    }
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
        self.others = others;
    }

    /// Asks all of them. What cannot be sent is lost: the next question follows soon.
    pub(crate) fn ask(&mut self) {
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
        for other in &self.others {
            let _ = other.socket.try_send(bytes);
        }
    }

    /// Waits for the next sign of any of them, and gives its number among them.
    pub(crate) async fn sign(&mut self) -> (usize, Sign) {
        loop {
            let (from, address, received) = tokio::select! {
                received = received(&self.others) => received,
                membership = changed(&mut self.changes) => {
                    self.relist(&membership.sequencers);
                    continue;
                }
            };
            match received.map(|bytes| self.read(&bytes)) {
                Ok(Some((epoch, status))) => {
                    if status != Status::NotReigning {
                        self.reigns = Some(address);
                    }
                    return (from, Sign::Told(epoch, status));
                }
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

impl Other {
    fn new(number: usize, address: SocketAddr) -> io::Result<Self> {
        let socket = connected(address)?;
        Ok(Self {
            number,
            address,
            socket,
        })
    }

    /// Takes a datagram, or the error that says that nobody listens. Cancel-safe.
    async fn receive(&self) -> io::Result<Vec<u8>> {
        let mut buffer = vec![0; MAX_DATAGRAM_BYTES];
        let socket = SockRef::from(&self.socket);
        let receive = || (&mut &*socket).read(&mut buffer);
        let len = self.socket.async_io(ANYTHING, receive).await?;
        buffer.truncate(len);
        Ok(buffer)
    }
}

/// Waits until any of them has something to say. Cancel-safe.
async fn received(others: &[Other]) -> (usize, SocketAddr, io::Result<Vec<u8>>) {
    if others.is_empty() {
        return pending().await;
    }
    let received = others.iter().map(|other| Box::pin(other.receive()));
    let (received, at, _) = select_all(received).await;
    match others.get(at) {
        Some(other) => (other.number, other.address, received),
        None => pending().await,
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

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use tokio::time::timeout;

    use super::*;

    #[tokio::test]
    async fn one_question_tells_that_nobody_listens_any_more() {
        let other = UdpSocket::bind("127.0.0.1:0").await.expect("free port");
        let address = other.local_addr().expect("bound");
        let mut others = Others::new(&[address], LogId([1; 16]), 7, None).expect("sockets");
        // Who listens says nothing: the wait has begun, and nothing is ready.
        others.ask();
        let silence = timeout(Duration::from_millis(50), others.sign()).await;
        assert!(silence.is_err(), "{silence:?}");
        drop(other);
        others.ask();
        let sign = timeout(Duration::from_secs(10), others.sign()).await;
        assert_eq!(sign.expect("no word of the closed port"), (0, Sign::Gone));
    }
}
