//! Three stripe-writers that watch one another, each with a store that can be made to wait.

#![allow(dead_code, reason = "each test file uses a part of it")]

use std::collections::BTreeMap;
use std::net::{SocketAddr, TcpListener};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use catalog::faults::{Faults, FaultyStore};
use catalog::{Log, Store, Writer};
use object_store::memory::InMemory;
use prometheus_client::registry::Registry;
use stripe_writer::{Options, StripeWriter, Takeover};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::runtime::{Builder, Runtime};
use tokio::task::JoinHandle;
use tokio::time::{sleep, timeout};
use wire::control::ControlEntry;
use wire::frame::{
    AckStatus, Append, Frame, Frontier, Frontiers, Hello, PREFIX_BYTES, Place, Prefix,
};
use wire::{
    ClientId, Epoch, Fixed, Identity, Layout, OwnerNumber, RequestId, RunBody, SegmentId, Slot,
    StripeId,
};

pub(crate) const SOON: Duration = Duration::from_secs(20);

/// So many that of those of each member both others are to take some.
pub(crate) const STRIPES: u16 = 24;

const EACH: u16 = STRIPES / 3;

/// Three members of a log with as many stripes each.
pub(crate) struct Group {
    log: Log,
    entry: ControlEntry,
    stores: Vec<(Store, Faults)>,
    writers: Vec<Writer>,
    /// Without an answer for so long a stripe-writer is dead for the others.
    timeout: Duration,
    /// Each with a runtime of its own, so that it can die as a whole.
    processes: Vec<Option<(Runtime, StripeWriter)>>,
    ending: Vec<Runtime>,
}

impl Group {
    pub(crate) async fn start(timeout: Duration) -> Self {
        let memory = Arc::new(InMemory::new());
        let store = Store::new(memory.clone(), "");
        let layout = Layout::new(STRIPES.into(), 1).expect("valid");
        let log = Log::create(store, layout).await.expect("creates");
        let entry = log.last().await.expect("last");
        let faulty = |seed| {
            let faulty = FaultyStore::new(memory.clone(), seed);
            let faults = faulty.faults();
            (Store::new(Arc::new(faulty), ""), faults)
        };
        let writer = |n: u16| Writer {
            address: free_port(),
            stripes: n * EACH..=n * EACH + EACH - 1,
        };
        let mut group = Self {
            log,
            entry,
            stores: (0..3).map(faulty).collect(),
            writers: (0..3).map(writer).collect(),
            timeout,
            processes: vec![None, None, None],
            ending: Vec::new(),
        };
        for member in 0..3 {
            group.run(member).await;
        }
        group
    }

    pub(crate) async fn run(&mut self, member: usize) {
        let writer = &self.writers[member];
        let options = Options {
            listen: writer.address,
            // Nobody answers there: no hole ripens.
            sequencers: vec![SocketAddr::from(([127, 0, 0, 1], 9))],
            stripes: writer.stripes.clone(),
            linger: Duration::from_millis(1),
            hole_timeout: Duration::from_secs(60),
            puts_in_flight: 4,
            memory_bytes: 64 << 20,
            max_commit_age: Duration::from_secs(60),
            key: None,
            takeover: Some(Takeover {
                writers: self.writers.clone(),
                own: member,
                timeout: self.timeout,
                changes: None,
            }),
            changes: None,
        };
        let runtime = Builder::new_multi_thread().enable_all().build();
        let runtime = runtime.expect("starts");
        let store = self.stores[member].0.clone();
        let starting = runtime.spawn(async move {
            let registry = Mutex::new(Registry::default());
            StripeWriter::start(store, &options, &registry).await
        });
        let process = starting.await.expect("ends").expect("starts");
        self.processes[member] = Some((runtime, process));
    }

    /// What the store of a member does wrong.
    pub(crate) fn faults(&self, member: usize) -> Faults {
        self.stores[member].1.clone()
    }

    /// Lets a member end in good order.
    pub(crate) fn stop(&mut self, member: usize) -> JoinHandle<()> {
        let (runtime, process) = self.processes[member].take().expect("runs");
        let stopping = runtime.spawn(process.stop());
        self.ending.push(runtime);
        stopping
    }

    pub(crate) fn kill(&mut self, member: usize) {
        let (runtime, process) = self.processes[member].take().expect("runs");
        runtime.shutdown_background();
        drop(process);
    }

    /// Who claims which stripe, by what all that answer say.
    async fn owners(&self) -> BTreeMap<u16, Vec<usize>> {
        let mut owners = BTreeMap::<_, Vec<_>>::new();
        for member in 0..self.writers.len() {
            let Some(mut connection) = self.reach(member).await else {
                continue;
            };
            for (stripe, owner) in connection.claims().await.unwrap_or_default() {
                if owner > OwnerNumber(0) {
                    owners.entry(stripe).or_default().push(member);
                }
            }
        }
        owners
    }

    /// Waits until every stripe has one owner, and the right one.
    pub(crate) async fn become_owned(
        &self,
        right: impl Fn(u16, usize) -> bool,
    ) -> BTreeMap<u16, usize> {
        let looking = async {
            loop {
                let owners = self.owners().await;
                let one = |(stripe, of): (&u16, &Vec<usize>)| match of[..] {
                    [owner] if right(*stripe, owner) => Some((*stripe, owner)),
                    _ => None,
                };
                let owners: BTreeMap<_, _> = owners.iter().filter_map(one).collect();
                if owners.len() == usize::from(STRIPES) {
                    return owners;
                }
                sleep(Duration::from_millis(20)).await;
            }
        };
        timeout(SOON, looking).await.expect("in time")
    }

    /// Waits until every stripe is owned by its home.
    pub(crate) async fn become_home(&self) {
        self.become_owned(|s, owner| self.home(s) == owner).await;
    }

    /// Appends a record at a slot of a stripe at a member, and gives the answer.
    pub(crate) async fn append(&self, member: usize, stripe: u16, slot: u64) -> AckStatus {
        let mut connection = self.connect(member).await;
        let text = format!("{stripe} {slot}");
        connection.append(stripe, slot, slot, &text).await;
        connection.answer().await.1
    }

    /// A connection to a member that serves.
    pub(crate) async fn connect(&self, member: usize) -> Connection {
        self.reach(member).await.expect("serves")
    }

    async fn reach(&self, member: usize) -> Option<Connection> {
        let address = self.writers[member].address;
        let mut connection = Connection {
            socket: TcpStream::connect(address).await.ok()?,
            segment: self.entry.last_segment().expect("segment").id,
            epoch: self.entry.epoch,
        };
        let (log, client) = (self.log.id(), ClientId(7));
        let hello = Frame::Hello(Hello { log, client });
        connection.send(&hello, &[]).await.ok()?;
        let (welcome, _) = connection.read().await?;
        assert!(matches!(welcome, Frame::Welcome(_)));
        Some(connection)
    }

    pub(crate) fn home(&self, stripe: u16) -> usize {
        let mut writers = self.writers.iter();
        let home = writers.position(|writer| writer.stripes.contains(&stripe));
        home.expect("every stripe has one")
    }
}

impl Drop for Group {
    fn drop(&mut self) {
        for (runtime, process) in self.processes.drain(..).flatten() {
            runtime.shutdown_background();
            drop(process);
        }
        for runtime in self.ending.drain(..) {
            runtime.shutdown_background();
        }
    }
}

/// A connection to a stripe-writer.
pub(crate) struct Connection {
    socket: TcpStream,
    segment: SegmentId,
    epoch: Epoch,
}

impl Connection {
    async fn send(&mut self, frame: &Frame, body: &[u8]) -> std::io::Result<()> {
        let head = frame.encode(body.len()).expect("valid");
        self.socket.write_all(&head).await?;
        self.socket.write_all(body).await
    }

    /// A frame and its body, unless the connection ends.
    async fn read(&mut self) -> Option<(Frame, Vec<u8>)> {
        let mut prefix = [0; PREFIX_BYTES];
        let reading = timeout(SOON, self.socket.read_exact(&mut prefix)).await;
        reading.expect("in time").ok()?;
        let prefix = Prefix::decode(&prefix).expect("valid");
        let mut rest = vec![0; prefix.head_len + prefix.body_len];
        self.socket.read_exact(&mut rest).await.ok()?;
        let body = rest.split_off(prefix.head_len);
        Some((Frame::decode(&prefix, &rest).expect("valid"), body))
    }

    /// Sends one record for a slot.
    pub(crate) async fn append(&mut self, stripe: u16, slot: u64, request: u64, text: &str) {
        let body = RunBody::new(&[text.to_owned()]).expect("valid");
        let append = Append {
            place: Place {
                segment: self.segment,
                stripe: StripeId(stripe),
                first: Slot(slot),
            },
            epoch: self.epoch,
            identity: Identity {
                client: ClientId(7),
                request: RequestId(request),
            },
            count: 1,
            crc: body.crc(),
        };
        let sent = self.send(&Frame::Append(append), body.bytes()).await;
        sent.expect("sent");
    }

    /// The next answer, and the request that it is to.
    pub(crate) async fn answer(&mut self) -> (u64, AckStatus) {
        loop {
            let (frame, _) = self.read().await.expect("answers");
            let Frame::Ack(ack) = frame else {
                panic!("not an answer: {frame:?}");
            };
            match ack.status().expect("known") {
                AckStatus::Waiting | AckStatus::Unheard => {}
                status => return (ack.request.0, status),
            }
        }
    }

    /// Whether nothing comes for so long.
    pub(crate) async fn is_silent(&mut self, time: Duration) -> bool {
        timeout(time, self.socket.peek(&mut [0])).await.is_err()
    }

    /// What the stripe-writer says that it owns, if it answers, and under which numbers.
    pub(crate) async fn claims(&mut self) -> Option<BTreeMap<u16, OwnerNumber>> {
        let question = Frame::AskFrontiers(Frontiers {
            epoch: Epoch(0),
            leaving: 0,
        });
        self.send(&question, &[]).await.ok()?;
        let (_, body) = self.read().await?;
        let claims = body.chunks(Frontier::SIZE).map(|claim| {
            let claim = Frontier::read(claim).expect("valid");
            (claim.place.stripe.0, claim.owner)
        });
        Some(claims.collect())
    }
}

fn free_port() -> SocketAddr {
    let listener = TcpListener::bind(("127.0.0.1", 0)).expect("binds");
    listener.local_addr().expect("bound")
}
