//! One send through a ring: buffers on their way back to where they came from.

use super::abi::{self, Control};
use super::gather::Gather;
use super::region::Buffer;
use super::send::empty;

/// The structures of one send. They stay in place, as the slice of all slots does, and the buffers stay
/// with them until the kernel has ended the send.
pub(super) struct Slot {
    control: Control,
    iovecs: Vec<libc::iovec>,
    pub(super) header: libc::msghdr,
    pub(super) buffers: Vec<Buffer>,
}

impl Slot {
    pub(super) fn new() -> Self {
        Self {
            control: Control::default(),
            iovecs: Vec::new(),
            header: empty(),
            buffers: Vec::new(),
        }
    }

    /// Takes buffers with datagrams for one peer and lays them out for the kernel, in place.
    pub(super) fn fill(&mut self, buffers: impl Iterator<Item = Buffer>, gather: Gather) {
        self.buffers.clear();
        self.buffers.extend(buffers);
        self.iovecs.clear();
        self.iovecs
            .extend(self.buffers.iter_mut().map(Buffer::iovec));
        self.header = empty();
        if let Some(buffer) = self.buffers.first_mut() {
            (self.header.msg_name, self.header.msg_namelen) = buffer.name();
        }
        self.header.msg_iov = self.iovecs.as_mut_ptr();
        self.header.msg_iovlen = self.iovecs.len();
        if let Some(segment) = gather.cut() {
            let len = abi::write_segment(&mut self.control, segment);
            self.header.msg_controllen = len;
            self.header.msg_control = self.control.0.as_mut_ptr().cast();
        }
    }
}
