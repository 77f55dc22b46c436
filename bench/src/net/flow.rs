//! One client: a socket, and the batches that it has under way.

use std::io;
use std::net::{IpAddr, SocketAddr, UdpSocket};
use std::os::fd::{AsFd, BorrowedFd};

use anyhow::Result;
use rustix::io::Errno;
use sequencer_fast::udp::{self, Outgoing, Receiver, Sender};
use socket2::{Domain, Protocol, Socket, Type};
use wire::ClientId;
use wire::mac::{Key, Signer};

use crate::logic::batch::{Answer, Batch, Shape};
use crate::logic::ranges::Ranges;

/// Bytes that the kernel may keep for a client that is late; less where the system allows less.
const SOCKET_BUFFER_BYTES: usize = 8 << 20;

/// How a client sends and receives.
#[derive(Debug, Clone)]
pub(crate) struct Wire {
    /// The sequencer.
    pub(crate) server: SocketAddr,
    /// Own address, if it matters.
    pub(crate) from: Option<IpAddr>,
    /// Whether the kernel cuts and merges datagrams.
    pub(crate) merge: bool,
    /// Key that signs what is sent, and checks what is received.
    pub(crate) key: Option<Key>,
}

/// A client of one thread.
#[derive(Debug)]
pub(crate) struct Flow {
    server: SocketAddr,
    merge: bool,
    signer: Option<Signer>,
    datagram_bytes: usize,
    socket: UdpSocket,
    batches: Vec<Batch>,
    free: Vec<usize>,
}

impl Flow {
    /// A client with `batches` batches of `run` datagrams.
    ///
    /// # Errors
    /// What the system says about the socket, or the shape about the numbers.
    pub(crate) fn new(
        wire: &Wire,
        shape: Shape,
        client: ClientId,
        batches: usize,
        run: usize,
    ) -> Result<Self> {
        let socket = open(wire)?;
        let count = u32::try_from(batches)?;
        let batches: Result<Vec<_>> = (0..count)
            .map(|number| Batch::new(shape, client, number, run, 0))
            .collect();
        Ok(Self {
            server: wire.server,
            merge: wire.merge,
            signer: wire.key.as_ref().map(Key::signer),
            datagram_bytes: shape.datagram_bytes(),
            socket,
            batches: batches?,
            free: (0..count as usize).rev().collect(),
        })
    }

    /// The socket.
    #[must_use]
    pub(crate) fn socket(&self) -> BorrowedFd<'_> {
        self.socket.as_fd()
    }

    /// Whether a batch is free.
    #[must_use]
    pub(crate) fn has_free(&self) -> bool {
        !self.free.is_empty()
    }

    /// Gives up everything that is under way.
    pub(crate) fn abandon(&mut self) {
        self.free.clear();
        for (number, batch) in self.batches.iter_mut().enumerate() {
            batch.abandon();
            self.free.push(number);
        }
    }

    /// Datagrams without an answer.
    #[must_use]
    pub(crate) fn open(&self) -> usize {
        self.batches.iter().map(Batch::open).sum()
    }

    /// Datagrams of a batch.
    #[must_use]
    pub(crate) fn run(&self) -> usize {
        self.batches.first().map_or(0, Batch::run)
    }

    /// Sends a free batch, with as many datagrams as there are times; gives how many datagrams that were.
    ///
    /// # Errors
    /// If the system can send nothing at all. What it has no room for goes out later, as after a loss.
    pub(crate) fn send(
        &mut self,
        sender: &mut Sender,
        due_ns: impl Iterator<Item = u64>,
        now_ns: u64,
    ) -> io::Result<usize> {
        let Some(batch) = self.free.pop().and_then(|free| self.batches.get_mut(free)) else {
            return Ok(0);
        };
        batch.begin(due_ns, now_ns);
        if let Some(signer) = &mut self.signer {
            batch
                .datagrams_mut()
                .for_each(|datagram| signer.sign(datagram));
        }
        let (len, peer) = (self.datagram_bytes, self.server);
        let bytes = batch.bytes();
        if self.merge {
            let segment = match bytes.len() > len {
                true => u16::try_from(len).ok(),
                false => None,
            };
            let whole = Outgoing {
                peer,
                bytes,
                segment,
            };
            passing(sender.send(self.socket.as_fd(), std::iter::once(whole)))?;
        } else {
            let each = |bytes| Outgoing {
                peer,
                bytes,
                segment: None,
            };
            passing(sender.send(self.socket.as_fd(), bytes.chunks_exact(len).map(each)))?;
        }
        Ok(batch.open())
    }

    /// Sends again what has no answer since `before_ns`; gives how many datagrams that were.
    ///
    /// # Errors
    /// If the system can send nothing at all.
    pub(crate) fn retry(
        &mut self,
        sender: &mut Sender,
        before_ns: u64,
        now_ns: u64,
    ) -> io::Result<usize> {
        let mut again = 0;
        let peer = self.server;
        let each = |bytes| Outgoing {
            peer,
            bytes,
            segment: None,
        };
        for batch in &mut self.batches {
            if batch.open() > 0 && batch.sent_ns() < before_ns {
                again += batch.open();
                passing(sender.send(self.socket.as_fd(), batch.again(now_ns).map(each)))?;
            }
        }
        Ok(again)
    }

    /// Receives what is there, and tells of each reply what it was.
    ///
    /// # Errors
    /// If the system can receive nothing at all.
    pub(crate) fn receive(
        &mut self,
        receiver: &mut Receiver,
        mut ranges: Option<&mut Ranges>,
        mut told: impl FnMut(&[u8], Answer),
    ) -> io::Result<usize> {
        let buffers = passing(receiver.receive(self.socket.as_fd()))?;
        for index in 0..buffers {
            let Some(received) = receiver.get(index) else {
                continue;
            };
            let size = received.segment.unwrap_or(received.bytes.len()).max(1);
            for datagram in received.bytes.chunks(size) {
                let mut number = Batch::number_in(datagram);
                if let Some(signer) = &mut self.signer {
                    number = number.filter(|_| signer.verify(datagram));
                }
                let Some(batch) = number.and_then(|number| self.batches.get_mut(number)) else {
                    told(datagram, Answer::Wrong);
                    continue;
                };
                let answer = batch.accept(datagram, ranges.as_deref_mut());
                told(datagram, answer);
                if matches!(answer, Answer::Done { .. }) && batch.open() == 0 {
                    self.free.extend(number);
                }
            }
        }
        Ok(buffers)
    }
}

fn open(wire: &Wire) -> Result<UdpSocket> {
    let domain = Domain::for_address(wire.server);
    let socket = Socket::new(domain, Type::DGRAM.cloexec(), Some(Protocol::UDP))?;
    for result in [
        socket.set_recv_buffer_size(SOCKET_BUFFER_BYTES),
        socket.set_send_buffer_size(SOCKET_BUFFER_BYTES),
    ] {
        if let Err(error) = result {
            tracing::debug!(%error, "socket option refused");
        }
    }
    if wire.merge {
        udp::merge_received(socket.as_fd())?;
    }
    if let Some(from) = wire.from {
        socket.bind(&SocketAddr::new(from, 0).into())?;
    }
    socket.connect(&wire.server.into())?;
    Ok(socket.into())
}

/// Errors that count as nothing sent or nothing there: retries make up for them.
pub(crate) fn passing(result: io::Result<usize>) -> io::Result<usize> {
    use io::ErrorKind::{ConnectionRefused, Interrupted, WouldBlock};
    match result {
        Err(error) if matches!(error.kind(), WouldBlock | Interrupted | ConnectionRefused) => Ok(0),
        Err(error) if error.raw_os_error() == Some(Errno::NOBUFS.raw_os_error()) => Ok(0),
        result => result,
    }
}
