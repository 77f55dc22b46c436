//! Many datagrams in one system call: recvmmsg and sendmmsg.
//!
//! The structures that hold pointers are filled anew for every call, from buffers that are borrowed or
//! owned here for as long as the call lasts: no pointer is followed after it.

use std::fmt;
use std::io;
use std::net::SocketAddr;
use std::os::fd::{AsRawFd, BorrowedFd};
use std::ptr;

use super::abi::{self, CONTROL_BYTES, Control, NAME_BYTES, Name};

/// What the kernel received into one buffer: datagrams of one sender.
#[derive(Debug, Clone, Copy)]
pub struct Received<'a> {
    /// The sender, if it can be answered.
    pub peer: Option<SocketAddr>,
    /// One datagram, or several.
    pub bytes: &'a [u8],
    /// Size of each of them but the last, if there are several.
    pub segment: Option<usize>,
    /// Whether the buffer was too small.
    pub truncated: bool,
}

/// Datagrams to one peer.
#[derive(Debug, Clone, Copy)]
pub struct Outgoing<'a> {
    /// Whom they go to.
    pub peer: SocketAddr,
    /// All of them, one behind the other.
    pub bytes: &'a [u8],
    /// Size into which the kernel cuts the bytes, if they are several datagrams.
    pub segment: Option<u16>,
}

/// Buffers to receive into.
pub struct Receiver {
    buffers: Vec<Box<[u8]>>,
    names: Vec<Name>,
    controls: Vec<Control>,
    iovecs: Vec<libc::iovec>,
    headers: Vec<libc::mmsghdr>,
}

impl Receiver {
    /// `count` buffers of `size` bytes.
    #[must_use]
    pub fn new(count: usize, size: usize) -> Self {
        Self {
            buffers: (0..count).map(|_| vec![0; size].into()).collect(),
            names: vec![Name::default(); count],
            controls: vec![Control::default(); count],
            iovecs: Vec::with_capacity(count),
            headers: Vec::with_capacity(count),
        }
    }

    /// Number of buffers.
    #[must_use]
    pub fn len(&self) -> usize {
        self.buffers.len()
    }

    /// Whether there are no buffers.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.buffers.is_empty()
    }

    /// Receives what is there, without waiting, and returns how many buffers were used.
    ///
    /// # Errors
    /// What the system says; `WouldBlock` if nothing is there.
    pub fn receive(&mut self, socket: BorrowedFd<'_>) -> io::Result<usize> {
        self.iovecs.clear();
        self.headers.clear();
        let buffers = self.buffers.iter_mut();
        self.iovecs.extend(buffers.map(|buffer| libc::iovec {
            iov_base: buffer.as_mut_ptr().cast(),
            iov_len: buffer.len(),
        }));
        let rooms = self.names.iter_mut().zip(&mut self.controls);
        for (iovec, (name, control)) in self.iovecs.iter_mut().zip(rooms) {
            let mut header = empty();
            header.msg_name = name.0.as_mut_ptr().cast();
            header.msg_namelen = NAME_LEN;
            header.msg_control = control.0.as_mut_ptr().cast();
            header.msg_controllen = CONTROL_BYTES;
            header.msg_iov = iovec;
            header.msg_iovlen = 1;
            self.headers.push(message(header));
        }
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
        usize::try_from(received).map_err(|_| io::Error::last_os_error())
    }

    /// What the last call received into a buffer.
    #[must_use]
    pub fn get(&self, index: usize) -> Option<Received<'_>> {
        let message = self.headers.get(index)?;
        let (header, len) = (&message.msg_hdr, usize::try_from(message.msg_len).ok()?);
        let name_len = usize::try_from(header.msg_namelen).ok()?;
        let name = self.names.get(index)?.0.get(..name_len)?;
        let control = &self.controls.get(index)?.0;
        let control = control.get(..header.msg_controllen)?;
        Some(Received {
            peer: abi::read_name(name),
            bytes: self.buffers.get(index)?.get(..len)?,
            segment: abi::read_gro(control),
            truncated: header.msg_flags & libc::MSG_TRUNC != 0,
        })
    }
}

impl fmt::Debug for Receiver {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Receiver")
            .field("buffers", &self.buffers.len())
            .finish_non_exhaustive()
    }
}

/// Room for the structures of sendmmsg.
pub struct Sender {
    names: Vec<Name>,
    controls: Vec<Control>,
    iovecs: Vec<libc::iovec>,
    headers: Vec<libc::mmsghdr>,
}

impl Sender {
    /// Room for `count` messages in one call.
    #[must_use]
    pub fn new(count: usize) -> Self {
        Self {
            names: vec![Name::default(); count],
            controls: vec![Control::default(); count],
            iovecs: Vec::with_capacity(count),
            headers: Vec::with_capacity(count),
        }
    }

    /// Sends messages in order, without waiting, and returns how many were taken: fewer if there was no
    /// room for all, or if the next one failed. An error is the first one's.
    ///
    /// # Errors
    /// What the system says of the first message.
    pub fn send<'a>(
        &mut self,
        socket: BorrowedFd<'_>,
        messages: impl Iterator<Item = Outgoing<'a>>,
    ) -> io::Result<usize> {
        self.iovecs.clear();
        self.headers.clear();
        let rooms = self.names.iter_mut().zip(&mut self.controls);
        for ((name, control), outgoing) in rooms.zip(messages) {
            // The kernel only reads what is sent.
            self.iovecs.push(libc::iovec {
                iov_base: outgoing.bytes.as_ptr().cast_mut().cast(),
                iov_len: outgoing.bytes.len(),
            });
            let mut header = empty();
            header.msg_namelen = name.write(outgoing.peer);
            header.msg_name = name.0.as_mut_ptr().cast();
            if let Some(segment) = outgoing.segment {
                header.msg_controllen = abi::write_segment(control, segment);
                header.msg_control = control.0.as_mut_ptr().cast();
            }
            self.headers.push(message(header));
        }
        for (message, iovec) in self.headers.iter_mut().zip(&mut self.iovecs) {
            message.msg_hdr.msg_iov = iovec;
            message.msg_hdr.msg_iovlen = 1;
        }
        // SAFETY: every header points to a name, control and iovec of `self` and to bytes borrowed for
        // `'a`, with their true lengths, and nothing moves or writes them during the call.
        let sent = unsafe {
            libc::sendmmsg(
                socket.as_raw_fd(),
                self.headers.as_mut_ptr(),
                u32::try_from(self.headers.len()).unwrap_or_default(),
                libc::MSG_DONTWAIT,
            )
        };
        usize::try_from(sent).map_err(|_| io::Error::last_os_error())
    }
}

impl fmt::Debug for Sender {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Sender")
            .field("messages", &self.names.len())
            .finish_non_exhaustive()
    }
}

/// [`NAME_BYTES`], in the type of a header.
pub(super) const NAME_LEN: libc::socklen_t = 28;
const _: () = assert!(NAME_BYTES == 28);

/// A message header without name, buffers or control message.
pub(super) fn empty() -> libc::msghdr {
    // SAFETY: a msghdr is integers and raw pointers, for which all bits zero are a value.
    unsafe { std::mem::zeroed() }
}

fn message(msg_hdr: libc::msghdr) -> libc::mmsghdr {
    libc::mmsghdr {
        msg_hdr,
        msg_len: 0,
    }
}
