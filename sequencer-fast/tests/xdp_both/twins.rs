//! A client with two threads that send the same datagrams at once, each from sockets of its own: copies come by
//! different flows, and run on different cores.

use std::hint;
use std::net::UdpSocket;
use std::os::fd::AsFd;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::thread;

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::io::Errno;
use rustix::net::{RecvFlags, recv};
use wire::datagram::Kind;

use super::asked::{Asked, datagram};
use super::common::random::Random;
use super::told::Told;
use super::world::World;

/// Datagrams that are remembered; replies to earlier ones are not held against their requests.
const RING: u64 = 1 << 14;

/// Datagrams between two looks at what has come.
const BURST: u64 = 8;

/// Datagrams without a reply after which a thread waits for replies.
const MOST_OUT: u64 = 64;

/// Looks of a thread for the other one, so that both send at the same moment; some ten microseconds.
const LOOKS: u32 = 1000;

/// Most looks by which the first one comes later: the other one has to find out that there is something.
const LATER: u64 = 8;

/// Datagrams by which the second thread may be behind before the first one waits, and how long.
const MOST_BEHIND: u64 = 16;
const WAITS: u32 = 64;

const MS_NS: i64 = 1_000_000;

/// Milliseconds without a reply after which no more are expected at the end.
const LAST_MS: i64 = 100;

/// What both threads know.
#[derive(Debug)]
pub(crate) struct Twins {
    /// The names that the client asks under.
    pub(crate) clients: Vec<u64>,
    ring: Vec<Mutex<Option<Arc<Asked>>>>,
    /// Number of the newest datagram.
    made: AtomicU64,
    /// Up to where the second thread has come.
    followed: AtomicU64,
    /// Whether the second thread looks for something to send.
    looks: AtomicBool,
}

impl Twins {
    pub(crate) fn new(clients: Vec<u64>) -> Self {
        Self {
            clients,
            ring: (0..RING).map(|_| Mutex::new(None)).collect(),
            made: AtomicU64::new(0),
            followed: AtomicU64::new(0),
            looks: AtomicBool::new(false),
        }
    }

    fn slot(&self, number: u64) -> &Mutex<Option<Arc<Asked>>> {
        &self.ring[usize::try_from(number % RING).expect("small")]
    }

    pub(crate) fn asked(&self, number: u64) -> Option<Arc<Asked>> {
        let slot = self.slot(number).lock().expect("not poisoned");
        slot.clone().filter(|asked| asked.number == number)
    }
}

/// One of the two threads.
#[derive(Debug)]
pub(crate) struct Twin {
    pub(crate) world: Arc<World>,
    pub(crate) twins: Arc<Twins>,
    /// Whether it makes datagrams; the other one repeats them.
    pub(crate) leads: bool,
    pub(crate) sockets: Vec<UdpSocket>,
    pub(crate) random: Random,
    pub(crate) told: Told,
    pub(crate) out: u64,
}

impl Twin {
    /// Asks until the test is over, and tells what it was told.
    pub(crate) fn run(mut self) -> Told {
        while !self.world.is_over() {
            let calm = self.world.is_calm();
            if self.leads {
                let burst = 1 + self.random.below(BURST);
                self.lead(if calm { 1 } else { burst });
            } else {
                self.follow();
            }
            if self.random.once_in(3) {
                self.repeat();
            }
            self.collect();
            if self.out > MOST_OUT || calm {
                if !self.wait(1) {
                    self.out = 0;
                }
                self.collect();
            }
        }
        while self.wait(LAST_MS) {
            self.collect();
        }
        self.told
    }

    fn lead(&mut self, datagrams: u64) {
        for _ in 0..datagrams {
            let number = self.twins.made.load(Ordering::Relaxed) + 1;
            let client = *self.random.of(&self.twins.clients);
            let asked = Asked::make(&mut self.random, number, client, &self.world);
            let asked = Arc::new(asked);
            *self.twins.slot(number).lock().expect("not poisoned") = Some(Arc::clone(&asked));
            let together = self.random.once_in(2);
            if together {
                look(|| self.twins.looks.load(Ordering::Relaxed));
            }
            self.twins.made.store(number, Ordering::Release);
            if together {
                (0..self.random.below(LATER)).for_each(|_| hint::spin_loop());
            }
            self.send(&asked.bytes, asked.entries.len());
        }
        for _ in 0..WAITS {
            let behind = self.twins.made.load(Ordering::Relaxed)
                - self.twins.followed.load(Ordering::Relaxed);
            if behind <= MOST_BEHIND {
                break;
            }
            thread::yield_now();
        }
    }

    fn follow(&mut self) {
        let followed = self.twins.followed.load(Ordering::Relaxed);
        self.twins.looks.store(true, Ordering::Relaxed);
        look(|| self.twins.made.load(Ordering::Relaxed) > followed);
        self.twins.looks.store(false, Ordering::Relaxed);
        let made = self.twins.made.load(Ordering::Acquire);
        let from = followed.max(made.saturating_sub(BURST * 4));
        for number in from + 1..=made {
            if !self.random.once_in(8)
                && let Some(asked) = self.twins.asked(number)
            {
                self.send(&asked.bytes, asked.entries.len());
            }
        }
        self.twins.followed.store(made, Ordering::Relaxed);
    }

    /// Repeats a datagram, or one request of it by itself.
    fn repeat(&mut self) {
        let age = match self.random.once_in(4) {
            true => self.random.below(2000),
            false => self.random.below(8),
        };
        let made = self.twins.made.load(Ordering::Acquire);
        let Some(asked) = self.twins.asked(made.saturating_sub(age)) else {
            return;
        };
        if asked.kind == Kind::Tail || self.random.once_in(2) {
            self.send(&asked.bytes, asked.entries.len());
            return;
        }
        let entry = *self.random.of(&asked.entries);
        let bytes = datagram(asked.kind, asked.client, asked.number, &[entry]);
        self.send(&bytes, 1);
    }

    fn send(&mut self, bytes: &[u8], requests: usize) {
        let socket = self.random.of(&self.sockets);
        // Nobody may be there, between two sequencers.
        if socket.send(bytes).is_ok() {
            self.out += 1;
            self.told.requests += requests as u64;
        }
    }

    /// Waits for a reply; false if none comes.
    fn wait(&self, milliseconds: i64) -> bool {
        let interest = PollFlags::IN;
        let mut all: Vec<_> = self
            .sockets
            .iter()
            .map(|socket| PollFd::new(socket, interest))
            .collect();
        let timeout = Timespec {
            tv_sec: 0,
            tv_nsec: milliseconds * MS_NS,
        };
        poll(&mut all, Some(&timeout)).is_ok_and(|ready| ready > 0)
    }

    /// Checks everything that has come.
    fn collect(&mut self) {
        let mut buffer = [0; 2048];
        for number in 0..self.sockets.len() {
            loop {
                let socket = self.sockets[number].as_fd();
                match recv(socket, &mut buffer, RecvFlags::DONTWAIT) {
                    Ok((len, _)) => {
                        self.out = 0;
                        self.check(&buffer[..len]);
                    }
                    Err(Errno::INTR | Errno::CONNREFUSED) => {}
                    Err(Errno::AGAIN) => break,
                    Err(error) => panic!("cannot receive: {error}"),
                }
            }
        }
    }
}

/// Looks for a short while whether something holds.
fn look(holds: impl Fn() -> bool) {
    for _ in 0..LOOKS {
        if holds() {
            return;
        }
        hint::spin_loop();
    }
    thread::yield_now();
}
