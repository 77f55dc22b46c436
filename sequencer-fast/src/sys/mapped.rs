//! A map of a program in the kernel, as memory of this process.

use std::fmt;
use std::io;
use std::os::fd::BorrowedFd;
use std::ptr::{self, NonNull};
use std::slice;
use std::sync::atomic::AtomicU64;

use rustix::mm::{MapFlags, ProtFlags, mmap, munmap};

use crate::logic::Words;

/// The elements of an array map, side by side. They stay as long as this does, whatever becomes of the map.
pub(crate) struct Mapped {
    base: NonNull<AtomicU64>,
    words: usize,
    bytes: usize,
}

// SAFETY: the memory is mapped until this is dropped, and nothing but atomic words is handed out of it.
unsafe impl Send for Mapped {}
// SAFETY: as above.
unsafe impl Sync for Mapped {}

impl Mapped {
    /// Maps the first `words` words of a map that was made for it (BPF_F_MMAPABLE).
    ///
    /// # Errors
    /// What the system says, also if the map is shorter.
    pub(crate) fn new(map: BorrowedFd<'_>, words: usize) -> io::Result<Self> {
        let page = rustix::param::page_size();
        let bytes = (words * size_of::<AtomicU64>()).next_multiple_of(page);
        let (prot, flags) = (ProtFlags::READ | ProtFlags::WRITE, MapFlags::SHARED);
        // SAFETY: a new mapping, at an address that the kernel chooses.
        let base = unsafe { mmap(ptr::null_mut(), bytes, prot, flags, map, 0) }?;
        let base = NonNull::new(base.cast()).ok_or(io::ErrorKind::OutOfMemory)?;
        Ok(Self { base, words, bytes })
    }
}

impl Words for Mapped {
    fn words(&self) -> &[AtomicU64] {
        // SAFETY: a page begins with an aligned word, the kernel has filled it with zeros, all of it is mapped until
        // this is dropped, and whoever writes to it does so in whole words or with atomic operations.
        unsafe { slice::from_raw_parts(self.base.as_ptr(), self.words) }
    }
}

impl Drop for Mapped {
    fn drop(&mut self) {
        // SAFETY: what `new` has mapped, and nothing borrows it any more.
        let _ = unsafe { munmap(self.base.as_ptr().cast(), self.bytes) };
    }
}

impl fmt::Debug for Mapped {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Mapped")
            .field("words", &self.words)
            .finish_non_exhaustive()
    }
}
