//! Clients, what they were told, and whether that is true.

use std::collections::BTreeMap;

use wire::frame::AckStatus;
use wire::{ClientId, Epoch, Identity, RequestId, Run, RunBody, Slot};

use super::record;
use super::store::{Content, Store};

/// An append frame, sent any number of times.
#[derive(Debug)]
pub(super) struct Frame {
    pub(super) run: Run,
    pub(super) epoch: Epoch,
    identity: Identity,
    /// What is certain of the slots.
    known: BTreeMap<Slot, AckStatus>,
}

/// One sending of a frame: who it went to, and which of its slots were answered.
#[derive(Debug)]
struct Ask {
    frame: usize,
    owner: usize,
    open: Vec<Slot>,
}

/// Number of an [`Ask`].
pub(super) type Token = usize;

#[derive(Debug, Default)]
pub(super) struct Clients {
    pub(super) frames: Vec<Frame>,
    asks: Vec<Ask>,
    pub(super) answers: BTreeMap<&'static str, u64>,
}

impl Clients {
    pub(super) fn append(&mut self, first: Slot, count: u64, epoch: Epoch) -> usize {
        let identity = Identity {
            client: ClientId(7),
            request: RequestId(self.frames.len() as u64),
        };
        let slots = first.0..first.0 + count;
        let records: Vec<_> = slots.map(|slot| record(identity, Slot(slot))).collect();
        let body = RunBody::new(&records).expect("valid");
        self.frames.push(Frame {
            run: Run::records(first, identity, body),
            epoch,
            identity,
            known: BTreeMap::new(),
        });
        self.frames.len() - 1
    }

    pub(super) fn ask(&mut self, frame: usize, owner: usize) -> Token {
        let run = &self.frames[frame].run;
        let open = (run.first.0..run.end().0).map(Slot).collect();
        self.asks.push(Ask { frame, owner, open });
        self.asks.len() - 1
    }

    /// Frames of which something is not certain, in slots that are not trimmed.
    pub(super) fn uncertain(&self, store: &Store) -> Vec<usize> {
        let uncertain = |frame: &Frame| {
            let mut slots = frame.run.first.max(store.start()).0..frame.run.end().0;
            slots.any(|slot| !frame.known.contains_key(&Slot(slot)))
        };
        let frames = self.frames.iter().enumerate();
        frames
            .filter(|(_, frame)| uncertain(frame))
            .map(|(number, _)| number)
            .collect()
    }

    /// The process is gone: it answers nothing more.
    pub(super) fn died(&mut self, owner: usize) {
        for ask in self.asks.iter_mut().filter(|ask| ask.owner == owner) {
            ask.open.clear();
        }
    }

    /// Sendings that are not wholly answered.
    pub(super) fn open(&self) -> usize {
        self.asks.iter().filter(|ask| !ask.open.is_empty()).count()
    }

    pub(super) fn answer(
        &mut self,
        store: &Store,
        token: Token,
        (first, end): (Slot, Slot),
        status: AckStatus,
    ) {
        assert!(first < end, "an answer for no slot");
        for slot in (first.0..end.0).map(Slot) {
            let ask = &mut self.asks[token];
            let at = ask.open.iter().position(|open| *open == slot);
            ask.open.remove(at.expect("h2: each slot is answered once"));
            let frame = &mut self.frames[ask.frame];
            let truth = store.truth(slot);
            let (mine, what) = (Content::Record(frame.identity), truth.is_some());
            let name = match status {
                AckStatus::Committed => {
                    assert_eq!(truth, Some(mine), "c4: committed {slot}");
                    "committed"
                }
                AckStatus::Junk => {
                    assert_eq!(truth, Some(Content::Junk), "h2: junk {slot}");
                    "junk"
                }
                AckStatus::Conflict => {
                    assert!(what && truth != Some(mine), "h2: conflict {slot}");
                    assert_ne!(truth, Some(Content::Junk), "h2: conflict with junk {slot}");
                    "conflict"
                }
                AckStatus::Sealed => {
                    assert_ne!(truth, Some(mine), "h3: sealed, but there: {slot}");
                    "sealed"
                }
                AckStatus::NotOwner => "not owner",
                AckStatus::Busy => "busy",
                AckStatus::Invalid | AckStatus::Waiting | AckStatus::Unheard => {
                    panic!("no answer to what was sent: {status:?}")
                }
            };
            *self.answers.entry(name).or_default() += 1;
            if !matches!(status, AckStatus::NotOwner | AckStatus::Busy) {
                frame.known.insert(slot, status);
            }
        }
    }

    /// What was told as certain is certain: checked again at the end of all things.
    pub(super) fn check(&self, store: &Store) {
        for frame in &self.frames {
            let mine = Some(Content::Record(frame.identity));
            for (slot, status) in &frame.known {
                let committed = *status == AckStatus::Committed;
                let truth = store.truth(*slot);
                assert_eq!(
                    truth == mine,
                    committed,
                    "told {status:?} of {slot}: {truth:?}"
                );
            }
        }
    }
}
