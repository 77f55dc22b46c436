//! The append frames of one connection, from the moment they are made until all their slots are
//! answered.
//!
//! Invariants: a frame is sent in the order in which it came, and after a reconnect again in that order.
//! Each slot is answered once, by the first answer that comes. A frame leaves when its last slot is
//! answered. What is sent again is the same frame with the same identity, which makes it idempotent (H-2).

use std::collections::{BTreeMap, BTreeSet};
use std::ops::Range;
use std::time::Duration;

use wire::frame::{Ack, Append, Place};
use wire::{Epoch, Identity, Position, RunParts, Segment, SegmentId, Slot, StripeId};

use crate::logic::pauses::Pauses;
use crate::logic::ranges::Ranges;

/// Records `first..first + count` of one call, in slots that follow one another.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Share<T> {
    pub owner: T,
    pub first: usize,
    pub count: u32,
}

/// One append frame.
#[derive(Debug)]
pub struct AppendFrame<T> {
    pub segment: Segment,
    pub stripe: StripeId,
    pub first: Slot,
    pub epoch: Epoch,
    pub identity: Identity,
    pub body: RunParts,
    /// Whose records these are, in the order of slots.
    pub shares: Vec<Share<T>>,
}

impl<T> Entry<T> {
    pub fn stripe(&self) -> StripeId {
        self.frame.stripe
    }

    /// Whose records it has, answered or not.
    pub fn shares(&self) -> &[Share<T>] {
        &self.frame.shares
    }
}

impl<T> AppendFrame<T> {
    /// The head that sends the frame.
    pub fn head(&self) -> Append {
        Append {
            place: Place {
                segment: self.segment.id,
                stripe: self.stripe,
                first: self.first,
            },
            epoch: self.epoch,
            identity: self.identity,
            count: self.body.count(),
            crc: self.body.crc(),
        }
    }

    fn position(&self, offset: u32) -> Position {
        let slot = self.first.plus(u64::from(offset));
        self.segment.layout.position(self.stripe, slot)
    }
}

/// A frame and what is known of it.
#[derive(Debug)]
pub struct Entry<T> {
    frame: AppendFrame<T>,
    answered: Ranges,
    sends: u32,
    /// Whether its shares were counted as sent.
    claimed: bool,
    /// When it is tried again, if it was put off.
    put_off: Option<Duration>,
}

/// Records of one call that an answer speaks of for the first time.
#[derive(Debug)]
pub struct Answer<T> {
    pub share: Share<T>,
    /// Epoch of the token that they went out under.
    pub epoch: Epoch,
    /// Their positions, in order.
    pub positions: Vec<Position>,
    /// The frame's body, and where in it the records are.
    pub body: RunParts,
    pub offsets: Range<u32>,
}

/// All unanswered frames of a connection. Its size is bounded by what appends may hold together.
#[derive(Debug)]
pub struct Flight<T> {
    next: u64,
    frames: BTreeMap<u64, Entry<T>>,
    places: BTreeMap<(SegmentId, StripeId, Slot), u64>,
    to_send: BTreeSet<u64>,
    /// Frames that a server put off, by the time at which they are tried again.
    put_off: BTreeSet<(Duration, u64)>,
    /// Bytes of the bodies of both.
    unsent_bytes: usize,
    pauses: Pauses,
}

impl<T: Clone> Default for Flight<T> {
    fn default() -> Self {
        Self::new()
    }
}

impl<T: Clone> Flight<T> {
    pub fn new() -> Self {
        Self {
            next: 0,
            frames: BTreeMap::new(),
            places: BTreeMap::new(),
            to_send: BTreeSet::new(),
            put_off: BTreeSet::new(),
            unsent_bytes: 0,
            pauses: Pauses::default(),
        }
    }

    /// Adds a frame behind all others.
    pub fn push(&mut self, frame: AppendFrame<T>) {
        self.add(frame, false);
    }

    fn add(&mut self, frame: AppendFrame<T>, claimed: bool) {
        let number = self.next;
        self.next += 1;
        let place = (frame.segment.id, frame.stripe, frame.first);
        self.places.insert(place, number);
        let entry = Entry {
            frame,
            answered: Ranges::default(),
            sends: 0,
            claimed,
            put_off: None,
        };
        self.frames.insert(number, entry);
        self.queue(number);
    }

    /// Bytes of all frames that have to be sent, now or when their time has come.
    pub fn unsent_bytes(&self) -> usize {
        self.unsent_bytes
    }

    /// Queues a frame that is not queued and not put off.
    fn queue(&mut self, number: u64) {
        if let Some(entry) = self.frames.get(&number)
            && self.to_send.insert(number)
        {
            self.unsent_bytes += entry.frame.body.len();
        }
    }

    /// Puts off a frame that is not put off.
    fn queue_later(&mut self, number: u64, until: Duration) {
        if let Some(entry) = self.frames.get_mut(&number) {
            entry.put_off = Some(until);
            self.put_off.insert((until, number));
            self.unsent_bytes += entry.frame.body.len();
        }
    }

    /// Whether every frame is answered.
    pub fn is_empty(&self) -> bool {
        self.frames.is_empty()
    }

    /// Whether a frame waits for its answer, rather than for its turn.
    pub fn is_owed(&self) -> bool {
        self.frames.len() > self.to_send.len() + self.put_off.len()
    }

    /// Takes the next frame that has to be sent. `claim` is asked for each share of a frame that the
    /// server has not got before, whether it may go; shares that may not are left out.
    pub fn next_to_send(
        &mut self,
        mut claim: impl FnMut(&Share<T>) -> bool,
    ) -> Option<(Append, RunParts)> {
        loop {
            let number = self.to_send.pop_first()?;
            let Some(entry) = self.frames.get_mut(&number) else {
                continue;
            };
            self.unsent_bytes -= entry.frame.body.len();
            if let Some(until) = self.pauses.until(entry.frame.stripe) {
                self.queue_later(number, until);
                continue;
            }
            if !entry.claimed {
                let kept: Vec<bool> = entry.frame.shares.iter().map(&mut claim).collect();
                if kept.contains(&false) {
                    self.leave_out(number, &kept);
                    continue;
                }
                entry.claimed = true;
            }
            entry.sends += 1;
            return Some((entry.frame.head(), entry.frame.body.clone()));
        }
    }

    /// Replaces a frame by smaller ones with those of its shares that are kept. The slots between them
    /// become holes.
    fn leave_out(&mut self, number: u64, kept: &[bool]) {
        let Some(Entry { frame, .. }) = self.remove(number) else {
            return;
        };
        let records = frame.body.records();
        let mut at = 0_u32;
        for (share, kept) in frame.shares.iter().zip(kept) {
            let range = at as usize..(at + share.count) as usize;
            let body = RunParts::new(records.get(range).unwrap_or(&[]).to_vec());
            if let (true, Ok(body)) = (*kept, body) {
                let smaller = AppendFrame {
                    first: frame.first.plus(u64::from(at)),
                    body,
                    shares: vec![share.clone()],
                    ..frame
                };
                self.add(smaller, true);
            }
            at += share.count;
        }
    }

    /// The connection is a new one: all that is unanswered has to be sent again.
    pub fn reconnected(&mut self) {
        self.put_off.clear();
        self.pauses.clear();
        for entry in self.frames.values_mut() {
            entry.put_off = None;
        }
        self.to_send = self.frames.keys().copied().collect();
        let bodies = self.frames.values().map(|entry| entry.frame.body.len());
        self.unsent_bytes = bodies.sum();
    }

    /// Records an answer that is final: the records that it answers for the first time, per call.
    pub fn settle(&mut self, ack: &Ack) -> Vec<Answer<T>> {
        let mut answers = Vec::new();
        self.pauses.gets_on(ack.place.stripe);
        for (number, offsets) in self.hit(ack) {
            let Some(entry) = self.frames.get_mut(&number) else {
                continue;
            };
            for fresh in entry.answered.insert(offsets) {
                answers.extend(shares_in(&entry.frame, &fresh));
            }
            if entry.answered.covers(entry.frame.body.count()) {
                self.remove(number);
            }
        }
        answers
    }

    /// A server puts frames of a stripe off: all of them wait. Returns until when.
    pub fn pause(&mut self, stripe: StripeId, now: Duration, chance: f64) -> Duration {
        self.pauses.begin(stripe, now, chance)
    }

    /// Records an answer that puts records off: their frames are sent again at `until`. Returns the
    /// shares that this server is now known not to have, if it `wrote_nothing`.
    pub fn put_off(&mut self, ack: &Ack, until: Duration, wrote_nothing: bool) -> Vec<Share<T>> {
        let mut unsent = Vec::new();
        for (number, offsets) in self.hit(ack) {
            let Some(entry) = self.frames.get_mut(&number) else {
                continue;
            };
            if entry.put_off.is_some() || self.to_send.contains(&number) {
                continue;
            }
            let whole = offsets == (0..entry.frame.body.count());
            // An earlier copy of the frame may have arrived, whatever became of this one.
            if wrote_nothing && whole && entry.sends == 1 && entry.answered.is_empty() {
                (entry.sends, entry.claimed) = (0, false);
                unsent.extend(entry.frame.shares.iter().cloned());
            }
            self.queue_later(number, until);
        }
        unsent
    }

    /// Takes out the frames that an answer speaks of, for another connection.
    pub fn take(&mut self, ack: &Ack) -> Vec<Entry<T>> {
        let hits = self.hit(ack);
        hits.iter()
            .filter_map(|(number, _)| self.remove(*number))
            .collect()
    }

    /// Takes out all frames, for other connections.
    pub fn take_all(&mut self) -> Vec<Entry<T>> {
        let numbers: Vec<u64> = self.frames.keys().copied().collect();
        numbers
            .iter()
            .filter_map(|number| self.remove(*number))
            .collect()
    }

    /// Adds a frame that was taken out of another flight. It is sent at `until`; an earlier copy may have
    /// arrived elsewhere.
    pub fn give(&mut self, entry: Entry<T>, until: Duration) {
        let number = self.next;
        self.next += 1;
        let frame = &entry.frame;
        let place = (frame.segment.id, frame.stripe, frame.first);
        self.places.insert(place, number);
        self.frames.insert(number, entry);
        self.queue_later(number, until);
    }

    /// When the next frame that was put off is due.
    pub fn next_due(&self) -> Option<Duration> {
        self.put_off.first().map(|(until, _)| *until)
    }

    /// Queues the frames that are due.
    pub fn wake(&mut self, now: Duration) {
        self.pauses.wake(now);
        while let Some((_, number)) = self.put_off.first().filter(|(until, _)| *until <= now) {
            let number = *number;
            self.resume(number);
            self.queue(number);
        }
    }

    /// Takes a frame out of those that are put off.
    fn resume(&mut self, number: u64) {
        if let Some(entry) = self.frames.get_mut(&number)
            && let Some(until) = entry.put_off.take()
        {
            self.put_off.remove(&(until, number));
            self.unsent_bytes -= entry.frame.body.len();
        }
    }

    /// Takes all frames out, with the shares of each that are not answered, as after [`Self::settle`].
    pub fn drain(&mut self) -> Vec<Answer<T>> {
        let mut answers = Vec::new();
        for entry in self.frames.values_mut() {
            for fresh in entry.answered.insert(0..entry.frame.body.count()) {
                answers.extend(shares_in(&entry.frame, &fresh));
            }
        }
        *self = Self {
            next: self.next,
            ..Self::new()
        };
        answers
    }

    /// The frames that an answer speaks of, and the offsets of each. Answers to frames that are not
    /// ours, or not any more, hit none.
    fn hit(&self, ack: &Ack) -> Vec<(u64, Range<u32>)> {
        let Place {
            segment,
            stripe,
            first,
        } = ack.place;
        let end = first.plus(u64::from(ack.count));
        let lower = self
            .places
            .range(..=(segment, stripe, first))
            .next_back()
            .map_or(first, |(key, _)| key.2);
        let from = (segment, stripe, lower.min(first));
        let places = self.places.range(from..(segment, stripe, end.max(from.2)));
        let mut hits = Vec::new();
        for number in places.map(|(_, number)| *number) {
            let Some(Entry { frame, .. }) = self.frames.get(&number) else {
                continue;
            };
            let count = u64::from(frame.body.count());
            let from = frame.first.until(first).min(count);
            let to = frame.first.until(end).min(count);
            let offsets = (u32::try_from(from), u32::try_from(to));
            if let (true, (Ok(from), Ok(to))) = (frame.identity.request == ack.request, offsets)
                && from < to
            {
                hits.push((number, from..to));
            }
        }
        hits
    }

    fn remove(&mut self, number: u64) -> Option<Entry<T>> {
        self.resume(number);
        let entry = self.frames.remove(&number)?;
        let frame = &entry.frame;
        let place = (frame.segment.id, frame.stripe, frame.first);
        self.places.remove(&place);
        if self.to_send.remove(&number) {
            self.unsent_bytes -= entry.frame.body.len();
        }
        Some(entry)
    }
}

/// The shares of a frame within a range of its offsets.
fn shares_in<T: Clone>(frame: &AppendFrame<T>, range: &Range<u32>) -> Vec<Answer<T>> {
    let mut answers = Vec::new();
    let mut at = 0_u32;
    for share in &frame.shares {
        let behind = at + share.count;
        let (from, to) = (at.max(range.start), behind.min(range.end));
        if from < to {
            answers.push(Answer {
                share: Share {
                    owner: share.owner.clone(),
                    first: share.first + (from - at) as usize,
                    count: to - from,
                },
                epoch: frame.epoch,
                positions: (from..to).map(|offset| frame.position(offset)).collect(),
                body: frame.body.clone(),
                offsets: from..to,
            });
        }
        at = behind;
    }
    answers
}

#[cfg(test)]
mod tests;
