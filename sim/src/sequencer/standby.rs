//! A sequencer that stands by, with the order of steps of `sequencer-fast/src/store/standby.rs` and
//! `net/others.rs`: when a reign is over is decided by `sequencer_fast::logic::Watch`.

use std::rc::Rc;
use std::sync::Arc;

use sequencer_fast::logic::{Reign, Shard, ShardCounters, Watch};
use wire::control::ControlEntry;
use wire::datagram::{self, Datagram, Grant, Header, Kind, Reply};
use wire::{ClientId, Epoch, Lane, RequestId};

use super::{For, Sequencer, limits};
use crate::calls::What;
use crate::env::{Env, LOG, MS};
use crate::event::{Post, ProcId, Timer};
use crate::mutation::Mutation;
use crate::world::SEQUENCERS;

/// Silence after which a reign counts as over.
pub const DETECT: u64 = 400 * MS;

/// Time between two questions to the others.
const ASK_EVERY: u64 = 40 * MS;

/// Questions whose answers count.
const FRESH: u64 = 12;

/// What a standby knows of the others.
#[derive(Debug)]
pub(super) struct Standby {
    watch: Watch,
    /// Whether the chain is being looked at.
    looks: bool,
    /// Whether a create is under way: nobody is asked meanwhile.
    begins: bool,
    asked: u64,
}

impl Sequencer {
    /// Its sockets are served from now on, by one that does not reign.
    pub(super) fn stand_by(&mut self, last: &ControlEntry, env: &mut Env) {
        let entry = ControlEntry {
            epoch: Epoch(0),
            ..last.clone()
        };
        let Ok(reign) = Reign::new(&entry) else {
            return env.fail("a control entry without segments");
        };
        let counters = Arc::new(ShardCounters::default());
        self.shard = Some(Shard::new(Arc::new(reign), counters, limits()));
        let now_ns = env.clock_ns(self.me);
        self.standby = Some(Standby {
            watch: Watch::new(DETECT * 1000, ASK_EVERY * 1000, now_ns),
            looks: false,
            begins: false,
            asked: 0,
        });
        env.timer(self.me, 0, Timer::Tick);
    }

    pub(super) fn stands_by(&self) -> bool {
        self.standby.is_some()
    }

    /// Asks the others, and lets time pass.
    pub(super) fn watch_others(&mut self, env: &mut Env) {
        env.timer(self.me, ASK_EVERY, Timer::Tick);
        let me = self.me;
        let Some(standby) = self.standby.as_mut().filter(|standby| !standby.begins) else {
            return;
        };
        standby.asked += 1;
        let question = Grant::new(Lane(0), RequestId(standby.asked), 0);
        let header = Header::request(Kind::Tail, LOG, client(me), 1);
        let mut bytes = vec![0; header.datagram_len()];
        let due = standby.watch.tick(env.clock_ns(me));
        if datagram::write(header, &[question], &mut bytes).is_ok() {
            for post in SEQUENCERS.filter(|post| *post != self.post) {
                env.ask(me, Post::Sequencer(post), &bytes);
            }
        }
        if due {
            self.look(env);
        }
    }

    /// An answer of one of the others. False if it is none.
    pub(super) fn heard(&mut self, from: ProcId, bytes: &[u8], env: &mut Env) -> bool {
        let Ok(datagram) = Datagram::parse(bytes, LOG) else {
            return false;
        };
        let header = datagram.header;
        if !header.is_reply() || header.client != client(self.me) {
            return false;
        }
        let Post::Sequencer(place) = env.seen[from].post else {
            return true;
        };
        let Some(standby) = self.standby.as_mut().filter(|standby| !standby.begins) else {
            return true;
        };
        let mut looks = false;
        for reply in datagram.entries::<Reply>().flatten() {
            let fresh = standby.asked.saturating_sub(reply.request.0) < FRESH;
            if let (true, Ok(status)) = (fresh, reply.status()) {
                looks |= standby.watch.heard(place.into(), header.epoch, status);
            }
        }
        if looks {
            self.look(env);
        }
        true
    }

    /// The host of another one says that nobody listens there.
    pub(super) fn is_gone(&mut self, place: u16, env: &mut Env) {
        if let Some(standby) = self.standby.as_mut().filter(|standby| !standby.begins)
            && standby.watch.gone(place.into())
        {
            self.look(env);
        }
    }

    fn look(&mut self, env: &mut Env) {
        if let Some(standby) = &mut self.standby
            && !std::mem::replace(&mut standby.looks, true)
        {
            self.calls.attempt(What::Last, For::Look, env);
        }
    }

    /// The chain was looked at, or could not be, which says nothing of it (S-4).
    pub(super) fn looked(&mut self, last: Option<Rc<ControlEntry>>, env: &mut Env) {
        let Some(standby) = &mut self.standby else {
            return;
        };
        standby.looks = false;
        standby.watch.looked();
        let Some(last) = last.filter(|last| standby.watch.seen(last)) else {
            return;
        };
        env.note(|| format!("sequencer {} finds no reign: epoch {}", self.me, last.epoch));
        standby.begins = true;
        // [S-4] Behind the entry whose reign was found to be over, and no later one.
        env.store.found_over.insert(self.owner, last.number);
        if env.is(Mutation::BeginAnywhere) {
            return self.calls.insist(What::Last, For::Last, env);
        }
        self.begin(&last, env);
    }

    /// Another sequencer was faster.
    pub(super) fn was_slower(&mut self, env: &Env) {
        env.note(|| format!("sequencer {} was slower, and stands by", self.me));
        self.entry = None;
        if let Some(standby) = &mut self.standby {
            standby.watch.lost();
            standby.begins = false;
        }
    }
}

fn client(me: ProcId) -> ClientId {
    ClientId(2000 + me as u64)
}
