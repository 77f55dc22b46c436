//! What owners say, held against the truth.

use wire::frame::AckStatus;
use wire::object::Header;
use wire::{Identity, Slot};

use super::client::Token;
use super::store::Content;
use super::world::{Op, World};
use crate::logic::action::Action;

impl World {
    /// Answers from what the store has.
    pub(super) fn look_up(
        &mut self,
        owner: usize,
        token: Token,
        (first, end): (Slot, Slot),
        identity: Identity,
    ) {
        for slot in (first.0..end.0).map(Slot) {
            let truth = self.store.truth(slot);
            let status = match truth.expect("looked up before it was decided") {
                _ if slot < self.store.start() => AckStatus::NotOwner,
                Content::Junk => AckStatus::Junk,
                Content::Record(found) if found == identity => AckStatus::Committed,
                Content::Record(_) => AckStatus::Conflict,
            };
            self.answer(owner, token, (slot, slot.plus(1)), status, true);
        }
    }

    /// Does what a state machine says.
    pub(super) fn act(&mut self, owner: usize) {
        let Some(stripe) = self.owners[owner].stripe() else {
            return;
        };
        let actions = stripe.actions();
        let sealed = stripe.is_sealed() && !stripe.is_fenced();
        for action in actions {
            self.action(owner, action);
        }
        let owner = &mut self.owners[owner];
        if sealed && owner.heard.0 == self.control.0 {
            // [H-4]
            assert!(self.store.end() >= self.control.1, "h3: sealed too early");
            self.grants = true;
        }
    }

    fn action(&mut self, owner: usize, action: Action<Token>) {
        let said_fenced = self.owners[owner].said_fenced;
        match action {
            Action::Answer {
                token,
                first,
                end,
                status,
            } => self.answer(owner, token, (first, end), status, false),
            Action::Lookup {
                token,
                first,
                end,
                identity,
            } => {
                assert!(end <= self.owners[owner].said_end, "not decided yet");
                let slots = (first, end);
                self.ops.push(Op::Lookup {
                    owner,
                    token,
                    slots,
                    identity,
                });
            }
            Action::Committed { header, runs } => {
                assert!(!said_fenced, "c6: committed after the fence");
                let runs = runs.iter();
                self.goes_on(
                    owner,
                    header,
                    runs.map(|r| (r.first, r.end(), r.identity())),
                );
            }
            Action::Adopted(index) => {
                assert!(!said_fenced, "c6: adopted after the fence");
                let number = self.owners[owner].stripe().map(|stripe| stripe.owner());
                let newer = Some(index.header.author.owner) > number;
                assert!(!newer, "c6: adopted an object of a newer owner");
                *self.clients.answers.entry("adopted").or_default() += 1;
                let runs = index.runs.iter();
                self.goes_on(
                    owner,
                    index.header,
                    runs.map(|r| (r.first, r.end(), r.identity())),
                );
            }
            Action::Verify { id, header } => {
                *self.clients.answers.entry("verified").or_default() += 1;
                self.ops.push(Op::Walk { owner, id, header });
            }
            Action::Fenced => {
                assert!(!said_fenced, "fenced twice");
                self.owners[owner].said_fenced = true;
            }
        }
    }

    /// An owner says that the chain goes on with this: it must be true, and in order.
    fn goes_on(
        &mut self,
        owner: usize,
        header: Header,
        runs: impl Iterator<Item = (Slot, Slot, Option<Identity>)>,
    ) {
        let said_end = &mut self.owners[owner].said_end;
        assert_eq!(header.start, *said_end, "c4: out of order");
        *said_end = header.end;
        for (first, end, identity) in runs {
            let said = identity.map_or(Content::Junk, Content::Record);
            for slot in (first.0..end.0).map(Slot) {
                let truth = self.store.truth(slot);
                assert_eq!(truth, Some(said), "c4: owner {owner} is wrong about {slot}");
            }
        }
    }

    fn answer(
        &mut self,
        owner: usize,
        token: Token,
        slots: (Slot, Slot),
        status: AckStatus,
        looked_up: bool,
    ) {
        let from = &self.owners[owner];
        if !from.is_alive() {
            return;
        }
        if status == AckStatus::Committed && !looked_up {
            assert!(slots.1 <= from.said_end, "r1: told before it can be read");
        }
        if from.said_fenced && !looked_up {
            assert_eq!(status, AckStatus::NotOwner, "c6: answered after the fence");
        }
        self.clients.answer(&self.store, token, slots, status);
    }
}
