//! An io_uring that receives from one socket and sends on it.
//!
//! One multishot receive into provided buffers, one multishot poll on an eventfd, and sends of the buffers
//! that were received, at most one for each. Created and used by one thread. Whatever the kernel was given
//! stays where it is until the kernel has given it back: a send owns its buffers while it is under way, and
//! if the end finds something that the kernel does not give back, its memory is never freed.

use std::fmt;
use std::io;
use std::mem::ManuallyDrop;
use std::net::UdpSocket;
use std::os::fd::{AsRawFd, OwnedFd};
use std::rc::Rc;
use std::time::Duration;

use io_uring::types::{CancelBuilder, Fixed, SubmitArgs, Timespec};
use io_uring::{IoUring, cqueue, opcode, squeue};

use super::abi::CONTROL_BYTES;
use super::gather::Gather;
use super::region::{Buffer, Region, Shape};
use super::send::{NAME_LEN, empty};
use super::setup::{build, check};
use super::slot::Slot;
use crate::limits::{COMPLETIONS, SPINS};

const GROUP: u16 = 0;
const RECEIVE: u64 = 1 << 32;
const WAKE: u64 = 2 << 32;
const CANCELLED: i32 = -libc::ECANCELED;

/// The registered files.
const SOCKET: Fixed = Fixed(0);
const EVENT: Fixed = Fixed(1);

/// How a ring waits.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Waiting {
    /// Asleep in the kernel.
    Blocked,
    /// Polling its own memory, without system calls as long as nothing comes.
    Polling,
    /// Asleep in the kernel, while a thread of the kernel polls for submissions, on a core of its own.
    Submitted {
        /// That core; nothing: any.
        core: Option<u32>,
    },
}

/// A send that failed, with its buffers.
#[derive(Debug)]
pub(crate) struct Failure {
    pub(crate) buffers: Vec<Buffer>,
    pub(crate) error: io::Error,
}

/// The ring with everything that the kernel may touch.
pub(crate) struct Ring {
    ring: IoUring,
    memory: ManuallyDrop<Memory>,
    waiting: Waiting,
    given: u16,
    receives: bool,
    watches: bool,
    woken: bool,
    in_flight: usize,
    received: Vec<Buffer>,
    /// The run that is gathered, empty in between.
    run: Vec<Buffer>,
    failures: Vec<Failure>,
    idle_spins: u64,
    /// Whether buffers are gathered into one send.
    cuts: bool,
}

/// What the kernel has pointers to.
struct Memory {
    region: Rc<Region>,
    template: Box<libc::msghdr>,
    slots: Box<[Slot]>,
    free: Vec<usize>,
    _socket: UdpSocket,
    _event: OwnedFd,
}

impl Ring {
    /// Sets up a ring for a socket, and starts to receive.
    ///
    /// # Errors
    /// What the kernel does not have or does not allow.
    pub(crate) fn new(
        socket: UdpSocket,
        event: OwnedFd,
        shape: Shape,
        waiting: Waiting,
    ) -> io::Result<Self> {
        let ring = build(waiting)?;
        check(&ring)?;
        let files = [socket.as_raw_fd(), event.as_raw_fd()];
        ring.submitter().register_files(&files)?;
        let region = Region::new(shape)?;
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
                shape.count(),
                GROUP,
                0,
            )?;
        }
        let sends = usize::from(shape.count());
        Ok(Self {
            ring,
            memory: ManuallyDrop::new(Memory {
                region,
                template,
                slots: (0..sends).map(|_| Slot::new()).collect(),
                free: (0..sends).rev().collect(),
                _socket: socket,
                _event: event,
            }),
            waiting,
            given,
            receives: false,
            watches: false,
            woken: false,
            in_flight: 0,
            received: Vec::with_capacity(sends),
            run: Vec::with_capacity(sends),
            failures: Vec::new(),
            idle_spins: 0,
            cuts: true,
        })
    }

    /// Submits everything, and waits until something has happened, or comes back after a while if it polls.
    pub(crate) fn wait(&mut self) -> io::Result<()> {
        self.arm()?;
        let want = usize::from(self.waiting != Waiting::Polling);
        if want == 0 {
            self.spin();
        }
        match self.ring.submit_and_wait(want) {
            Ok(_) => {}
            Err(error) if is_passing(&error) => {}
            Err(error) => return Err(error),
        }
        self.harvest()
    }

    /// Waits in user space until the kernel has something to tell, unless there is something to submit.
    fn spin(&mut self) {
        for _ in 0..SPINS {
            let submission = self.ring.submission();
            let busy = !submission.is_empty() || submission.taskrun();
            drop(submission);
            if busy || !self.ring.completion().is_empty() {
                return;
            }
            self.idle_spins += 1;
            std::hint::spin_loop();
        }
    }

    /// Buffers that were received, in order. Each is to be sent back or given back.
    pub(crate) fn received(&mut self, to: &mut Vec<Buffer>) {
        to.append(&mut self.received);
    }

    /// Whether the eventfd has become readable since the last call.
    pub(crate) fn woken(&mut self) -> bool {
        std::mem::take(&mut self.woken)
    }

    /// Sends that have failed since the last call, with their buffers.
    pub(crate) fn failures(&mut self) -> Vec<Failure> {
        std::mem::take(&mut self.failures)
    }

    /// Turns without anything since the last call.
    pub(crate) fn idle_spins(&mut self) -> u64 {
        std::mem::take(&mut self.idle_spins)
    }

    /// From now on neighbours are not gathered: the path cannot cut them apart.
    pub(crate) fn cut_no_more(&mut self) {
        self.cuts = false;
    }

    /// Sends under way.
    pub(crate) fn in_flight(&self) -> usize {
        self.in_flight
    }

    /// Lets the kernel fill a buffer again.
    pub(crate) fn give_back(&mut self, buffer: Buffer) {
        self.memory.region.give(buffer, &mut self.given);
    }

    /// Sends the kept bytes of buffers back to where they came from with the next [`Self::wait`], neighbours
    /// with one peer in one call, and gives back those of which nothing is kept.
    pub(crate) fn reply(&mut self, buffers: &mut Vec<Buffer>) -> io::Result<()> {
        let mut run = std::mem::take(&mut self.run);
        let mut gather = Gather::default();
        for mut buffer in buffers.drain(..) {
            let (kept, segment) = (buffer.kept(), buffer.segment());
            if kept == 0 {
                self.give_back(buffer);
                continue;
            }
            let joins = self.cuts && run.last_mut().is_some_and(|last| buffer.same_peer(last));
            if !joins || !gather.take(kept, segment) {
                self.send(&mut run, gather)?;
                gather = Gather::begin(kept, segment);
            }
            run.push(buffer);
        }
        self.send(&mut run, gather)?;
        self.run = run;
        Ok(())
    }

    fn send(&mut self, run: &mut Vec<Buffer>, gather: Gather) -> io::Result<()> {
        if run.is_empty() {
            return Ok(());
        }
        let memory = &mut *self.memory;
        // There are as many slots as buffers, so that there is one.
        let Some(index) = memory.free.pop() else {
            return Err(io::Error::other("more sends than buffers"));
        };
        let Some(slot) = memory.slots.get_mut(index) else {
            return Err(io::Error::other("no such slot"));
        };
        slot.fill(run.drain(..), gather);
        let flags = u32::try_from(libc::MSG_DONTWAIT).unwrap_or_default();
        let entry = opcode::SendMsg::new(SOCKET, &raw const slot.header).flags(flags);
        self.in_flight += 1;
        self.push(&entry.build().user_data(index as u64))
    }

    /// Starts the receive and the poll, where they are not under way.
    fn arm(&mut self) -> io::Result<()> {
        if !self.receives {
            let template: *const libc::msghdr = &raw const *self.memory.template;
            let entry = opcode::RecvMsgMulti::new(SOCKET, template, GROUP).build();
            self.push(&entry.user_data(RECEIVE))?;
            self.receives = true;
        }
        if !self.watches {
            let readable = u32::try_from(libc::POLLIN).unwrap_or_default();
            let entry = opcode::PollAdd::new(EVENT, readable).multi(true).build();
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
                            self.received.push(buffer);
                        }
                        (Ok(_), None) => {}
                        (Err(_), _) => passing(result)?,
                    }
                }
                WAKE => {
                    self.watches &= cqueue::more(flags);
                    self.woken = true;
                }
                slot => {
                    self.in_flight -= 1;
                    let index = usize::try_from(slot).unwrap_or(usize::MAX);
                    self.sent(index, result);
                }
            }
        }
        Ok(())
    }

    /// A send has ended: its buffers are free, unless it has failed.
    fn sent(&mut self, index: usize, result: i32) {
        let memory = &mut *self.memory;
        memory.free.push(index);
        let Some(slot) = memory.slots.get_mut(index) else {
            return;
        };
        if result < 0 {
            self.failures.push(Failure {
                buffers: std::mem::take(&mut slot.buffers),
                error: io::Error::from_raw_os_error(-result),
            });
            return;
        }
        for buffer in slot.buffers.drain(..) {
            memory.region.give(buffer, &mut self.given);
        }
    }

    fn complete(&mut self) -> Option<cqueue::Entry> {
        self.ring.completion().next()
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
            self.received.clear();
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
