//! One incarnation of an owner: takes the stripe over (C-6), then runs its state machine.

use std::time::Duration;

use wire::object::{Author, ChainId};
use wire::{Epoch, OwnerNumber, Slot, WriterId};

use super::client::Token;
use super::store::Walk;
use crate::logic::action::Config;
use crate::logic::stripe::Stripe;

#[derive(Debug)]
pub(super) enum Stage {
    /// Looks where the chain ends.
    Starting,
    /// Knows where the chain ended at that time.
    Walked { walk: Walk, walked_at: Duration },
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

    /// Serves from where a walk found the end of the chain.
    pub(super) fn serve(&mut self, chain: ChainId, config: Config, now: Duration) {
        let Stage::Walked { walk, walked_at } = &self.stage else {
            return;
        };
        let author = Author {
            epoch: self.heard.0,
            owner: OwnerNumber(walk.owner.0 + 1),
            writer: self.writer,
        };
        let mut stripe = Stripe::new(chain, author, walk.end, config, *walked_at);
        stripe.seal(self.heard.0, self.heard.1, now);
        self.said_end = walk.end;
        self.stage = Stage::Serving(Box::new(stripe));
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
