//! What stripe-writers tell one another: `stripe-writer/src/net/peers.rs`, and `connection.rs` for who is asked.

use std::collections::BTreeMap;

use stripe_writer::logic::members::Key;
use wire::OwnerNumber;

use super::{Env, Input, Post, ProcId, TAKEOVER, Writer};
use crate::world::WRITERS;

/// The connection to a peer that is watched.
#[derive(Debug, Default)]
pub(super) struct Link {
    /// Its number and who is at the other end.
    to: Option<(u64, ProcId)>,
    /// When the oldest question was asked that has no answer.
    owed_since: Option<u64>,
}

impl Writer {
    /// Asks every peer what it owns. One that owes an answer for too long is given up.
    pub(super) fn ask_peers(&mut self, env: &mut Env) {
        let timeout = u64::try_from(TAKEOVER.as_micros()).unwrap_or(u64::MAX);
        for post in WRITERS.filter(|post| *post != self.post) {
            let link = self.links.entry(post).or_default();
            if link
                .owed_since
                .is_some_and(|since| env.now >= since + timeout)
            {
                if let Some((conn, _)) = link.to.take() {
                    env.sever(conn);
                }
                link.owed_since = None;
                self.members.unreachable(post.into());
            }
            let link = self.links.entry(post).or_default();
            if link.owed_since.is_some() {
                continue;
            }
            if link.to.is_none() {
                let Some(peer) = env.route(self.me, Post::Writer(post)) else {
                    self.members.unreachable(post.into());
                    continue;
                };
                link.to = Some((env.connect(), peer));
            }
            if let Some((conn, peer)) = link.to {
                link.owed_since = Some(env.now);
                let question = Input::AskClaims(self.me, conn);
                env.stream((self.me, peer, conn, true), question);
            }
        }
    }

    /// A peer asks, and is told of moves from now on.
    pub(super) fn tell_claims(&mut self, from: ProcId, conn: u64, env: &mut Env) {
        self.told.insert(from, conn);
        let claims = Input::Claims(conn, self.numbers(), self.leaving);
        env.stream((self.me, from, conn, false), claims);
    }

    /// Something was left: whoever has asked once is told unasked.
    pub(super) fn tell_moves(&mut self, env: &mut Env) {
        for (peer, conn) in self.told.clone() {
            let claims = Input::Claims(conn, self.numbers(), self.leaving);
            env.stream((self.me, peer, conn, false), claims);
        }
        self.has_left(env);
    }

    /// A peer says what it owns.
    pub(super) fn hear(
        &mut self,
        conn: u64,
        claims: BTreeMap<Key, OwnerNumber>,
        leaving: bool,
        env: &mut Env,
    ) {
        let own = |(_, link): &(&u16, &mut Link)| link.to.is_some_and(|(own, _)| own == conn);
        let Some((post, link)) = self.links.iter_mut().find(own) else {
            // Of a connection that was given up.
            return;
        };
        link.owed_since = None;
        if self.members.heard((*post).into(), claims, leaving) {
            self.look(env);
        }
    }

    /// A connection to a peer is gone.
    pub(super) fn is_reset(&mut self, conn: u64, env: &mut Env) {
        let own = |(_, link): &(&u16, &mut Link)| link.to.is_some_and(|(own, _)| own == conn);
        let Some((post, link)) = self.links.iter_mut().find(own) else {
            return;
        };
        *link = Link::default();
        if self.members.unreachable((*post).into()) {
            self.look(env);
        }
    }
}
