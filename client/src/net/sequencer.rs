//! Requests to the sequencer, over one UDP socket.
//!
//! A request is sent again with the same number until an answer to that number comes (S-6): answers to
//! other numbers, repeated ones and malformed ones are counted and ignored, and so are those that fail the
//! check of the key, before anything else is looked at. One task sends, so that requests of many callers
//! share datagrams; one receives.

use std::pin::pin;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::{Notify, Semaphore, oneshot};
use tokio::task::yield_now;
use tokio::time::{Instant, sleep, sleep_until, timeout};
use wire::datagram::{
    self, Datagram, ENTRY_BYTES, Grant, HEADER_BYTES, Header, Kind, MAX_DATAGRAM_BYTES, Reply,
    Status,
};
use wire::mac::{Key, Signer};
use wire::{ClientId, Epoch, Lane, LogId, Position, RequestId};

use crate::limits::{GRANT_LANES_MAX, GRANT_TIMEOUT_MAX, REQUESTS_WAITING};
use crate::logic::pack::{Asks, Packed};
use crate::net::datagrams::{Buffer, Datagrams};
use crate::net::jitter;
use crate::stats::Counters;
use crate::{Error, Options, Result};

/// Lane of questions for the tails, behind those of grants.
const TAILS: Lane = Lane(GRANT_LANES_MAX);

/// An answer of the sequencer.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Told {
    /// Epoch of the reign that answered.
    pub(crate) epoch: Epoch,
    pub(crate) status: Status,
    pub(crate) first: Position,
    pub(crate) count: u32,
    pub(crate) durable: Option<Position>,
}

type Waiting = Asks<oneshot::Sender<Told>>;

/// The sequencer, as a client sees it.
#[derive(Debug)]
pub(crate) struct Sequencer {
    socket: Datagrams,
    log: LogId,
    client: ClientId,
    key: Option<Key>,
    per_datagram: usize,
    resend_after: Duration,
    opened: Instant,
    next_request: AtomicU64,
    slots: Semaphore,
    waiting: Mutex<Waiting>,
    asked: Notify,
    /// Whether the newest answer failed the check of the key.
    wrong_key: AtomicBool,
    counters: Arc<Counters>,
}

impl Sequencer {
    pub(crate) async fn open(
        options: &Options,
        log: LogId,
        client: ClientId,
        counters: Arc<Counters>,
    ) -> Result<Self> {
        let resend_after = options.grant_timeout;
        let most = GRANT_TIMEOUT_MAX.max(resend_after);
        Ok(Self {
            socket: Datagrams::open(options.membership.sequencer).await?,
            log,
            client,
            key: options.key.clone(),
            per_datagram: options.requests_per_datagram,
            resend_after,
            opened: Instant::now(),
            next_request: AtomicU64::new(1),
            slots: Semaphore::new(REQUESTS_WAITING),
            waiting: Mutex::new(Asks::new((resend_after, most))),
            asked: Notify::new(),
            wrong_key: AtomicBool::new(false),
            counters,
        })
    }

    /// A number that no request of this client had before.
    pub(crate) fn next_request(&self) -> RequestId {
        RequestId(self.next_request.fetch_add(1, Ordering::Relaxed))
    }

    /// Asks for a token until an answer comes. The same request may be asked for again. `silent` is called
    /// when there is none for long.
    pub(crate) async fn grant(&self, grant: Grant, silent: impl FnOnce()) -> Result<Told> {
        let mut told = pin!(self.ask(Kind::Grant, grant));
        match timeout(self.resend_after.saturating_mul(2), &mut told).await {
            Ok(told) => told,
            Err(_) => {
                silent();
                told.await
            }
        }
    }

    /// Asks for the tails, until an answer comes or `limit` has passed.
    pub(crate) async fn tails(&self, limit: Duration) -> Result<Told> {
        let question = Grant::new(TAILS, self.next_request(), 0);
        let told = timeout(limit, self.ask(Kind::Tail, question)).await;
        told.unwrap_or_else(|_| Err(self.silent()))
    }

    pub(crate) fn unavailable(&self, reason: impl Into<String>) -> Error {
        Error::Unavailable {
            what: "sequencer",
            address: self.socket.address(),
            reason: reason.into(),
        }
    }

    /// The error of a sequencer that gives no answer, or none that counts.
    pub(crate) fn silent(&self) -> Error {
        let wrong = self.wrong_key.load(Ordering::Relaxed);
        self.unavailable(match (wrong, &self.key) {
            (true, _) => "its answers fail the key check: it has another key, or none",
            (false, Some(_)) => "no answer, to requests that are signed with our key",
            (false, None) => "no answer; if it has a key file, it needs requests that are signed",
        })
    }

    async fn ask(&self, kind: Kind, grant: Grant) -> Result<Told> {
        let _slot = self.slots.acquire().await.map_err(|_| Error::Closed)?;
        let (answer, told) = oneshot::channel();
        let now = self.opened.elapsed();
        self.waiting().add(kind, grant, now, answer);
        let _forget = Forget { of: self, grant };
        self.asked.notify_one();
        told.await.map_err(|_| Error::Closed)
    }

    /// Sends requests, for ever.
    pub(crate) async fn send(&self) {
        let mut signer = self.key.as_ref().map(Key::signer);
        loop {
            // Who else is about to ask comes along in the same datagrams.
            yield_now().await;
            let now = self.opened.elapsed();
            let packed = self.waiting().take_due(now, jitter(), self.per_datagram);
            self.send_packed(&packed, signer.as_mut()).await;
            let next = self.waiting().next_due();
            let due = async {
                match next {
                    Some(due) => sleep_until(self.opened + due).await,
                    None => std::future::pending().await,
                }
            };
            tokio::select! {
                () = self.asked.notified() => {}
                () = due => {}
            }
        }
    }

    async fn send_packed(&self, packed: &Packed, mut signer: Option<&mut Signer>) {
        self.counters.requests_resent.add(packed.repeated);
        self.counters
            .datagrams_sent
            .add(packed.datagrams.len() as u64);
        for run in packed.datagrams.chunk_by(alike) {
            let mut bytes = Vec::with_capacity(run.len() * MAX_DATAGRAM_BYTES);
            for (kind, entries) in run {
                let at = bytes.len();
                bytes.resize(at + HEADER_BYTES + entries.len() * ENTRY_BYTES, 0);
                let header = Header::request(*kind, self.log, self.client, entries.len());
                let place = bytes.get_mut(at..).unwrap_or_default();
                // They are written into as many bytes as they take.
                let _ = datagram::write(header, entries, place);
                if let Some(signer) = &mut signer {
                    signer.sign(place);
                }
            }
            let entries = run.first().map_or(0, |(_, entries)| entries.len());
            self.socket
                .send(&bytes, HEADER_BYTES + entries * ENTRY_BYTES)
                .await;
        }
    }

    /// Receives answers, for ever.
    pub(crate) async fn receive(&self) {
        let mut signer = self.key.as_ref().map(Key::signer);
        let mut buffer = Buffer::default();
        let mut take = |bytes: &[u8]| {
            if signer.as_mut().is_some_and(|signer| !signer.verify(bytes)) {
                self.wrong_key.store(true, Ordering::Relaxed);
                self.counters.wrong_macs.add(1);
            } else if !self.accept(bytes) {
                self.counters.datagrams_ignored.add(1);
            }
        };
        loop {
            if self.socket.receive(&mut buffer, &mut take).await.is_err() {
                // The port was closed when a request came: the next copy will find it open, or not.
                sleep(Duration::from_millis(1)).await;
            }
        }
    }

    fn accept(&self, bytes: &[u8]) -> bool {
        let Ok(datagram) = Datagram::parse(bytes, self.log) else {
            return false;
        };
        let header = datagram.header;
        let ours = header.is_reply() && header.client == self.client;
        if !ours || !matches!(datagram.kind, Kind::Grant | Kind::Tail) {
            return false;
        }
        self.wrong_key.store(false, Ordering::Relaxed);
        let mut sound = true;
        for reply in datagram.entries::<Reply>() {
            sound &= reply.is_ok_and(|reply| self.deliver(header.epoch, &reply));
        }
        sound
    }

    fn deliver(&self, epoch: Epoch, reply: &Reply) -> bool {
        let Ok(status) = reply.status() else {
            return false;
        };
        let told = Told {
            epoch,
            status,
            first: reply.first,
            count: reply.count,
            durable: reply.durable(),
        };
        let waiter = self.waiting().remove(reply.lane, reply.request);
        waiter.is_some_and(|waiter| waiter.send(told).is_ok())
    }

    fn waiting(&self) -> MutexGuard<'_, Waiting> {
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Whether two datagrams are equal in kind and length, and may go out together.
fn alike(one: &(Kind, Vec<Grant>), next: &(Kind, Vec<Grant>)) -> bool {
    one.0 == next.0 && one.1.len() == next.1.len()
}

/// Forgets a request when its asker goes away, answered or not.
struct Forget<'a> {
    of: &'a Sequencer,
    grant: Grant,
}

impl Drop for Forget<'_> {
    fn drop(&mut self) {
        let (lane, request) = (self.grant.lane, self.grant.request);
        self.of.waiting().remove(lane, request);
    }
}
