//! What is sent through a ring: bytes that belong to the kernel while they are under way.

use std::net::SocketAddr;

use super::abi::{self, Control, Name};
use super::mmsg::empty;

/// Bytes on their way to a peer.
#[derive(Debug)]
pub(crate) struct Parcel {
    pub(crate) bytes: Box<[u8]>,
    pub(crate) len: usize,
    pub(crate) peer: SocketAddr,
    /// Size into which the kernel cuts the bytes, if they are several datagrams.
    pub(crate) segment: Option<u16>,
}

/// The structures of one send. They stay in place, as the slice of all slots does.
pub(super) struct Slot {
    name: Name,
    control: Control,
    iovec: libc::iovec,
    pub(super) header: libc::msghdr,
    pub(super) parcel: Option<Parcel>,
}

impl Parcel {
    pub(super) fn nothing() -> Self {
        Self {
            bytes: Box::default(),
            len: 0,
            peer: SocketAddr::from(([0, 0, 0, 0], 0)),
            segment: None,
        }
    }
}

impl Slot {
    pub(super) fn new() -> Self {
        Self {
            name: Name::default(),
            control: Control::default(),
            iovec: libc::iovec {
                iov_base: std::ptr::null_mut(),
                iov_len: 0,
            },
            header: empty(),
            parcel: None,
        }
    }

    /// Lays a parcel out for the kernel, in place.
    pub(super) fn fill(&mut self, mut parcel: Parcel) {
        self.iovec.iov_len = parcel.len.min(parcel.bytes.len());
        self.iovec.iov_base = parcel.bytes.as_mut_ptr().cast();
        self.header = empty();
        self.header.msg_namelen = self.name.write(parcel.peer);
        self.header.msg_name = self.name.0.as_mut_ptr().cast();
        self.header.msg_iov = &raw mut self.iovec;
        self.header.msg_iovlen = 1;
        if let Some(segment) = parcel.segment {
            let len = abi::write_segment(&mut self.control, segment);
            self.header.msg_controllen = len;
            self.header.msg_control = self.control.0.as_mut_ptr().cast();
        }
        self.parcel = Some(parcel);
    }
}
