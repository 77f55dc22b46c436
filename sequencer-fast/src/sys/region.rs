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

use super::abi::{self, MESSAGE_HEAD_BYTES};
use super::mmsg::Received;

/// Number of buffers, a power of two.
pub(super) const BUFFERS: u16 = 64;

/// Bytes of payload that a buffer takes: the most that the kernel merges into one.
const PAYLOAD_BYTES: usize = 65_536;

/// Bytes of a buffer, rounded up to cache lines.
const BUFFER_BYTES: usize = (MESSAGE_HEAD_BYTES + PAYLOAD_BYTES).next_multiple_of(64);

/// Bytes of the ring: one page, as its address has to be that of a page.
const RING_BYTES: usize = 4096;

const _: () = assert!(BUFFERS.is_power_of_two());
const _: () = assert!(BUFFERS as usize * size_of::<BufRingEntry>() <= RING_BYTES);
const _: () = assert!(BUFFER_BYTES < u32::MAX as usize);

/// The memory of the ring and its buffers.
pub(super) struct Region {
    base: NonNull<u8>,
    layout: Layout,
}

/// A buffer that the kernel has filled and handed over. There is at most one for each buffer.
pub(crate) struct Buffer {
    region: Rc<Region>,
    id: u16,
    len: usize,
}

impl Region {
    /// Allocates the memory, zeroed. No buffer is given yet.
    pub(super) fn new() -> io::Result<Rc<Self>> {
        let bytes = RING_BYTES + usize::from(BUFFERS) * BUFFER_BYTES;
        let layout = Layout::from_size_align(bytes, RING_BYTES).map_err(io::Error::other)?;
        // SAFETY: the layout has a size above zero.
        let base = unsafe { alloc::alloc_zeroed(layout) };
        let base = NonNull::new(base).ok_or(io::ErrorKind::OutOfMemory)?;
        Ok(Rc::new(Self { base, layout }))
    }

    /// Address of the ring, for the kernel.
    pub(super) fn ring_address(&self) -> u64 {
        self.base.as_ptr().addr() as u64
    }

    /// Makes all buffers free, at the start.
    pub(super) fn give_all(self: &Rc<Self>, tail: &mut u16) {
        for id in 0..BUFFERS {
            self.give(self.buffer(id, 0), tail);
        }
    }

    /// The token of a buffer that a completion has named.
    pub(super) fn buffer(self: &Rc<Self>, id: u16, len: usize) -> Buffer {
        Buffer {
            region: Rc::clone(self),
            id: id % BUFFERS,
            len: len.min(BUFFER_BYTES),
        }
    }

    /// Hands a buffer to the kernel. `tail` counts what was handed over, and wraps.
    pub(super) fn give(&self, buffer: Buffer, tail: &mut u16) {
        let index = usize::from(*tail % BUFFERS);
        let address = self.address(buffer.id);
        let ring = self.base.cast::<BufRingEntry>();
        // SAFETY: the index is below the number of entries, all of which lie in the first page.
        let entry = unsafe { ring.add(index) };
        // SAFETY: the entry is zeroed or written memory of this allocation, aligned by the page. The
        // kernel does not read it before the tail has passed it, and the methods below write the fields
        // of an entry but not the tail, which lies in a field that they leave alone.
        let entry = unsafe { &mut *entry.as_ptr() };
        entry.set_addr(address.as_ptr().addr() as u64);
        entry.set_len(u32::try_from(BUFFER_BYTES).unwrap_or_default());
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
        let offset = RING_BYTES + usize::from(id) * BUFFER_BYTES;
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
    /// What the kernel received.
    pub(crate) fn received(&self) -> Option<Received<'_>> {
        abi::read_message(self.bytes())
    }

    fn bytes(&self) -> &[u8] {
        let address = self.region.address(self.id);
        // SAFETY: the region lives as long as this token and was initialised with zeros; the length is
        // within the buffer; the kernel does not write to it while there is a token for it.
        unsafe { slice::from_raw_parts(address.as_ptr(), self.len) }
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
        let region = Region::new().expect("memory");
        let mut given = 0;
        region.give_all(&mut given);
        assert_eq!((given, tail(&region)), (BUFFERS, BUFFERS));
        // In another order, over the wrap of the ring and of the tail.
        for round in 0..70_000_u32 {
            let id = u16::try_from(round * 7 % u32::from(BUFFERS)).expect("small");
            let index = usize::from(given % BUFFERS);
            region.give(region.buffer(id, 0), &mut given);
            assert_eq!(tail(&region), given);
            let (found, address, len) = entry(&region, index);
            assert_eq!((found, len as usize), (id, BUFFER_BYTES));
            assert_eq!(address, region.address(id).as_ptr().addr() as u64);
        }
    }

    #[test]
    fn buffers_do_not_overlap() {
        let region = Region::new().expect("memory");
        let end = region.base.as_ptr().addr() + region.layout.size();
        let mut before = region.base.as_ptr().addr() + RING_BYTES;
        for id in 0..BUFFERS {
            let start = region.address(id).as_ptr().addr();
            assert!(start >= before && start + BUFFER_BYTES <= end);
            before = start + BUFFER_BYTES;
        }
    }
}
