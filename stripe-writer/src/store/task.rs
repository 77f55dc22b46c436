//! The task of a stripe: feeds its state machine and does what that says.

use std::future::pending;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::time::Duration;

use catalog::Chain;
use futures::StreamExt;
use futures::stream::FuturesUnordered;
use tokio::runtime::Handle;
use tokio::sync::{Semaphore, mpsc, oneshot, watch};
use tokio::task::JoinHandle;
use wire::frame::AckStatus;
use wire::{Epoch, Position, Run, Slot};

use super::clock;
use super::history::{Decided, History};
use super::places::{Place, Places};
use super::pressure::Pressure;
use super::puts::{self, Done};
use super::snapshots::Snapshots;
use super::takeover::Taken;
use crate::limits::{EVENTS_A_STRIPE, HOLD_LEAST, HOLD_LOOK};
use crate::logic::action::{Action, Config};
use crate::logic::hold::Hold;
use crate::logic::stripe::Stripe;
use crate::metrics::Metrics;
use crate::net::Token;

/// What a stripe's task is told.
#[derive(Debug)]
pub(crate) enum Event {
    /// Records arrived.
    Append {
        /// The run.
        run: Run,
        /// Epoch of its token, one that this process has heard of.
        epoch: Epoch,
        /// Whom to answer.
        token: Token,
    },
    /// A reign began (H-3).
    Seal {
        /// Its epoch.
        epoch: Epoch,
        /// Below which position all has to be decided.
        position: Position,
        /// Where the stripe's segment ends, if it has ended.
        end: Option<Position>,
        /// Told when everything below is decided; dropped without a word if the stripe is fenced.
        done: Option<oneshot::Sender<()>>,
    },
    /// Makes everything that is held durable at once, then ends the task.
    Stop,
    /// The same, when the segment is complete: takes in nothing more, but answers what has come in.
    Close {
        /// Where the segment ends. A task that has not heard of the next segment hears it here (H-5).
        end: Position,
    },
    /// Another process owns the stripe: ends the task.
    Fence,
}

/// What the tasks of all stripes share.
#[derive(Debug, Clone)]
pub(crate) struct Workers {
    /// Threads for all that goes to the store.
    pub(crate) threads: Handle,
    /// Places for puts under way, all stripes together.
    pub(crate) places: Arc<Places>,
    /// Places for look-ups under way, all stripes together.
    pub(crate) lookups: Arc<Semaphore>,
    /// Below which position holes may be filled (H-1).
    pub(crate) ripe: watch::Receiver<Position>,
    /// Age at which a hole is.
    pub(crate) hole_timeout: Duration,
    /// Counters.
    pub(crate) metrics: Arc<Metrics>,
}

/// A stripe as connections see it.
#[derive(Debug, Clone)]
pub(crate) struct StripeHandle {
    /// Its chain.
    pub(crate) chain: Chain,
    /// This owner's number.
    pub(crate) owner: Arc<AtomicU64>,
    /// Sends to its task; waits when the task has much to do.
    pub(crate) events: mpsc::Sender<Event>,
    /// First slot that is not decided.
    pub(crate) frontier: watch::Receiver<Slot>,
    /// What is decided.
    pub(crate) history: Arc<History>,
    /// Bytes that are in no object yet.
    pub(crate) held_bytes: Arc<AtomicU64>,
    /// Memory that records of the stripe take, in units of [`crate::limits::MEMORY_UNIT`].
    pub(crate) taken: Arc<AtomicUsize>,
    /// Of its share of the memory.
    pub(crate) pressure: Arc<Pressure>,
    /// Whether another process owns the stripe.
    pub(crate) fenced: Arc<AtomicBool>,
    /// First slot behind the stripe's last one, once its segment has ended.
    end: Arc<AtomicU64>,
}

/// How a stripe's task starts.
#[derive(Debug)]
pub(crate) struct Start {
    /// The chain.
    pub(crate) chain: Chain,
    /// What was found of it.
    pub(crate) taken: Taken,
    /// Slots below, which tokens of sealed epochs alone could write, become junk at once (H-3).
    pub(crate) seal_to: Slot,
    /// First slot behind the last one, if the segment has ended (H-5).
    pub(crate) end: Option<Slot>,
    /// How the stripe behaves.
    pub(crate) config: Config,
    /// Bytes of durable runs to keep for readers.
    pub(crate) recent_bytes: usize,
}

type PlaceFuture = Pin<Box<dyn Future<Output = Place> + Send>>;

struct Task {
    stripe: Stripe<Token>,
    handle: StripeHandle,
    frontier: watch::Sender<Slot>,
    snapshots: Snapshots,
    workers: Workers,
    running: FuturesUnordered<JoinHandle<Done>>,
    place: Option<PlaceFuture>,
    hold: Hold,
    /// Whether holes below what is ripe have not been filled yet.
    unfilled: bool,
    seals: Vec<oneshot::Sender<()>>,
    stopping: bool,
    closing: bool,
}

impl StripeHandle {
    /// Starts the task of a stripe.
    #[must_use]
    pub(crate) fn start(start: Start, workers: Workers) -> (Self, JoinHandle<()>) {
        let Start {
            chain,
            taken,
            seal_to,
            end,
            config,
            recent_bytes,
        } = start;
        let (events, inbox) = mpsc::channel(EVENTS_A_STRIPE);
        let (frontier, watched) = watch::channel(taken.frontier);
        let history = History::new(chain.clone(), &taken.headers, taken.frontier, recent_bytes);
        let author = taken.author;
        let mut stripe = Stripe::new(chain.id(), author, taken.frontier, config, taken.walked_at);
        if let Some(end) = end {
            stripe.end_at(end);
        }
        stripe.seal(author.epoch, seal_to, clock::now());
        let handle = Self {
            chain,
            owner: Arc::new(AtomicU64::new(author.owner.0)),
            events,
            frontier: watched,
            history: Arc::new(history),
            held_bytes: Arc::default(),
            taken: Arc::default(),
            pressure: Arc::default(),
            fenced: Arc::default(),
            end: Arc::new(AtomicU64::new(end.map_or(u64::MAX, |end| end.0))),
        };
        let snapshots = Snapshots::new(
            handle.chain.clone(),
            &taken.headers,
            taken.named,
            author.owner,
        );
        let task = Task {
            stripe,
            snapshots,
            handle: handle.clone(),
            frontier,
            running: FuturesUnordered::new(),
            place: None,
            hold: Hold::new(workers.hole_timeout.max(HOLD_LEAST)),
            workers,
            unfilled: false,
            seals: Vec::new(),
            stopping: false,
            closing: false,
        };
        (handle, tokio::spawn(task.run(inbox)))
    }

    /// First slot that the stripe will never have; the last there is as long as its segment has not ended.
    #[must_use]
    pub(crate) fn end(&self) -> Slot {
        Slot(self.end.load(Ordering::Acquire))
    }

    /// Whether every slot that the stripe will ever have is decided.
    #[must_use]
    pub(crate) fn is_complete(&self) -> bool {
        *self.frontier.borrow() >= self.end()
    }

    /// The frontier as a position.
    #[must_use]
    pub(crate) fn frontier_position(&self) -> Position {
        self.chain.id().position(*self.frontier.borrow())
    }
}

impl Task {
    async fn run(mut self, mut inbox: mpsc::Receiver<Event>) {
        let mut ripe = self.workers.ripe.clone();
        let mut ripens = true;
        while !(self.stopping && (self.stripe.is_fenced() || self.is_idle())) {
            let now = clock::now();
            // Asked each time: it has to see when the stripe works.
            let holds = self.holds(now);
            if self.unfilled && !holds {
                self.unfilled = false;
                let ripe = *ripe.borrow();
                self.fill(ripe);
                self.act();
            }
            let due = self.stripe.due();
            let ready = due.is_some_and(|due| due <= now);
            let wait = due.filter(|due| *due > now).map(|due| due - now);
            let wait = wait
                .into_iter()
                .chain(self.unfilled.then_some(HOLD_LOOK))
                .min();
            if ready && self.place.is_none() {
                self.place = Some(Box::pin(Arc::clone(&self.workers.places).take()));
            }
            tokio::select! {
                Some(done) = self.running.next(), if !self.running.is_empty() => self.done(done),
                place = granted(&mut self.place), if self.place.is_some() => self.put(place),
                event = inbox.recv(), if !self.stopping => {
                    self.event(event.unwrap_or(Event::Stop));
                    if self.closing {
                        // What is in there comes out, and then nothing.
                        inbox.close();
                    }
                }
                // An error: the reporter has ended, nothing ripens any more.
                changed = ripe.changed(), if ripens => match changed {
                    Ok(()) => self.unfilled = true,
                    Err(_) => ripens = false,
                },
                () = sleep(wait), if wait.is_some() => {}
            }
            self.act();
        }
        if !self.stripe.is_fenced() {
            self.snapshots.finish(self.stripe.owner()).await;
        }
        self.leave(inbox).await;
    }

    /// Sends whoever still waits for this owner to the next one.
    async fn leave(mut self, mut inbox: mpsc::Receiver<Event>) {
        if !self.handle.is_complete() {
            self.stripe.fence();
            self.act();
        }
        inbox.close();
        while let Some(event) = inbox.recv().await {
            if let Event::Append { run, token, .. } = event {
                self.answer(&token, run.first, run.end(), AckStatus::NotOwner);
            }
        }
    }

    fn is_idle(&self) -> bool {
        self.running.is_empty() && self.stripe.due().is_none()
    }

    fn event(&mut self, event: Event) {
        let now = clock::now();
        match event {
            Event::Append { run, epoch, token } => self.stripe.append(&run, epoch, &token, now),
            Event::Seal {
                epoch,
                position,
                end,
                done,
            } => {
                if let Some(end) = end {
                    self.end_at(self.slot(end));
                }
                self.stripe.seal(epoch, self.slot(position), now);
                self.seals.extend(done);
            }
            Event::Close { end } => {
                self.end_at(self.slot(end));
                self.closing = true;
            }
            Event::Stop => {
                self.stopping = true;
                self.stripe.flush();
            }
            Event::Fence => {
                self.stopping = true;
                self.stripe.fence();
            }
        }
    }

    /// The segment ends (H-5). Who waits for more is told.
    fn end_at(&mut self, end: Slot) {
        self.stripe.end_at(end);
        if self.handle.end() != end {
            self.handle.end.store(end.0, Ordering::Release);
            self.frontier.send_modify(|_| {});
        }
    }

    /// Whether holes wait for appends that were put off.
    fn holds(&mut self, now: Duration) -> bool {
        let works = self.stripe.flights() > 0 || self.stripe.wanted().is_none();
        self.hold
            .holds(self.handle.pressure.put_off_at(), works, now)
    }

    fn fill(&mut self, below: Position) {
        // [H-5] Who leaves a stripe is told no more where its segment ends.
        if !self.stopping {
            self.stripe.fill(self.slot(below), clock::now());
        }
    }

    fn put(&mut self, place: Place) {
        self.place = None;
        let Some((id, object)) = self.stripe.close(clock::now()) else {
            return;
        };
        self.workers.metrics.put(&object);
        let (chain, places) = (self.handle.chain.clone(), Arc::clone(&self.workers.places));
        let metrics = Arc::clone(&self.workers.metrics);
        let put = puts::put(chain, object, id, (places, place), metrics);
        self.running.push(self.workers.threads.spawn(put));
    }

    fn done(&mut self, done: Result<Done, tokio::task::JoinError>) {
        let now = clock::now();
        match done {
            Ok(Done::Put(id, outcome)) => self.stripe.put_done(id, outcome, now),
            Ok(Done::Verified { id, in_chain }) => self.stripe.verified(id, in_chain, now),
            Err(error) => {
                // What became of the object is not known: without it the stripe cannot go on.
                tracing::error!(%error, stripe = %self.handle.chain.id().stripe, "a put broke off");
                self.stripe.fence();
            }
        }
    }

    fn act(&mut self) {
        for action in self.stripe.actions() {
            match action {
                Action::Answer {
                    token,
                    first,
                    end,
                    status,
                } => self.answer(&token, first, end, status),
                Action::Lookup {
                    token,
                    first,
                    end,
                    identity,
                } => self.look_up(token, first, end, identity),
                Action::Committed { header, runs } => {
                    self.workers.metrics.committed(&header, &runs);
                    self.handle.history.push(&header);
                    self.snapshots.push(&header, self.stripe.owner());
                    self.handle.history.with_recent(|recent| recent.push(runs));
                    self.frontier.send_replace(header.end);
                }
                Action::Adopted(index) => {
                    let header = index.header;
                    tracing::info!(stripe = %header.chain.stripe, start = %header.start, owner = %header.author.owner, "adopted a former owner's object");
                    self.handle.history.push(&header);
                    self.snapshots.push(&header, self.stripe.owner());
                    self.handle
                        .history
                        .with_recent(|recent| recent.forget(header.end));
                    self.frontier.send_replace(header.end);
                }
                Action::Verify { id, header } => {
                    let (chain, from) =
                        (self.handle.chain.clone(), self.handle.history.last_start());
                    let walk = puts::verify(chain, header, from, id);
                    self.running.push(self.workers.threads.spawn(walk));
                }
                Action::Fenced => {
                    let stripe = self.handle.chain.id().stripe;
                    tracing::info!(%stripe, left = self.stopping, "the stripe is this process's no more");
                    self.handle.fenced.store(true, Ordering::Release);
                    // Who waits here for more is sent on.
                    self.frontier.send_modify(|_| {});
                }
            }
        }
        self.handle
            .owner
            .store(self.stripe.owner().0, Ordering::Relaxed);
        self.handle.pressure.want(self.stripe.wanted());
        if self.handle.is_complete() {
            // Nothing comes any more that readers would want to have from here.
            let end = self.stripe.frontier();
            self.handle.history.with_recent(|recent| recent.forget(end));
        }
        let held = u64::try_from(self.stripe.held_bytes()).unwrap_or(u64::MAX);
        self.handle.held_bytes.store(held, Ordering::Relaxed);
        if self.stripe.is_fenced() {
            // Not this process's to seal any more.
            self.seals.clear();
        } else if self.stripe.is_sealed() {
            for done in self.seals.drain(..) {
                // The connection that asked may be gone.
                let _ = done.send(());
            }
        }
    }

    fn answer(&self, token: &Token, first: Slot, end: Slot, status: AckStatus) {
        self.workers.metrics.answered(status, first.until(end));
        token.answer(first, end, status);
    }

    fn look_up(&self, token: Token, first: Slot, end: Slot, identity: wire::Identity) {
        let (history, workers) = (Arc::clone(&self.handle.history), self.workers.clone());
        self.workers.threads.spawn(async move {
            let _place = workers.lookups.acquire().await;
            for range in history.look_up(first, end, identity).await {
                let Decided { first, end, status } = range;
                workers.metrics.answered(status, first.until(end));
                token.answer(first, end, status);
            }
        });
    }

    fn slot(&self, position: Position) -> Slot {
        let id = self.handle.chain.id();
        id.layout.slot_at_or_after(id.stripe, position)
    }
}

async fn granted(place: &mut Option<PlaceFuture>) -> Place {
    match place {
        Some(future) => future.await,
        None => pending().await,
    }
}

async fn sleep(wait: Option<Duration>) {
    tokio::time::sleep(wait.unwrap_or_default()).await;
}
