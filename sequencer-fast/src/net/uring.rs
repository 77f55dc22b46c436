//! The mechanism that costs least: one io_uring a shard, one system call a batch.

use std::io;
use std::net::{SocketAddr, UdpSocket};
use std::sync::Arc;

use wire::datagram::{Header, Reply};

use super::poll::cannot_cut;
use super::run::{self, Run};
use super::sleeper::Sleeper;
use super::worker::Worker;
use crate::logic::{Outbox, ShardCounters};
use crate::sys::parcel::Parcel;
use crate::sys::ring::{Event, Ring, SENDS};

/// Serves a shard until it is told to quit.
pub(crate) fn serve(mut worker: Worker) -> io::Result<()> {
    let event = worker.sleeper.event().try_clone_to_owned()?;
    let mut out = Sends {
        ring: Ring::new(worker.socket.try_clone()?, event)?,
        socket: worker.socket.try_clone()?,
        counters: worker.shard.shared_counters(),
        open: Run::new(),
        free: (1..SENDS).map(|_| Run::new()).collect(),
        cuts: true,
    };
    loop {
        worker.before_sleep(&mut out);
        out.flush();
        out.ring.wait()?;
        while let Some(event) = out.ring.next() {
            match event {
                Event::Received(buffer) => {
                    if let Some(received) = buffer.received() {
                        worker.receive(&received, &mut out);
                    }
                    out.ring.give_back(buffer);
                }
                Event::Woken => worker.sleeper.reset(),
            }
        }
        out.recycle();
        worker.settle(&mut out);
        out.flush();
        if worker.sleeper.quits() {
            return out.finish();
        }
    }
}

/// Finds out whether this system lets io_uring do what is needed: by doing it, on a socket of its own.
///
/// # Errors
/// What does not work.
pub(crate) fn probe() -> io::Result<()> {
    let socket = UdpSocket::bind(SocketAddr::from(([127, 0, 0, 1], 0)))?;
    let address = socket.local_addr()?;
    let sleeper = Sleeper::new()?;
    let event = sleeper.event().try_clone_to_owned()?;
    let mut ring = Ring::new(socket, event)?;
    let parcel = Parcel {
        bytes: vec![0; 2].into(),
        len: 2,
        peer: address,
        segment: None,
    };
    // Whatever becomes of the datagram, the probe ends.
    sleeper.wake();
    let _ = ring.send(parcel);
    for _ in 0..PROBE_WAITS {
        ring.wait()?;
        while let Some(event) = ring.next() {
            if let Event::Received(buffer) = event
                && buffer.received().is_some_and(|r| r.bytes.len() == 2)
            {
                return Ok(());
            }
        }
        if let Some((_, Err(error))) = ring.done() {
            return Err(error);
        }
        sleeper.wake();
    }
    Err(io::Error::other("io_uring does not receive from a socket"))
}

/// Rounds in which the datagram of the probe has to arrive.
const PROBE_WAITS: u32 = 1000;

/// Replies on their way out. Runs are open, free or under way, [`SENDS`] in all.
#[derive(Debug)]
struct Sends {
    ring: Ring,
    socket: UdpSocket,
    counters: Arc<ShardCounters>,
    open: Run,
    free: Vec<Run>,
    /// Whether the path can cut a run into datagrams.
    cuts: bool,
}

impl Outbox<SocketAddr> for Sends {
    fn send(&mut self, peer: SocketAddr, header: Header, replies: &[Reply]) {
        if !self.open.push(peer, header, replies) {
            self.flush();
            self.open.push(peer, header, replies);
        }
    }
}

impl Sends {
    /// Puts the open run on its way, to leave with the next wait.
    fn flush(&mut self) {
        let Some(message) = self.open.message() else {
            return;
        };
        if !self.cuts && message.segment.is_some() {
            run::send_singly(&self.socket, &self.counters, self.open.datagrams());
            return self.open.clear();
        }
        let Some(next) = self.free_run() else {
            // Nothing comes back from the kernel. Clients ask again (S-6).
            let lost = self.open.count() as u64;
            self.counters.send_errors.add(lost);
            return self.open.clear();
        };
        let run = std::mem::replace(&mut self.open, next);
        if let Some(parcel) = run.into_parcel()
            && let Err(parcel) = self.ring.send(parcel)
        {
            self.counters.send_errors.add(1);
            self.free.push(Run::reuse(parcel.bytes));
        }
    }

    /// A free run; waits for one if all are under way.
    fn free_run(&mut self) -> Option<Run> {
        while self.free.is_empty() && self.ring.in_flight() > 0 {
            self.ring.wait().ok()?;
            self.recycle();
        }
        self.free.pop()
    }

    /// Takes the runs back whose sends have ended.
    fn recycle(&mut self) {
        while let Some((parcel, sent)) = self.ring.done() {
            if let Err(error) = sent {
                self.failed(&parcel, &error);
            }
            self.free.push(Run::reuse(parcel.bytes));
        }
    }

    fn failed(&mut self, parcel: &Parcel, error: &io::Error) {
        let datagrams = run::pieces(parcel.peer, &parcel.bytes, parcel.len, parcel.segment);
        if parcel.segment.is_none() || !cannot_cut(error) {
            self.counters.send_errors.add(datagrams.count() as u64);
            return;
        }
        if std::mem::replace(&mut self.cuts, false) {
            tracing::warn!(%error, "segmentation offload refused: replies go out one by one");
        }
        run::send_singly(&self.socket, &self.counters, datagrams);
    }

    /// Lets what is under way go out.
    fn finish(mut self) -> io::Result<()> {
        while self.ring.in_flight() > 0 {
            self.ring.wait()?;
            self.recycle();
        }
        Ok(())
    }
}
