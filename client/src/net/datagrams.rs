//! Datagrams to and from the sequencer: packed, signed, and many a system call.
//!
//! Datagrams of equal length go out as one with UDP_SEGMENT, and come in merged where the network does so
//! (UDP_GRO): the stack costs microseconds each time, whatever it carries.

use std::io::{self, IoSliceMut};
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr};

use quinn_udp::{RecvMeta, Transmit, UdpSocketState};
use tokio::io::Interest;
use tokio::net::UdpSocket;

use crate::{Error, Result};

/// Bytes of one receive: the most that UDP_GRO merges.
const RECEIVE_BYTES: usize = 1 << 16;

/// Bytes of one send: the most that a UDP datagram carries over IPv4, before it is cut.
const SEND_BYTES: usize = 65_507;

/// A socket that speaks with one address only.
#[derive(Debug)]
pub(crate) struct Datagrams {
    socket: UdpSocket,
    offload: UdpSocketState,
    address: SocketAddr,
}

impl Datagrams {
    pub(crate) async fn open(address: SocketAddr) -> Result<Self> {
        let any: SocketAddr = match address {
            SocketAddr::V4(_) => (Ipv4Addr::UNSPECIFIED, 0).into(),
            SocketAddr::V6(_) => (Ipv6Addr::UNSPECIFIED, 0).into(),
        };
        let io = |source| Error::Io {
            what: "opening a UDP socket",
            source,
        };
        let socket = UdpSocket::bind(any).await.map_err(io)?;
        socket.connect(address).await.map_err(io)?;
        let offload = UdpSocketState::new((&socket).into()).map_err(io)?;
        Ok(Self {
            socket,
            offload,
            address,
        })
    }

    pub(crate) fn address(&self) -> SocketAddr {
        self.address
    }

    /// Sends datagrams that stand in `bytes` one behind the other, each `size` long but the last, which may
    /// be shorter. What cannot be sent is lost.
    pub(crate) async fn send(&self, bytes: &[u8], size: usize) {
        let most = self
            .offload
            .max_gso_segments()
            .min(SEND_BYTES / size.max(1));
        for part in bytes.chunks((most * size).max(1)) {
            let transmit = Transmit {
                destination: self.address,
                ecn: None,
                contents: part,
                segment_size: (part.len() > size).then_some(size),
                src_ip: None,
            };
            let send = || self.offload.try_send((&self.socket).into(), &transmit);
            // A send fails when an earlier one met a closed port: as good as lost.
            let _ = self.socket.async_io(Interest::WRITABLE, send).await;
        }
    }

    /// Waits for datagrams and hands each of them to `take`.
    pub(crate) async fn receive(
        &self,
        buffer: &mut Buffer,
        mut take: impl FnMut(&[u8]),
    ) -> io::Result<()> {
        let mut meta = [RecvMeta::default()];
        let receive = || {
            let mut parts = [IoSliceMut::new(&mut buffer.0)];
            let socket = (&self.socket).into();
            self.offload.recv(socket, &mut parts, &mut meta)
        };
        // That a port is closed is nothing to read: who waits for that alone learns of it late, or never.
        let anything = Interest::READABLE.add(Interest::ERROR);
        let parts = self.socket.async_io(anything, receive).await?;
        for meta in meta.iter().take(parts) {
            let received = buffer.0.get(..meta.len).unwrap_or(&[]);
            if received.is_empty() {
                take(received);
            }
            received.chunks(meta.stride.max(1)).for_each(&mut take);
        }
        Ok(())
    }
}

/// Where datagrams are received.
#[derive(Debug)]
pub(crate) struct Buffer(Box<[u8]>);

impl Default for Buffer {
    fn default() -> Self {
        Self(vec![0; RECEIVE_BYTES].into())
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use tokio::time::timeout;

    use super::*;

    #[tokio::test]
    async fn one_datagram_tells_that_nobody_listens_any_more() {
        let other = UdpSocket::bind("127.0.0.1:0").await.expect("free port");
        let address = other.local_addr().expect("bound");
        let datagrams = Datagrams::open(address).await.expect("opens");
        let mut buffer = Buffer::default();
        datagrams.send(b"question", 8).await;
        // Nothing comes: the wait has begun, and nothing is ready.
        let silence = datagrams.receive(&mut buffer, |_| ());
        let silence = timeout(Duration::from_millis(50), silence).await;
        assert!(silence.is_err(), "{silence:?}");
        drop(other);
        datagrams.send(b"question", 8).await;
        let closed = datagrams.receive(&mut buffer, |_| ());
        let closed = timeout(Duration::from_secs(10), closed).await;
        assert!(closed.expect("no word of the closed port").is_err());
    }
}
