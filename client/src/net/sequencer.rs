//! Requests to the sequencer, over one UDP socket.
//!
//! A request is sent again with the same number until an answer to that number comes (S-6): answers to
//! other numbers, repeated ones and malformed ones are counted and ignored.

use std::collections::HashMap;
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr};
use std::pin::pin;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::net::UdpSocket;
use tokio::sync::{Semaphore, oneshot};
use tokio::time::timeout;
use wire::datagram::{self, Datagram, Grant, Header, Kind, MAX_DATAGRAM_BYTES, Reply, Status};
use wire::{ClientId, Epoch, Lane, LogId, Position, RequestId};

use crate::limits::{GRANT_TIMEOUT_MAX, REQUESTS_WAITING};
use crate::logic::backoff::Backoff;
use crate::net::jitter;
use crate::stats::Counters;
use crate::{Error, Result};

/// Lane of grant requests: the granter has one under way at a time.
pub(crate) const GRANTS: Lane = Lane(0);

/// Lane of questions for the tails.
const TAILS: Lane = Lane(1);

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

type Waiting = HashMap<(Lane, RequestId), oneshot::Sender<Told>>;

/// The sequencer, as a client sees it.
#[derive(Debug)]
pub(crate) struct Sequencer {
    socket: UdpSocket,
    address: SocketAddr,
    log: LogId,
    client: ClientId,
    resend_after: Duration,
    next_request: AtomicU64,
    slots: Semaphore,
    waiting: Mutex<Waiting>,
    counters: Arc<Counters>,
}

impl Sequencer {
    pub(crate) async fn open(
        address: SocketAddr,
        log: LogId,
        client: ClientId,
        resend_after: Duration,
        counters: Arc<Counters>,
    ) -> Result<Self> {
        let any: SocketAddr = match address {
            SocketAddr::V4(_) => (Ipv4Addr::UNSPECIFIED, 0).into(),
            SocketAddr::V6(_) => (Ipv6Addr::UNSPECIFIED, 0).into(),
        };
        let io = |source| Error::Io {
            what: "opening a UDP socket",
            source,
        };
        let socket = UdpSocket::bind(any).await.map_err(io)?;
        socket.connect(address).await.map_err(io)?;
        Ok(Self {
            socket,
            address,
            log,
            client,
            resend_after,
            next_request: AtomicU64::new(1),
            slots: Semaphore::new(REQUESTS_WAITING),
            waiting: Mutex::new(HashMap::new()),
            counters,
        })
    }

    /// A number that no request of this client had before.
    pub(crate) fn next_request(&self) -> RequestId {
        RequestId(self.next_request.fetch_add(1, Ordering::Relaxed))
    }

    /// Asks for a token until an answer comes. The same `request` may be asked for again. `silent` is
    /// called when there is none for long.
    pub(crate) async fn grant(
        &self,
        request: RequestId,
        count: u32,
        silent: impl FnOnce(),
    ) -> Result<Told> {
        let mut told = pin!(self.ask(Kind::Grant, Grant::new(GRANTS, request, count)));
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
        told.unwrap_or_else(|_| Err(self.unavailable("no answer")))
    }

    pub(crate) fn unavailable(&self, reason: impl Into<String>) -> Error {
        Error::Unavailable {
            what: "sequencer",
            address: self.address,
            reason: reason.into(),
        }
    }

    async fn ask(&self, kind: Kind, grant: Grant) -> Result<Told> {
        let _slot = self.slots.acquire().await.map_err(|_| Error::Closed)?;
        let mut bytes = [0; MAX_DATAGRAM_BYTES];
        let header = Header::request(kind, self.log, self.client, 1);
        let len = datagram::write(header, &[grant], &mut bytes)?;
        let datagram = bytes.get(..len).unwrap_or(&[]);
        let (answer, mut told) = oneshot::channel();
        let key = (grant.lane, grant.request);
        self.waiting().insert(key, answer);
        let _forget = Forget { of: self, key };
        let most = GRANT_TIMEOUT_MAX.max(self.resend_after);
        let mut pauses = Backoff::new((self.resend_after, most));
        loop {
            // A send fails when an earlier one met a closed port: as good as lost.
            let _ = self.socket.send(datagram).await;
            // The first copy waits for all of its time: a jitter below it would double the load.
            let wait = pauses.pause(jitter()).max(self.resend_after);
            match timeout(wait, &mut told).await {
                Ok(told) => return told.map_err(|_| Error::Closed),
                Err(_) => self.counters.requests_resent.add(1),
            }
        }
    }

    /// Receives answers, for ever.
    pub(crate) async fn receive(&self) {
        // One byte more than the longest datagram: a longer one shows as too long.
        let mut bytes = [0; MAX_DATAGRAM_BYTES + 1];
        loop {
            match self.socket.recv(&mut bytes).await {
                Ok(len) => {
                    if !self.accept(bytes.get(..len).unwrap_or(&[])) {
                        self.counters.datagrams_ignored.add(1);
                    }
                }
                // The port was closed when a request came: the next copy will find it open, or not.
                Err(_) => tokio::time::sleep(Duration::from_millis(1)).await,
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
        let waiter = self.waiting().remove(&(reply.lane, reply.request));
        waiter.is_some_and(|waiter| waiter.send(told).is_ok())
    }

    fn waiting(&self) -> MutexGuard<'_, Waiting> {
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Forgets a request when its asker goes away, answered or not.
struct Forget<'a> {
    of: &'a Sequencer,
    key: (Lane, RequestId),
}

impl Drop for Forget<'_> {
    fn drop(&mut self) {
        self.of.waiting().remove(&self.key);
    }
}
