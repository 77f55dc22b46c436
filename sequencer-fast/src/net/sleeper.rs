//! Waking a shard that sleeps.

use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::atomic::{AtomicBool, Ordering};

use rustix::event::{EventfdFlags, eventfd};

/// An eventfd that a shard watches beside its socket.
///
/// The checkpoint thread writes to it only if the shard waits for the reservation: an idle shard costs
/// no system call when the reservation moves.
#[derive(Debug)]
pub(crate) struct Sleeper {
    event: OwnedFd,
    waits: AtomicBool,
    quits: AtomicBool,
}

impl Sleeper {
    pub(crate) fn new() -> io::Result<Self> {
        let event = eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK)?;
        Ok(Self {
            event,
            waits: AtomicBool::new(false),
            quits: AtomicBool::new(false),
        })
    }

    /// The descriptor that becomes readable.
    pub(crate) fn event(&self) -> BorrowedFd<'_> {
        self.event.as_fd()
    }

    /// The shard says whether it waits for the reservation, and looks at the reservation once more
    /// afterwards. The other side moves the reservation and looks here afterwards: in the one order of
    /// sequentially consistent operations, at least one of the two sees the other.
    pub(crate) fn set_waits(&self, waits: bool) {
        if self.waits.load(Ordering::Relaxed) != waits {
            self.waits.store(waits, Ordering::SeqCst);
        }
    }

    /// Wakes the shard if it waits. To be called after the reservation was moved.
    pub(crate) fn wake_if_waits(&self) {
        if self.waits.load(Ordering::SeqCst) {
            self.wake();
        }
    }

    /// Makes the shard return.
    pub(crate) fn quit(&self) {
        self.quits.store(true, Ordering::SeqCst);
        self.wake();
    }

    pub(crate) fn quits(&self) -> bool {
        self.quits.load(Ordering::SeqCst)
    }

    /// Forgets all wake-ups so far.
    pub(crate) fn reset(&self) {
        // Fails only if there was none.
        let _ = rustix::io::read(&self.event, &mut [0; 8]);
    }

    /// Wakes the shard.
    pub(crate) fn wake(&self) {
        // Fails only if the counter is full, and then the shard wakes anyhow.
        let _ = rustix::io::write(&self.event, &1_u64.to_ne_bytes());
    }
}
