//! A relay between one client and the sequencer that loses, doubles and reorders datagrams.

use std::collections::HashMap;
use std::io;
use std::net::{Ipv4Addr, SocketAddr, UdpSocket};
use std::os::fd::AsFd;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::{self, JoinHandle};

use anyhow::{Result, bail};
use rustix::event::{PollFd, PollFlags, Timespec};
use sequencer_fast::udp::Receiver;

use super::flow::passing;
use crate::logic::batch::{Identity, granted};
use crate::logic::path::{Done, Fate, Path};

/// Buffers of one receive.
const BUFFERS: usize = 32;
const BUFFER_BYTES: usize = 2048;

/// After so long without a datagram, what is held back goes on.
const QUIET: Timespec = Timespec {
    tv_sec: 0,
    tv_nsec: 2_000_000,
};

/// What was granted in replies that were lost, by request.
pub(crate) type LostReplies = HashMap<Identity, Vec<(u64, u32)>>;

/// A running relay.
#[derive(Debug)]
pub(crate) struct Emulator {
    address: SocketAddr,
    stop: Arc<AtomicBool>,
    thread: JoinHandle<io::Result<Outcome>>,
}

/// What a relay has done.
#[derive(Debug)]
pub(crate) struct Outcome {
    /// To requests.
    pub(crate) requests: Done,
    /// To replies.
    pub(crate) replies: Done,
    /// What was in those that were lost.
    pub(crate) lost: LostReplies,
}

impl Emulator {
    /// Starts a relay to the sequencer, each fault with this share in both directions.
    ///
    /// # Errors
    /// What the system says about sockets.
    pub(crate) fn start(server: SocketAddr, rate: f64, seed: u64) -> Result<Self> {
        let client = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0))?;
        let upstream = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0))?;
        upstream.connect(server)?;
        let address = client.local_addr()?;
        let stop = Arc::new(AtomicBool::new(false));
        let stopped = Arc::clone(&stop);
        let work = move || {
            let mut relay = Relay {
                client,
                upstream,
                peer: None,
                receiver: Receiver::new(BUFFERS, BUFFER_BYTES),
                requests: Path::new(rate, seed),
                replies: Path::new(rate, seed.wrapping_add(1)),
                lost: LostReplies::new(),
            };
            relay.run(&stopped).map(|()| relay.outcome())
        };
        let thread = thread::Builder::new().name("emulator".to_owned());
        let thread = thread.spawn(work)?;
        Ok(Self {
            address,
            stop,
            thread,
        })
    }

    /// Where the client sends to.
    #[must_use]
    pub(crate) fn address(&self) -> SocketAddr {
        self.address
    }

    /// Ends it, once nothing comes any more.
    ///
    /// # Errors
    /// What went wrong meanwhile.
    pub(crate) fn finish(self) -> Result<Outcome> {
        self.stop.store(true, Ordering::Release);
        match self.thread.join() {
            Ok(outcome) => Ok(outcome?),
            Err(_) => bail!("the emulator has panicked"),
        }
    }
}

struct Relay {
    client: UdpSocket,
    upstream: UdpSocket,
    peer: Option<SocketAddr>,
    receiver: Receiver,
    requests: Path,
    replies: Path,
    lost: LostReplies,
}

impl Relay {
    fn run(&mut self, stop: &AtomicBool) -> io::Result<()> {
        loop {
            let came = self.upward()? + self.downward()?;
            if came > 0 {
                self.release(false)?;
                continue;
            }
            let mut watched = [
                PollFd::new(&self.client, PollFlags::IN),
                PollFd::new(&self.upstream, PollFlags::IN),
            ];
            if rustix::event::poll(&mut watched, Some(&QUIET)).is_ok_and(|ready| ready == 0) {
                let released = self.release(true)?;
                if released == 0 && stop.load(Ordering::Acquire) {
                    return Ok(());
                }
            }
        }
    }

    fn upward(&mut self) -> io::Result<usize> {
        let count = passing(self.receiver.receive(self.client.as_fd()))?;
        for index in 0..count {
            let Some(received) = self.receiver.get(index) else {
                continue;
            };
            self.peer = received.peer;
            if self.requests.pass(received.bytes) == Fate::Passes {
                passing(self.upstream.send(received.bytes))?;
            }
        }
        Ok(count)
    }

    fn downward(&mut self) -> io::Result<usize> {
        let count = passing(self.receiver.receive(self.upstream.as_fd()))?;
        for index in 0..count {
            let Some((received, peer)) = self.receiver.get(index).zip(self.peer) else {
                continue;
            };
            match self.replies.pass(received.bytes) {
                Fate::Passes => {
                    passing(self.client.send_to(received.bytes, peer))?;
                }
                Fate::Lost => {
                    if let Some(identity) = Identity::of(received.bytes) {
                        self.lost
                            .insert(identity, granted(received.bytes).collect());
                    }
                }
                Fate::Held => {}
            }
        }
        Ok(count)
    }

    fn release(&mut self, nothing_comes: bool) -> io::Result<usize> {
        let mut released = 0;
        while let Some(datagram) = self.requests.release(nothing_comes) {
            passing(self.upstream.send(&datagram))?;
            released += 1;
        }
        while let (Some(peer), Some(datagram)) = (self.peer, self.replies.release(nothing_comes)) {
            passing(self.client.send_to(&datagram, peer))?;
            released += 1;
        }
        Ok(released)
    }

    fn outcome(&mut self) -> Outcome {
        Outcome {
            requests: self.requests.done(),
            replies: self.replies.done(),
            lost: std::mem::take(&mut self.lost),
        }
    }
}
