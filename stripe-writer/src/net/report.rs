//! Reports frontiers to the sequencer, and hears the issued tail from it.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use tokio::net::UdpSocket;
use tokio::sync::watch;
use tokio::time::MissedTickBehavior;
use wire::datagram::{
    self, Datagram, Header, Kind, MAX_DATAGRAM_BYTES, MAX_ENTRIES, Reply, Report, Status,
};
use wire::mac::{Key, Signer};
use wire::{ClientId, Position, RequestId, SegmentId};

use crate::limits::{REPORT_HEARTBEAT, REPORT_INTERVAL, SILENCE_TOLD};
use crate::logic::hole::HoleClock;
use crate::shared::Shared;
use crate::store;
use crate::writer::Options;

/// Tells the sequencer how far the stripes are. What it answers makes holes ripen.
#[derive(Debug)]
pub(crate) struct Reporter {
    shared: Arc<Shared>,
    socket: UdpSocket,
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
    /// Whether it has been told that there are no answers.
    quiet: bool,
}

impl Reporter {
    /// A reporter to the sequencer that the options name.
    ///
    /// # Errors
    /// What the system says about the socket.
    pub(crate) async fn new(
        shared: Arc<Shared>,
        options: &Options,
        client: ClientId,
        ripe: watch::Sender<Position>,
    ) -> std::io::Result<Self> {
        let address = options.sequencer;
        let any: SocketAddr = match address {
            SocketAddr::V4(_) => ([0, 0, 0, 0], 0).into(),
            SocketAddr::V6(_) => ([0_u16; 8], 0).into(),
        };
        let socket = UdpSocket::bind(any).await?;
        socket.connect(address).await?;
        Ok(Self {
            shared,
            socket,
            client,
            clock: HoleClock::new(options.hole_timeout),
            ripe,
            reported: Vec::new(),
            reported_at: Duration::ZERO,
            request: 0,
            signer: options.key.as_ref().map(Key::signer),
            wrong: 0,
            heard_at: store::now(),
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
                received = self.socket.recv(&mut buffer) => match received {
                    Ok(len) => self.heard(buffer.get(..len).unwrap_or(&[])),
                    // The sequencer is down; its port answers so. The next tick tries again.
                    Err(_) => tokio::time::sleep(REPORT_INTERVAL).await,
                },
            }
        }
    }

    async fn tick(&mut self) {
        let now = store::now();
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
        let served = self.shared.served();
        let frontiers = served.newest().map(|stripe| {
            let segment = stripe.chain.id().segment;
            (segment, stripe.frontier_position())
        });
        let frontiers: Vec<_> = frontiers.collect();
        let rested = now.saturating_sub(self.reported_at) >= REPORT_HEARTBEAT;
        if rested || frontiers != self.reported {
            self.report().await;
            self.reported = frontiers;
            self.reported_at = now;
        }
    }

    async fn report(&mut self) {
        let mut reports = Vec::new();
        for handle in self.shared.served().newest() {
            let id = handle.chain.id();
            self.request += 1;
            let request = RequestId(self.request);
            let frontier = handle.frontier_position();
            reports.push(Report::new(request, id.segment, id.stripe, frontier));
        }
        let mut buffer = [0; MAX_DATAGRAM_BYTES];
        for entries in reports.chunks(MAX_ENTRIES) {
            let header = Header::request(
                Kind::Report,
                self.shared.log_id(),
                self.client,
                entries.len(),
            );
            if let Ok(len) = datagram::write(header, entries, &mut buffer)
                && let Some(datagram) = buffer.get_mut(..len)
            {
                if let Some(signer) = &mut self.signer {
                    signer.sign(datagram);
                }
                // A report that is lost is followed by another.
                let _ = self.socket.send(datagram).await;
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

    fn heard(&mut self, bytes: &[u8]) {
        if !self.authentic(bytes) {
            return;
        }
        let Ok(datagram) = Datagram::parse(bytes, self.shared.log_id()) else {
            return;
        };
        let header = datagram.header;
        if !header.is_reply() || datagram.kind != Kind::Report || header.client != self.client {
            return;
        }
        self.heard_at = store::now();
        if std::mem::take(&mut self.quiet) {
            self.shared.metrics.unheard(false);
        }
        let replies = datagram.entries::<Reply>().filter_map(Result::ok);
        let told = replies.filter(|reply| reply.status() == Ok(Status::Ok));
        if let Some(tail) = told.map(|reply| reply.first).max() {
            self.clock.told(tail, store::now());
            self.shared.metrics.issued_tail(tail);
        }
    }
}
