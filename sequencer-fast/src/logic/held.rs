//! Replies that wait until the reservation covers them (S-2).

use std::collections::VecDeque;

use wire::Position;
use wire::datagram::{Header, MAX_ENTRIES, Reply};

/// A bounded queue of reply datagrams, in the order in which their tokens were granted.
///
/// A datagram is held and released as a whole (S-9): when the last of its tokens is covered.
#[derive(Debug)]
pub(crate) struct Held<P> {
    datagrams: VecDeque<Datagram<P>>,
    replies: VecDeque<Reply>,
    /// Number of the first datagram that is still held.
    first: u64,
    /// Number of the first reply that is still held.
    first_reply: u64,
    bound: usize,
    /// The replies of one datagram, side by side.
    released: Vec<Reply>,
}

#[derive(Debug)]
struct Datagram<P> {
    peer: P,
    header: Header,
    end: Position,
    first_reply: u64,
    count: usize,
}

impl<P: Copy> Held<P> {
    /// A queue of at most `bound` replies.
    pub(crate) fn new(bound: usize) -> Self {
        Self {
            datagrams: VecDeque::new(),
            replies: VecDeque::with_capacity(bound),
            first: 0,
            first_reply: 0,
            bound,
            released: Vec::with_capacity(MAX_ENTRIES),
        }
    }

    /// Replies that are held.
    pub(crate) fn len(&self) -> usize {
        self.replies.len()
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.replies.is_empty()
    }

    /// Most replies that are held.
    pub(crate) fn bound(&self) -> usize {
        self.bound
    }

    /// Holds a datagram until `end` is covered, and returns its number. The caller has seen to the bound.
    pub(crate) fn push(
        &mut self,
        peer: P,
        header: Header,
        replies: &[Reply],
        end: Position,
    ) -> u64 {
        let number = self.first + self.datagrams.len() as u64;
        self.datagrams.push_back(Datagram {
            peer,
            header,
            end,
            first_reply: self.first_reply + self.replies.len() as u64,
            count: replies.len(),
        });
        self.replies.extend(replies);
        number
    }

    /// Lets a repeated request be answered where and as it was sent last, if the held datagram with this
    /// number has exactly these replies. A client that repeats itself while it waits thus takes no room.
    pub(crate) fn redirect(
        &mut self,
        number: u64,
        peer: P,
        header: Header,
        replies: &[Reply],
    ) -> bool {
        let index = number.checked_sub(self.first);
        let index = index.and_then(|index| usize::try_from(index).ok());
        let Some(datagram) = index.and_then(|index| self.datagrams.get_mut(index)) else {
            return false;
        };
        let start = usize::try_from(datagram.first_reply - self.first_reply);
        let held = self.replies.iter().skip(start.unwrap_or(usize::MAX));
        if !held.take(datagram.count).eq(replies) {
            return false;
        }
        datagram.peer = peer;
        datagram.header = header;
        true
    }

    /// Hands out, in order, what the reservation covers.
    pub(crate) fn release(
        &mut self,
        reservation: Position,
        mut send: impl FnMut(P, Header, &[Reply]),
    ) {
        // [S-2]
        let covered = |held: &Datagram<P>| held.end <= reservation;
        while self.datagrams.front().is_some_and(covered) {
            let Some(datagram) = self.datagrams.pop_front() else {
                return;
            };
            let count = datagram.count.min(self.replies.len());
            self.released.clear();
            self.released.extend(self.replies.drain(..count));
            self.first += 1;
            self.first_reply += count as u64;
            send(datagram.peer, datagram.header, &self.released);
        }
    }
}
