//! Many datagrams sent in one system call.
//!
//! The structures that hold pointers are filled anew for every call, from buffers that are borrowed or
//! owned here for as long as the call lasts: no pointer is followed after it.

use std::fmt;
use std::io;
use std::net::SocketAddr;
use std::os::fd::{AsRawFd, BorrowedFd};

use super::abi::{self, Control, NAME_BYTES, Name};

/// Datagrams to one peer.
#[derive(Debug, Clone, Copy)]
pub struct Outgoing<'a> {
    /// Where to.
    pub peer: SocketAddr,
    /// One datagram, or several.
    pub bytes: &'a [u8],
    /// Size into which the kernel cuts the bytes, if they are several datagrams.
    pub segment: Option<u16>,
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
    /// room for all, or if the next one failed.
    ///
    /// # Errors
    /// That of the first message; `WouldBlock` if there is no room for it.
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

pub(super) fn message(msg_hdr: libc::msghdr) -> libc::mmsghdr {
    libc::mmsghdr {
        msg_hdr,
        msg_len: 0,
    }
}

pub(super) fn nothing() -> libc::iovec {
    libc::iovec {
        iov_base: std::ptr::null_mut(),
        iov_len: 0,
    }
}
