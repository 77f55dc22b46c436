//! A server that sends every datagram back: what the network path of this machine allows at most.
//!
//! The floor that a sequencer is compared with: the same sockets and system calls, and nothing in between.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::thread::JoinHandle;

use crate::config::{Backend, Wait};
use crate::logic::{Outbox, Packets, ShardCounters};

use super::mechanism;
use super::sleeper::Sleeper;
use super::socket;
use super::worker::{Handler, Worker};

/// How an echo is served.
#[derive(Debug, Clone)]
pub struct Io {
    /// UDP address to bind.
    pub listen: SocketAddr,
    /// How datagrams are received and sent.
    pub backend: Backend,
    /// How the thread waits for them.
    pub wait: Wait,
    /// Whether the kernel merges what it receives (UDP_GRO).
    pub merge: bool,
    /// Core to pin the thread to.
    pub core: Option<usize>,
}

/// A running echo.
#[derive(Debug)]
pub struct Echo {
    address: SocketAddr,
    sleeper: Arc<Sleeper>,
    counters: Arc<ShardCounters>,
    thread: JoinHandle<io::Result<()>>,
}

struct Nothing;

impl Handler for Nothing {
    fn serve(
        &mut self,
        _packets: &mut impl Packets<SocketAddr>,
        _out: &mut impl Outbox<SocketAddr>,
    ) {
    }

    fn before_sleep(&mut self, _out: &mut impl Outbox<SocketAddr>) {}
}

impl Echo {
    /// Binds a socket and serves it in a thread of its own, called `shard-0` as that of a sequencer.
    ///
    /// # Errors
    /// What the system refuses.
    pub fn start(io: Io) -> io::Result<Self> {
        let mechanism = mechanism::choose(io.backend, io.wait)?;
        let mut sockets = socket::open(io.listen, 1, io.merge)?;
        let socket = sockets.pop().ok_or(io::ErrorKind::AddrNotAvailable)?;
        let address = socket.local_addr()?;
        let sleeper = Arc::new(Sleeper::new()?);
        let counters = Arc::new(ShardCounters::default());
        let worker = Worker {
            socket,
            handler: Nothing,
            counters: Arc::clone(&counters),
            sleeper: Arc::clone(&sleeper),
            wait: io.wait,
            merges: io.merge,
        };
        let thread = std::thread::Builder::new()
            .name("shard-0".to_owned())
            .spawn(move || {
                if let Some(id) = io.core {
                    core_affinity::set_for_current(core_affinity::CoreId { id });
                }
                mechanism.serve(worker)
            })?;
        Ok(Self {
            address,
            sleeper,
            counters,
            thread,
        })
    }

    /// The address that is bound.
    #[must_use]
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// What the thread counts: only wake-ups, idle polls and errors, as nothing is looked at.
    #[must_use]
    pub fn counters(&self) -> &ShardCounters {
        &self.counters
    }

    /// Ends it.
    ///
    /// # Errors
    /// Why it ended before.
    pub fn stop(self) -> io::Result<()> {
        self.sleeper.quit();
        self.join()
    }

    /// Waits until it has ended by itself. Blocks the thread.
    ///
    /// # Errors
    /// Why it has ended.
    pub fn join(self) -> io::Result<()> {
        let ended = self.thread.join();
        ended.unwrap_or_else(|_| Err(io::Error::other("the thread panicked")))
    }
}
