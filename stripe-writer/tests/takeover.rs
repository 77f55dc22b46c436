//! Stripe-writers that watch one another: the stripes of one that dies are taken over (C-6), and given back.

use std::collections::BTreeMap;
use std::net::{SocketAddr, TcpListener};
use std::sync::Mutex;
use std::time::Duration;

use catalog::{Log, Store, Writer};
use prometheus_client::registry::Registry;
use stripe_writer::{Options, StripeWriter, Takeover};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::runtime::{Builder, Runtime};
use tokio::time::{sleep, timeout};
use wire::frame::{
    AckStatus, Append, Frame, Frontier, Frontiers, Hello, PREFIX_BYTES, Place, Prefix,
};
use wire::{
    ClientId, Epoch, Fixed, Identity, Layout, LogId, OwnerNumber, RequestId, RunBody, Slot,
    StripeId,
};

const SOON: Duration = Duration::from_secs(20);

/// Without an answer for so long a stripe-writer is dead for the others.
const TIMEOUT: Duration = Duration::from_millis(400);

const STRIPES: u16 = 6;

/// Three members of a log with two stripes each.
struct Group {
    log: Log,
    store: Store,
    writers: Vec<Writer>,
    /// Each with a runtime of its own, so that it can die as a whole.
    processes: Vec<Option<(Runtime, StripeWriter)>>,
}

impl Group {
    async fn start() -> Self {
        let store = Store::open("memory:///").expect("opens");
        let layout = Layout::new(STRIPES.into(), 1).expect("valid");
        let log = Log::create(store.clone(), layout).await.expect("creates");
        let writer = |n: u16| Writer {
            address: free_port(),
            stripes: n * 2..=n * 2 + 1,
        };
        let mut group = Self {
            log,
            store,
            writers: (0..3).map(writer).collect(),
            processes: vec![None, None, None],
        };
        for member in 0..3 {
            group.run(member).await;
        }
        group
    }

    async fn run(&mut self, member: usize) {
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
                timeout: TIMEOUT,
                changes: None,
            }),
            changes: None,
        };
        let runtime = Builder::new_multi_thread().enable_all().build();
        let runtime = runtime.expect("starts");
        let store = self.store.clone();
        let starting = runtime.spawn(async move {
            let registry = Mutex::new(Registry::default());
            StripeWriter::start(store, &options, &registry).await
        });
        let process = starting.await.expect("ends").expect("starts");
        self.processes[member] = Some((runtime, process));
    }

    fn kill(&mut self, member: usize) {
        let (runtime, process) = self.processes[member].take().expect("runs");
        runtime.shutdown_background();
        drop(process);
    }

    /// Who claims which stripe, by what all that answer say.
    async fn owners(&self) -> BTreeMap<u16, Vec<usize>> {
        let mut owners = BTreeMap::<_, Vec<_>>::new();
        for (member, writer) in self.writers.iter().enumerate() {
            let Some(body) = claims(writer.address, self.log.id()).await else {
                continue;
            };
            for claim in body.chunks(Frontier::SIZE) {
                let claim = Frontier::read(claim).expect("valid");
                if claim.owner > OwnerNumber(0) {
                    let stripe = claim.place.stripe.0;
                    owners.entry(stripe).or_default().push(member);
                }
            }
        }
        owners
    }

    /// Waits until every stripe has one owner, and the right one.
    async fn become_owned(&self, right: impl Fn(u16, usize) -> bool) -> BTreeMap<u16, usize> {
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

    /// Appends a record at a slot of a stripe at its owner, and gives the answer.
    async fn append(&self, owner: usize, stripe: u16, slot: u64) -> AckStatus {
        let socket = TcpStream::connect(self.writers[owner].address).await;
        let mut socket = socket.expect("listens");
        hello(&mut socket, self.log.id()).await.expect("serves");
        let entry = self.log.last().await.expect("last");
        let body = RunBody::new(&[format!("{stripe} {slot}")]).expect("valid");
        let append = Append {
            place: Place {
                segment: entry.last_segment().expect("segment").id,
                stripe: StripeId(stripe),
                first: Slot(slot),
            },
            epoch: entry.epoch,
            identity: Identity {
                client: ClientId(7),
                request: RequestId(slot),
            },
            count: 1,
            crc: body.crc(),
        };
        let bytes = body.bytes();
        let head = Frame::Append(append).encode(bytes.len()).expect("valid");
        socket.write_all(&head).await.expect("sent");
        socket.write_all(bytes).await.expect("sent");
        loop {
            let (frame, _) = read(&mut socket).await.expect("answers");
            let Frame::Ack(ack) = frame else {
                panic!("not an answer: {frame:?}");
            };
            match ack.status().expect("known") {
                AckStatus::Waiting | AckStatus::Unheard => {}
                status => return status,
            }
        }
    }

    fn home(&self, stripe: u16) -> usize {
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
    }
}

/// What a stripe-writer says that it owns, if it answers.
async fn claims(address: SocketAddr, log: LogId) -> Option<Vec<u8>> {
    let mut socket = TcpStream::connect(address).await.ok()?;
    hello(&mut socket, log).await?;
    let question = Frame::AskFrontiers(Frontiers {
        epoch: Epoch(0),
        leaving: 0,
    });
    let question = question.encode(0).expect("valid");
    socket.write_all(&question).await.ok()?;
    let (_, body) = read(&mut socket).await?;
    Some(body)
}

/// A frame and its body, unless the connection ends.
async fn read(socket: &mut TcpStream) -> Option<(Frame, Vec<u8>)> {
    let mut prefix = [0; PREFIX_BYTES];
    let reading = timeout(SOON, socket.read_exact(&mut prefix)).await;
    reading.expect("in time").ok()?;
    let prefix = Prefix::decode(&prefix).expect("valid");
    let mut rest = vec![0; prefix.head_len + prefix.body_len];
    socket.read_exact(&mut rest).await.ok()?;
    let body = rest.split_off(prefix.head_len);
    Some((Frame::decode(&prefix, &rest).expect("valid"), body))
}

async fn hello(socket: &mut TcpStream, log: LogId) -> Option<()> {
    let client = ClientId(7);
    let hello = Frame::Hello(Hello { log, client });
    let hello = hello.encode(0).expect("valid");
    socket.write_all(&hello).await.ok()?;
    assert!(matches!(read(socket).await?.0, Frame::Welcome(_)));
    Some(())
}

fn free_port() -> SocketAddr {
    let listener = TcpListener::bind(("127.0.0.1", 0)).expect("binds");
    listener.local_addr().expect("bound")
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn c6_the_stripes_of_a_dead_writer_are_taken_over_and_given_back() {
    let mut group = Group::start().await;
    let home = |group: &Group, stripe, owner| group.home(stripe) == owner;
    group.become_owned(|s, owner| home(&group, s, owner)).await;
    for stripe in 0..STRIPES {
        let owner = group.home(stripe);
        let status = group.append(owner, stripe, 0).await;
        assert_eq!(status, AckStatus::Committed, "stripe {stripe}");
        let other = (owner + 1) % 3;
        let status = group.append(other, stripe, 1).await;
        assert_eq!(status, AckStatus::NotOwner, "stripe {stripe}");
    }
    group.kill(1);
    let owners = group.become_owned(|_, owner| owner != 1).await;
    for (stripe, owner) in owners {
        let moved = group.home(stripe) == 1;
        assert!(moved || owner == group.home(stripe), "stripe {stripe}");
        // [H-2] The same record again is the record that is there; the next one has its slot.
        for slot in [0, 1] {
            let status = group.append(owner, stripe, slot).await;
            assert_eq!(status, AckStatus::Committed, "stripe {stripe} slot {slot}");
        }
    }
    group.run(1).await;
    group.become_owned(|s, owner| home(&group, s, owner)).await;
    for stripe in 0..STRIPES {
        let owner = group.home(stripe);
        for slot in [0, 1, 2] {
            let status = group.append(owner, stripe, slot).await;
            assert_eq!(status, AckStatus::Committed, "stripe {stripe} slot {slot}");
        }
    }
}
