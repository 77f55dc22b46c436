//! The mechanism that costs least: one io_uring a shard, one system call a batch.

use std::io;
use std::net::{SocketAddr, UdpSocket};

use super::outbox::{Runs, cannot_cut};
use super::sleeper::Sleeper;
use super::worker::{Handler, Worker, admit, is_usable};
use crate::config::Wait;
use crate::limits::{MERGED_BUFFERS, MERGED_BYTES, PROBE_WAITS, SINGLE_BUFFERS, SINGLE_BYTES};
use crate::logic::{Packet, Packets};
use crate::sys::region::{Buffer, Shape};
use crate::sys::ring::{Failure, Ring, Waiting};

/// Serves a handler until it is told to quit.
pub(crate) fn serve<H: Handler>(mut worker: Worker<H>) -> io::Result<()> {
    let event = worker.sleeper.event().try_clone_to_owned()?;
    let waiting = match worker.wait {
        Wait::Block => Waiting::Blocked,
        Wait::BusyPoll => Waiting::Polling,
        Wait::SqPoll { core } => Waiting::Submitted { core },
    };
    let shape = shape(worker.merges);
    let mut ring = Ring::new(worker.socket.try_clone()?, event, shape, waiting)?;
    let mut out = Runs::new(&worker.socket, &worker.counters)?;
    let mut batch = Batch {
        buffers: Vec::with_capacity(usize::from(shape.count())),
    };
    loop {
        worker.handler.before_sleep(&mut out);
        out.flush();
        ring.wait()?;
        if worker.wait != Wait::BusyPoll {
            worker.counters.wakeups.add(1);
        }
        worker.counters.idle_polls.add(ring.idle_spins());
        if ring.woken() {
            worker.sleeper.reset();
        }
        ring.received(&mut batch.buffers);
        batch.admit(&worker);
        worker.handler.serve(&mut batch, &mut out);
        out.flush();
        ring.reply(&mut batch.buffers)?;
        for failure in ring.failures() {
            failed(failure, &mut ring, &worker, &mut out);
        }
        if worker.sleeper.quits() {
            return finish(ring);
        }
    }
}

fn shape(merges: bool) -> Shape {
    if merges {
        Shape::new(MERGED_BUFFERS, MERGED_BYTES)
    } else {
        Shape::new(SINGLE_BUFFERS, SINGLE_BYTES)
    }
}

/// What becomes of replies that could not be sent: lost, or sent one by one where they cannot be cut.
fn failed<H>(failure: Failure, ring: &mut Ring, worker: &Worker<H>, out: &mut Runs) {
    let several = failure.buffers.len() > 1;
    let merged = |buffer: &Buffer| buffer.kept() > buffer.segment();
    let cut = cannot_cut(&failure.error) && (several || failure.buffers.iter().any(merged));
    if cut {
        out.warn_of_cuts(&failure.error);
        ring.cut_no_more();
    }
    for mut buffer in failure.buffers {
        let segment = buffer.segment().max(1);
        if let Some(received) = buffer.received() {
            for datagram in received.bytes.chunks(segment) {
                match received.peer {
                    Some(peer) if cut => out.send_singly(peer, datagram),
                    // Clients ask again and get the same tokens (S-6).
                    _ => worker.counters.send_errors.add(1),
                }
            }
        }
        ring.give_back(buffer);
    }
}

/// Lets what is under way go out.
fn finish(mut ring: Ring) -> io::Result<()> {
    while ring.in_flight() > 0 {
        ring.wait()?;
    }
    Ok(())
}

/// What was received since the last system call.
#[derive(Debug)]
struct Batch {
    buffers: Vec<Buffer>,
}

impl Packets<SocketAddr> for Batch {
    fn count(&self) -> usize {
        self.buffers.len()
    }

    fn packet(&mut self, index: usize) -> Option<Packet<'_, SocketAddr>> {
        let received = self.buffers.get_mut(index)?.received();
        let received = received.filter(is_usable)?;
        Some(Packet {
            peer: received.peer?,
            segment: received.segment.unwrap_or(received.bytes.len()),
            bytes: received.bytes,
        })
    }

    fn keep(&mut self, index: usize, len: usize) {
        if let Some(buffer) = self.buffers.get_mut(index) {
            buffer.keep(len);
        }
    }
}

impl Batch {
    /// Keeps everything that can be answered.
    fn admit<H>(&mut self, worker: &Worker<H>) {
        for buffer in &mut self.buffers {
            let received = buffer.received();
            if !received.is_some_and(|received| admit(&received, &worker.counters)) {
                buffer.keep(0);
            }
        }
    }
}

/// Finds out whether this system lets io_uring do what is needed: by doing it, on a socket of its own.
///
/// # Errors
/// What does not work.
pub(crate) fn probe(wait: Wait) -> io::Result<()> {
    let socket = UdpSocket::bind(SocketAddr::from(([127, 0, 0, 1], 0)))?;
    let (address, sender) = (socket.local_addr()?, socket.try_clone()?);
    let sleeper = Sleeper::new()?;
    let event = sleeper.event().try_clone_to_owned()?;
    let waiting = match wait {
        Wait::SqPoll { core } => Waiting::Submitted { core },
        Wait::Block | Wait::BusyPoll => Waiting::Blocked,
    };
    let mut ring = Ring::new(socket, event, Shape::new(4, SINGLE_BYTES), waiting)?;
    sender.send_to(&[0; 2], address)?;
    let mut buffers = Vec::new();
    // Whatever becomes of the datagram, the probe ends.
    for _ in 0..PROBE_WAITS {
        sleeper.wake();
        ring.wait()?;
        ring.received(&mut buffers);
        let arrived = buffers.iter().any(|buffer| buffer.kept() == 2);
        ring.reply(&mut buffers)?;
        if arrived {
            finish(ring)?;
            return Ok(());
        }
    }
    Err(io::Error::other("io_uring does not receive from a socket"))
}
