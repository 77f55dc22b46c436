//! A shard beside a program in the kernel that grants from the same counter.
//!
//! The program passes up what it does not decide. While a batch is decided, the program is kept out of the lanes that
//! are in it; before, the shard learns what the program has granted them, and afterwards the program learns what the
//! shard has. Where the program stays in a block all the same, the request may get a second token: a hole (S-6).
//! The clock is read after all that, as the program's core may have stood still.

use std::sync::Arc;

use wire::datagram::Kind;
use wire::datagram::place::{self, Ask, Facts};
use wire::{ClientId, Lane};

use super::counter::{CLOSED, Counter};
use super::packets::{Packets, Peer, retain};
use super::shard::Shard;
use super::table::{ENTER_TRIES, Place, Table};

/// Where a batch keeps a program out.
#[derive(Debug)]
pub(super) struct Beside {
    table: Arc<Table>,
    places: Vec<Place>,
    lanes: Vec<(ClientId, Lane)>,
    /// What is left of [`ENTER_TRIES`] for this batch.
    tries: u32,
}

impl Beside {
    pub(super) fn new(table: Arc<Table>) -> Self {
        Self {
            table,
            places: Vec::new(),
            lanes: Vec::new(),
            tries: 0,
        }
    }
}

impl<P: Peer, C: Counter> Shard<P, C> {
    /// Keeps the program out of the lanes of a batch, and learns what it has granted them.
    pub(super) fn enter(&mut self, packets: &mut impl Packets<P>) {
        let Some(mut beside) = self.beside.take() else {
            return;
        };
        beside.tries = ENTER_TRIES;
        for index in 0..packets.count() {
            if let Some(packet) = packets.packet(index) {
                retain(packet, |_, datagram| {
                    self.enter_datagram(&mut beside, datagram);
                    true
                });
            }
        }
        self.beside = Some(beside);
    }

    fn enter_datagram(&mut self, beside: &mut Beside, datagram: &[u8]) {
        let Ok(facts) = Facts::check(datagram, self.reign.log()) else {
            return;
        };
        if facts.reply || !matches!(facts.kind, Kind::Grant | Kind::GrantAt) {
            return;
        }
        let (mut last, mut inside) = (None, false);
        for entry in place::entries(datagram) {
            let lane = Ask::read(entry).lane;
            let place = beside.table.place(facts.client, lane);
            if last != Some(place) {
                last = Some(place);
                inside = beside.table.enter(place, &mut beside.tries);
                match inside {
                    true => beside.places.push(place),
                    false => self.counters.stuck.add(1),
                }
            }
            if !inside {
                continue;
            }
            beside.lanes.push((facts.client, lane));
            let Some(granted) = beside.table.get(facts.client, lane) else {
                continue;
            };
            if let Some(known) = self.memory.room(facts.client, lane)
                && granted.request >= known.request
            {
                *known = granted;
            }
        }
    }

    /// Tells the program what the batch was granted, and lets it in again.
    pub(super) fn leave(&mut self) {
        let Some(beside) = &mut self.beside else {
            return;
        };
        // [S-1] A closed counter may have given the batch nothing, whatever is remembered of it: the program, which
        // may have looked at the counter before it was closed, must not find that.
        if self.reign.counter().tail() >= CLOSED {
            beside.lanes.clear();
        }
        for (client, lane) in beside.lanes.drain(..) {
            if let Some(known) = self.memory.get(client, lane)
                && known.count > 0
            {
                beside.table.set(client, lane, known);
            }
        }
        for place in beside.places.drain(..) {
            beside.table.leave(place);
        }
    }
}
