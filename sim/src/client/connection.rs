//! The client and the stripe-writers: frames out, answers in.

use std::time::Duration;

use wire::RunBody;

use super::{Ack, AckStatus, CallNo, Client, Env, Flight, MS, Mutation, Post, ProcId};

/// Time without an answer that is owed, after which a connection is made anew.
const SILENCE: u64 = 900 * MS;

/// Pause before frames that were put off are sent again.
const PUT_OFF: Duration = Duration::from_millis(60);

/// The connection to one post.
#[derive(Debug)]
pub(super) struct Connection {
    pub(super) flight: Flight<CallNo>,
    /// Its number and who is at the other end.
    to: Option<(u64, ProcId)>,
    heard_at: u64,
    again_at: u64,
}

impl Connection {
    pub(super) fn new() -> Self {
        Self {
            flight: Flight::new(),
            to: None,
            heard_at: 0,
            again_at: 0,
        }
    }
}

impl Client {
    /// Makes connections anew that say nothing, and wakes what was put off.
    pub(super) fn watch_connections(&mut self, env: &mut Env) {
        let now = env.clock(self.me);
        for connection in self.connections.values_mut() {
            connection.flight.wake(now);
            let silent = env.now > connection.heard_at + SILENCE;
            if silent
                && connection.flight.is_owed()
                && let Some((conn, _)) = connection.to.take()
            {
                env.sever(conn);
            }
        }
    }

    pub(super) fn send_frames(&mut self, env: &mut Env) {
        let (me, calls) = (self.me, &mut self.appends);
        for (post, connection) in &mut self.connections {
            if connection.flight.is_empty() {
                continue;
            }
            if connection.to.is_none() && env.now >= connection.again_at {
                let Some(writer) = env.route(me, Post::Writer(*post)) else {
                    continue;
                };
                connection.to = Some((env.connect(), writer));
                connection.heard_at = env.now;
                connection.flight.reconnected();
            }
            let Some((conn, writer)) = connection.to else {
                continue;
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
    }

    pub(super) fn reset(&mut self, conn: u64, env: &mut Env) {
        let pause = env.rng.between(10, 200) * MS;
        for connection in self.connections.values_mut() {
            if connection.to.is_some_and(|(own, _)| own == conn) {
                connection.to = None;
                connection.again_at = env.now + pause;
            }
        }
    }

    pub(super) fn ack(&mut self, conn: u64, ack: &Ack, env: &mut Env) {
        let now = env.clock(self.me);
        let own = |(_, c): &(&u16, &mut Connection)| c.to.is_some_and(|(own, _)| own == conn);
        let Some((_, connection)) = self.connections.iter_mut().find(own) else {
            // Of a connection that was given up.
            return;
        };
        connection.heard_at = env.now;
        let status = match ack.status() {
            Ok(status) => status,
            Err(error) => return env.fail(format!("an answer: {error}")),
        };
        match status {
            AckStatus::Busy => {
                for share in connection.flight.put_off(ack, now + PUT_OFF, true) {
                    self.appends[share.owner]
                        .outcome
                        .answered(share.count as usize);
                }
            }
            AckStatus::NotOwner if !env.is(Mutation::NotOwnerIsRefused) => {
                // Whoever has the stripe now is found by asking.
                for entry in connection.flight.take(ack) {
                    connection.flight.give(entry, now + PUT_OFF);
                }
                connection.to = None;
                connection.again_at = env.now + 20 * MS;
            }
            outcome => {
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
        if outcome == AckStatus::Sealed {
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
