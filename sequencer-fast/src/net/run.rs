//! Replies to one peer, equal in size, side by side: what one send with UDP_SEGMENT carries.

use std::net::{SocketAddr, UdpSocket};

use wire::datagram::{self, Header, Reply};

use crate::logic::ShardCounters;
use crate::sys::mmsg::Outgoing;
use crate::sys::parcel::Parcel;

/// Most datagrams in one send: what kernels before 6.9 take. Newer ones take twice as many.
const MAX_SEGMENTS: usize = 64;

/// Most bytes in one send: what a UDP datagram over IPv4 holds.
const RUN_BYTES: usize = 65_507;

/// A buffer that gathers replies.
#[derive(Debug)]
pub(crate) struct Run {
    buffer: Box<[u8]>,
    len: usize,
    segment: usize,
    peer: Option<SocketAddr>,
}

impl Run {
    /// An empty run.
    pub(crate) fn new() -> Self {
        Self::reuse(vec![0; RUN_BYTES].into())
    }

    pub(crate) fn clear(&mut self) {
        self.len = 0;
        self.peer = None;
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// Appends a reply datagram; false if it does not fit to what is there.
    pub(crate) fn push(&mut self, peer: SocketAddr, header: Header, replies: &[Reply]) -> bool {
        let size = datagram::HEADER_BYTES + replies.len() * datagram::ENTRY_BYTES;
        if !self.is_empty() {
            let fits = self.peer == Some(peer)
                && self.segment == size
                && self.len < size * MAX_SEGMENTS
                && self.len + size <= self.buffer.len();
            if !fits {
                return false;
            }
        }
        let place = self.buffer.get_mut(self.len..).unwrap_or_default();
        // Replies have the bounds of the requests that they answer.
        if datagram::write(header, replies, place).is_ok() {
            self.peer = Some(peer);
            self.segment = size;
            self.len += size;
        }
        true
    }

    /// The whole run as one message, unless it is empty.
    pub(crate) fn message(&self) -> Option<Outgoing<'_>> {
        let segment = u16::try_from(self.segment).ok();
        Some(Outgoing {
            peer: self.peer?,
            bytes: self.buffer.get(..self.len)?,
            segment: segment.filter(|_| self.len > self.segment),
        })
    }

    /// The datagrams of the run, for a path that cannot cut them.
    pub(crate) fn datagrams(&self) -> impl Iterator<Item = Outgoing<'_>> {
        let peer = self.peer.unwrap_or(([0, 0, 0, 0], 0).into());
        let segment = u16::try_from(self.segment).ok();
        pieces(peer, &self.buffer, self.len, segment)
    }

    /// The run as a message that owns its bytes, unless it is empty.
    pub(crate) fn into_parcel(self) -> Option<Parcel> {
        let segment = self.message()?.segment;
        Some(Parcel {
            peer: self.peer?,
            bytes: self.buffer,
            len: self.len,
            segment,
        })
    }

    /// An empty run in the bytes of a parcel.
    pub(crate) fn reuse(buffer: Box<[u8]>) -> Self {
        Self {
            buffer,
            len: 0,
            segment: 0,
            peer: None,
        }
    }

    /// Number of datagrams.
    pub(crate) fn count(&self) -> usize {
        self.len.div_ceil(self.segment.max(1))
    }
}

/// The first `len` bytes, cut into datagrams of `segment` bytes.
pub(crate) fn pieces(
    peer: SocketAddr,
    bytes: &[u8],
    len: usize,
    segment: Option<u16>,
) -> impl Iterator<Item = Outgoing<'_>> {
    let size = segment.map_or(len, usize::from).max(1);
    let pieces = bytes.get(..len).unwrap_or_default().chunks(size);
    pieces.map(move |bytes| Outgoing {
        peer,
        bytes,
        segment: None,
    })
}

/// Sends datagrams one by one.
pub(crate) fn send_singly<'a>(
    socket: &UdpSocket,
    counters: &ShardCounters,
    datagrams: impl Iterator<Item = Outgoing<'a>>,
) {
    for datagram in datagrams {
        if socket.send_to(datagram.bytes, datagram.peer).is_err() {
            counters.send_errors.add(1);
        }
    }
}

#[cfg(test)]
mod tests {
    use wire::datagram::{Kind, Status};
    use wire::{ClientId, Lane, LogId, Position, RequestId};

    use super::*;

    fn push(run: &mut Run, peer: u16, count: usize) -> bool {
        let header = Header::request(Kind::Grant, LogId::default(), ClientId(1), count);
        let reply = Reply::new(RequestId(1), Lane(0), Status::Ok, Position(0), 1);
        run.push(([127, 0, 0, 1], peer).into(), header, &vec![reply; count])
    }

    #[test]
    fn gathers_equal_replies_to_one_peer() {
        let mut run = Run::new();
        assert!(push(&mut run, 1, 2));
        assert_eq!(run.message().and_then(|message| message.segment), None);
        assert!(push(&mut run, 1, 2));
        assert!(!push(&mut run, 2, 2), "another peer");
        assert!(!push(&mut run, 1, 1), "another size");
        assert_eq!(run.count(), 2);
        assert_eq!(run.message().and_then(|message| message.segment), Some(160));
        assert_eq!(run.datagrams().count(), 2);
        run.clear();
        assert!(push(&mut run, 2, 1));
    }

    #[test]
    fn is_bounded_by_segments_and_bytes() {
        for (entries, expected) in [(1, MAX_SEGMENTS), (29, RUN_BYTES / 1456)] {
            let mut run = Run::new();
            let taken = (0..1000).take_while(|_| push(&mut run, 1, entries)).count();
            assert_eq!(taken, expected);
        }
    }
}
