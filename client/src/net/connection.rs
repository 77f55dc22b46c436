//! The connection to one stripe-writer: frames out, acks in, for as long as the log is open.
//!
//! One task owns the connection. It connects when there is a frame, pipelines frames, and after a loss
//! connects again and resends what is unanswered, in order.

use std::net::SocketAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncWrite, AsyncWriteExt, BufReader, BufWriter};
use tokio::sync::Notify;
use tokio::time::{sleep, timeout};
use wire::frame::{Ack, AckStatus, Frame};

use crate::call::{Call, Piece};
use crate::limits::{BACKOFF, PROBE_AFTER, PROBE_TIMEOUT, SILENCE_MAX, UNSENT_BYTES, WRITE_BYTES};
use crate::logic::backoff::Backoff;
use crate::logic::flight::{Answer, AppendFrame, Entry, Flight};
use crate::net::frames::{self, Lost};
use crate::net::jitter;
use crate::patience::Sign;
use crate::shared::Shared;
use crate::{Error, Position};

/// The frames for one stripe-writer, and the word that there are some.
#[derive(Debug)]
pub(crate) struct Outgoing {
    address: SocketAddr,
    flight: Mutex<Flight<Arc<Call>>>,
    changed: Notify,
    /// That the writer is full or slow, and gets on.
    sign: Arc<Sign>,
}

impl Outgoing {
    pub(crate) fn new(address: SocketAddr) -> Self {
        Self {
            address,
            flight: Mutex::new(Flight::new()),
            changed: Notify::new(),
            sign: Arc::default(),
        }
    }

    pub(crate) fn push(
        &self,
        frames: impl IntoIterator<Item = AppendFrame<Arc<Call>>>,
        now: Duration,
    ) {
        let mut flight = self.flight();
        for frame in frames {
            for share in &frame.shares {
                share.owner.placed(share.count, &self.sign, now);
            }
            flight.push(frame);
        }
        drop(flight);
        self.changed.notify_one();
    }

    /// Whether so much waits to be sent that nothing more is to be granted.
    pub(crate) fn is_full(&self) -> bool {
        self.flight().unsent_bytes() > UNSENT_BYTES
    }

    /// Whether nothing waits to be sent, or to be answered.
    pub(crate) fn is_idle(&self) -> bool {
        self.flight().is_empty()
    }

    /// Serves the connection, for ever.
    pub(crate) async fn run(&self, shared: &Shared) {
        let mut pauses = Backoff::new(BACKOFF);
        let mut failures = 0;
        loop {
            while self.flight().is_empty() {
                self.changed.notified().await;
            }
            let lost = match frames::connect(self.address, shared.id(), shared.client).await {
                Ok((stream, welcome)) => {
                    failures = 0;
                    shared.counters.connections.add(1);
                    tracing::debug!(writer = %welcome.writer, address = %self.address, "connected");
                    self.flight().reconnected();
                    let (read, write) = stream.into_split();
                    let (read, write) = (
                        BufReader::with_capacity(WRITE_BYTES, read),
                        BufWriter::with_capacity(WRITE_BYTES, write),
                    );
                    let mut answered = false;
                    let ended = tokio::select! {
                        ended = self.receive(shared, read, &mut answered) => ended,
                        ended = self.send(shared, write) => ended,
                    };
                    if answered {
                        pauses.reset();
                    }
                    ended
                }
                Err(lost) => {
                    failures += 1;
                    Err(lost)
                }
            };
            if let Err(lost) = lost {
                self.lost(shared, &lost);
                // Who takes a connection and says nothing is not about to come back.
                if matches!(lost, Lost::Silent) {
                    failures = FAILURES;
                }
            }
            if failures >= FAILURES {
                shared.routes.forget(self.address);
            }
            let pause = pauses.pause(jitter());
            if failures < FAILURES || !shared.routes.has_other(self.address) {
                sleep(pause).await;
                continue;
            }
            // It may be dead, and another has its stripes by now. If none has, they come back.
            let away = async {
                loop {
                    let frames = self.flight().take_all();
                    self.send_away(shared, frames);
                    self.changed.notified().await;
                }
            };
            let _ = timeout(pause.min(LOOK_AGAIN), away).await;
        }
    }

    fn lost(&self, shared: &Shared, lost: &Lost) {
        let address = self.address;
        shared.problem(format!("stripe-writer {address}: {lost}"));
        if lost.is_final() && shared.routes.forget(self.address) {
            // Whose address it is now says nothing about this log.
            let frames = self.flight().take_all();
            self.send_away(shared, frames);
        } else if lost.is_final() {
            let drained = self.flight().drain();
            for answer in drained {
                fail(&answer, &lost.to_string());
            }
            shared.room.notify_waiters();
        }
    }

    async fn send<W: AsyncWrite + Unpin>(
        &self,
        shared: &Shared,
        mut to: BufWriter<W>,
    ) -> Result<(), Lost> {
        loop {
            let (next, due) = {
                let mut flight = self.flight();
                flight.wake(shared.elapsed());
                let was_full = flight.unsent_bytes() > UNSENT_BYTES;
                let next = flight.next_to_send(|share| share.owner.claim(share.count));
                if was_full && flight.unsent_bytes() <= UNSENT_BYTES {
                    shared.room.notify_waiters();
                }
                (next, flight.next_due())
            };
            let Some((head, body)) = next else {
                to.flush().await?;
                let pause = due.map_or(SILENCE_MAX, |due| due.saturating_sub(shared.elapsed()));
                // Whichever comes first, the loop looks again.
                let _ = timeout(pause, self.changed.notified()).await;
                continue;
            };
            shared.counters.frames_sent.add(1);
            let head = Frame::Append(head).encode(body.len())?;
            to.write_all(&head).await?;
            frames::write_slices(&mut to, &mut body.slices()).await?;
        }
    }

    async fn receive<R: AsyncRead + Unpin>(
        &self,
        shared: &Shared,
        mut from: R,
        answered: &mut bool,
    ) -> Result<(), Lost> {
        loop {
            let (frame, _) = self.awaited(shared, frames::read(&mut from)).await?;
            let Frame::Ack(ack) = frame else {
                return Err(Lost::Unexpected);
            };
            *answered = true;
            self.accept(shared, &ack)?;
        }
    }

    /// Waits for a frame as long as the writer owes none, or seems to be alive.
    async fn awaited<T>(
        &self,
        shared: &Shared,
        frame: impl Future<Output = Result<T, Lost>>,
    ) -> Result<T, Lost> {
        tokio::pin!(frame);
        let mut silence = Duration::ZERO;
        loop {
            if let Ok(frame) = timeout(PROBE_AFTER, &mut frame).await {
                return frame;
            }
            if !self.flight().is_owed() {
                silence = Duration::ZERO;
                continue;
            }
            silence += PROBE_AFTER;
            if silence >= SILENCE_MAX {
                return Err(Lost::Silent);
            }
            // A slow store is no reason to leave a writer for another; that it is gone is, if there is one.
            if shared.routes.has_other(self.address) {
                tokio::select! {
                    frame = &mut frame => return frame,
                    gone = self.is_gone(shared) => if gone {
                        return Err(Lost::Silent);
                    }
                }
            }
        }
    }

    /// Whether nobody answers a new connection to the writer.
    async fn is_gone(&self, shared: &Shared) -> bool {
        let asked = frames::connect(self.address, shared.id(), shared.client);
        !matches!(timeout(PROBE_TIMEOUT, asked).await, Ok(Ok(_)))
    }

    fn accept(&self, shared: &Shared, ack: &Ack) -> Result<(), Lost> {
        let status = ack.status()?;
        let now = shared.elapsed();
        if !matches!(status, AckStatus::NotOwner | AckStatus::Unheard) {
            shared.sign.seen(now);
        }
        if matches!(status, AckStatus::Busy | AckStatus::Waiting) {
            self.sign.seen(now);
        }
        let outcome = match status {
            AckStatus::Waiting | AckStatus::Unheard => {
                let address = self.address;
                let why = if status == AckStatus::Waiting {
                    FULL
                } else {
                    UNHEARD
                };
                shared.problem(format!("stripe-writer {address}: {why}"));
                return Ok(());
            }
            AckStatus::NotOwner | AckStatus::Busy => {
                self.put_off(shared, ack, status);
                return Ok(());
            }
            outcome => outcome,
        };
        if outcome == AckStatus::Committed {
            shared.routes.served(ack.place.stripe, self.address);
        }
        let answers = self.flight().settle(ack);
        // An answer to a copy sent earlier may take out what waits to be sent again.
        shared.room.notify_waiters();
        for answer in answers {
            if outcome == AckStatus::Sealed {
                // [H-3] A later reign has begun: whoever still grants for this one grants nothing of use.
                shared.sequencer.is_over(answer.epoch);
            }
            let share = &answer.share;
            if outcome == AckStatus::Committed {
                share.owner.commit(share.first, &answer.positions, now);
                continue;
            }
            share.owner.answered(share.count);
            match outcome {
                AckStatus::Junk | AckStatus::Sealed => again(shared, &answer),
                _ => fail(&answer, &format!("{outcome:?}").to_lowercase()),
            }
        }
        Ok(())
    }

    fn put_off(&self, shared: &Shared, ack: &Ack, status: AckStatus) {
        let address = self.address;
        shared.problem(format!("stripe-writer {address}: {status:?}"));
        shared.counters.frames_put_off.add(1);
        let now = shared.elapsed();
        if status == AckStatus::NotOwner
            && shared.routes.leave(ack.place.stripe, address, now) != address
        {
            let frames = self.flight().take(ack);
            self.send_away(shared, frames);
            return;
        }
        let until = self.flight().pause(ack.place.stripe, now, jitter());
        if status == AckStatus::Busy {
            // The pause is by the writer's word.
            self.sign.seen(until);
            shared.sign.seen(until);
        }
        let busy = status == AckStatus::Busy;
        for share in self.flight().put_off(ack, until, busy) {
            share.owner.answered(share.count);
        }
        self.changed.notify_one();
    }

    /// Gives frames to the connections of the writers that are to be asked now, after a pause.
    fn send_away(&self, shared: &Shared, frames: Vec<Entry<Arc<Call>>>) {
        let writers = shared.writers.read();
        let now = shared.elapsed();
        for frame in frames {
            let owner = shared.routes.leave(frame.stripe(), self.address, now);
            let until = now + shared.routes.pause(frame.stripe());
            let connection = writers.get(&owner).map_or(self, |connection| &**connection);
            for share in frame.shares() {
                share.owner.moved(&connection.sign);
            }
            connection.flight().give(frame, until);
            connection.changed.notify_one();
        }
        shared.room.notify_waiters();
    }

    fn flight(&self) -> MutexGuard<'_, Flight<Arc<Call>>> {
        self.flight.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Queues records that lost their positions for a new token.
fn again(shared: &Shared, answer: &Answer<Arc<Call>>) {
    let share = &answer.share;
    shared
        .counters
        .records_reappended
        .add(u64::from(share.count));
    share.owner.displaced(share.count);
    let (skip, take) = (answer.offsets.start as usize, answer.offsets.len());
    let records = answer.body.records().into_iter();
    let records = records.skip(skip).take(take).collect();
    shared.queue.push_again(Piece {
        call: share.owner.clone(),
        first: share.first,
        records,
    });
}

fn fail(answer: &Answer<Arc<Call>>, reason: &str) {
    let position = answer.positions.first().copied().unwrap_or(Position(0));
    answer.share.owner.fail(|definite| Error::Refused {
        position,
        reason: reason.to_owned(),
        definite,
    });
}

/// What a writer that answers nothing else says.
const FULL: &str = "it has more than the store takes at once";
const UNHEARD: &str =
    "the sequencer does not answer it, so that it fills no holes: their keys may differ";

/// Longest pause between two looks whether a writer is there that cannot be reached.
const LOOK_AGAIN: Duration = Duration::from_millis(200);

/// Connections that fail one after the other before a writer's stripes are looked for elsewhere.
const FAILURES: u32 = 2;
