//! Replies to one peer, equal in size, side by side: what one send with UDP_SEGMENT carries.

use std::net::SocketAddr;

use crate::limits::{SEND_BYTES, SEND_SEGMENTS};
use crate::sys::send::Outgoing;

/// A buffer that gathers replies.
#[derive(Debug)]
pub(crate) struct Run {
    buffer: Vec<u8>,
    segment: usize,
    peer: Option<SocketAddr>,
}

impl Run {
    /// An empty run.
    pub(crate) fn new() -> Self {
        Self {
            buffer: Vec::with_capacity(SEND_BYTES),
            segment: 0,
            peer: None,
        }
    }

    pub(crate) fn clear(&mut self) {
        self.buffer.clear();
        self.peer = None;
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.buffer.is_empty()
    }

    /// Appends a reply datagram; false if it does not fit to what is there.
    pub(crate) fn push(&mut self, peer: SocketAddr, datagram: &[u8]) -> bool {
        let (len, size) = (self.buffer.len(), datagram.len());
        if !self.is_empty() {
            let fits = self.peer == Some(peer)
                && self.segment == size
                && len < size * SEND_SEGMENTS
                && len + size <= SEND_BYTES;
            if !fits {
                return false;
            }
        }
        self.buffer.extend_from_slice(datagram);
        self.peer = Some(peer);
        self.segment = size;
        true
    }

    /// The whole run as one message, unless it is empty.
    pub(crate) fn message(&self) -> Option<Outgoing<'_>> {
        let segment = u16::try_from(self.segment).ok();
        Some(Outgoing {
            peer: self.peer?,
            bytes: &self.buffer,
            segment: segment.filter(|_| self.buffer.len() > self.segment),
        })
    }

    /// The datagrams of the run, for a path that cannot cut them.
    pub(crate) fn datagrams(&self) -> impl Iterator<Item = Outgoing<'_>> {
        let peer = self.peer.unwrap_or(([0, 0, 0, 0], 0).into());
        let pieces = self.buffer.chunks(self.segment.max(1));
        pieces.map(move |bytes| Outgoing {
            peer,
            bytes,
            segment: None,
        })
    }

    /// Number of datagrams.
    pub(crate) fn count(&self) -> usize {
        self.buffer.len().div_ceil(self.segment.max(1))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn push(run: &mut Run, peer: u16, size: usize) -> bool {
        run.push(([127, 0, 0, 1], peer).into(), &vec![1; size])
    }

    #[test]
    fn gathers_equal_replies_to_one_peer() {
        let mut run = Run::new();
        assert!(push(&mut run, 1, 160));
        assert_eq!(run.message().and_then(|message| message.segment), None);
        assert!(push(&mut run, 1, 160));
        assert!(!push(&mut run, 2, 160), "another peer");
        assert!(!push(&mut run, 1, 112), "another size");
        assert_eq!(run.count(), 2);
        assert_eq!(run.message().and_then(|message| message.segment), Some(160));
        assert_eq!(run.datagrams().count(), 2);
        run.clear();
        assert!(push(&mut run, 2, 112));
    }

    #[test]
    fn is_bounded_by_segments_and_bytes() {
        for (size, expected) in [(112, SEND_SEGMENTS), (1456, SEND_BYTES / 1456)] {
            let mut run = Run::new();
            let taken = (0..1000).take_while(|_| push(&mut run, 1, size)).count();
            assert_eq!(taken, expected);
        }
    }
}
