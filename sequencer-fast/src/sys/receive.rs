//! Many datagrams received in one system call, and sent back from where they are.
//!
//! The structures that hold pointers point to buffers that are owned here. They are filled anew before a
//! call for all buffers that were looked at since the call before.

use std::fmt;
use std::io;
use std::net::SocketAddr;
use std::os::fd::{AsRawFd, BorrowedFd};
use std::ptr;

use super::abi::{self, CONTROL_BYTES, Control, Name};
use super::gather::Gather;
use super::send::{NAME_LEN, empty, message, nothing};

/// What the kernel received into one buffer: datagrams of one sender.
#[derive(Debug)]
pub struct Received<'a> {
    /// The sender, if it can be answered.
    pub peer: Option<SocketAddr>,
    /// One datagram, or several.
    pub bytes: &'a mut [u8],
    /// Size of each of them but the last, if there are several.
    pub segment: Option<usize>,
    /// Whether the buffer was too small.
    pub truncated: bool,
}

/// Buffers to receive into.
pub struct Receiver {
    buffers: Vec<Box<[u8]>>,
    names: Vec<Name>,
    controls: Vec<Control>,
    iovecs: Vec<libc::iovec>,
    headers: Vec<libc::mmsghdr>,
    replies: Replies,
    filled: usize,
}

/// Room for the structures of replies.
struct Replies {
    runs: Vec<Run>,
    controls: Vec<Control>,
    iovecs: Vec<libc::iovec>,
    headers: Vec<libc::mmsghdr>,
}

/// Buffers that go back in one message: the first of them, and how many.
struct Run {
    first: usize,
    count: usize,
    gather: Gather,
}

impl Receiver {
    /// `count` buffers of `size` bytes.
    #[must_use]
    pub fn new(count: usize, size: usize) -> Self {
        Self {
            buffers: (0..count).map(|_| vec![0; size].into()).collect(),
            names: vec![Name::default(); count],
            controls: vec![Control::default(); count],
            iovecs: vec![nothing(); count],
            headers: vec![message(empty()); count],
            replies: Replies {
                runs: Vec::with_capacity(count),
                controls: vec![Control::default(); count],
                iovecs: Vec::with_capacity(count),
                headers: Vec::with_capacity(count),
            },
            filled: count,
        }
    }

    /// Number of buffers.
    #[must_use]
    pub fn capacity(&self) -> usize {
        self.buffers.len()
    }

    /// Receives what is there, without waiting, and returns how many buffers were used.
    ///
    /// # Errors
    /// What the system call says; `WouldBlock` if nothing is there.
    pub fn receive(&mut self, socket: BorrowedFd<'_>) -> io::Result<usize> {
        self.prepare();
        self.filled = 0;
        // SAFETY: every header points to a buffer, name, control and iovec of `self`, with its true
        // length, and nothing else borrows or moves them during the call.
        let received = unsafe {
            libc::recvmmsg(
                socket.as_raw_fd(),
                self.headers.as_mut_ptr(),
                u32::try_from(self.headers.len()).unwrap_or_default(),
                libc::MSG_DONTWAIT,
                ptr::null_mut(),
            )
        };
        self.filled = usize::try_from(received).map_err(|_| io::Error::last_os_error())?;
        Ok(self.filled)
    }

    /// Fills the structures of a call, as far as the buffers were looked at since the last one.
    fn prepare(&mut self) {
        let rooms = self.names.iter_mut().zip(&mut self.controls);
        let places = self.iovecs.iter_mut().zip(&mut self.headers);
        let all = self.buffers.iter_mut().zip(rooms).zip(places);
        for ((buffer, (name, control)), (iovec, header)) in all.take(self.filled) {
            iovec.iov_base = buffer.as_mut_ptr().cast();
            iovec.iov_len = buffer.len();
            let mut fresh = empty();
            fresh.msg_name = name.0.as_mut_ptr().cast();
            fresh.msg_namelen = NAME_LEN;
            fresh.msg_control = control.0.as_mut_ptr().cast();
            fresh.msg_controllen = CONTROL_BYTES;
            fresh.msg_iov = iovec;
            fresh.msg_iovlen = 1;
            *header = message(fresh);
        }
    }

    /// What the last call received into a buffer.
    pub fn get(&mut self, index: usize) -> Option<Received<'_>> {
        let message = self.headers.get(..self.filled)?.get(index)?;
        let (header, len) = (&message.msg_hdr, usize::try_from(message.msg_len).ok()?);
        let control = self.controls.get(index)?.0.get(..header.msg_controllen)?;
        Some(Received {
            peer: abi::read_name(name(&self.names, header, index)?),
            bytes: self.buffers.get_mut(index)?.get_mut(..len)?,
            segment: abi::read_gro(control),
            truncated: header.msg_flags & libc::MSG_TRUNC != 0,
        })
    }

    /// Prepares to send the first bytes of every buffer of the last call back to where they came from, as
    /// many as `kept` says, and returns the number of messages that this takes.
    pub(crate) fn prepare_replies(&mut self, kept: &[usize]) -> usize {
        self.replies.runs.clear();
        for (index, len) in kept.iter().copied().enumerate().take(self.filled) {
            if len > 0 {
                self.add_reply(index, len);
            }
        }
        self.fill_replies(kept);
        self.replies.runs.len()
    }

    fn add_reply(&mut self, index: usize, len: usize) {
        let segment = self.get(index).and_then(|received| received.segment);
        let segment = segment.unwrap_or(len);
        if let Some(run) = self.replies.runs.last_mut()
            && run.first + run.count == index
            && same_peer(&self.names, &self.headers, run.first, index)
            && run.gather.take(len, segment)
        {
            run.count += 1;
            return;
        }
        self.replies.runs.push(Run {
            first: index,
            count: 1,
            gather: Gather::begin(len, segment),
        });
    }

    /// Sends the prepared messages from the one with this number on, without waiting, and returns how many
    /// were taken: fewer if there was no room for all, or if the next one failed.
    pub(crate) fn send_replies(
        &mut self,
        socket: BorrowedFd<'_>,
        from: usize,
    ) -> io::Result<usize> {
        let messages = self.replies.headers.get_mut(from..).unwrap_or_default();
        // SAFETY: every header points to a name and buffers of `self` and to a control message and iovecs
        // of its replies, with their true lengths, and nothing moves or writes them during the call.
        let sent = unsafe {
            libc::sendmmsg(
                socket.as_raw_fd(),
                messages.as_mut_ptr(),
                u32::try_from(messages.len()).unwrap_or_default(),
                libc::MSG_DONTWAIT,
            )
        };
        usize::try_from(sent).map_err(|_| io::Error::last_os_error())
    }

    fn fill_replies(&mut self, kept: &[usize]) {
        let Replies {
            runs,
            controls,
            iovecs,
            headers,
        } = &mut self.replies;
        headers.clear();
        iovecs.clear();
        let parts = self.buffers.iter_mut().zip(kept);
        iovecs.extend(parts.map(|(buffer, len)| libc::iovec {
            iov_base: buffer.as_mut_ptr().cast(),
            iov_len: buffer.len().min(*len),
        }));
        for (run, control) in runs.iter().zip(controls) {
            let (Some(name), Some(received)) =
                (self.names.get_mut(run.first), self.headers.get(run.first))
            else {
                continue;
            };
            let mut header = empty();
            header.msg_name = name.0.as_mut_ptr().cast();
            header.msg_namelen = received.msg_hdr.msg_namelen.min(NAME_LEN);
            if let Some(segment) = run.gather.cut() {
                header.msg_controllen = abi::write_segment(control, segment);
                header.msg_control = control.0.as_mut_ptr().cast();
            }
            if let Some(iovecs) = iovecs.get_mut(run.first..run.first + run.count) {
                header.msg_iov = iovecs.as_mut_ptr();
                header.msg_iovlen = iovecs.len();
            }
            headers.push(message(header));
        }
    }

    /// Number of datagrams in a prepared message.
    pub(crate) fn datagrams(&self, message: usize) -> usize {
        let run = self.replies.runs.get(message);
        run.map_or(0, |run| run.gather.datagrams())
    }

    /// The datagrams of a prepared message, for a path that cannot cut them. The other messages have to be
    /// prepared anew afterwards.
    pub(crate) fn singly(
        &mut self,
        message: usize,
        kept: &[usize],
        mut send: impl FnMut(SocketAddr, &[u8]),
    ) {
        let Some(Run { first, count, .. }) = self.replies.runs.get(message) else {
            return;
        };
        for index in *first..*first + *count {
            let len = kept.get(index).copied().unwrap_or(0);
            if let Some(received) = self.get(index)
                && let (Some(peer), Some(bytes)) = (received.peer, received.bytes.get(..len))
            {
                let segment = received.segment.unwrap_or(len).max(1);
                bytes
                    .chunks(segment)
                    .for_each(|datagram| send(peer, datagram));
            }
        }
    }
}

/// The name that was received with a buffer.
fn name<'a>(names: &'a [Name], header: &libc::msghdr, index: usize) -> Option<&'a [u8]> {
    let len = usize::try_from(header.msg_namelen).ok()?;
    names.get(index)?.0.get(..len)
}

fn same_peer(names: &[Name], headers: &[libc::mmsghdr], one: usize, other: usize) -> bool {
    let name = |index: usize| name(names, &headers.get(index)?.msg_hdr, index);
    name(one).is_some_and(|one| Some(one) == name(other))
}

impl fmt::Debug for Receiver {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Receiver")
            .field("buffers", &self.buffers.len())
            .finish_non_exhaustive()
    }
}
