//! One append call, shared by the caller who waits and the tasks that work for it, and the queue of
//! records that wait for a token.
//!
//! Both are bounded by the permits that a call holds from before it is queued until its last record is
//! out of memory.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use tokio::sync::{Notify, OwnedSemaphorePermit, oneshot};
use wire::Position;

use crate::logic::outcome::Outcome;
use crate::patience::{self, Sign};
use crate::{Error, Result};

/// What the caller waits for.
pub(crate) type Answer = oneshot::Receiver<Result<Vec<Position>>>;

/// One append call.
#[derive(Debug)]
pub(crate) struct Call {
    state: Mutex<State>,
    _memory: OwnedSemaphorePermit,
}

#[derive(Debug)]
struct State {
    outcome: Outcome,
    /// Gone once the caller has an answer, or does not wait any more.
    caller: Option<oneshot::Sender<Result<Vec<Position>>>>,
    /// Records without a token.
    unplaced: usize,
    /// Those of them that had one.
    displaced: usize,
    /// Signs of the connections that have had records of the call.
    at: Vec<Arc<Sign>>,
    /// When records of the call last got on.
    own: Duration,
}

impl Call {
    pub(crate) fn new(
        records: usize,
        memory: OwnedSemaphorePermit,
        now: Duration,
    ) -> (Arc<Self>, Answer) {
        let (caller, answer) = oneshot::channel();
        let state = State {
            outcome: Outcome::new(records),
            caller: Some(caller),
            unplaced: records,
            displaced: 0,
            at: Vec::new(),
            own: now,
        };
        let call = Self {
            state: Mutex::new(state),
            _memory: memory,
        };
        (Arc::new(call), answer)
    }

    /// Whether somebody still waits: records of a call that is not open are not sent any more.
    pub(crate) fn is_open(&self) -> bool {
        self.lock().caller.is_some()
    }

    /// Records have a token and wait at a connection, whose sign this is.
    pub(crate) fn placed(&self, count: u32, at: &Arc<Sign>, now: Duration) {
        let mut state = self.lock();
        let count = count as usize;
        state.unplaced = state.unplaced.saturating_sub(count);
        // Records that lose their positions again and again get on no further.
        if state.displaced < count {
            state.own = state.own.max(now);
        }
        state.displaced = state.displaced.saturating_sub(count);
        state.moved(at);
    }

    /// Records wait at another connection now.
    pub(crate) fn moved(&self, at: &Arc<Sign>) {
        self.lock().moved(at);
    }

    /// Records need another token.
    pub(crate) fn displaced(&self, count: u32) {
        let mut state = self.lock();
        state.unplaced = state.unplaced.saturating_add(count as usize);
        state.displaced = state.displaced.saturating_add(count as usize);
    }

    /// Whether all of its records have tokens.
    pub(crate) fn is_placed(&self) -> bool {
        self.lock().unplaced == 0
    }

    /// When the caller has waited long enough, as things stand; `general` is the sign of whatever gets on.
    pub(crate) fn patience(&self, general: &Sign, timeout: Duration) -> Duration {
        let state = self.lock();
        let signs = state.at.iter().map(|sign| sign.last());
        let general = (state.unplaced > 0).then(|| general.last());
        let others = signs.chain(general).max().unwrap_or_default();
        patience::end(state.own, others, timeout)
    }

    /// Records are about to go out. Returns whether they may: a caller who gave up before this moment
    /// was told that they did not.
    pub(crate) fn claim(&self, count: u32) -> bool {
        let mut state = self.lock();
        let may = state.caller.is_some();
        if may {
            state.outcome.sent(count as usize);
        }
        may
    }

    /// Records that went out are known to have been refused.
    pub(crate) fn answered(&self, count: u32) {
        self.lock().outcome.answered(count as usize);
    }

    /// Records from `first` on that went out are durable at these positions. One step: a caller who gave up
    /// between two would be told that nothing is under way and nothing in the log.
    pub(crate) fn commit(&self, first: usize, positions: &[Position], now: Duration) {
        let mut state = self.lock();
        state.own = state.own.max(now);
        state.outcome.answered(positions.len());
        for (record, position) in (first..).zip(positions) {
            state.outcome.commit(record, *position);
        }
        if let Some(all) = state.outcome.complete()
            && let Some(caller) = state.caller.take()
        {
            // The caller may have gone in this very moment.
            let _ = caller.send(Ok(all));
        }
    }

    /// Ends the call with an error. `error` is told whether certainly no record is in the log.
    pub(crate) fn fail(&self, error: impl FnOnce(bool) -> Error) {
        let mut state = self.lock();
        let definite = state.outcome.nothing_written();
        if let Some(caller) = state.caller.take() {
            let _ = caller.send(Err(error(definite)));
        }
    }

    /// The caller does not wait any more. Returns whether certainly no record is in the log.
    pub(crate) fn close(&self) -> bool {
        let mut state = self.lock();
        state.caller = None;
        state.outcome.nothing_written()
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    fn moved(&mut self, at: &Arc<Sign>) {
        if !self.at.iter().any(|sign| Arc::ptr_eq(sign, at)) {
            self.at.push(Arc::clone(at));
        }
    }
}

/// Records of one call that need positions, `first` being the index of the first of them in the call.
#[derive(Debug)]
pub(crate) struct Piece {
    pub(crate) call: Arc<Call>,
    pub(crate) first: usize,
    pub(crate) records: Vec<Bytes>,
}

/// Records that wait for a token.
#[derive(Debug, Default)]
pub(crate) struct Queue {
    pieces: Mutex<VecDeque<Piece>>,
    arrived: Notify,
}

impl Queue {
    pub(crate) fn push(&self, piece: Piece) {
        self.lock().push_back(piece);
        self.arrived.notify_one();
    }

    /// Queues records that lost their positions, before all others: they have waited longest.
    pub(crate) fn push_again(&self, piece: Piece) {
        self.lock().push_front(piece);
        self.arrived.notify_one();
    }

    /// Waits for records and takes up to `limit` of them, in order, what is in `rest` before all others: no
    /// further piece once they have so many bytes. What does not fit of a piece becomes the `rest`. Pieces
    /// of calls that are not open are dropped.
    pub(crate) async fn take(&self, limit: (usize, usize), rest: &mut Option<Piece>) -> Vec<Piece> {
        loop {
            let batch = self.take_now(limit, rest);
            if !batch.is_empty() {
                return batch;
            }
            self.arrived.notified().await;
        }
    }

    fn take_now(&self, (limit, bytes): (usize, usize), rest: &mut Option<Piece>) -> Vec<Piece> {
        let mut pieces = self.lock();
        let (mut batch, mut room, mut taken) = (Vec::new(), limit, 0);
        while room > 0 && taken < bytes {
            let Some(mut piece) = rest.take().or_else(|| pieces.pop_front()) else {
                break;
            };
            if !piece.call.is_open() {
                continue;
            }
            if piece.records.len() > room {
                let records = piece.records.split_off(room);
                *rest = Some(Piece {
                    call: piece.call.clone(),
                    first: piece.first + room,
                    records,
                });
            }
            room -= piece.records.len();
            taken += piece.records.iter().map(Bytes::len).sum::<usize>();
            batch.push(piece);
        }
        batch
    }

    fn lock(&self) -> MutexGuard<'_, VecDeque<Piece>> {
        self.pieces.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use tokio::sync::Semaphore;

    use super::*;

    async fn call(records: usize) -> (Arc<Call>, Answer) {
        let memory = Arc::new(Semaphore::new(1));
        Call::new(
            records,
            memory.acquire_owned().await.expect("open"),
            Duration::ZERO,
        )
    }

    fn piece(call: &Arc<Call>, count: usize) -> Piece {
        Piece {
            call: call.clone(),
            first: 0,
            records: (0..count).map(|i| i.to_string().into()).collect(),
        }
    }

    #[tokio::test]
    async fn takes_in_order_and_splits_at_the_limit() {
        let (queue, (call, _answer)) = (Queue::default(), call(5).await);
        queue.push(piece(&call, 3));
        queue.push(piece(&call, 2));
        let mut left = None;
        let first = queue.take((4, 100), &mut left).await;
        let taken: Vec<_> = first.iter().map(|p| (p.first, p.records.len())).collect();
        assert_eq!(taken, [(0, 3), (0, 1)]);
        let rest = queue.take((4, 100), &mut left).await;
        assert_eq!((rest[0].first, &rest[0].records[0][..]), (1, &b"1"[..]));
    }

    #[tokio::test]
    async fn takes_no_further_piece_at_the_bound_on_bytes() {
        let (queue, (call, _answer)) = (Queue::default(), call(5).await);
        for _ in 0..3 {
            queue.push(piece(&call, 2));
        }
        for pieces in [2, 1] {
            assert_eq!(queue.take((100, 3), &mut None).await.len(), pieces);
        }
    }

    #[tokio::test]
    async fn drops_what_nobody_waits_for() {
        let (queue, (gone, _a), (open, _b)) = (Queue::default(), call(1).await, call(1).await);
        queue.push(piece(&gone, 1));
        queue.push(piece(&open, 1));
        assert!(gone.close());
        assert_eq!(queue.take((9, 100), &mut None).await.len(), 1);
    }

    #[tokio::test]
    async fn a_call_that_lost_its_caller_may_not_send() {
        let (call, _answer) = call(1).await;
        assert!(call.claim(1));
        assert!(!call.close());
        assert!(!call.claim(1));
    }

    #[tokio::test]
    async fn a_caller_waits_for_what_its_records_wait_for() {
        let s = Duration::from_secs;
        let (call, _answer) = call(2).await;
        let [general, here, there] = [(); 3].map(|()| Arc::new(Sign::default()));
        general.seen(s(9));
        here.seen(s(7));
        let end = || call.patience(&general, s(30));
        assert_eq!(end(), s(39), "no token yet: whatever gets on");
        call.placed(1, &here, s(1));
        assert_eq!(end(), s(39));
        call.placed(1, &here, s(2));
        assert_eq!(end(), s(37), "only the connection");
        there.seen(s(20));
        assert_eq!(end(), s(37));
        call.moved(&there);
        assert_eq!(end(), s(50));
        there.seen(s(1000));
        assert_eq!(end(), s(302), "for so long");
        call.displaced(1);
        call.placed(1, &here, s(40));
        assert_eq!(end(), s(302), "it had one before");
        call.commit(0, &[Position(1)], s(50));
        assert_eq!(end(), s(350));
    }

    #[tokio::test]
    async fn who_gives_up_as_the_last_record_commits_is_not_told_that_none_did() {
        let (call, mut answer) = call(1).await;
        assert!(call.claim(1));
        call.commit(0, &[Position(7)], Duration::ZERO);
        assert!(!call.close());
        let answer = answer.try_recv().expect("answered");
        assert_eq!(answer.expect("committed"), [Position(7)]);
    }
}
