//! Reports frontiers to the sequencer that reigns, and hears the issued tail from it.
//!
//! Where it is not known which one reigns, all are reported to until one answers that it does.

use std::io::ErrorKind;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use catalog::{Heard, Membership, Reigning, with_asked};
use futures::future::select_all;
use runtime::members::changed;
use tokio::net::UdpSocket;
use tokio::sync::watch;
use tokio::time::MissedTickBehavior;
use wire::datagram::{
    self, Datagram, Grant, Header, Kind, MAX_DATAGRAM_BYTES, MAX_ENTRIES, Reply, Report, Status,
};
use wire::mac::{Key, Signer};
use wire::{ClientId, Epoch, Fixed, Lane, Position, RequestId, SegmentId};

use crate::limits::{
    RELIST_AGAIN, REPORT_HEARTBEAT, REPORT_INTERVAL, REPORT_PATIENCE, SILENCE_TOLD,
};
use crate::logic::hole::HoleClock;
use crate::shared::Shared;
use crate::store::{self, StripeHandle};
use crate::writer::Options;

/// Tells the sequencer how far the stripes are. What it answers makes holes ripen.
#[derive(Debug)]
pub(crate) struct Reporter {
    shared: Arc<Shared>,
    /// One for each sequencer, in the order of the membership.
    sockets: Vec<UdpSocket>,
    reigning: Reigning,
    /// The list, while sockets to some of it cannot be opened, and since when.
    missing: Option<(Vec<SocketAddr>, Duration)>,
    changes: Option<watch::Receiver<Membership>>,
    client: ClientId,
    clock: HoleClock,
    ripe: watch::Sender<Position>,
    reported: Vec<(SegmentId, Position)>,
    reported_at: Duration,
    request: u64,
    signer: Option<Signer>,
    /// Answers that failed the check of the key.
    wrong: u64,
    heard_at: Duration,
    /// When the oldest report was made that has no answer.
    unanswered: Option<Duration>,
    /// Whether it has been told that there are no answers.
    quiet: bool,
}

impl Reporter {
    /// A reporter to the sequencers that the options name.
    ///
    /// # Errors
    /// What the system says about the socket.
    pub(crate) async fn new(
        shared: Arc<Shared>,
        options: &Options,
        ripe: watch::Sender<Position>,
    ) -> std::io::Result<Self> {
        let mut sockets = Vec::new();
        for address in &options.sequencers {
            match connected(*address).await {
                Ok(socket) => sockets.push(socket),
                // It is tried again as the list is taken in.
                Err(_) if options.changes.is_some() => {}
                Err(error) => return Err(error),
            }
        }
        Ok(Self {
            client: shared.client(),
            shared,
            reigning: Reigning::new(sockets.len(), Epoch(0)),
            sockets,
            missing: None,
            changes: options.changes.clone(),
            clock: HoleClock::new(options.hole_timeout),
            ripe,
            reported: Vec::new(),
            reported_at: Duration::ZERO,
            request: 0,
            signer: options.key.as_ref().map(Key::signer),
            wrong: 0,
            heard_at: store::now(),
            unanswered: None,
            quiet: false,
        })
    }

    /// Reports for ever.
    pub(crate) async fn run(mut self) {
        let mut tick = tokio::time::interval(REPORT_INTERVAL);
        tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut buffer = [0; MAX_DATAGRAM_BYTES];
        loop {
            tokio::select! {
                _ = tick.tick() => self.tick().await,
                membership = changed(&mut self.changes) => {
                    self.missing = None;
                    self.relist(&membership.sequencers).await;
                }
                (from, ready) = readable(&self.sockets) => {
                    let socket = self.sockets.get(from).filter(|_| ready.is_ok());
                    match socket.map(|socket| socket.try_recv(&mut buffer)) {
                        Some(Ok(len)) => self.heard(from, buffer.get(..len).unwrap_or(&[])),
                        Some(Err(error)) if error.kind() == ErrorKind::WouldBlock => {}
                        // The sequencer is down; its port answers so. The next tick tries again.
                        _ => tokio::time::sleep(REPORT_INTERVAL).await,
                    }
                }
            }
        }
    }

    /// Reports to these sequencers from now on.
    async fn relist(&mut self, listed: &[SocketAddr]) {
        let peer = |socket: &UdpSocket| socket.peer_addr().ok();
        let asked = self.sockets.get(self.reigning.current()).and_then(peer);
        let (addresses, _) = with_asked(listed, asked);
        let mut sockets = Vec::new();
        let known = self.missing.take().is_some();
        for address in addresses {
            let open = self.sockets.iter().position(|s| peer(s) == Some(address));
            let socket = match open {
                Some(at) => Ok(self.sockets.swap_remove(at)),
                None => connected(address).await,
            };
            match socket {
                Ok(socket) => sockets.push(socket),
                // The others are reported to all the same.
                Err(error) => {
                    if !known {
                        tracing::error!(%error, %address, "no socket to a sequencer: trying again");
                    }
                    self.missing = Some((listed.to_vec(), store::now()));
                }
            }
        }
        let current = asked.and_then(|asked| sockets.iter().position(|s| peer(s) == Some(asked)));
        self.sockets = sockets;
        self.reigning
            .relist(self.sockets.len(), current, store::now());
        self.reported.clear();
    }

    async fn tick(&mut self) {
        let now = store::now();
        if let Some((listed, since)) = &self.missing
            && now.saturating_sub(*since) >= RELIST_AGAIN
        {
            let listed = listed.clone();
            self.relist(&listed).await;
        }
        self.watch_silence(now);
        self.shared.look_at_pressure(now);
        if self.shared.memory.is_full() && self.shared.puts_under_way() > 0 {
            self.clock.held_up(now);
        }
        let ripe = self.clock.ripe(now);
        self.ripe.send_if_modified(|known| {
            let grew = ripe > *known;
            *known = ripe.max(*known);
            grew
        });
        // Of what came before the newest segment the sequencer knows that it is sealed (H-4).
        let newest = self.shared.newest();
        let frontier = |stripe: &Arc<StripeHandle>| {
            let segment = stripe.chain.id().segment;
            (segment, stripe.frontier_position())
        };
        let frontiers: Vec<_> = newest.iter().map(frontier).collect();
        if self
            .unanswered
            .is_some_and(|since| now.saturating_sub(since) >= REPORT_PATIENCE)
        {
            self.reigning.doubt(now);
        }
        let rested = now.saturating_sub(self.reported_at) >= REPORT_HEARTBEAT;
        let all = self.reigning.take_due(now);
        if all || rested || frontiers != self.reported {
            self.report(all).await;
            self.reported = frontiers;
            self.reported_at = now;
            self.unanswered.get_or_insert(now);
        }
    }

    /// Reports to the sequencer that reigns, or to all.
    async fn report(&mut self, all: bool) {
        let mut reports = Vec::new();
        for handle in self.shared.newest() {
            let id = handle.chain.id();
            self.request += 1;
            let request = RequestId(self.request);
            let frontier = handle.frontier_position();
            reports.push(Report::new(request, id.segment, id.stripe, frontier));
        }
        if reports.is_empty() {
            // [H-1] Who owns nothing is to know which holes are old when it takes a stripe over.
            self.request += 1;
            let question = Grant::new(Lane(0), RequestId(self.request), 0);
            self.send(Kind::Tail, &[question], all).await;
        }
        for entries in reports.chunks(MAX_ENTRIES) {
            self.send(Kind::Report, entries, all).await;
        }
    }

    async fn send<T: Fixed>(&mut self, kind: Kind, entries: &[T], all: bool) {
        let mut buffer = [0; MAX_DATAGRAM_BYTES];
        let header = Header::request(kind, self.shared.log.id(), self.client, entries.len());
        if let Ok(len) = datagram::write(header, entries, &mut buffer)
            && let Some(datagram) = buffer.get_mut(..len)
        {
            if let Some(signer) = &mut self.signer {
                signer.sign(datagram);
            }
            let places = self.sockets.iter().enumerate();
            let current = self.reigning.current();
            for (_, socket) in places.filter(|(at, _)| all || *at == current) {
                // A report that is lost is followed by another.
                let _ = socket.send(datagram).await;
            }
        }
    }

    /// Tells, once, that the sequencer does not answer.
    fn watch_silence(&mut self, now: Duration) {
        if self.quiet || now.saturating_sub(self.heard_at) < SILENCE_TOLD {
            return;
        }
        self.quiet = true;
        self.shared.metrics.unheard(true);
        let key = match self.signer {
            Some(_) => "this process has a key: it may be another than the sequencer's",
            None => "this process has no key: a sequencer that has one does not answer",
        };
        tracing::warn!(wrong = self.wrong, key, "no answer from the sequencer");
    }

    /// Whether an answer is by somebody who has the key.
    fn authentic(&mut self, bytes: &[u8]) -> bool {
        let right = self.signer.as_mut().is_none_or(|s| s.verify(bytes));
        if !right {
            self.wrong += 1;
            self.shared.metrics.wrong_mac();
            // Seldom, since anybody can cause them.
            if self.wrong.is_power_of_two() {
                tracing::error!(count = self.wrong, "answers fail the key check");
            }
        }
        right
    }

    fn heard(&mut self, from: usize, bytes: &[u8]) {
        if !self.authentic(bytes) {
            return;
        }
        let Ok(datagram) = Datagram::parse(bytes, self.shared.log.id()) else {
            return;
        };
        let header = datagram.header;
        let asked = matches!(datagram.kind, Kind::Report | Kind::Tail);
        if !header.is_reply() || !asked || header.client != self.client {
            return;
        }
        let now = store::now();
        let replies = datagram.entries::<Reply>().filter_map(Result::ok);
        let replies: Vec<_> = replies
            .filter_map(|reply| Some((reply.status().ok()?, reply.first)))
            .collect();
        let Some((status, _)) = replies.first() else {
            return;
        };
        match self.reigning.heard(from, header.epoch, *status, now) {
            Heard::Former => return,
            // It knows nothing of the frontiers yet.
            Heard::Reigns { new: true } => self.reported.clear(),
            Heard::Reigns { new: false } => {}
            Heard::Not if self.sockets.len() > 1 => return,
            Heard::Not => {}
        }
        self.unanswered = None;
        self.heard_at = now;
        if std::mem::take(&mut self.quiet) {
            self.shared.metrics.unheard(false);
        }
        let told = replies.iter().filter(|(status, _)| *status == Status::Ok);
        if let Some(tail) = told.map(|(_, first)| *first).max() {
            self.clock.told(tail, now);
            self.shared.metrics.issued_tail(tail);
        }
    }
}

/// A socket that speaks with one address only.
async fn connected(address: SocketAddr) -> std::io::Result<UdpSocket> {
    let any: SocketAddr = match address {
        SocketAddr::V4(_) => ([0, 0, 0, 0], 0).into(),
        SocketAddr::V6(_) => ([0_u16; 8], 0).into(),
    };
    let socket = UdpSocket::bind(any).await?;
    socket.connect(address).await?;
    Ok(socket)
}

/// Waits for the first socket that has something to read, or an error.
async fn readable(sockets: &[UdpSocket]) -> (usize, std::io::Result<()>) {
    if sockets.is_empty() {
        return std::future::pending().await;
    }
    let (ready, from, _) = select_all(sockets.iter().map(|s| Box::pin(s.readable()))).await;
    (from, ready)
}
