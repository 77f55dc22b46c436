//! The mechanism that works everywhere: poll, recvmmsg and sendmmsg.

use std::io;
use std::net::{SocketAddr, UdpSocket};
use std::os::fd::AsFd;
use std::sync::Arc;

use rustix::event::{PollFd, PollFlags};
use rustix::io::Errno;
use wire::datagram::{Header, Reply};

use crate::logic::{Outbox, ShardCounters};
use crate::sys::mmsg::{Receiver, Sender};

use super::run::{self, Run};
use super::worker::{BUFFER_BYTES, Worker};

/// Buffers that one call may fill.
const RECEIVE_BUFFERS: usize = 32;

/// Runs of replies that one call sends.
const SEND_RUNS: usize = 32;

/// Serves a shard until it is told to quit.
pub(crate) fn serve(mut worker: Worker) -> io::Result<()> {
    let mut receiver = Receiver::new(RECEIVE_BUFFERS, BUFFER_BYTES);
    let mut out = Runs {
        socket: worker.socket.try_clone()?,
        counters: worker.shard.shared_counters(),
        runs: (0..SEND_RUNS).map(|_| Run::new()).collect(),
        open: 0,
        sender: Sender::new(SEND_RUNS),
        cuts: true,
    };
    loop {
        let received = match receiver.receive(worker.socket.as_fd()) {
            Ok(received) => received,
            Err(error) if is_passing(&error) => 0,
            Err(error) => return Err(error),
        };
        for index in 0..received {
            if let Some(received) = receiver.get(index) {
                worker.receive(&received, &mut out);
            }
        }
        worker.settle(&mut out);
        out.flush();
        if worker.sleeper.quits() {
            return Ok(());
        }
        // A call that filled all buffers has probably left something behind.
        if received < receiver.len() {
            worker.before_sleep(&mut out);
            out.flush();
            sleep(&worker)?;
        }
    }
}

/// Waits for a datagram or a wake-up.
fn sleep(worker: &Worker) -> io::Result<()> {
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

/// Errors after which receiving goes on: nothing there, a signal, or the news that something that was
/// sent earlier did not arrive.
pub(super) fn is_passing(error: &io::Error) -> bool {
    let passing = [
        Errno::AGAIN,
        Errno::INTR,
        Errno::CONNREFUSED,
        Errno::HOSTUNREACH,
        Errno::NETUNREACH,
        Errno::NOBUFS,
        Errno::NOMEM,
    ];
    let code = error.raw_os_error();
    passing
        .iter()
        .any(|errno| Some(errno.raw_os_error()) == code)
}

/// Replies on their way out.
#[derive(Debug)]
struct Runs {
    socket: UdpSocket,
    counters: Arc<ShardCounters>,
    runs: Vec<Run>,
    /// The run that grows; those before it are complete.
    open: usize,
    sender: Sender,
    /// Whether the path can cut a run into datagrams.
    cuts: bool,
}

impl Outbox<SocketAddr> for Runs {
    fn send(&mut self, peer: SocketAddr, header: Header, replies: &[Reply]) {
        loop {
            let open = self.runs.get_mut(self.open);
            match open.map(|run| run.push(peer, header, replies)) {
                Some(true) => return,
                Some(false) => self.open += 1,
                None => self.flush(),
            }
        }
    }
}

impl Runs {
    fn flush(&mut self) {
        let mut first = 0;
        while let Some(run) = self.runs.get(first).filter(|run| !run.is_empty()) {
            if !self.cuts {
                run::send_singly(&self.socket, &self.counters, run.datagrams());
                first += 1;
                continue;
            }
            let messages = self.runs.iter().skip(first).map_while(Run::message);
            match self.sender.send(self.socket.as_fd(), messages) {
                Ok(sent) => first += sent.max(1),
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                    self.lose(first);
                    break;
                }
                Err(error) if run.count() > 1 && cannot_cut(&error) => {
                    tracing::warn!(%error, "segmentation offload refused: replies go out one by one");
                    self.cuts = false;
                }
                Err(_) => {
                    self.counters.send_errors.add(run.count() as u64);
                    first += 1;
                }
            }
        }
        for run in &mut self.runs {
            run.clear();
        }
        self.open = 0;
    }

    /// The socket is full. Clients ask again and get the same tokens (S-6).
    fn lose(&self, first: usize) {
        let lost: usize = self.runs.iter().skip(first).map(Run::count).sum();
        self.counters.send_errors.add(lost as u64);
    }
}

/// Whether the device cannot cut what is sent (EIO), or the path is too narrow for the pieces (EINVAL,
/// EMSGSIZE).
pub(super) fn cannot_cut(error: &io::Error) -> bool {
    [Errno::IO, Errno::INVAL, Errno::MSGSIZE]
        .iter()
        .any(|errno| Some(errno.raw_os_error()) == error.raw_os_error())
}
