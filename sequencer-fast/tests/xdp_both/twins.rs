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
use wire::datagram::{Datagram, Grant, Header, Kind, Reply, Status};
use wire::limits::MAX_GRANT;
use wire::{ClientId, Lane, Position, RequestId};

use super::common::{LOG, encode};
use super::random::Random;
use super::told::{Token, Told};
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

/// Lanes of a block of the retry memory.
const BLOCK: u32 = 32;

/// Groups of lanes that a client uses.
const GROUPS: u32 = 3;

/// Most requests of a datagram.
const MOST: u32 = 29;

/// A datagram that was made.
#[derive(Debug)]
struct Asked {
    kind: Kind,
    client: ClientId,
    number: u64,
    entries: Vec<Grant>,
    bytes: Vec<u8>,
    /// What was told before it was sent for the first time.
    floor: u64,
    /// The silence in which it was.
    silence: u64,
}

/// What both threads know.
#[derive(Debug)]
pub(crate) struct Twins {
    /// The names that the client asks under.
    clients: Vec<u64>,
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

    fn asked(&self, number: u64) -> Option<Arc<Asked>> {
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
            let asked = Arc::new(self.make());
            let number = asked.number;
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

    /// A new datagram. All of its requests have its number, so that the numbers of each lane rise.
    fn make(&mut self) -> Asked {
        let number = self.twins.made.load(Ordering::Relaxed) + 1;
        let client = ClientId(*self.random.of(&self.twins.clients));
        let floor = self.world.floor();
        let (kind, entries) = match self.random.below(16) {
            _ if self.world.is_calm() => {
                let (kind, count) = match self.random.once_in(16) {
                    true => (Kind::Tail, 0),
                    false => (Kind::Grant, 1),
                };
                let lane = Lane(self.random.below32(BLOCK));
                (kind, vec![Grant::new(lane, RequestId(number), count)])
            }
            0 => (Kind::Tail, vec![Grant::new(Lane(0), RequestId(number), 0)]),
            1 | 2 => (Kind::GrantAt, self.conditional(number, floor)),
            _ => (Kind::Grant, self.grants(number)),
        };
        Asked {
            bytes: datagram(kind, client, number, &entries),
            kind,
            client,
            number,
            entries,
            floor,
            silence: self.world.silence(),
        }
    }

    fn grants(&mut self, number: u64) -> Vec<Grant> {
        let few = self.random.once_in(2);
        let count = if few {
            1
        } else {
            1 + self.random.below32(MOST)
        };
        let lanes = GROUPS * BLOCK;
        let (base, stride) = match self.random.below(8) {
            // Anywhere, over the ends of blocks or not.
            0 => (self.random.below32(lanes), 1),
            // No neighbours.
            1 => (self.random.below32(lanes), *self.random.of(&[5, 7, 11])),
            // In one block.
            _ => {
                let base = self.random.below32(BLOCK - count + 1);
                (base + BLOCK * self.random.below32(GROUPS), 1)
            }
        };
        let mut entries: Vec<_> = (0..count)
            .map(|entry| {
                let lane = Lane((base + entry * stride) % lanes);
                Grant::new(lane, RequestId(number), self.positions())
            })
            .collect();
        if self.random.once_in(32) {
            let bad = *self.random.of(&[0, MAX_GRANT + 1, u32::MAX]);
            entries[0].count = bad;
        }
        entries
    }

    fn conditional(&mut self, number: u64, floor: u64) -> Vec<Grant> {
        let lanes = GROUPS * BLOCK;
        let (base, mut expected) = (self.random.below32(lanes), Position(floor));
        (0..1 + self.random.below32(3))
            .map(|entry| {
                let (lane, count) = (Lane((base + entry) % lanes), self.positions());
                let grant = Grant::at(lane, RequestId(number), count, expected);
                expected = expected.plus(u64::from(count));
                grant
            })
            .collect()
    }

    /// Mostly few, sometimes more than what is left of the reservation.
    fn positions(&mut self) -> u32 {
        match self.random.once_in(1024) {
            true => 1 + self.random.below32(2000),
            false => 1 + self.random.below32(8),
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

    fn check(&mut self, bytes: &[u8]) {
        self.told.replies += 1;
        let datagram = Datagram::parse(bytes, LOG).expect("a reply is well formed");
        let header = datagram.header;
        assert!(header.is_reply() && self.twins.clients.contains(&header.client.0));
        let asked = self.twins.asked(header.tag);
        if let Some(asked) = &asked {
            assert_eq!((asked.client, asked.kind), (header.client, datagram.kind));
        } else {
            self.told.late += 1;
        }
        for reply in datagram.entries::<Reply>() {
            let reply = reply.expect("valid");
            assert_eq!(reply.request.0, header.tag, "its request");
            self.check_reply(&header, datagram.kind, &reply, asked.as_deref());
        }
    }

    fn check_reply(&mut self, header: &Header, kind: Kind, reply: &Reply, asked: Option<&Asked>) {
        let status = reply.status().expect("known");
        let silence = self.world.silence();
        if status != Status::Ok {
            let silenced = asked.is_some_and(|asked| asked.silence != 0);
            match status {
                _ if silenced => self.told.silenced += 1,
                Status::Busy => self.told.busy += 1,
                _ => self.told.refused += 1,
            }
            return;
        }
        if let Some(asked) = asked {
            let of_lane = |entry: &&Grant| entry.lane == reply.lane;
            let entry = asked
                .entries
                .iter()
                .find(of_lane)
                .expect("a lane that asked");
            assert_eq!(reply.count, entry.count, "{reply:?} {asked:?}");
            // [S-5]
            assert!(
                asked.silence == 0 || asked.silence != silence,
                "granted in silence: {reply:?} {asked:?}"
            );
            // [S-7] Whatever was told before it asked lies below.
            let floor = asked.floor;
            assert!(reply.first.0 >= floor, "went back: floor={floor} {reply:?}");
            if kind == Kind::GrantAt {
                assert_eq!(reply.first, entry.expected_tail, "{reply:?}");
                self.told.conditional += 1;
            }
        }
        let end = reply.first.plus(u64::from(reply.count));
        // [S-2]
        let covered = self.world.covered(header.epoch);
        assert!(
            end.0 <= covered,
            "above the reservation: covered={covered} {header:?} {reply:?}"
        );
        self.world.told(end.0);
        if kind == Kind::Tail {
            self.told.tails += 1;
            return;
        }
        assert!((1..=MAX_GRANT).contains(&reply.count), "{reply:?}");
        self.told.tokens.push(Token {
            first: reply.first.0,
            end: end.0,
            epoch: header.epoch.0,
            client: header.client.0,
            lane: reply.lane.0,
            request: reply.request.0,
        });
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

fn datagram(kind: Kind, client: ClientId, number: u64, entries: &[Grant]) -> Vec<u8> {
    let mut header = Header::request(kind, LOG, client, entries.len());
    header.tag = number;
    encode(header, entries)
}
