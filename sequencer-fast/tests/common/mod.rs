//! A control chain in memory, and a client that speaks datagrams.

#![allow(dead_code, reason = "each test file uses a part of it")]

pub(crate) mod bed;
pub(crate) mod desk;
pub(crate) mod frame;
pub(crate) mod random;
pub(crate) mod writer;

use std::io::ErrorKind;
use std::net::{SocketAddr, UdpSocket};
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::{Duration, Instant};

use catalog::{CatalogError, Membership};
use sequencer_fast::{Backend, Config, Control, Ended, Opened, Sequencer, SequencerError};
use tokio::sync::{Semaphore, watch};
use wire::control::ControlEntry;
use wire::datagram::{self, Datagram, Grant, Header, Kind, Reply};
use wire::{
    ClientId, Epoch, Fixed, Lane, Layout, LogId, Position, RequestId, Segment, SegmentId,
    WireError, WriterId,
};

pub(crate) const LOG: LogId = LogId([7; 16]);
pub(crate) const STRIPES: u32 = 4;

/// A control chain in memory that keeps every entry, and can be made to wait or to look fenced.
#[derive(Debug, Clone)]
pub(crate) struct Chain {
    entries: Arc<Mutex<Vec<ControlEntry>>>,
    /// Appends that may go through; without a permit they wait.
    gate: Arc<Semaphore>,
    /// Appends that have come so far, let through or not.
    come: Arc<AtomicU32>,
    /// Appends that are applied and then fail all the same.
    doubtful: Arc<AtomicU32>,
    /// Whether the store answers no question.
    mute: Arc<AtomicBool>,
    /// Whether the newest entry cannot be read.
    corrupt: Arc<AtomicBool>,
    /// Whether collections never come to an end.
    hangs: Arc<AtomicBool>,
}

impl Chain {
    pub(crate) fn new() -> Self {
        let entry = ControlEntry {
            log: LOG,
            number: 0,
            epoch: Epoch(0),
            owner: WriterId::default(),
            epoch_start: Position(0),
            reservation: Position(0),
            clean: true,
            trim: Position(0),
            segments: vec![Segment {
                id: SegmentId(0),
                epoch: Epoch(1),
                start: Position(0),
                layout: Layout::new(STRIPES, 8).expect("valid"),
            }],
        };
        Self {
            entries: Arc::new(Mutex::new(vec![entry])),
            gate: Arc::new(Semaphore::new(1 << 20)),
            come: Arc::default(),
            doubtful: Arc::default(),
            mute: Arc::default(),
            corrupt: Arc::default(),
            hangs: Arc::default(),
        }
    }

    pub(crate) fn entries(&self) -> MutexGuard<'_, Vec<ControlEntry>> {
        self.entries.lock().expect("not poisoned")
    }

    pub(crate) fn newest(&self) -> ControlEntry {
        self.entries().last().expect("never empty").clone()
    }

    /// Lets only `count` more appends through, until [`Self::release`].
    pub(crate) fn hold_appends(&self, count: usize) {
        self.gate.forget_permits(usize::MAX >> 4);
        self.gate.add_permits(count);
    }

    /// Appends that have come so far, let through or not.
    pub(crate) fn come(&self) -> u32 {
        self.come.load(Ordering::SeqCst)
    }

    pub(crate) fn release(&self) {
        self.gate.add_permits(1 << 20);
    }

    /// Lets the answers of that many appends get lost.
    pub(crate) fn lose_answers(&self, count: u32) {
        self.doubtful.store(count, Ordering::SeqCst);
    }

    /// Makes every question fail, or not.
    pub(crate) fn set_mute(&self, mute: bool) {
        self.mute.store(mute, Ordering::SeqCst);
    }

    /// Lets collections never come to an end.
    pub(crate) fn hang_collections(&self) {
        self.hangs.store(true, Ordering::SeqCst);
    }

    pub(crate) fn make_corrupt(&self) {
        self.corrupt.store(true, Ordering::SeqCst);
    }
}

impl Control for Chain {
    async fn last(&self) -> Result<ControlEntry, CatalogError> {
        if self.corrupt.load(Ordering::SeqCst) {
            let (name, what) = ("control".to_owned(), "control entry");
            let source = WireError::Malformed { what };
            return Err(CatalogError::Corrupt { name, source });
        }
        Ok(self.newest())
    }

    async fn append(&self, entry: &ControlEntry) -> Result<(), CatalogError> {
        self.come.fetch_add(1, Ordering::SeqCst);
        self.gate.acquire().await.expect("open").forget();
        let mut entries = self.entries();
        let next = entries.len() as u64;
        if entry.number == next {
            entries.push(entry.clone());
        }
        if entries.last() == Some(entry) {
            let lost = self.doubtful.load(Ordering::SeqCst);
            if lost == 0 {
                return Ok(());
            }
            self.doubtful.store(lost - 1, Ordering::SeqCst);
            return Err(doubt());
        }
        Err(CatalogError::Fenced("another has this number".to_owned()))
    }

    async fn is_last(&self, number: u64) -> Result<bool, CatalogError> {
        if self.mute.load(Ordering::SeqCst) {
            return Err(doubt());
        }
        Ok(self.newest().number == number)
    }

    async fn collect(&self, _last: u64, _now: u64) -> Result<usize, CatalogError> {
        if self.hangs.load(Ordering::SeqCst) {
            std::future::pending::<()>().await;
        }
        Ok(0)
    }
}

/// An error that leaves open whether what was asked for has happened.
fn doubt() -> CatalogError {
    let (name, attempts) = ("control".to_owned(), 1);
    CatalogError::Contended { name, attempts }
}

pub(crate) fn config(backend: Backend) -> Config {
    let mut config = Config::new(SocketAddr::from(([127, 0, 0, 1], 0)));
    config.backend = backend;
    if let Some(bed) = bed::current() {
        config.listen = bed.address();
        config.hook = Some(bed.hook()).filter(|_| backend == Backend::Xdp);
    }
    config
}

/// Starts a sequencer over a chain, and waits until it grants.
pub(crate) fn start(chain: &Chain, config: Config) -> Sequencer {
    start_with(chain, config, Vec::new())
}

pub(crate) fn start_with(chain: &Chain, config: Config, writers: Vec<SocketAddr>) -> Sequencer {
    let sequencer = begin(chain, config, writers);
    eventually("granting", || sequencer.status().health().is_ok());
    sequencer
}

/// Stripes of which tests say that they have an owner.
pub(crate) const STRIPES_WITH_OWNERS: u32 = 64;

/// Starts a sequencer over a chain.
pub(crate) fn begin(chain: &Chain, config: Config, writers: Vec<SocketAddr>) -> Sequencer {
    begin_told(chain, config, writers, None)
}

/// The same with a membership that changes.
pub(crate) fn begin_told(
    chain: &Chain,
    config: Config,
    writers: Vec<SocketAddr>,
    changes: Option<watch::Receiver<Membership>>,
) -> Sequencer {
    try_begin(chain, config, writers, changes).expect("starts")
}

/// The same, if it starts.
pub(crate) fn try_begin(
    chain: &Chain,
    config: Config,
    writers: Vec<SocketAddr>,
    changes: Option<watch::Receiver<Membership>>,
) -> Result<Sequencer, SequencerError> {
    let control = chain.clone();
    let open = move || async move {
        Ok(Opened {
            control,
            writers,
            stripes: STRIPES_WITH_OWNERS,
            changes,
        })
    };
    Sequencer::start(config, open)
}

pub(crate) fn stop(sequencer: Sequencer) -> Ended {
    sequencer.stop().raise();
    sequencer.wait().expect("ends well")
}

#[allow(clippy::disallowed_methods, reason = "waits for real threads")]
pub(crate) fn eventually(what: &str, mut holds: impl FnMut() -> bool) {
    let end = Instant::now() + Duration::from_secs(20);
    while !holds() {
        assert!(Instant::now() < end, "not in time: {what}");
        std::thread::sleep(Duration::from_millis(2));
    }
}

/// A client with one socket.
pub(crate) struct Client {
    pub(crate) socket: UdpSocket,
    pub(crate) id: ClientId,
}

impl Client {
    pub(crate) fn new(sequencer: SocketAddr, id: u64) -> Self {
        let socket = bed::client_socket();
        socket.connect(sequencer).expect("connected");
        let timeout = Some(Duration::from_secs(20));
        socket.set_read_timeout(timeout).expect("valid");
        let id = ClientId(id);
        Self { socket, id }
    }

    pub(crate) fn header(&self, kind: Kind, count: usize) -> Header {
        Header::request(kind, LOG, self.id, count)
    }

    pub(crate) fn send<T: Fixed>(&self, kind: Kind, entries: &[T]) {
        let bytes = encode(self.header(kind, entries.len()), entries);
        self.socket.send(&bytes).expect("sent");
    }

    /// The replies of the next datagram, which has the size of its request.
    pub(crate) fn receive(&self) -> (Header, Vec<Reply>) {
        let mut buffer = [0; 2048];
        let len = loop {
            match self.socket.recv(&mut buffer) {
                // The kernel winds up the ring of the probe in the thread that made it.
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                received => break received.expect("an answer"),
            }
        };
        let datagram = Datagram::parse(&buffer[..len], LOG).expect("valid");
        assert!(datagram.header.is_reply());
        let replies = datagram.entries().map(|reply| reply.expect("valid"));
        (datagram.header, replies.collect())
    }

    pub(crate) fn ask<T: Fixed>(&self, kind: Kind, entries: &[T]) -> Vec<Reply> {
        self.send(kind, entries);
        self.receive().1
    }

    /// One grant of one lane.
    pub(crate) fn grant(&self, request: u64, count: u32) -> Reply {
        self.ask(Kind::Grant, &[grant(0, request, count)])[0]
    }

    /// True if nothing comes for a while.
    pub(crate) fn is_silent(&self) -> bool {
        let short = Some(Duration::from_millis(100));
        self.socket.set_read_timeout(short).expect("valid");
        let silent = loop {
            match self.socket.recv(&mut [0; 2048]) {
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                received => break received.is_err(),
            }
        };
        let long = Some(Duration::from_secs(20));
        self.socket.set_read_timeout(long).expect("valid");
        silent
    }
}

pub(crate) fn grant(lane: u32, request: u64, count: u32) -> Grant {
    Grant::new(Lane(lane), RequestId(request), count)
}

pub(crate) fn encode<T: Fixed>(header: Header, entries: &[T]) -> Vec<u8> {
    let mut bytes = vec![0; datagram::MAX_DATAGRAM_BYTES];
    let len = datagram::write(header, entries, &mut bytes).expect("fits");
    bytes.truncate(len);
    bytes
}
