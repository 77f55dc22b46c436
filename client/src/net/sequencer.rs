//! Requests to the sequencers, over one UDP socket each.
//!
//! A request is sent again with the same number until an answer to that number comes (S-6): answers to
//! other numbers, repeated ones and malformed ones are counted and ignored, and so are those that fail the
//! check of the key, before anything else is looked at. One task sends, so that requests of many callers
//! share datagrams; one receives. All requests go to the sequencer that reigns, as far as that is known:
//! [`Reigning`] decides. Where it is not, all of them are asked for their tails, and the first that
//! reigns gets everything that waits.

use std::net::{Ipv4Addr, SocketAddr};
use std::pin::pin;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use catalog::{Heard, Reigning, SEQUENCERS, with_asked};
use futures::future::join_all;
use tokio::sync::{Notify, Semaphore, oneshot};
use tokio::task::yield_now;
use tokio::time::{Instant, sleep, sleep_until, timeout};
use wire::datagram::{
    self, Datagram, ENTRY_BYTES, Grant, HEADER_BYTES, Header, Kind, MAX_DATAGRAM_BYTES, Reply,
    Restripe, Status,
};
use wire::mac::{Key, Signer};
use wire::{ClientId, Epoch, Lane, Layout, LogId, Position, RequestId, SegmentId};

use crate::limits::{GRANT_LANES_MAX, GRANT_TIMEOUT_MAX, REQUESTS_WAITING};
use crate::logic::pack::{Asks, Packed};
use crate::net::datagrams::{Buffer, Datagrams};
use crate::net::jitter;
use crate::stats::Counters;
use crate::{Error, Options, Result};

/// Lane of questions for the tails, behind those of grants.
const TAILS: Lane = Lane(GRANT_LANES_MAX);

/// Lane of the questions that find out who reigns. Their numbers answer nobody else.
const WHO: Lane = Lane(GRANT_LANES_MAX + 1);

/// Lane of wishes for another layout.
const LAYOUTS: Lane = Lane(GRANT_LANES_MAX + 2);

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

/// The sequencers, as a client sees them.
#[derive(Debug)]
pub(crate) struct Sequencer {
    places: Mutex<Places>,
    /// Told when there are other sockets.
    relisted: Notify,
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
    /// Whether the newest answer said that it does not reign who answered.
    refused: AtomicBool,
    counters: Arc<Counters>,
}

/// One socket for each sequencer, and which of them reigns.
#[derive(Debug)]
struct Places {
    sockets: Vec<Arc<Datagrams>>,
    reigning: Reigning,
}

impl Sequencer {
    /// The sequencers of the membership, for a log whose newest reign is known.
    pub(crate) async fn open(
        options: &Options,
        (log, epoch): (LogId, Epoch),
        client: ClientId,
        counters: Arc<Counters>,
    ) -> Result<Self> {
        let resend_after = options.grant_timeout;
        let most = GRANT_TIMEOUT_MAX.max(resend_after);
        let mut sockets = Vec::new();
        for address in options.membership.sequencers.iter().take(SEQUENCERS) {
            match Datagrams::open(*address).await {
                Ok(socket) => sockets.push(Arc::new(socket)),
                // It is tried again as the list is taken in.
                Err(_) if options.changes.is_some() => {}
                Err(error) => return Err(error),
            }
        }
        let reigning = Reigning::new(sockets.len(), epoch);
        Ok(Self {
            places: Mutex::new(Places { sockets, reigning }),
            relisted: Notify::new(),
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
            refused: AtomicBool::new(false),
            counters,
        })
    }

    /// A number that no request of this client had before.
    pub(crate) fn next_request(&self) -> RequestId {
        RequestId(self.next_request.fetch_add(1, Ordering::Relaxed))
    }

    /// Asks for a token until an answer comes. The same request may be asked for again. `silent` is called
    /// when there is none for long, and then again and again: why there is none may change.
    pub(crate) async fn grant(&self, grant: Grant, silent: impl Fn()) -> Result<Told> {
        let mut told = pin!(self.ask(Kind::Grant, grant));
        let long = self.resend_after.saturating_mul(2);
        loop {
            match timeout(long, &mut told).await {
                Ok(told) => return told,
                Err(_) => silent(),
            }
        }
    }

    /// Asks for the tails, until an answer comes or `limit` has passed.
    pub(crate) async fn tails(&self, limit: Duration) -> Result<Told> {
        let question = Grant::new(TAILS, self.next_request(), 0);
        let told = timeout(limit, self.ask(Kind::Tail, question)).await;
        told.unwrap_or_else(|_| Err(self.silent()))
    }

    /// Asks for a segment with another layout behind `behind`, until an answer comes or `limit` has passed.
    pub(crate) async fn restripe(
        &self,
        layout: Layout,
        behind: SegmentId,
        limit: Duration,
    ) -> Result<Told> {
        let wish = Restripe::new(LAYOUTS, self.next_request(), layout, behind);
        let told = timeout(limit, self.ask(Kind::Restripe, wish.as_grant())).await;
        told.unwrap_or_else(|_| Err(self.silent()))
    }

    /// The reign of `epoch` is over: a stripe-writer has refused its token as sealed, or the control chain has
    /// gone on.
    pub(crate) fn is_over(&self, epoch: Epoch) {
        self.places().reigning.is_over(epoch, self.opened.elapsed());
        self.asked.notify_one();
    }

    /// The log knows no reign above `epoch`.
    pub(crate) fn is_newest(&self, epoch: Epoch) {
        self.places().reigning.is_newest(epoch);
    }

    /// These are the sequencers now. The one that is asked stays.
    ///
    /// # Errors
    /// The last one to which no socket can be opened, and why. The others are asked all the same.
    pub(crate) async fn relist(
        &self,
        listed: &[SocketAddr],
    ) -> std::result::Result<(), (SocketAddr, Error)> {
        let mut sockets = self.places().sockets.clone();
        let mut outcome = Ok(());
        for address in listed.iter().take(SEQUENCERS) {
            if sockets.iter().any(|socket| socket.address() == *address) {
                continue;
            }
            match Datagrams::open(*address).await {
                Ok(socket) => sockets.push(Arc::new(socket)),
                Err(error) => outcome = Err((*address, error)),
            }
        }
        let now = self.opened.elapsed();
        {
            let mut places = self.places();
            let asked = places.asked();
            let (addresses, _) = with_asked(listed, asked);
            sockets.retain(|socket| addresses.contains(&socket.address()));
            places.sockets = sockets;
            let current = asked.and_then(|asked| places.at(asked));
            let count = places.sockets.len();
            places.reigning.relist(count, current, now);
        }
        self.relisted.notify_one();
        self.waiting().renew(now);
        self.asked.notify_one();
        outcome
    }

    pub(crate) fn unavailable(&self, reason: impl Into<String>) -> Error {
        let asked = self.places().asked();
        Error::Unavailable {
            what: "sequencer",
            address: asked.unwrap_or((Ipv4Addr::UNSPECIFIED, 0).into()),
            reason: reason.into(),
        }
    }

    /// The error of a sequencer that gives no answer, or none that counts.
    pub(crate) fn silent(&self) -> Error {
        let wrong = self.wrong_key.load(Ordering::Relaxed);
        let refused = self.refused.load(Ordering::Relaxed);
        if self.places().sockets.is_empty() {
            return self.unavailable("the membership has no sequencer");
        }
        self.unavailable(match (wrong, refused, &self.key) {
            (true, ..) => "its answers fail the key check: it has another key, or none",
            (_, true, _) => "no sequencer that answers reigns",
            (_, _, Some(_)) => "no answer, to requests that are signed with our key",
            (_, _, None) => "no answer; if it has a key file, it needs requests that are signed",
        })
    }

    /// Whether a request for a token was sent and has no answer.
    pub(crate) fn owes_grant(&self) -> bool {
        self.waiting().is_owed(Kind::Grant)
    }

    /// The error of an answer that did not come in time: `why`, if the sequencer was heard meanwhile.
    pub(crate) fn late(&self, heard: bool, why: &str) -> Error {
        if heard {
            self.unavailable(why)
        } else {
            self.silent()
        }
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
            let (to, who) = {
                let mut places = self.places();
                if packed.repeated > 0 {
                    places.reigning.doubt(now);
                }
                let who = places.reigning.take_due(now);
                let all = if who {
                    places.sockets.clone()
                } else {
                    Vec::new()
                };
                (places.socket(), all)
            };
            if let Some(socket) = to {
                self.send_packed(&socket, &packed, signer.as_mut()).await;
            }
            if !who.is_empty() {
                self.ask_who(&who, signer.as_mut()).await;
            }
            let dues = [self.waiting().next_due(), self.places().reigning.next_due()];
            let next = dues.into_iter().flatten().min();
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

    /// Asks every sequencer for its tails: the one that reigns tells them.
    async fn ask_who(&self, sockets: &[Arc<Datagrams>], mut signer: Option<&mut Signer>) {
        let question = Packed {
            datagrams: vec![(Kind::Tail, vec![Grant::new(WHO, self.next_request(), 0)])],
            repeated: 0,
        };
        for socket in sockets {
            self.send_packed(socket, &question, signer.as_deref_mut())
                .await;
        }
    }

    async fn send_packed(
        &self,
        socket: &Datagrams,
        packed: &Packed,
        mut signer: Option<&mut Signer>,
    ) {
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
            socket
                .send(&bytes, HEADER_BYTES + entries * ENTRY_BYTES)
                .await;
        }
    }

    /// Receives answers, for ever.
    pub(crate) async fn receive(&self) {
        loop {
            let sockets = self.places().sockets.clone();
            let all = join_all(sockets.iter().map(|socket| self.receive_from(socket)));
            tokio::select! {
                _ = all, if !sockets.is_empty() => {}
                () = self.relisted.notified() => {}
            }
        }
    }

    async fn receive_from(&self, socket: &Datagrams) {
        let from = socket.address();
        let mut signer = self.key.as_ref().map(Key::signer);
        let mut buffer = Buffer::default();
        let mut take = |bytes: &[u8]| {
            if signer.as_mut().is_some_and(|signer| !signer.verify(bytes)) {
                self.wrong_key.store(true, Ordering::Relaxed);
                self.counters.wrong_macs.add(1);
            } else if !self.accept(from, bytes) {
                self.counters.datagrams_ignored.add(1);
            }
        };
        loop {
            if socket.receive(&mut buffer, &mut take).await.is_err() {
                // The port was closed when a request came: the next copy will find it open, or not.
                self.is_closed(from);
                sleep(Duration::from_millis(1)).await;
            }
        }
    }

    /// A port of a sequencer is closed, as its host says: if it is the one that is asked, another may reign.
    fn is_closed(&self, from: SocketAddr) {
        let mut places = self.places();
        if places.asked() == Some(from) && places.reigning.next_due().is_none() {
            places.reigning.doubt(self.opened.elapsed());
            self.asked.notify_one();
        }
    }

    fn accept(&self, from: SocketAddr, bytes: &[u8]) -> bool {
        let Ok(datagram) = Datagram::parse(bytes, self.log) else {
            return false;
        };
        let header = datagram.header;
        let ours = header.is_reply() && header.client == self.client;
        if !ours || !matches!(datagram.kind, Kind::Grant | Kind::Tail | Kind::Restripe) {
            return false;
        }
        self.wrong_key.store(false, Ordering::Relaxed);
        let mut sound = true;
        for reply in datagram.entries::<Reply>() {
            sound &= reply.is_ok_and(|reply| self.deliver(from, header.epoch, &reply));
        }
        sound
    }

    fn deliver(&self, from: SocketAddr, epoch: Epoch, reply: &Reply) -> bool {
        let Ok(status) = reply.status() else {
            return false;
        };
        match self.hear(from, epoch, status) {
            Heard::Former => return false,
            // With one address there is nobody else to ask: who asked decides.
            Heard::Not if self.places().sockets.len() > 1 => return true,
            Heard::Not | Heard::Reigns { .. } => {}
        }
        if reply.lane == WHO {
            return true;
        }
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

    /// What an answer says about who reigns. After a switch everything that waits goes out again.
    fn hear(&self, from: SocketAddr, epoch: Epoch, status: Status) -> Heard {
        let now = self.opened.elapsed();
        let (heard, doubt) = {
            let mut places = self.places();
            let Some(from) = places.at(from) else {
                // The membership has it no more.
                return Heard::Former;
            };
            let reigning = &mut places.reigning;
            let before = reigning.next_due();
            let heard = reigning.heard(from, epoch, status, now);
            (heard, before.is_none() && reigning.next_due().is_some())
        };
        self.refused.store(heard == Heard::Not, Ordering::Relaxed);
        let new = heard == (Heard::Reigns { new: true });
        if new {
            self.waiting().renew(now);
        }
        if new || doubt {
            self.asked.notify_one();
        }
        heard
    }

    fn waiting(&self) -> MutexGuard<'_, Waiting> {
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn places(&self) -> MutexGuard<'_, Places> {
        self.places.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Places {
    fn at(&self, address: SocketAddr) -> Option<usize> {
        let mut sockets = self.sockets.iter();
        sockets.position(|socket| socket.address() == address)
    }

    /// The one that is asked.
    fn socket(&self) -> Option<Arc<Datagrams>> {
        self.sockets.get(self.reigning.current()).cloned()
    }

    fn asked(&self) -> Option<SocketAddr> {
        self.socket().map(|socket| socket.address())
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
