//! Memory that the kernel receives into: a ring of provided buffers and the buffers themselves.
//!
//! The ring is an array of entries that name free buffers, with a tail that only this side moves. A
//! buffer belongs to the kernel from [`Region::give`] until a completion names it; then there is a
//! [`Buffer`] for it, and only then is it ever looked at. All of it is plain memory.

use std::alloc::{self, Layout};
use std::fmt;
use std::io;
use std::ptr::NonNull;
use std::rc::Rc;
use std::slice;
use std::sync::atomic::{AtomicU16, Ordering};

use io_uring::types::BufRingEntry;

use super::abi::{self, MESSAGE_HEAD_BYTES, MessageHead, NAME_AT};
use super::receive::Received;
use crate::limits::MAX_BUFFERS;

/// How many buffers there are, and how large they are.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Shape {
    count: u16,
    bytes: usize,
}

/// Bytes of the ring: a number of pages, as its address has to be that of a page.
const RING_BYTES: usize = 2 * PAGE_BYTES;

const PAGE_BYTES: usize = 4096;

const _: () = assert!(MAX_BUFFERS as usize * size_of::<BufRingEntry>() <= RING_BYTES);

impl Shape {
    /// At most `count` buffers, a power of two of them, that each take `payload` bytes of datagrams.
    pub(crate) fn new(count: u16, payload: usize) -> Self {
        let count = count.clamp(1, MAX_BUFFERS);
        Self {
            count: 1 << count.ilog2(),
            // To cache lines, so that no two buffers share one.
            bytes: (MESSAGE_HEAD_BYTES + payload).next_multiple_of(64),
        }
    }

    /// Number of buffers.
    pub(crate) fn count(self) -> u16 {
        self.count
    }
}

/// The memory of the ring and its buffers.
pub(super) struct Region {
    base: NonNull<u8>,
    layout: Layout,
    shape: Shape,
}

/// A buffer that the kernel has filled and handed over. There is at most one for each buffer.
pub(crate) struct Buffer {
    region: Rc<Region>,
    id: u16,
    /// Bytes that the kernel has filled, its own head among them.
    len: usize,
    /// Bytes of the payload that are sent back.
    kept: usize,
    head: Option<MessageHead>,
}

impl Region {
    /// Allocates the memory, zeroed. No buffer is given yet.
    pub(super) fn new(shape: Shape) -> io::Result<Rc<Self>> {
        let bytes = RING_BYTES + usize::from(shape.count) * shape.bytes;
        let layout = Layout::from_size_align(bytes, PAGE_BYTES).map_err(io::Error::other)?;
        // SAFETY: the layout has a size above zero.
        let base = unsafe { alloc::alloc_zeroed(layout) };
        let base = NonNull::new(base).ok_or(io::ErrorKind::OutOfMemory)?;
        Ok(Rc::new(Self {
            base,
            layout,
            shape,
        }))
    }

    /// Address of the ring, for the kernel.
    pub(super) fn ring_address(&self) -> u64 {
        self.base.as_ptr().addr() as u64
    }

    /// Makes all buffers free, at the start.
    pub(super) fn give_all(self: &Rc<Self>, tail: &mut u16) {
        for id in 0..self.shape.count {
            self.give(self.buffer(id, 0), tail);
        }
    }

    /// The token of a buffer that a completion has named.
    pub(super) fn buffer(self: &Rc<Self>, id: u16, len: usize) -> Buffer {
        let mut buffer = Buffer {
            region: Rc::clone(self),
            id: id % self.shape.count,
            len: len.min(self.shape.bytes),
            kept: 0,
            head: None,
        };
        buffer.head = abi::read_head(buffer.bytes_mut());
        buffer.kept = buffer.len.saturating_sub(MESSAGE_HEAD_BYTES);
        buffer
    }

    /// Hands a buffer to the kernel. `tail` counts what was handed over, and wraps.
    pub(super) fn give(&self, buffer: Buffer, tail: &mut u16) {
        let index = usize::from(*tail % self.shape.count);
        let address = self.address(buffer.id);
        let ring = self.base.cast::<BufRingEntry>();
        // SAFETY: the index is below the number of entries, all of which lie before the buffers.
        let entry = unsafe { ring.add(index) };
        // SAFETY: the entry is zeroed or written memory of this allocation, aligned by the page. The
        // kernel does not read it before the tail has passed it, and the methods below write the fields
        // of an entry but not the tail, which lies in a field that they leave alone.
        let entry = unsafe { &mut *entry.as_ptr() };
        entry.set_addr(address.as_ptr().addr() as u64);
        entry.set_len(u32::try_from(self.shape.bytes).unwrap_or_default());
        entry.set_bid(buffer.id);
        *tail = tail.wrapping_add(1);
        // SAFETY: the argument is the first entry of the ring, which has been initialised with zeros.
        let place = unsafe { BufRingEntry::tail(ring.as_ptr()) };
        // SAFETY: the place is aligned, lives as long as `self`, and is written only here, atomically.
        let place = unsafe { AtomicU16::from_ptr(place.cast_mut()) };
        // The kernel reads the tail before the entries.
        place.store(*tail, Ordering::Release);
    }

    fn address(&self, id: u16) -> NonNull<u8> {
        let offset = RING_BYTES + usize::from(id) * self.shape.bytes;
        // SAFETY: ids are below the number of buffers, so that the offset lies in the allocation.
        unsafe { self.base.add(offset) }
    }
}

impl Drop for Region {
    fn drop(&mut self) {
        // SAFETY: allocated in `new` with the same layout, and freed only here. The ring that the kernel
        // knows has been closed with nothing under way, or it has kept a reference for ever.
        unsafe { alloc::dealloc(self.base.as_ptr(), self.layout) }
    }
}

impl fmt::Debug for Region {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Region").finish_non_exhaustive()
    }
}

impl Buffer {
    /// What the kernel received, as far as it is kept.
    pub(crate) fn received(&mut self) -> Option<Received<'_>> {
        let (head, kept) = (self.head?, self.kept);
        let end = MESSAGE_HEAD_BYTES + kept;
        Some(Received {
            peer: head.peer,
            bytes: self.bytes_mut().get_mut(MESSAGE_HEAD_BYTES..end)?,
            segment: head.segment,
            truncated: head.truncated,
        })
    }

    /// Bytes of the payload that are kept.
    pub(crate) fn kept(&self) -> usize {
        self.kept
    }

    /// Keeps the first `len` bytes of the payload, to be sent back.
    pub(crate) fn keep(&mut self, len: usize) {
        self.kept = self.kept.min(len);
    }

    /// Size of the datagrams in it.
    pub(crate) fn segment(&self) -> usize {
        let merged = self.head.and_then(|head| head.segment);
        merged.unwrap_or(self.kept)
    }

    /// Whether both come from the same peer.
    pub(super) fn same_peer(&mut self, other: &mut Self) -> bool {
        let (one, other) = (self.name_bytes(), other.name_bytes());
        one.is_some() && one == other
    }

    fn name_bytes(&mut self) -> Option<&[u8]> {
        let len = self.head?.name_len;
        self.bytes_mut().get(NAME_AT..NAME_AT + len)
    }

    /// Where the peer's name is, and its length. Valid as long as the token.
    pub(super) fn name(&mut self) -> (*mut libc::c_void, libc::socklen_t) {
        let len = self.head.map_or(0, |head| head.name_len);
        let len = libc::socklen_t::try_from(len).unwrap_or_default();
        let name = self.bytes_mut().get_mut(NAME_AT..);
        (name.unwrap_or_default().as_mut_ptr().cast(), len)
    }

    /// Where the kept bytes are. Valid as long as the token.
    pub(super) fn iovec(&mut self) -> libc::iovec {
        let iov_len = self.kept;
        let payload = self.bytes_mut().get_mut(MESSAGE_HEAD_BYTES..);
        libc::iovec {
            iov_base: payload.unwrap_or_default().as_mut_ptr().cast(),
            iov_len,
        }
    }

    fn bytes_mut(&mut self) -> &mut [u8] {
        let address = self.region.address(self.id);
        // SAFETY: the region lives as long as this token and was initialised with zeros; the length is
        // within the buffer; neither the kernel nor another token has access to it while there is this
        // one, of which there is a mutable borrow.
        unsafe { slice::from_raw_parts_mut(address.as_ptr(), self.len) }
    }
}

impl fmt::Debug for Buffer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Buffer")
            .field("id", &self.id)
            .field("len", &self.len)
            .finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Number, address and length in an entry of the ring, and the tail, as the kernel would see them.
    fn entry(region: &Region, index: usize) -> (u16, u64, u32) {
        // SAFETY: the index is within the ring.
        let entry = unsafe { region.base.cast::<BufRingEntry>().add(index) };
        // SAFETY: the entry is initialised, and nobody else is there.
        let entry = unsafe { entry.as_ref() };
        (entry.bid(), entry.addr(), entry.len())
    }

    fn tail(region: &Region) -> u16 {
        // SAFETY: two bytes at offset 14 of the first entry, as the interface of the kernel says.
        let place = unsafe { region.base.add(14) };
        // SAFETY: aligned and initialised.
        unsafe { place.cast::<u16>().read() }
    }

    #[test]
    fn entries_wrap_around_and_leave_the_tail_alone() {
        let region = Region::new(Shape::new(64, 65_536)).expect("memory");
        let count = region.shape.count;
        let mut given = 0;
        region.give_all(&mut given);
        assert_eq!((given, tail(&region)), (count, count));
        // In another order, over the wrap of the ring and of the tail.
        for round in 0..70_000_u32 {
            let id = u16::try_from(round * 7 % u32::from(count)).expect("small");
            let index = usize::from(given % count);
            region.give(region.buffer(id, 0), &mut given);
            assert_eq!(tail(&region), given);
            let (found, address, len) = entry(&region, index);
            assert_eq!((found, len as usize), (id, region.shape.bytes));
            assert_eq!(address, region.address(id).as_ptr().addr() as u64);
        }
    }

    #[test]
    fn buffers_do_not_overlap() {
        let region = Region::new(Shape::new(500, 2048)).expect("memory");
        assert_eq!(region.shape.count, 256);
        let end = region.base.as_ptr().addr() + region.layout.size();
        let mut before = region.base.as_ptr().addr() + RING_BYTES;
        for id in 0..region.shape.count {
            let start = region.address(id).as_ptr().addr();
            assert!(start >= before && start + region.shape.bytes <= end);
            before = start + region.shape.bytes;
        }
    }
}
