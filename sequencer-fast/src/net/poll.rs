//! The mechanism that works everywhere: poll, recvmmsg and sendmmsg.

use std::io;
use std::net::SocketAddr;
use std::os::fd::AsFd;

use rustix::event::{PollFd, PollFlags};
use rustix::io::Errno;

use crate::config::Wait;
use crate::limits::{MERGED_BYTES, RECEIVE_BUFFERS, SINGLE_BYTES};
use crate::logic::{Packet, Packets};
use crate::sys::receive::Receiver;

use super::outbox::{Runs, cannot_cut, is_passing};
use super::worker::{Handler, Worker, admit, is_usable};

/// Serves a handler until it is told to quit.
pub(crate) fn serve<H: Handler>(mut worker: Worker<H>) -> io::Result<()> {
    let bytes = if worker.merges {
        MERGED_BYTES
    } else {
        SINGLE_BYTES
    };
    let mut batch = Batch {
        receiver: Receiver::new(RECEIVE_BUFFERS, bytes),
        kept: Vec::with_capacity(RECEIVE_BUFFERS),
    };
    let mut out = Runs::new(&worker.socket, &worker.counters)?;
    loop {
        let received = match batch.receiver.receive(worker.socket.as_fd()) {
            Ok(received) => received,
            Err(error) if is_passing(&error) => 0,
            Err(error) => return Err(error),
        };
        batch.admit(received, &worker);
        worker.handler.serve(&mut batch, &mut out);
        out.flush();
        batch.reply(&worker, &mut out);
        if worker.sleeper.quits() {
            return Ok(());
        }
        // A call that filled all buffers has probably left something behind.
        if received == batch.receiver.capacity() {
            continue;
        }
        if worker.wait == Wait::Block {
            worker.counters.wakeups.add(1);
            worker.handler.before_sleep(&mut out);
            out.flush();
            sleep(&worker)?;
        } else if received == 0 {
            worker.counters.idle_polls.add(1);
            std::hint::spin_loop();
        }
    }
}

/// Waits for a datagram or a wake-up.
fn sleep<H>(worker: &Worker<H>) -> io::Result<()> {
    let event = worker.sleeper.event();
    let mut watched = [
        PollFd::new(&worker.socket, PollFlags::IN),
        PollFd::new(&event, PollFlags::IN),
    ];
    match rustix::event::poll(&mut watched, None) {
        Ok(_) | Err(Errno::INTR) => {}
        Err(error) => return Err(error.into()),
    }
    let woken = watched.last().is_some_and(|fd| !fd.revents().is_empty());
    if woken {
        worker.sleeper.reset();
    }
    Ok(())
}

/// What one call has received.
#[derive(Debug)]
struct Batch {
    receiver: Receiver,
    /// Bytes of each buffer that are kept.
    kept: Vec<usize>,
}

impl Packets<SocketAddr> for Batch {
    fn count(&self) -> usize {
        self.kept.len()
    }

    fn packet(&mut self, index: usize) -> Option<Packet<'_, SocketAddr>> {
        let kept = *self.kept.get(index)?;
        let received = self.receiver.get(index).filter(is_usable)?;
        let bytes = received.bytes.get_mut(..kept)?;
        Some(Packet {
            peer: received.peer?,
            segment: received.segment.unwrap_or(bytes.len()),
            bytes,
        })
    }

    fn keep(&mut self, index: usize, len: usize) {
        if let Some(kept) = self.kept.get_mut(index) {
            *kept = (*kept).min(len);
        }
    }
}

impl Batch {
    /// Keeps everything that can be answered.
    fn admit<H>(&mut self, received: usize, worker: &Worker<H>) {
        self.kept.clear();
        for index in 0..received {
            let received = self.receiver.get(index);
            let usable = received.filter(|received| admit(received, &worker.counters));
            self.kept
                .push(usable.map_or(0, |received| received.bytes.len()));
        }
    }

    /// Sends back what is kept.
    fn reply<H>(&mut self, worker: &Worker<H>, out: &mut Runs) {
        let messages = self.receiver.prepare_replies(&self.kept);
        let mut next = 0;
        while next < messages {
            let lost = self.receiver.datagrams(next) as u64;
            match self.receiver.send_replies(worker.socket.as_fd(), next) {
                Ok(sent) => next += sent.max(1),
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) if lost > 1 && cannot_cut(&error) => {
                    out.warn_of_cuts(&error);
                    for message in next..messages {
                        let send = |peer, datagram: &[u8]| out.send_singly(peer, datagram);
                        self.receiver.singly(message, &self.kept, send);
                    }
                    return;
                }
                // Also where the socket is full: clients ask again and get the same tokens (S-6).
                Err(_) => {
                    worker.counters.send_errors.add(lost);
                    next += 1;
                }
            }
        }
    }
}
