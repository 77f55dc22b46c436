//! The client and the stripe-writers, frames out and answers in: `client/src/net/connection.rs`.

use std::time::Duration;

use stripelog::logic::backoff::Backoff;
use stripelog::logic::flight::Entry;
use wire::RunBody;

use super::{Ack, AckStatus, CallNo, Client, Env, Flight, MS, Mutation, Post, ProcId};

/// Time without an answer that is owed, after which a writer counts as gone; of a client that asks whether it is there,
/// and of one that mostly finds that it is.
pub(super) const SILENCE: (u64, u64) = (900 * MS, 9000 * MS);

/// Connections that fail one after the other before a writer's stripes are looked for elsewhere.
const FAILURES: u32 = 2;

/// First and longest pause before a connection is made anew.
const PAUSES: (Duration, Duration) = (Duration::from_millis(20), Duration::from_millis(200));

/// The connection to one post.
#[derive(Debug)]
pub(super) struct Connection {
    pub(super) flight: Flight<CallNo>,
    /// Its number and who is at the other end.
    to: Option<(u64, ProcId)>,
    heard_at: u64,
    again_at: u64,
    failures: u32,
    pauses: Backoff,
}

impl Connection {
    pub(super) fn new() -> Self {
        Self {
            flight: Flight::new(),
            to: None,
            heard_at: 0,
            again_at: 0,
            failures: 0,
            pauses: Backoff::new(PAUSES),
        }
    }

    /// It could not be made, or is gone.
    fn failed(&mut self, env: &mut Env) {
        self.to = None;
        self.failures += 1;
        let pause = self.pauses.pause(env.rng.chance());
        let pause = u64::try_from(pause.as_micros()).unwrap_or(u64::MAX);
        self.again_at = env.now + pause;
    }
}

impl Client {
    /// Gives up connections that say nothing, and wakes what was put off.
    pub(super) fn watch_connections(&mut self, env: &mut Env) {
        let now = env.clock(self.me);
        for connection in self.connections.values_mut() {
            connection.flight.wake(now);
            let silent = env.now > connection.heard_at + self.silence;
            if silent
                && connection.flight.is_owed()
                && let Some((conn, _)) = connection.to
            {
                env.sever(conn);
                connection.failed(env);
                // Who takes a connection and says nothing is not about to come back.
                connection.failures = FAILURES;
            }
        }
    }

    pub(super) fn send_frames(&mut self, env: &mut Env) {
        for post in self.connections.keys().copied().collect::<Vec<_>>() {
            self.connect(post, env);
            let gone = self
                .connections
                .get_mut(&post)
                .filter(|connection| connection.to.is_none() && connection.failures >= FAILURES);
            if let Some(connection) = gone {
                // It may be dead, and another has its stripes by now. If none has, they come back.
                let frames = connection.flight.take_all();
                self.send_away(post, frames, env);
            }
            self.send_to(post, env);
        }
    }

    fn connect(&mut self, post: u16, env: &mut Env) {
        let me = self.me;
        let Some(connection) = self.connections.get_mut(&post) else {
            return;
        };
        let wants = connection.to.is_none() && !connection.flight.is_empty();
        if !wants || env.now < connection.again_at {
            return;
        }
        let Some(writer) = env.route(me, Post::Writer(post)) else {
            return connection.failed(env);
        };
        connection.to = Some((env.connect(), writer));
        connection.heard_at = env.now;
        connection.failures = 0;
        connection.flight.reconnected();
    }

    fn send_to(&mut self, post: u16, env: &mut Env) {
        let (me, calls) = (self.me, &mut self.appends);
        let Some(connection) = self.connections.get_mut(&post) else {
            return;
        };
        let Some((conn, writer)) = connection.to else {
            return;
        };
        while let Some((head, body)) = connection.flight.next_to_send(|share| {
            let call = &mut calls[share.owner];
            if call.open {
                call.outcome.sent(share.count as usize);
            }
            call.open
        }) {
            // As the receiver checks it.
            let bytes = body
                .slices()
                .iter()
                .flat_map(|part| part.to_vec())
                .collect();
            match RunBody::checked(head.count, head.crc, bytes) {
                Ok(body) => env.frame((me, writer, conn), head, body),
                Err(error) => return env.fail(format!("R-4: {error}")),
            }
        }
    }

    /// Gives frames to the connections of the writers that are to be asked now, after a pause.
    fn send_away(&mut self, from: u16, frames: Vec<Entry<CallNo>>, env: &Env) {
        let now = env.clock(self.me);
        for frame in frames {
            let stripe = frame.stripe();
            let owner = self.routes.leave(stripe, from, now);
            let until = now + self.routes.pause(stripe);
            if let Some(connection) = self.connections.get_mut(&owner) {
                connection.flight.give(frame, until);
            }
        }
    }

    pub(super) fn reset(&mut self, conn: u64, env: &mut Env) {
        for connection in self.connections.values_mut() {
            if connection.to.is_some_and(|(own, _)| own == conn) {
                let failures = connection.failures;
                connection.failed(env);
                // Made and reset is as good as refused.
                connection.failures = failures + 1;
            }
        }
    }

    pub(super) fn ack(&mut self, conn: u64, ack: &Ack, env: &mut Env) {
        let now = env.clock(self.me);
        let own = |(_, c): &(&u16, &mut Connection)| c.to.is_some_and(|(own, _)| own == conn);
        let Some((post, connection)) = self.connections.iter_mut().find(own) else {
            // Of a connection that was given up.
            return;
        };
        connection.heard_at = env.now;
        connection.pauses.reset();
        let (post, stripe) = (*post, ack.place.stripe);
        let status = match ack.status() {
            Ok(status) => status,
            Err(error) => return env.fail(format!("an answer: {error}")),
        };
        match status {
            AckStatus::NotOwner if !env.is(Mutation::NotOwnerIsRefused) => {
                // Whoever has the stripe now is found by asking.
                let frames = connection.flight.take(ack);
                self.routes.leave(stripe, post, now);
                self.send_away(post, frames, env);
            }
            AckStatus::Busy => {
                let until = connection.flight.pause(stripe, now, env.rng.chance());
                for share in connection.flight.put_off(ack, until, true) {
                    self.appends[share.owner]
                        .outcome
                        .answered(share.count as usize);
                }
            }
            outcome => {
                if outcome == AckStatus::Committed {
                    self.routes.served(stripe, post);
                }
                for answer in connection.flight.settle(ack) {
                    self.settled(&answer, outcome, env);
                }
            }
        }
    }

    fn settled(
        &mut self,
        answer: &stripelog::logic::flight::Answer<CallNo>,
        outcome: AckStatus,
        env: &mut Env,
    ) {
        if outcome == AckStatus::Committed {
            return self.commit(answer, env);
        }
        if outcome == AckStatus::Sealed && !env.is(Mutation::StayWithOne) {
            // [H-3] A later reign has begun.
            let now = env.clock(self.me);
            self.reigning.is_over(answer.epoch, now);
        }
        let call = &mut self.appends[answer.share.owner];
        call.outcome.answered(answer.share.count as usize);
        match outcome {
            AckStatus::Junk | AckStatus::Sealed | AckStatus::NotOwner => self.again(answer),
            // Nobody in here is at fault, so that nobody can be told so.
            _ => env.fail(format!("H-2: {outcome:?} at {:?}", answer.positions)),
        }
    }
}
