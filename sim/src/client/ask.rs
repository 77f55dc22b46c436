//! The client and the sequencer: tokens and tails.

use std::time::Duration;

use super::{
    Asked, BATCH, Batch, Client, Datagram, Env, For, GRANTS, Grant, Header, Kind, LOG, MS,
    Mutation, Position, Post, Reply, RequestId, Status, TAILS, Timer, Token, calls, datagram,
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

    fn request(&mut self) -> RequestId {
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
        for (kind, entries) in packed.datagrams {
            let header = Header::request(kind, LOG, self.id(), entries.len());
            let mut bytes = vec![0; header.datagram_len()];
            if datagram::write(header, &entries, &mut bytes).is_ok()
                && let Some(to) = env.route(self.me, Post::Sequencer)
            {
                env.datagram(self.me, to, &bytes);
            }
        }
        if let Some(due) = self.asks.next_due()
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

    pub(super) fn told(&mut self, bytes: &[u8], env: &mut Env) {
        let Ok(datagram) = Datagram::parse(bytes, LOG) else {
            return;
        };
        let header = datagram.header;
        if !header.is_reply() || header.client != self.id() {
            return;
        }
        for reply in datagram.entries::<Reply>().flatten() {
            let Some(asked) = self.asks.remove(reply.lane, reply.request) else {
                continue;
            };
            let sound = reply.status() == Ok(Status::Ok);
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
        if known.is_some_and(|known| known.epoch >= token.epoch) {
            return self.use_token(token, env);
        }
        self.calls
            .attempt(calls::What::Last, For::Token(token), env);
    }

    pub(super) fn use_token(&mut self, token: Token, env: &mut Env) {
        let known = self.known.as_ref().map(|known| known.epoch);
        // A token of a former reign is worth nothing: its stripes are sealed.
        if known != Some(token.epoch) {
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
