//! Random and mutated frames at the driver hook: what is answered was asked, and what is for others gets there.

mod common;

use std::collections::HashMap;
use std::net::{SocketAddr, UdpSocket};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread;
use std::time::Duration;

use common::bed::{Bed, CLIENT, Shape, current};
use common::frame::{self, ETHERNET_BYTES, UDP_BYTES, Way, delivered, frame, set_sums};
use common::random::{Random, seed};
use common::{Chain, LOG, config, encode, eventually, stop};
use rustix::net::netdevice::name_to_index;
use sequencer_fast::hook::Frames;
use sequencer_fast::{Backend, HookMode, Opened, Sequencer};
use wire::ClientId;
use wire::datagram::{Datagram, Grant, Header, Kind, Reply, Status};

/// Frames between two looks at what has come, and the datagrams among them that are for another socket.
const ROUND: u64 = 256;
const PLAIN_EVERY: u64 = 8;

/// Blocks that are remembered: so many that a place is hardly ever taken over while its lanes are in use.
const REMEMBERED: usize = 1 << 17;

/// At most one token in so many is a second one.
const FORGOTTEN: usize = 1000;

/// The only reign.
const EPOCH: u64 = 1;

/// The port that the frames come from.
const FROM_PORT: u16 = 4000;

#[test]
fn s9_a_million_frames() {
    fuzz(HookMode::Native, false, 1_000_000);
}

#[test]
fn s9_frames_of_ipv6() {
    fuzz(HookMode::Native, true, 200_000);
}

#[test]
fn s9_frames_in_generic_mode() {
    fuzz(HookMode::Generic, false, 200_000);
}

fn fuzz(mode: HookMode, ipv6: bool, frames: u64) {
    let seed = seed();
    eprintln!("mode={mode} ipv6={ipv6}");
    Bed::run(Shape { mode, ipv6 }, |_| throw(Random(seed), frames));
}

fn throw(mut random: Random, frames: u64) {
    let bed = current().expect("on a bed");
    let sequencer = granting();
    let way = Way {
        from: (bed.ip(2), FROM_PORT),
        to: (bed.ip(1), sequencer.address().port()),
    };
    let socket = bed.in_client(|| UdpSocket::bind(SocketAddr::new(bed.ip(2), FROM_PORT)));
    let socket = socket.expect("free port");
    socket.set_nonblocking(true).expect("valid");
    let sender = bed.in_client(|| {
        let index = name_to_index(&socket, CLIENT).expect("there");
        Frames::open(index).expect("allowed")
    });
    let plain = Plain::start(SocketAddr::new(bed.ip(1), 0));
    let mut seen = Seen::default();
    let plain_way = Way {
        from: (bed.ip(2), FROM_PORT),
        to: (bed.ip(1), plain.address.port()),
    };
    for number in 0..frames {
        if number % PLAIN_EVERY == 0 {
            let summed = random.below(2) == 0;
            let bytes = frame(plain_way, b"for another socket", summed);
            sender.send(&bytes).expect("sent");
            plain.sent.fetch_add(1, Ordering::Relaxed);
        } else {
            let bytes = make(&mut random, way, number);
            seen.asked(&bytes, way);
            sender.send(&bytes).expect("sent");
        }
        if number % ROUND == 0 {
            seen.collect(&socket);
            eventually("what is for another socket arrives", || plain.is_complete());
        }
    }
    eventually("what is for another socket arrives", || plain.is_complete());
    quiet(&socket, &mut seen);
    let twice = seen.twice();
    let counts = sequencer.status().program().expect("there is one");
    let arrived = plain.received.load(Ordering::Relaxed);
    eprintln!(
        "frames={frames} replies={} asked={} tokens={} granted_twice={twice} second_tokens={} answered={} others_sent={} others_arrived={arrived}",
        seen.replies,
        seen.tags.len(),
        seen.tokens.len(),
        seen.second,
        counts.answered,
        plain.sent.load(Ordering::Relaxed),
    );
    eprintln!("{counts:?}");
    assert_eq!(twice, 0);
    seen.assert_remembered();
    // The frames are what they are meant to be: many are answered, and many are not.
    assert!(seen.replies > frames / 20, "replies={}", seen.replies);
    assert!(counts.answered > frames / 40, "{counts:?}");
    for (reason, count) in counts.passed_up() {
        let expected = matches!(reason, "odd" | "stale" | "checksum");
        assert!(count > 100 || !expected, "{reason} {counts:?}");
    }
    plain.end();
    stop(sequencer);
}

/// A sequencer whose reign nobody can end by asking for another layout: no stripe has an owner.
fn granting() -> Sequencer {
    let control = Chain::new();
    let open = move || async move {
        let (writers, changes, stripes) = (Vec::new(), None, 0);
        Ok(Opened {
            control,
            writers,
            stripes,
            changes,
        })
    };
    let mut config = config(Backend::Xdp);
    config.retry_memory = REMEMBERED;
    let sequencer = Sequencer::start(config, open).expect("starts");
    eventually("granting", || sequencer.status().health().is_ok());
    sequencer
}

/// Waits until nothing comes any more.
fn quiet(socket: &UdpSocket, seen: &mut Seen) {
    socket.set_nonblocking(false).expect("valid");
    let short = Some(Duration::from_millis(300));
    socket.set_read_timeout(short).expect("valid");
    seen.collect(socket);
}

/// A frame that is a request to the sequencer, or was one before something happened to it.
fn make(random: &mut Random, way: Way, number: u64) -> Vec<u8> {
    let ipv6 = way.to.0.is_ipv6();
    let most = if ipv6 { 28 } else { 29 };
    let mut payload = request(random, number, most);
    if random.below(4) == 0 {
        change(random, &mut payload);
    }
    let summed = random.below(2) == 0;
    let mut bytes = frame(way, &payload, summed);
    let heads = ETHERNET_BYTES + frame::ip_bytes(ipv6) + UDP_BYTES;
    match random.below(10) {
        // As it is.
        0..4 => {}
        // A bit or a few bytes, and mostly the checksum does not fit any more.
        4 => {
            let at = random.index(bytes.len());
            bytes[at] ^= 1 << random.below(8);
        }
        5 => {
            for _ in 0..random.below(4) {
                let at = random.index(heads);
                bytes[at] = random.byte();
            }
            if random.below(2) == 0 {
                set_sums(&mut bytes, ipv6, summed);
            }
        }
        // Shorter or longer than it says.
        6 => bytes.truncate(ETHERNET_BYTES.max(random.index(bytes.len()))),
        7 => {
            let more = random.index(64).min(1514 - bytes.len());
            bytes.extend((0..more).map(|_| random.byte()));
        }
        // In a VLAN, a fragment, with options, or as nothing at all.
        8 => match random.below(3) {
            0 if bytes.len() <= 1510 => {
                let tag = [0x81, 0, 0, random.byte()];
                bytes.splice(12..12, tag);
            }
            1 if !ipv6 => {
                bytes[20] = random.byte();
                bytes[21] = random.byte();
                set_sums(&mut bytes, ipv6, summed);
            }
            _ => {
                bytes[14] = random.byte();
                set_sums(&mut bytes, ipv6, summed);
            }
        },
        _ => {
            let from = random.index(bytes.len());
            bytes[from.max(12)..].fill_with(|| random.byte());
        }
    }
    bytes
}

/// Requests of a few clients, mostly good, sometimes repeated.
fn request(random: &mut Random, number: u64, most: usize) -> Vec<u8> {
    let kind = match random.below(16) {
        0 => Kind::ALL[random.index(Kind::ALL.len())],
        _ => Kind::Grant,
    };
    let count = match random.below(3) {
        0 => 1 + random.index(most),
        _ => 1,
    };
    // Others with time, as a request with a number that was made too high ends its lane.
    let client = ClientId(number / 500 + random.below(20));
    let mut header = Header::request(kind, LOG, client, count);
    header.tag = number;
    let base = u32::try_from(random.below(3) * 16).expect("small");
    let age = match random.below(16) {
        0 => random.below(50),
        _ => 0,
    };
    let entries: Vec<Grant> = (0..count)
        .map(|entry| {
            let lane = base + u32::try_from(entry).expect("small");
            let wanted = match random.below(200) {
                0 => u32::try_from(random.below(1 << 21)).expect("small"),
                _ => 1 + u32::try_from(random.below(100)).expect("small"),
            };
            common::grant(lane, (number / 10).saturating_sub(age), wanted)
        })
        .collect();
    encode(header, &entries)
}

/// Some bytes of a datagram.
fn change(random: &mut Random, payload: &mut [u8]) {
    for _ in 0..=random.below(3) {
        // Mostly in the header.
        let bound = match random.below(4) {
            0 => payload.len(),
            _ => 64,
        };
        let at = random.index(bound);
        payload[at] = match random.below(2) {
            0 => payload[at] ^ 1 << random.below(8),
            _ => random.byte(),
        };
    }
}

/// What may be answered, and what was.
#[derive(Default)]
struct Seen {
    /// Datagrams that the sequencer gets, by their tag.
    tags: HashMap<u64, Vec<Vec<u8>>>,
    replies: u64,
    /// First positions and ends of tokens, with the request of each.
    tokens: HashMap<u64, (u64, ClientId, u32, u64)>,
    /// The first token of each request.
    known: HashMap<(ClientId, u32, u64), u64>,
    /// Tokens of requests that had one, where the place of their block was taken over in between.
    second: usize,
}

impl Seen {
    fn asked(&mut self, bytes: &[u8], way: Way) {
        let Some(payload) = delivered(bytes, way) else {
            return;
        };
        if let Ok(datagram) = Datagram::parse(&payload, LOG)
            && !datagram.header.is_reply()
        {
            let asked = self.tags.entry(datagram.header.tag).or_default();
            asked.push(payload);
        }
    }

    /// Checks everything that has come to the client.
    fn collect(&mut self, socket: &UdpSocket) {
        let mut buffer = [0; 2048];
        while let Ok(len) = socket.recv(&mut buffer) {
            self.replies += 1;
            self.check(&buffer[..len]);
        }
    }

    fn check(&mut self, reply: &[u8]) {
        let datagram = Datagram::parse(reply, LOG).expect("a reply is well formed");
        assert!(datagram.header.is_reply());
        let tag = datagram.header.tag;
        let asked = self.tags.get(&tag);
        let asked = asked.unwrap_or_else(|| panic!("nothing was asked: tag={tag} {reply:?}"));
        let answered = asked.iter().any(|asked| answers(reply, asked));
        assert!(
            answered,
            "not what was asked: tag={tag} {reply:?} {asked:?}"
        );
        if !matches!(datagram.kind, Kind::Grant | Kind::GrantAt) {
            return;
        }
        for reply in datagram.entries::<Reply>() {
            let reply = reply.expect("valid");
            if reply.status() == Ok(Status::Ok) && reply.count > 0 {
                self.token(datagram.header.client, &reply);
            }
        }
    }

    fn token(&mut self, client: ClientId, reply: &Reply) {
        let (first, request) = (reply.first.0, reply.request.0);
        let name = (client, reply.lane.0, request);
        let token = (first + u64::from(reply.count), name.0, name.1, name.2);
        match self.tokens.insert(first, token) {
            Some(other) => assert_eq!(other, token, "granted twice: first={first}"),
            None if *self.known.entry(name).or_insert(first) != first => self.second += 1,
            None => {}
        }
    }

    /// [S-6] Requests get one token, but for those whose place another has taken in between.
    fn assert_remembered(&self) {
        let (second, tokens) = (self.second, self.tokens.len());
        assert!(
            second * FORGOTTEN < tokens,
            "second={second} tokens={tokens}"
        );
    }

    /// Tokens that begin below the end of the one before.
    fn twice(&self) -> usize {
        let mut tokens: Vec<_> = self.tokens.iter().collect();
        tokens.sort_unstable_by_key(|(first, _)| **first);
        let pairs = tokens.windows(2).filter(|pair| pair[0].1.0 > *pair[1].0);
        let twice: Vec<_> = pairs.collect();
        if let Some(first) = twice.first() {
            eprintln!("overlap: {first:?}");
        }
        twice.len()
    }
}

/// Whether a datagram is the reply to a request: as long, and each entry in its place.
fn answers(reply: &[u8], asked: &[u8]) -> bool {
    let same = |range: std::ops::Range<usize>| reply[range.clone()] == asked[range];
    let head = reply.len() == asked.len()
        && same(0..5)
        && reply[5] == asked[5] | 0x80
        && same(6..32)
        && reply[32..40] == EPOCH.to_le_bytes()
        && same(40..48)
        && reply[48..64] == [0; 16];
    head && (64..reply.len()).step_by(48).all(|at| same(at..at + 8))
}

/// A socket of the server's host that has nothing to do with the sequencer.
struct Plain {
    address: SocketAddr,
    sent: Arc<AtomicU64>,
    received: Arc<AtomicU64>,
    ends: Arc<AtomicBool>,
    thread: thread::JoinHandle<()>,
}

impl Plain {
    fn start(address: SocketAddr) -> Self {
        let socket = UdpSocket::bind(address).expect("free port");
        let timeout = Some(Duration::from_millis(50));
        socket.set_read_timeout(timeout).expect("valid");
        let address = socket.local_addr().expect("bound");
        let (sent, received) = (Arc::<AtomicU64>::default(), Arc::<AtomicU64>::default());
        let ends = Arc::<AtomicBool>::default();
        let (counter, over) = (Arc::clone(&received), Arc::clone(&ends));
        let thread = thread::spawn(move || {
            let mut buffer = [0; 2048];
            while !over.load(Ordering::Relaxed) {
                if let Ok(len) = socket.recv(&mut buffer) {
                    assert_eq!(&buffer[..len], b"for another socket");
                    counter.fetch_add(1, Ordering::Relaxed);
                }
            }
        });
        Self {
            address,
            sent,
            received,
            ends,
            thread,
        }
    }

    fn is_complete(&self) -> bool {
        self.received.load(Ordering::Relaxed) == self.sent.load(Ordering::Relaxed)
    }

    fn end(self) {
        assert!(self.is_complete());
        self.ends.store(true, Ordering::Relaxed);
        self.thread.join().expect("nothing else arrived");
    }
}
