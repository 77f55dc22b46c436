//! The client and the sequencer: tokens and tails.

use std::time::Duration;

use catalog::Heard;

use super::{
    Asked, BATCH, Batch, Client, Datagram, Env, For, GRANTS, Grant, Header, Kind, LOG, MS,
    Mutation, Position, Post, ProcId, Reply, RequestId, SEQUENCERS, Status, TAILS, Timer, Token,
    WHO, calls, datagram,
};

/// Pause before a question is asked again that was answered with nothing.
const PAUSE: Duration = Duration::from_millis(20);

impl Client {
    /// Asks for a token for what waits, and sends what is due.
    pub(super) fn pump(&mut self, env: &mut Env) {
        if self.batch.is_none() {
            self.next_batch(env);
        }
        self.send_asks(env);
        self.send_frames(env);
    }

    fn next_batch(&mut self, env: &Env) {
        let (mut pieces, mut count) = (Vec::new(), 0);
        while let Some(piece) = self.queue.front() {
            if count > 0 && count + piece.count > BATCH {
                break;
            }
            let Some(piece) = self.queue.pop_front() else {
                break;
            };
            if self.appends[piece.call].open {
                count += piece.count;
                pieces.push(piece);
            }
        }
        if pieces.is_empty() {
            return;
        }
        let request = self.request();
        self.batch = Some(Batch {
            pieces,
            request,
            count: u32::try_from(count).unwrap_or(0),
        });
        self.ask_again(env);
    }

    pub(super) fn request(&mut self) -> RequestId {
        self.next_request += 1;
        RequestId(self.next_request)
    }

    /// The same request, with the same number (S-6).
    pub(super) fn ask_again(&mut self, env: &Env) {
        if let Some(batch) = &self.batch {
            let grant = Grant::new(GRANTS, batch.request, batch.count);
            let now = env.clock(self.me);
            self.asks.add(Kind::Grant, grant, now, Asked::Token);
        }
    }

    pub(super) fn ask_tails(&mut self, asked: Asked, env: &Env) {
        self.ask_tails_after(Duration::ZERO, asked, env);
    }

    fn ask_tails_after(&mut self, pause: Duration, asked: Asked, env: &Env) {
        let grant = Grant::new(TAILS, self.request(), 0);
        self.asks
            .add(Kind::Tail, grant, env.clock(self.me) + pause, asked);
    }

    fn send_asks(&mut self, env: &mut Env) {
        let (now, chance) = (env.clock(self.me), env.rng.chance());
        let packed = self.asks.take_due(now, chance, 29);
        if packed.repeated > 0 && !env.is(Mutation::StayWithOne) {
            self.reigning.doubt(now);
        }
        for (kind, entries) in packed.datagrams {
            self.send_ask(kind, &entries, false, env);
        }
        if self.reigning.take_due(now) {
            let question = Grant::new(WHO, self.request(), 0);
            self.send_ask(Kind::Tail, &[question], true, env);
        }
        let dues = [self.asks.next_due(), self.reigning.next_due()];
        if let Some(due) = dues.into_iter().flatten().min()
            && due > now
        {
            let pause = u64::try_from((due - now).as_micros()).unwrap_or(u64::MAX);
            let at = env.now + pause.max(MS);
            if self.due_at <= env.now || self.due_at > at {
                self.due_at = at;
                env.timer(self.me, at - env.now, Timer::Due);
            }
        }
    }

    /// Sends questions to the sequencer that reigns, as far as is known, or to all.
    fn send_ask(&self, kind: Kind, entries: &[Grant], all: bool, env: &mut Env) {
        let header = Header::request(kind, LOG, self.id(), entries.len());
        let mut bytes = vec![0; header.datagram_len()];
        if datagram::write(header, entries, &mut bytes).is_err() {
            return;
        }
        let current = self.reigning.current();
        for place in SEQUENCERS.filter(|place| all || usize::from(*place) == current) {
            env.ask(self.me, Post::Sequencer(place), &bytes);
        }
    }

    /// The host of a sequencer says that nobody listens there.
    pub(super) fn is_closed(&mut self, place: u16, env: &Env) {
        let is_asked = self.reigning.current() == usize::from(place);
        if is_asked && !env.is(Mutation::StayWithOne) && self.reigning.next_due().is_none() {
            self.reigning.doubt(env.clock(self.me));
        }
    }

    /// Whether an answer is to be believed. After a switch everything that waits is asked anew.
    fn hears(&mut self, from: ProcId, epoch: wire::Epoch, status: Status, env: &Env) -> bool {
        let Post::Sequencer(place) = env.seen[from].post else {
            return false;
        };
        let now = env.clock(self.me);
        if env.is(Mutation::StayWithOne) {
            return usize::from(place) == self.reigning.current() && status == Status::Ok;
        }
        let heard = self.reigning.heard(place.into(), epoch, status, now);
        if heard == (Heard::Reigns { new: true }) {
            self.asks.renew(now);
        }
        matches!(heard, Heard::Reigns { .. })
    }

    pub(super) fn told(&mut self, from: ProcId, bytes: &[u8], env: &mut Env) {
        let Ok(datagram) = Datagram::parse(bytes, LOG) else {
            return;
        };
        let header = datagram.header;
        if !header.is_reply() || header.client != self.id() {
            return;
        }
        for reply in datagram.entries::<Reply>().flatten() {
            let Ok(status) = reply.status() else {
                continue;
            };
            if !self.hears(from, header.epoch, status, env) || reply.lane == WHO {
                continue;
            }
            let Some(asked) = self.asks.remove(reply.lane, reply.request) else {
                continue;
            };
            let sound = status == Status::Ok;
            match asked {
                Asked::Token if sound => {
                    let token = Token {
                        epoch: header.epoch,
                        first: reply.first,
                        count: u64::from(reply.count),
                    };
                    self.token(token, env);
                }
                Asked::Token => self.ask_again_later(env),
                Asked::Issued(called) if sound => {
                    self.issued(called, header.epoch, reply.first, env);
                }
                Asked::Durable(called, issued)
                    if sound && reply.durable().is_some_and(|durable| durable >= issued) =>
                {
                    self.tails.remove(&called);
                    env.history.returns(called, super::What::Tail(issued));
                }
                Asked::Layout => self.wished(status, env),
                asked => self.ask_tails_after(PAUSE, asked, env),
            }
        }
    }

    /// A sequencer that does not reign is not asked in a busy loop: the same request after a pause.
    fn ask_again_later(&mut self, env: &Env) {
        if let Some(batch) = &self.batch {
            let grant = Grant::new(GRANTS, batch.request, batch.count);
            let later = env.clock(self.me) + PAUSE;
            self.asks.add(Kind::Grant, grant, later, Asked::Token);
        }
    }

    fn issued(&mut self, called: u64, epoch: wire::Epoch, issued: Position, env: &mut Env) {
        if env.is(Mutation::TailOfAnyone) || env.is(Mutation::NoDeadline) {
            return self.ask_tails(Asked::Durable(called, issued), env);
        }
        let tag = For::Tail(called, epoch, issued);
        self.calls.attempt(calls::What::Last, tag, env);
    }

    fn token(&mut self, token: Token, env: &mut Env) {
        let known = self.known.as_ref();
        let old = known.is_some() && env.is(Mutation::OldLayout);
        if old || known.is_some_and(|known| known.epoch >= token.epoch) {
            return self.use_token(token, env);
        }
        self.calls
            .attempt(calls::What::Last, For::Token(token), env);
    }

    pub(super) fn use_token(&mut self, token: Token, env: &mut Env) {
        let known = self.known.as_ref().map(|known| known.epoch);
        // A token of a former reign is worth nothing: its stripes are sealed.
        if known != Some(token.epoch) && !env.is(Mutation::OldLayout) {
            match known {
                Some(known) if known < token.epoch => self.reigning.is_newest(known),
                _ if env.is(Mutation::StayWithOne) => {}
                _ => self.reigning.is_over(token.epoch, env.clock(self.me)),
            }
            return self.ask_again_later(env);
        }
        let Some(batch) = self.batch.take() else {
            return;
        };
        if u64::from(batch.count) == token.count {
            self.hand_over(token, batch, env);
        } else {
            env.fail("a token of another size");
        }
    }
}
