//! An io_uring that receives from one socket and sends on it.
//!
//! One multishot receive into provided buffers, one multishot poll on an eventfd, and a bounded number of
//! sends. Created and used by one thread. Whatever the kernel was given stays where it is until the
//! kernel has given it back: a send owns its bytes while it is under way, and if the end finds something
//! that the kernel does not give back, its memory is never freed.

use std::collections::VecDeque;
use std::fmt;
use std::io;
use std::mem::ManuallyDrop;
use std::net::UdpSocket;
use std::os::fd::{AsRawFd, OwnedFd};
use std::rc::Rc;
use std::time::Duration;

use io_uring::types::{CancelBuilder, Fd, SubmitArgs, Timespec};
use io_uring::{IoUring, Probe, cqueue, opcode, squeue};

use super::abi::CONTROL_BYTES;
use super::mmsg::{NAME_LEN, empty};
use super::parcel::{Parcel, Slot};
use super::region::{BUFFERS, Buffer, Region};

/// Sends that may be under way.
pub(crate) const SENDS: usize = 64;

/// Submission entries: all sends, the receive and the poll fit in at once.
const ENTRIES: u32 = 128;
const _: () = assert!(SENDS + 2 < ENTRIES as usize);

/// Completion entries; what does not fit is kept by the kernel.
const COMPLETIONS: u32 = 1024;

const GROUP: u16 = 0;
const RECEIVE: u64 = 1 << 32;
const WAKE: u64 = 2 << 32;
const CANCELLED: i32 = -libc::ECANCELED;

/// What the kernel has told.
#[derive(Debug)]
pub(crate) enum Event {
    /// A buffer with datagrams. To be given back with [`Ring::give_back`].
    Received(Buffer),
    /// The eventfd has become readable.
    Woken,
}

/// The ring with everything that the kernel may touch.
pub(crate) struct Ring {
    ring: IoUring,
    memory: ManuallyDrop<Memory>,
    given: u16,
    receives: bool,
    watches: bool,
    in_flight: usize,
    events: VecDeque<Event>,
    done: Vec<(Parcel, io::Result<()>)>,
}

/// What the kernel has pointers to.
struct Memory {
    region: Rc<Region>,
    template: Box<libc::msghdr>,
    slots: Box<[Slot]>,
    free: Vec<usize>,
    socket: UdpSocket,
    event: OwnedFd,
}

impl Ring {
    /// Sets up a ring for a socket, and starts to receive.
    ///
    /// # Errors
    /// What the kernel does not have or does not allow.
    pub(crate) fn new(socket: UdpSocket, event: OwnedFd) -> io::Result<Self> {
        let ring = IoUring::builder()
            .setup_single_issuer()
            .setup_defer_taskrun()
            .setup_cqsize(COMPLETIONS)
            .dontfork()
            .build(ENTRIES)?;
        check(&ring)?;
        let region = Region::new()?;
        let mut template = Box::new(empty());
        template.msg_namelen = NAME_LEN;
        template.msg_controllen = CONTROL_BYTES;
        let mut given = 0;
        region.give_all(&mut given);
        // SAFETY: the region is as large as the number of entries says, and is kept until the ring has
        // been closed with nothing under way, or for ever.
        unsafe {
            ring.submitter().register_buf_ring_with_flags(
                region.ring_address(),
                BUFFERS,
                GROUP,
                0,
            )?;
        }
        Ok(Self {
            ring,
            memory: ManuallyDrop::new(Memory {
                region,
                template,
                slots: (0..SENDS).map(|_| Slot::new()).collect(),
                free: (0..SENDS).rev().collect(),
                socket,
                event,
            }),
            given,
            receives: false,
            watches: false,
            in_flight: 0,
            events: VecDeque::with_capacity(usize::from(BUFFERS) + 1),
            done: Vec::with_capacity(SENDS),
        })
    }

    /// Submits everything, and waits until something has happened.
    pub(crate) fn wait(&mut self) -> io::Result<()> {
        self.arm()?;
        match self.ring.submit_and_wait(1) {
            Ok(_) => {}
            Err(error) if is_passing(&error) => {}
            Err(error) => return Err(error),
        }
        self.harvest()
    }

    /// What has happened, in order.
    pub(crate) fn next(&mut self) -> Option<Event> {
        self.events.pop_front()
    }

    /// A send that has ended, with its bytes.
    pub(crate) fn done(&mut self) -> Option<(Parcel, io::Result<()>)> {
        self.done.pop()
    }

    /// Sends under way.
    pub(crate) fn in_flight(&self) -> usize {
        self.in_flight
    }

    /// Lets the kernel fill a buffer again.
    pub(crate) fn give_back(&mut self, buffer: Buffer) {
        self.memory.region.give(buffer, &mut self.given);
    }

    /// Sends a parcel with the next [`Self::wait`], or gives it back if too many are under way.
    pub(crate) fn send(&mut self, parcel: Parcel) -> Result<(), Parcel> {
        let memory = &mut *self.memory;
        let Some(index) = memory.free.pop() else {
            return Err(parcel);
        };
        let Some(slot) = memory.slots.get_mut(index) else {
            return Err(parcel);
        };
        slot.fill(parcel);
        let socket = Fd(memory.socket.as_raw_fd());
        let flags = u32::try_from(libc::MSG_DONTWAIT).unwrap_or_default();
        let entry = opcode::SendMsg::new(socket, &raw const slot.header).flags(flags);
        self.in_flight += 1;
        let pushed = self.push(&entry.build().user_data(index as u64));
        pushed.map_err(|_| {
            self.in_flight -= 1;
            self.take_back(index)
        })
    }

    /// Starts the receive and the poll, where they are not under way.
    fn arm(&mut self) -> io::Result<()> {
        if !self.receives {
            let socket = Fd(self.memory.socket.as_raw_fd());
            let template: *const libc::msghdr = &raw const *self.memory.template;
            let entry = opcode::RecvMsgMulti::new(socket, template, GROUP).build();
            self.push(&entry.user_data(RECEIVE))?;
            self.receives = true;
        }
        if !self.watches {
            let event = Fd(self.memory.event.as_raw_fd());
            let readable = u32::try_from(libc::POLLIN).unwrap_or_default();
            let entry = opcode::PollAdd::new(event, readable).multi(true).build();
            self.push(&entry.user_data(WAKE))?;
            self.watches = true;
        }
        Ok(())
    }

    fn push(&mut self, entry: &squeue::Entry) -> io::Result<()> {
        for _ in 0..2 {
            // SAFETY: what the entry points to is in `memory`, which is not freed before the kernel has
            // completed the entry: a slot until its send is done, the template and the fds to the end.
            if unsafe { self.ring.submission().push(entry) }.is_ok() {
                return Ok(());
            }
            self.ring.submit()?;
        }
        Err(io::Error::other("submission queue stays full"))
    }

    /// Takes all completions.
    fn harvest(&mut self) -> io::Result<()> {
        while let Some(entry) = self.complete() {
            let (result, flags) = (entry.result(), entry.flags());
            match entry.user_data() {
                RECEIVE => {
                    self.receives &= cqueue::more(flags);
                    let buffer = cqueue::buffer_select(flags);
                    match (usize::try_from(result), buffer) {
                        (Ok(len), Some(id)) => {
                            let buffer = self.memory.region.buffer(id, len);
                            self.events.push_back(Event::Received(buffer));
                        }
                        (Ok(_), None) => {}
                        (Err(_), _) => passing(result)?,
                    }
                }
                WAKE => {
                    self.watches &= cqueue::more(flags);
                    self.events.push_back(Event::Woken);
                }
                slot => {
                    self.in_flight -= 1;
                    let index = usize::try_from(slot).unwrap_or(usize::MAX);
                    let parcel = self.take_back(index);
                    let sent = if result < 0 {
                        Err(io::Error::from_raw_os_error(-result))
                    } else {
                        Ok(())
                    };
                    self.done.push((parcel, sent));
                }
            }
        }
        Ok(())
    }

    fn complete(&mut self) -> Option<cqueue::Entry> {
        self.ring.completion().next()
    }

    fn take_back(&mut self, index: usize) -> Parcel {
        let slot = self.memory.slots.get_mut(index);
        let parcel = slot.and_then(|slot| slot.parcel.take());
        self.memory.free.push(index);
        parcel.unwrap_or_else(Parcel::nothing)
    }

    /// Ends everything that is under way; whether all of it has ended.
    fn cancel(&mut self) -> bool {
        let limit = Some(Timespec::from(CANCEL_TIMEOUT));
        let _ = self
            .ring
            .submitter()
            .register_sync_cancel(limit, CancelBuilder::any());
        for _ in 0..COMPLETIONS {
            let _ = self.harvest();
            self.events.clear();
            if !self.receives && !self.watches && self.in_flight == 0 {
                return true;
            }
            let pause = Timespec::from(CANCEL_TIMEOUT);
            let args = SubmitArgs::new().timespec(&pause);
            if let Err(error) = self.ring.submitter().submit_with_args(1, &args)
                && error.raw_os_error() == Some(libc::ETIME)
            {
                return false;
            }
        }
        false
    }
}

const CANCEL_TIMEOUT: Duration = Duration::from_secs(1);

impl Drop for Ring {
    fn drop(&mut self) {
        if self.cancel() {
            // SAFETY: dropped nowhere else, and not used after this. The kernel has completed every
            // entry that points into it. The ring of buffers is only read by receives, of which there
            // are no more.
            unsafe { ManuallyDrop::drop(&mut self.memory) }
        }
    }
}

impl fmt::Debug for Ring {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Ring")
            .field("in_flight", &self.in_flight)
            .finish_non_exhaustive()
    }
}

/// Checks that the kernel has what is used.
fn check(ring: &IoUring) -> io::Result<()> {
    let mut probe = Probe::new();
    ring.submitter().register_probe(&mut probe)?;
    for (name, code) in [
        ("recvmsg", opcode::RecvMsgMulti::CODE),
        ("sendmsg", opcode::SendMsg::CODE),
        ("poll", opcode::PollAdd::CODE),
    ] {
        if !probe.is_supported(code) {
            let text = format!("the kernel has no {name} for io_uring");
            return Err(io::Error::new(io::ErrorKind::Unsupported, text));
        }
    }
    if !ring.params().is_feature_nodrop() {
        let text = "the kernel may lose completions";
        return Err(io::Error::new(io::ErrorKind::Unsupported, text));
    }
    Ok(())
}

/// Errors of a receive after which it is started again: no free buffer, or news of something that was
/// sent earlier.
fn passing(result: i32) -> io::Result<()> {
    let error = io::Error::from_raw_os_error(-result);
    if result == CANCELLED || is_passing(&error) {
        return Ok(());
    }
    Err(error)
}

fn is_passing(error: &io::Error) -> bool {
    let passing = [
        libc::EAGAIN,
        libc::EINTR,
        libc::EBUSY,
        libc::ENOBUFS,
        libc::ENOMEM,
        libc::ECONNREFUSED,
        libc::EHOSTUNREACH,
        libc::ENETUNREACH,
    ];
    error
        .raw_os_error()
        .is_some_and(|code| passing.contains(&code))
}
