//! Replies that do not leave from where they were received.

use std::io;
use std::net::{SocketAddr, UdpSocket};
use std::os::fd::AsFd;
use std::sync::Arc;

use rustix::io::Errno;
use rustix::net::SendFlags;

use crate::limits::SEND_RUNS;
use crate::logic::{Outbox, ShardCounters};
use crate::sys::send::Sender;

use super::run::Run;

/// Replies on their way out, gathered into runs.
#[derive(Debug)]
pub(crate) struct Runs {
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
    fn send(&mut self, peer: SocketAddr, datagram: &[u8]) {
        loop {
            if self.open == self.runs.len() && self.runs.len() < SEND_RUNS {
                self.runs.push(Run::new());
            }
            let open = self.runs.get_mut(self.open);
            match open.map(|run| run.push(peer, datagram)) {
                Some(true) => return,
                Some(false) => self.open += 1,
                None => self.flush(),
            }
        }
    }
}

impl Runs {
    pub(crate) fn new(socket: &UdpSocket, counters: &Arc<ShardCounters>) -> io::Result<Self> {
        Ok(Self {
            socket: socket.try_clone()?,
            counters: Arc::clone(counters),
            runs: Vec::new(),
            open: 0,
            sender: Sender::new(SEND_RUNS),
            cuts: true,
        })
    }

    /// Sends everything.
    pub(crate) fn flush(&mut self) {
        let mut first = 0;
        while let Some(run) = self.runs.get(first).filter(|run| !run.is_empty()) {
            if !self.cuts {
                for datagram in run.datagrams() {
                    self.send_singly(datagram.peer, datagram.bytes);
                }
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
                    self.warn_of_cuts(&error);
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

    /// Sends one datagram on its own.
    pub(crate) fn send_singly(&self, peer: SocketAddr, datagram: &[u8]) {
        let sent = rustix::net::sendto(&self.socket, datagram, SendFlags::DONTWAIT, &peer);
        if sent.is_err() {
            self.counters.send_errors.add(1);
        }
    }

    /// The path cannot cut runs into datagrams, as was just found.
    pub(crate) fn warn_of_cuts(&mut self, error: &io::Error) {
        if std::mem::replace(&mut self.cuts, false) {
            tracing::warn!(%error, "segmentation offload refused: replies go out one by one");
        }
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
    is_one_of(error, &[Errno::IO, Errno::INVAL, Errno::MSGSIZE])
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
    is_one_of(error, &passing)
}

fn is_one_of(error: &io::Error, errors: &[Errno]) -> bool {
    let code = error.raw_os_error();
    errors
        .iter()
        .any(|errno| Some(errno.raw_os_error()) == code)
}
