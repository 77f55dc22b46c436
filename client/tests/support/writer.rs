//! A stripe-writer that puts an object for each frame, at once, and fails as it is told.

use std::collections::{BTreeMap, VecDeque};
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};
use tokio::net::{TcpListener, TcpSocket, TcpStream};
use tokio::sync::watch;
use wire::frame::{
    Ack, AckStatus, Append, Ask, End, EndReason, Frame, Frontier, Frontiers, PREFIX_BYTES, Place,
    Prefix, Push, Refusal, Welcome,
};
use wire::object::{Author, Object};
use wire::{
    Epoch, Fixed, Identity, Layout, OwnerNumber, Position, Run, RunBody, Segment, SegmentId, Slot,
    StripeId, WriterId,
};

/// What happens to the next append frame.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Fault {
    /// It works.
    None,
    /// The connection is lost before the frame is looked at.
    LoseFrame,
    /// The records become durable; the connection is lost before the answer.
    LoseAck,
    /// The answer comes twice.
    AckTwice,
    /// The records become durable; the answers speak of one slot each, the last first.
    AckInPieces,
    /// These offsets become junk before the rest becomes durable.
    Junk(std::ops::Range<u64>),
    /// Only an answer, nothing is written.
    Status(AckStatus),
    /// No answer, ever; nothing is written.
    Ignore,
    /// So many signs of this status, 50 ms apart, then it works.
    Signs(usize, AckStatus),
    /// The connection is refused for good when the frame comes.
    Refuse,
    /// A frame that a writer does not send.
    Nonsense,
}

/// What happens to subscriptions.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Live {
    Serve,
    /// They are accepted, and nothing comes.
    Silent,
    /// They are ended at once.
    End(EndReason),
    /// The connection is closed.
    Close,
}

type ChainKey = (SegmentId, StripeId);

#[derive(Default)]
struct ChainState {
    /// Decided and not yet put, because of a hole before it.
    held: BTreeMap<Slot, Run>,
    put: Vec<Run>,
    end: Option<Slot>,
}

pub struct State {
    pub script: VecDeque<Fault>,
    pub live: Live,
    /// Every append frame that came.
    pub appends: Vec<Append>,
    pub connections: usize,
    pub subscriptions: Vec<Ask>,
    chains: BTreeMap<ChainKey, ChainState>,
}

#[derive(Clone)]
pub struct FakeWriter {
    catalog: catalog::Log,
    /// The first segment, whose layout tests choose.
    first: Segment,
    /// Bound and never listening: nobody else gets the port while the writer does not listen.
    port: Arc<TcpSocket>,
    pub state: Arc<Mutex<State>>,
    changed: watch::Sender<u64>,
    /// Ends all connections and the listener of a generation.
    generation: watch::Sender<u64>,
}

impl FakeWriter {
    pub async fn start(catalog: catalog::Log) -> Self {
        let state = State {
            script: VecDeque::new(),
            live: Live::Serve,
            appends: Vec::new(),
            connections: 0,
            subscriptions: Vec::new(),
            chains: BTreeMap::new(),
        };
        let entry = catalog.last().await.expect("reads");
        let writer = Self {
            catalog,
            first: entry.segments[0],
            port: Arc::new(super::port().expect("binds")),
            state: Arc::new(Mutex::new(state)),
            changed: watch::channel(0).0,
            generation: watch::channel(0).0,
        };
        writer.listen().await;
        writer
    }

    pub fn address(&self) -> SocketAddr {
        self.port.local_addr().expect("bound")
    }

    pub fn script(&self, faults: impl IntoIterator<Item = Fault>) {
        self.lock().script.extend(faults);
    }

    pub fn set_live(&self, live: Live) {
        self.lock().live = live;
    }

    pub fn appends(&self) -> Vec<Append> {
        self.lock().appends.clone()
    }

    pub fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().expect("not poisoned")
    }

    /// Closes the port and all connections.
    pub async fn stop(&self) {
        self.generation.send_modify(|g| *g += 1);
        self.generation.closed().await;
    }

    /// Loses all its connections, and listens again as soon as the port is free.
    pub async fn restart(&self) {
        self.stop().await;
        self.listen().await;
    }

    /// Listens, on the same port as before.
    pub async fn listen(&self) {
        let listener = TcpListener::bind(self.address()).await.expect("binds");
        let (of, mut generation) = (self.clone(), self.generation.subscribe());
        generation.mark_unchanged();
        tokio::spawn(async move {
            loop {
                let stream = tokio::select! {
                    accepted = listener.accept() => accepted.expect("accepts").0,
                    _ = generation.changed() => return,
                };
                of.lock().connections += 1;
                let (of, mut generation) = (of.clone(), generation.clone());
                tokio::spawn(async move {
                    tokio::select! {
                        _ = of.serve(stream) => {}
                        _ = generation.changed() => {}
                    }
                });
            }
        });
    }

    async fn serve(&self, stream: TcpStream) -> Option<()> {
        let (mut from, to) = stream.into_split();
        let to = Arc::new(tokio::sync::Mutex::new(to));
        while let Some((frame, body)) = read(&mut from).await {
            match frame {
                Frame::Hello(hello) if hello.log == self.catalog.id() => {
                    let writer = WriterId([3; 16]);
                    let epoch = Epoch(1);
                    send(&to, Frame::Welcome(Welcome { writer, epoch }), &[]).await?;
                }
                Frame::Append(append) => self.append(&to, append, body).await?,
                Frame::Subscribe(ask) => self.subscribe(&to, ask).await?,
                Frame::Unsubscribe(_) => {}
                Frame::AskFrontiers(_) => self.frontiers(&to).await?,
                _ => return None,
            }
        }
        None
    }

    async fn append(&self, to: &Out, append: Append, body: Bytes) -> Option<()> {
        let fault = {
            let mut state = self.lock();
            state.appends.push(append);
            state.script.pop_front().unwrap_or(Fault::None)
        };
        let place = append.place;
        let ack = |first: Slot, count: u64, status| {
            let place = Place { first, ..place };
            let count = u32::try_from(count).expect("small");
            Frame::Ack(Ack::new(place, count, append.identity.request, status))
        };
        match &fault {
            Fault::LoseFrame => return None,
            Fault::Ignore => return Some(()),
            Fault::Status(status) => {
                return send(to, ack(place.first, append.count.into(), *status), &[]).await;
            }
            Fault::Signs(count, status) => {
                for _ in 0..*count {
                    tokio::time::sleep(Duration::from_millis(50)).await;
                    send(to, Frame::Ack(Ack::sign(*status)), &[]).await?;
                }
            }
            Fault::Refuse => {
                let text = b"not this log";
                send(to, Frame::Refusal(Refusal { retry: 0 }), text).await?;
                return None;
            }
            Fault::Nonsense => {
                let welcome = Welcome {
                    writer: WriterId([3; 16]),
                    epoch: Epoch(1),
                };
                return send(to, Frame::Welcome(welcome), &[]).await;
            }
            _ => {}
        }
        let body = RunBody::checked(append.count, append.crc, body).expect("sound body");
        let run = Run::records(place.first, append.identity, body);
        let junk = match &fault {
            Fault::Junk(range) => range.clone(),
            _ => 0..0,
        };
        let decided = self.decide(place, &run, junk);
        self.put_all((place.segment, place.stripe)).await;
        match fault {
            Fault::LoseAck => return None,
            Fault::AckInPieces => {
                for (first, count, status) in decided.iter().rev() {
                    for slot in (0..*count).rev() {
                        send(to, ack(first.plus(slot), 1, *status), &[]).await?;
                    }
                }
                return Some(());
            }
            _ => {}
        }
        let copies = if fault == Fault::AckTwice { 2 } else { 1 };
        for (first, count, status) in decided {
            for _ in 0..copies {
                send(to, ack(first, count, status), &[]).await?;
            }
        }
        Some(())
    }

    /// Decides slots once (C-1), and says what each has become (H-2), in runs.
    fn decide(
        &self,
        place: Place,
        run: &Run,
        junk: std::ops::Range<u64>,
    ) -> Vec<(Slot, u64, AckStatus)> {
        let mut state = self.lock();
        let chain = state
            .chains
            .entry((place.segment, place.stripe))
            .or_default();
        let (identity, body) = run.content.clone().expect("records");
        let bodies: Vec<Bytes> = body.records().collect();
        let mut answers: Vec<(Slot, u64, AckStatus)> = Vec::new();
        for (offset, bytes) in (0_u64..).zip(&bodies) {
            let slot = run.first.plus(offset);
            let status = match chain.identity_at(slot) {
                Some(Some(there)) if there == identity => AckStatus::Committed,
                Some(Some(_)) => AckStatus::Conflict,
                Some(None) => AckStatus::Junk,
                None if junk.contains(&offset) => {
                    chain.held.insert(slot, Run::junk(slot, 1));
                    AckStatus::Junk
                }
                None => {
                    let body = RunBody::new(&[bytes]).expect("valid");
                    chain.held.insert(slot, Run::records(slot, identity, body));
                    AckStatus::Committed
                }
            };
            match answers.last_mut() {
                Some((first, count, last)) if *last == status && first.plus(*count) == slot => {
                    *count += 1;
                }
                _ => answers.push((slot, 1, status)),
            }
        }
        answers
    }

    /// Makes junk of what is missing below a position, in all stripes of the segment.
    pub async fn fill_to(&self, position: Position) {
        let entry = self.catalog.last().await.expect("reads");
        for segment in &entry.segments {
            let end = entry
                .segment_end(segment)
                .map_or(position, |end| end.min(position));
            for stripe in segment.layout.all() {
                let key = (segment.id, stripe);
                let until = segment.layout.slot_at_or_after(stripe, end);
                {
                    let mut state = self.lock();
                    let chain = state.chains.entry(key).or_default();
                    let mut slot = chain.end.unwrap_or_else(|| segment.first_slot(stripe));
                    while slot < until {
                        let next = chain.held.range(slot..).next().map(|(slot, _)| *slot);
                        let hole = next.unwrap_or(until).min(until);
                        if hole > slot {
                            chain.held.insert(slot, Run::junk(slot, slot.until(hole)));
                        }
                        slot = chain
                            .held
                            .range(slot..)
                            .next()
                            .map_or(until, |(_, run)| run.end());
                        slot = chain
                            .held
                            .range(..slot)
                            .next_back()
                            .map_or(slot, |(_, r)| r.end());
                    }
                }
                self.put_all(key).await;
            }
        }
    }

    /// Puts what follows the chain's end without a hole as one object.
    async fn put_all(&self, key: ChainKey) {
        let nothing = self
            .lock()
            .chains
            .get(&key)
            .is_none_or(|c| c.held.is_empty());
        if nothing {
            // A frame that comes again takes no requests, which tests count.
            return self.changed.send_modify(|n| *n += 1);
        }
        let entry = self.catalog.last().await.expect("reads");
        let segment = entry.segments.iter().find(|s| s.id == key.0);
        let segment = *segment.expect("a segment of the log");
        let chain = self.catalog.chain(&segment, key.1);
        let runs = {
            let mut state = self.lock();
            let of = state.chains.entry(key).or_default();
            let mut end = of.end.unwrap_or(chain.first_slot());
            let mut runs = Vec::new();
            while let Some(run) = of.held.remove(&end) {
                end = run.end();
                runs.push(run);
            }
            runs
        };
        if !runs.is_empty() {
            let object = Object::build(chain.id(), author(), &runs).expect("valid");
            chain.put(&object).await.expect("puts");
            let mut state = self.lock();
            let of = state.chains.entry(key).or_default();
            of.end = Some(object.index.header.end);
            of.put.extend(runs);
        }
        self.changed.send_modify(|n| *n += 1);
    }

    /// The durable tail below `issued`.
    pub fn durable(&self, issued: Position) -> Position {
        let state = self.lock();
        let mut tail = issued;
        for ((_, stripe), layout) in self.layouts() {
            let chain = state.chains.get(&(SegmentId(0), stripe));
            let end = chain.and_then(|c| c.end).unwrap_or(Slot(0));
            tail = tail.min(layout.position(stripe, end));
        }
        tail
    }

    fn layouts(&self) -> Vec<(ChainKey, Layout)> {
        let Segment { id, layout, .. } = self.first;
        layout.all().map(|s| ((id, s), layout)).collect()
    }

    async fn subscribe(&self, to: &Out, ask: Ask) -> Option<()> {
        let live = {
            let mut state = self.lock();
            state.subscriptions.push(ask);
            state.live
        };
        match live {
            Live::Silent => return Some(()),
            Live::Close => return None,
            Live::End(reason) => {
                let end = End::new(ask.id, ask.place, reason);
                return send(to, Frame::End(end), &[]).await;
            }
            Live::Serve => {}
        }
        let (of, to) = (self.clone(), to.clone());
        let mut changed = self.changed.subscribe();
        let push = async move {
            let mut at = ask.place.first;
            loop {
                let key = (ask.place.segment, ask.place.stripe);
                let runs: Vec<Run> = {
                    let state = of.lock();
                    let put = state.chains.get(&key).map_or(&[][..], |c| &c.put);
                    put.iter().filter(|run| run.end() > at).cloned().collect()
                };
                for run in runs {
                    at = run.end();
                    let push = Push::of(ask.id, key.0, key.1, &run);
                    let body = run.content.map(|(_, body)| body.bytes().clone());
                    send(&to, Frame::Push(push), &body.unwrap_or_default()).await?;
                }
                changed.changed().await.ok()?;
            }
        };
        tokio::spawn(async move {
            let _: Option<std::convert::Infallible> = push.await;
        });
        Some(())
    }

    async fn frontiers(&self, to: &Out) -> Option<()> {
        let body: Vec<u8> = {
            let state = self.lock();
            let layouts = self.layouts();
            let frontier = |((segment, stripe), _): &(ChainKey, Layout)| {
                let chain = state.chains.get(&(*segment, *stripe));
                let first = chain.and_then(|c| c.end).unwrap_or(Slot(0));
                let (segment, stripe) = (*segment, *stripe);
                Frontier {
                    place: Place {
                        segment,
                        stripe,
                        first,
                    },
                    owner: OwnerNumber(1),
                    held_bytes: 0,
                }
                .to_vec()
            };
            layouts.iter().flat_map(frontier).collect()
        };
        let frontiers = Frontiers {
            epoch: Epoch(1),
            leaving: 0,
        };
        send(to, Frame::Frontiers(frontiers), &body).await
    }
}

impl ChainState {
    /// What a slot holds: nothing, junk (`Some(None)`) or somebody's record.
    fn identity_at(&self, slot: Slot) -> Option<Option<Identity>> {
        let all = self.put.iter().chain(self.held.values());
        let mut all = all.filter(|run| (run.first..run.end()).contains(&slot));
        all.next().map(Run::identity)
    }
}

type Out = Arc<tokio::sync::Mutex<OwnedWriteHalf>>;

pub fn author() -> Author {
    Author {
        epoch: Epoch(1),
        owner: OwnerNumber(1),
        writer: WriterId([3; 16]),
    }
}

async fn send(to: &Out, frame: Frame, body: &[u8]) -> Option<()> {
    let mut to = to.lock().await;
    to.write_all(&frame.encode(body.len()).expect("fits"))
        .await
        .ok()?;
    to.write_all(body).await.ok()
}

async fn read(from: &mut OwnedReadHalf) -> Option<(Frame, Bytes)> {
    let mut prefix = [0; PREFIX_BYTES];
    from.read_exact(&mut prefix).await.ok()?;
    let prefix = Prefix::decode(&prefix).expect("valid prefix");
    let mut head = vec![0; prefix.head_len];
    from.read_exact(&mut head).await.ok()?;
    let frame = Frame::decode(&prefix, &head).expect("valid head");
    let mut body = BytesMut::zeroed(prefix.body_len);
    from.read_exact(&mut body).await.ok()?;
    Some((frame, body.freeze()))
}
