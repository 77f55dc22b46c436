//! Subscriptions to the live end of stripes, at their owners.
//!
//! An owner that says that a stripe is not its own, cannot be reached, or stays silent about what the store has,
//! is left for the next one (C-6), as appends leave it.
//!
//! A scan has one connection to each owner, for all its stripes there. A stripe whose turn has not come
//! must not hold up the others on its connection: when its bounds are reached its subscription ends, and
//! the reader finds the runs in the store.

use std::collections::HashMap;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use bytes::Bytes;
use tokio::io::BufReader;
use tokio::net::TcpStream;
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc};
use tokio::task::JoinSet;
use wire::frame::{Ask, End, EndReason, Frame, Place, Push, Unsubscribe};
use wire::{Run, Slot, StripeId};

use crate::limits::{LIVE_BYTES, LIVE_COMMANDS, LIVE_RUNS, PERMIT_BYTES, WRITE_BYTES};
use crate::net::frames::{self, Lost};
use crate::shared::Shared;

/// What a subscription brings.
#[derive(Debug)]
pub(crate) enum Live {
    /// A run that is durable.
    Run(Run),
    /// What was asked for is in the owner's memory no more: it is in the store. Nothing comes behind it.
    InStore,
    /// The stripe has no more: its segment has ended.
    Ended,
}

/// What a subscription brings, and the memory that it takes until it is received.
type Pushed = (Live, Option<OwnedSemaphorePermit>);

/// Runs of one stripe as they become durable.
#[derive(Debug)]
pub(crate) struct Subscription {
    id: u32,
    /// Who is asked, and for which stripe.
    owner: SocketAddr,
    stripe: StripeId,
    runs: mpsc::Receiver<Pushed>,
    commands: mpsc::Sender<Command>,
    delivered: bool,
}

impl Subscription {
    /// The next run, or `None` when no more come. Cancel-safe.
    pub(crate) async fn receive(&mut self) -> Option<Live> {
        let (live, _) = self.runs.recv().await?;
        self.delivered = true;
        Some(live)
    }

    /// Whether it has brought anything.
    pub(crate) fn has_delivered(&self) -> bool {
        self.delivered
    }
}

impl Drop for Subscription {
    fn drop(&mut self) {
        // If the queue is full, what still comes is dropped by the connection.
        let _ = self.commands.try_send(Command::End(self.id));
    }
}

#[derive(Debug)]
enum Command {
    Start(Ask, mpsc::Sender<Pushed>),
    End(u32),
}

/// The live connections of one scan.
#[derive(Debug)]
pub(crate) struct Hub {
    shared: Arc<Shared>,
    connections: HashMap<SocketAddr, mpsc::Sender<Command>>,
    memory: Arc<Semaphore>,
    tasks: JoinSet<()>,
    next_id: u32,
}

impl Hub {
    pub(crate) fn new(shared: Arc<Shared>) -> Self {
        Self {
            shared,
            connections: HashMap::new(),
            memory: Arc::new(Semaphore::new(LIVE_BYTES / PERMIT_BYTES)),
            tasks: JoinSet::new(),
            next_id: 0,
        }
    }

    /// Subscribes to a stripe at its owner; `None` if the owner cannot be reached now: then the next one is
    /// asked the next time.
    pub(crate) async fn subscribe(&mut self, place: Place, until: Slot) -> Option<Subscription> {
        let owner = self.shared.routes.owner(place.stripe)?;
        let Some(commands) = self.connection(owner).await else {
            let now = self.shared.elapsed();
            self.shared.routes.leave(place.stripe, owner, now);
            return None;
        };
        self.next_id = self.next_id.wrapping_add(1);
        let id = self.next_id;
        let (to, runs) = mpsc::channel(LIVE_RUNS);
        let start = Command::Start(Ask { id, place, until }, to);
        commands.send(start).await.ok()?;
        Some(Subscription {
            id,
            owner,
            stripe: place.stripe,
            runs,
            commands,
            delivered: false,
        })
    }

    /// The store has what a subscription did not bring: whoever is asked there may have lost the stripe and
    /// not know it.
    pub(crate) fn leave(&self, subscription: &Subscription) {
        let Subscription { stripe, owner, .. } = *subscription;
        let now = self.shared.elapsed();
        self.shared.routes.leave(stripe, owner, now);
    }

    async fn connection(&mut self, owner: SocketAddr) -> Option<mpsc::Sender<Command>> {
        if let Some(open) = self.connections.get(&owner).filter(|c| !c.is_closed()) {
            return Some(open.clone());
        }
        let shared = &self.shared;
        let connected = frames::connect(owner, shared.id(), shared.client).await;
        let stream = match connected {
            Ok((stream, _)) => stream,
            Err(lost) => {
                tracing::debug!(address = %owner, reason = %lost, "no live connection");
                return None;
            }
        };
        let (commands, queue) = mpsc::channel(LIVE_COMMANDS);
        let of = Of {
            shared: self.shared.clone(),
            owner,
            memory: self.memory.clone(),
            subscribed: Subscribed::default(),
        };
        while self.tasks.try_join_next().is_some() {}
        self.tasks.spawn(async move {
            let lost = of.serve(stream, queue).await;
            tracing::debug!(address = %owner, reason = ?lost.err(), "live connection ended");
        });
        self.connections.insert(owner, commands.clone());
        Some(commands)
    }
}

/// What was asked for under each number, and who waits for it.
type Waiting = HashMap<u32, (Place, mpsc::Sender<Pushed>)>;

type Subscribed = Mutex<Waiting>;

/// One connection.
struct Of {
    shared: Arc<Shared>,
    owner: SocketAddr,
    memory: Arc<Semaphore>,
    subscribed: Subscribed,
}

impl Of {
    async fn serve(&self, stream: TcpStream, queue: mpsc::Receiver<Command>) -> Result<(), Lost> {
        let (from, to) = stream.into_split();
        tokio::select! {
            ended = self.receive(from) => ended,
            ended = self.send(to, queue) => ended,
        }
    }

    async fn send(
        &self,
        mut to: OwnedWriteHalf,
        mut queue: mpsc::Receiver<Command>,
    ) -> Result<(), Lost> {
        while let Some(command) = queue.recv().await {
            let frame = match command {
                Command::Start(ask, runs) => {
                    self.subscribed().insert(ask.id, (ask.place, runs));
                    Frame::Subscribe(ask)
                }
                Command::End(id) => {
                    self.subscribed().remove(&id);
                    Frame::Unsubscribe(Unsubscribe { id })
                }
            };
            frames::write(&mut to, frame).await?;
        }
        Ok(())
    }

    async fn receive(&self, from: OwnedReadHalf) -> Result<(), Lost> {
        let mut from = BufReader::with_capacity(WRITE_BYTES, from);
        loop {
            match frames::read(&mut from).await? {
                (Frame::Push(push), body) => self.pushed(push, body)?,
                (Frame::End(end), _) => self.ended(end)?,
                _ => return Err(Lost::Unexpected),
            }
        }
    }

    fn pushed(&self, push: Push, body: Bytes) -> Result<(), Lost> {
        let run = push.run(body)?;
        let cost = (run.body_len() / PERMIT_BYTES).saturating_add(1);
        let memory = self.memory.clone();
        let permits = memory.try_acquire_many_owned(u32::try_from(cost).unwrap_or(u32::MAX));
        let mut subscribed = self.subscribed();
        let Some((place, to)) = subscribed.get(&push.id) else {
            return Ok(());
        };
        let asked = (place.segment, place.stripe);
        if asked != (push.place.segment, push.place.stripe) {
            return Err(Lost::Unexpected);
        }
        let sent = permits.is_ok_and(|p| to.try_send((Live::Run(run), Some(p))).is_ok());
        if !sent {
            subscribed.remove(&push.id);
        }
        Ok(())
    }

    fn ended(&self, end: End) -> Result<(), Lost> {
        let Some((place, to)) = self.subscribed().remove(&end.id) else {
            return Ok(());
        };
        match end.reason()? {
            EndReason::Done => drop(to.try_send((Live::Ended, None))),
            // A full queue says enough.
            EndReason::Lagged => drop(to.try_send((Live::InStore, None))),
            // [C-6] Whoever took the stripe over is found by asking.
            EndReason::NotOwner => {
                let now = self.shared.elapsed();
                self.shared.routes.leave(place.stripe, self.owner, now);
            }
        }
        Ok(())
    }

    fn subscribed(&self) -> MutexGuard<'_, Waiting> {
        self.subscribed
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
    }
}
