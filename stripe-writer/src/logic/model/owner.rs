//! One incarnation of an owner: takes the stripe over (C-6), then runs its state machine.

use std::time::Duration;

use wire::object::{Author, ChainId, Object};
use wire::{Epoch, OwnerNumber, Run, Slot, WriterId};

use super::client::Token;
use super::store::Walk;
use crate::logic::action::{Config, FlightId, PutOutcome};
use crate::logic::stripe::Stripe;

#[derive(Debug)]
pub(super) enum Stage {
    /// Looks where the chain ends.
    Starting,
    /// Puts its fence.
    Fencing { fence: Object, walked_at: Duration },
    /// Serves.
    Serving(Box<Stripe<Token>>),
    /// Its process has ended.
    Dead,
}

#[derive(Debug)]
pub(super) struct Owner {
    pub(super) writer: WriterId,
    pub(super) stage: Stage,
    pub(super) paused: bool,
    /// Newest epoch that it read, and where that began.
    pub(super) heard: (Epoch, Slot),
    /// Below which slot it may fill holes.
    pub(super) told: Slot,
    /// Where its chain ends, by what it said.
    pub(super) said_end: Slot,
    pub(super) said_fenced: bool,
}

/// Which put an answer is for: the fence, or a flight.
pub(super) type PutKey = Option<FlightId>;

impl Owner {
    pub(super) fn new(number: usize, heard: (Epoch, Slot)) -> Self {
        let mut writer = WriterId([0; 16]);
        writer.0[..8].copy_from_slice(&(number as u64).to_le_bytes());
        Self {
            writer,
            stage: Stage::Starting,
            paused: false,
            heard,
            told: heard.1,
            said_end: Slot(0),
            said_fenced: false,
        }
    }

    pub(super) fn is_alive(&self) -> bool {
        !matches!(self.stage, Stage::Dead)
    }

    pub(super) fn stripe(&mut self) -> Option<&mut Stripe<Token>> {
        match &mut self.stage {
            Stage::Serving(stripe) => Some(stripe),
            _ => None,
        }
    }

    /// Whether it takes the stripe over, or has done so and not found out that it lost it.
    pub(super) fn is_owner(&self) -> bool {
        match &self.stage {
            Stage::Serving(stripe) => !stripe.is_fenced(),
            Stage::Dead => false,
            _ => true,
        }
    }

    /// The fence for a chain as a walk found it.
    pub(super) fn fence(&mut self, chain: ChainId, walk: &Walk, walked_at: Duration) -> Object {
        let author = Author {
            epoch: self.heard.0,
            owner: OwnerNumber(walk.owner.0 + 1),
            writer: self.writer,
        };
        // [H-3] What tokens of sealed epochs alone could write becomes junk on the way.
        let junk = Run::junk(walk.end, walk.end.until(self.heard.1).max(1));
        let fence = Object::build(chain, author, &[junk]).expect("valid");
        self.stage = Stage::Fencing {
            fence: fence.clone(),
            walked_at,
        };
        fence
    }

    /// The fence's put ended. Serves if it is stored, in time (C-7); else walks again.
    pub(super) fn fenced(
        &mut self,
        chain: ChainId,
        outcome: &PutOutcome,
        config: Config,
        now: Duration,
    ) {
        let Stage::Fencing { fence, walked_at } = &self.stage else {
            return;
        };
        let header = fence.index.header;
        let in_time = now.saturating_sub(*walked_at) <= config.max_commit_age;
        if matches!(outcome, PutOutcome::Stored) && in_time {
            let stripe = Stripe::new(chain, header.author, header.end, config, *walked_at);
            self.said_end = header.end;
            self.stage = Stage::Serving(Box::new(stripe));
        } else {
            self.stage = Stage::Starting;
        }
    }

    /// Reads the control chain, once it serves.
    pub(super) fn hear(&mut self, control: (Epoch, Slot), now: Duration) {
        let Stage::Serving(stripe) = &mut self.stage else {
            return;
        };
        stripe.seal(control.0, control.1, now);
        self.heard = control;
        self.told = self.told.max(control.1);
    }
}
