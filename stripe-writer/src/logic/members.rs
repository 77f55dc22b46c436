//! Which stripes this stripe-writer is to take, to drop and to give back, by what its peers say.
//!
//! What is decided here is who *tries* to own a stripe. It makes nothing safe and nothing unsafe: who owns a stripe is
//! decided by its chain (C-1, C-5, C-6), also where two members see each other dead.
//!
//! Time is counted in ticks of the caller, each at most [`TICKS`] as long as it should be: a process that stood still
//! does not take its own silence for that of its peers.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::time::Duration;

use catalog::{Rank, Writer};
use wire::{OwnerNumber, SegmentId, StripeId};

/// A stripe of a segment.
pub type Key = (SegmentId, StripeId);

/// Ticks of one time-out.
pub const TICKS: u32 = 4;

/// A tick counts at most so many times its length.
const LONGEST_TICK: u32 = 2;

/// Time-outs for which the stripes of a member are left to it that was never heard: members of a log that starts do
/// not start at the same moment.
const GRACE: u32 = 5;

/// Time-outs for which a member waits for each one before it in the order of a stripe that is alive and does not take it.
const PATIENCE: u32 = 4;

/// Time-outs for which a member has to answer before its stripes are given back to it.
const STEADY: u32 = 5;

/// Attempts to take a stripe that fail one after the other before it is left for long enough that the next one in its
/// order takes it: this member may be the only one that the store does not answer.
const ATTEMPTS: u32 = 3;

/// Times that a pause doubles, at most.
const DOUBLINGS: u32 = 6;

/// Members that are watched, at most.
const MEMBERS: usize = 256;

/// Time-outs after which what went wrong with a stripe is forgotten.
const FORGET: u32 = 64;

/// What is to be done now.
#[derive(Debug, Default, Clone, PartialEq, Eq)]
pub struct Decisions {
    /// Stripes to take over (C-6).
    pub take: Vec<Key>,
    /// Stripes that a peer owns under a higher number: they are not this member's any more.
    pub lost: Vec<Key>,
    /// A stripe whose home is back, to be made durable and left to it.
    pub give_back: Option<Key>,
}

/// The stripe-writers of a membership, as one of them sees the others.
#[derive(Debug)]
pub struct Members {
    own: usize,
    timeout: Duration,
    watched: Vec<Watched>,
    stripes: BTreeMap<Key, History>,
    /// Since the start.
    running: Duration,
    ticked_at: Option<Duration>,
}

#[derive(Debug)]
struct Watched {
    writer: Writer,
    /// Whether the membership has it. One that it has no more counts as long as it answers.
    listed: bool,
    /// Whether it is watched no more, and another member may have its place.
    vacant: bool,
    contact: Contact,
    /// Since the tick that followed its last answer.
    silence: Duration,
    /// Whether it has answered since the last tick.
    fresh: bool,
    /// For which it has answered.
    steady: Duration,
    claims: BTreeMap<Key, OwnerNumber>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Contact {
    /// Not tried to the end.
    Unknown,
    /// Nobody is there, or nobody who answers.
    Refused,
    /// It has answered.
    Heard,
    /// It has said that it is about to end. What it owns is its own until it says otherwise or is gone.
    Leaving,
}

#[derive(Debug, Default)]
struct History {
    /// For which no member that is alive has owned it.
    unclaimed: Duration,
    /// For which this member has.
    held: Duration,
    /// For which a peer has.
    away: Duration,
    /// Not to be taken for so long.
    pause: Duration,
    losses: u32,
    returns: u32,
    /// Attempts to take it that have failed one after the other.
    failures: u32,
}

impl Members {
    /// The members in the order of the settings, of which this is the one numbered `own`. One that has not answered for
    /// `timeout` is dead.
    #[must_use]
    pub fn new(writers: &[Writer], own: usize, timeout: Duration) -> Self {
        Self {
            own,
            timeout,
            watched: writers.iter().map(Watched::new).collect(),
            stripes: BTreeMap::new(),
            running: Duration::ZERO,
            ticked_at: None,
        }
    }

    /// The membership has these writers now. Gives the members to watch from now on, and, without an address, those
    /// not to be watched any more. One that has left the membership counts as long as it answers: who lists the
    /// members may be wrong, an answer is not.
    pub fn relist(&mut self, writers: &[Writer]) -> Vec<(usize, Option<SocketAddr>)> {
        let mut changes = Vec::new();
        for (at, watched) in self.watched.iter_mut().enumerate() {
            let known = writers.iter().find(|w| w.address == watched.writer.address);
            if at == self.own {
                continue;
            }
            if let Some(writer) = known {
                watched.writer = writer.clone();
            }
            watched.listed = known.is_some();
            if watched.listed && watched.vacant {
                *watched = Watched::new(&watched.writer);
                changes.push((at, Some(watched.writer.address)));
            } else if !watched.listed && !watched.vacant && !watched.is_there(self.timeout) {
                watched.vacant = true;
                changes.push((at, None));
            }
        }
        for writer in writers {
            let same = |watched: &Watched| watched.writer.address == writer.address;
            if self.watched.iter().any(same) {
                continue;
            }
            let vacant = self.watched.iter().position(|watched| watched.vacant);
            let at = vacant.unwrap_or(self.watched.len());
            if at >= MEMBERS {
                continue;
            }
            match self.watched.get_mut(at) {
                Some(watched) => *watched = Watched::new(writer),
                None => self.watched.push(Watched::new(writer)),
            }
            changes.push((at, Some(writer.address)));
        }
        changes
    }

    /// Time between two ticks.
    #[must_use]
    pub fn tick(&self) -> Duration {
        self.timeout / TICKS
    }

    /// A member answers: it owns these stripes, or takes them over, which the number 0 says, and may be about to end.
    /// True if that is news.
    pub fn heard(
        &mut self,
        member: usize,
        claims: BTreeMap<Key, OwnerNumber>,
        leaving: bool,
    ) -> bool {
        let timeout = self.timeout;
        let contact = match leaving {
            true => Contact::Leaving,
            false => Contact::Heard,
        };
        let Some(watched) = self.watched.get_mut(member) else {
            return false;
        };
        let news =
            watched.contact != contact || watched.silence >= timeout || watched.claims != claims;
        if !watched.is_alive(timeout) {
            watched.steady = Duration::ZERO;
        }
        watched.contact = contact;
        (watched.silence, watched.fresh) = (Duration::ZERO, true);
        watched.claims = claims;
        news
    }

    /// A member cannot be reached. True if that is news.
    pub fn unreachable(&mut self, member: usize) -> bool {
        let Some(watched) = self.watched.get_mut(member) else {
            return false;
        };
        watched.steady = Duration::ZERO;
        match watched.contact {
            Contact::Unknown => watched.contact = Contact::Refused,
            // It has ended, as it said.
            Contact::Leaving if !watched.claims.is_empty() => watched.claims.clear(),
            Contact::Leaving | Contact::Refused | Contact::Heard => return false,
        }
        true
    }

    /// Members beside this one that do not answer.
    #[must_use]
    pub fn silent(&self) -> usize {
        let others = self.watched.iter().enumerate();
        others
            .filter(|(at, one)| *at != self.own && one.listed && !one.is_alive(self.timeout))
            .count()
    }

    /// Whether the settings give a stripe to this member.
    #[must_use]
    pub fn is_home(&self, stripe: StripeId) -> bool {
        self.home(stripe) == Some(self.own)
    }

    /// The store says that another process owns a stripe that this member had. It is left alone for a while that
    /// becomes longer each time: two members that cannot hear each other do not take it from each other all the time.
    pub fn fenced(&mut self, key: Key) {
        let timeout = self.timeout;
        let history = self.stripes.entry(key).or_default();
        history.losses = history.losses.saturating_add(1);
        history.pause = doubled(timeout, history.losses);
    }

    /// A stripe could not be taken over.
    pub fn failed(&mut self, key: Key) {
        let history = self.stripes.entry(key).or_default();
        history.failures = (history.failures + 1) % ATTEMPTS;
        history.pause = match history.failures {
            0 => self.timeout * (PATIENCE + 2),
            _ => self.timeout,
        };
    }

    /// What is to be done at `now` about the stripes `all`, of which `mine` are owned here, or being taken over, which
    /// the number 0 says.
    pub fn decide(
        &mut self,
        now: Duration,
        all: &[Key],
        mine: &BTreeMap<Key, OwnerNumber>,
    ) -> Decisions {
        let passed = self.pass(now);
        let mut stripes = std::mem::take(&mut self.stripes);
        let mut decisions = Decisions::default();
        for key in all {
            let history = stripes.entry(*key).or_default();
            history.pause = history.pause.saturating_sub(passed);
            match (mine.get(key), self.is_claimed(key)) {
                (Some(own), _) if self.is_beaten(key, *own) => decisions.lost.push(*key),
                (Some(own), _) => {
                    history.hold(*own, passed, self.timeout);
                    if decisions.give_back.is_none() && self.may_give_back(*key, history) {
                        history.give_back();
                        decisions.give_back = Some(*key);
                    }
                }
                (None, true) => history.is_away(passed, self.timeout),
                (None, false) => {
                    history.unclaimed += passed;
                    (history.held, history.away) = (Duration::ZERO, Duration::ZERO);
                    if self.may_take(key.1, history) {
                        decisions.take.push(*key);
                    }
                }
            }
        }
        // What went wrong in segments that are complete does not matter any more.
        let oldest = all.iter().map(|key| key.0).min();
        stripes.retain(|key, _| Some(key.0) >= oldest);
        self.stripes = stripes;
        decisions
    }

    /// Counts the time since the last tick, and gives it.
    fn pass(&mut self, now: Duration) -> Duration {
        let since = self.ticked_at.replace(now).unwrap_or(now);
        let passed = now.saturating_sub(since).min(self.tick() * LONGEST_TICK);
        self.running += passed;
        for watched in &mut self.watched {
            if !std::mem::take(&mut watched.fresh) {
                watched.silence += passed;
            }
            watched.steady = match watched.is_alive(self.timeout) {
                true => watched.steady + passed,
                false => Duration::ZERO,
            };
        }
        passed
    }

    /// Peers that are there and claim a stripe, each with its number.
    fn claims(&self, key: &Key) -> impl Iterator<Item = (usize, OwnerNumber)> {
        let peers = self.watched.iter().enumerate();
        let there = peers.filter(|(at, peer)| *at != self.own && peer.is_there(self.timeout));
        there.filter_map(|(at, peer)| Some((at, *peer.claims.get(key)?)))
    }

    fn is_claimed(&self, key: &Key) -> bool {
        self.claims(key).next().is_some()
    }

    /// Whether a peer is the one to serve a stripe that this member claims, too. Two that have taken it from the same
    /// end of its chain have the same number until one of them puts something: the later in the order goes.
    fn is_beaten(&self, key: &Key, own: OwnerNumber) -> bool {
        let before = |peer| self.rank(peer, key.1) < self.rank(self.own, key.1);
        let shared = |number| number == own && own > OwnerNumber(0);
        self.claims(key)
            .any(|(peer, number)| number > own || shared(number) && before(peer))
    }

    fn may_take(&self, stripe: StripeId, history: &History) -> bool {
        if history.pause > Duration::ZERO || !self.knows_all() {
            return false;
        }
        let order = self.order(stripe);
        let home = self.home(stripe).and_then(|home| self.watched.get(home));
        // Or not listed yet.
        let never_heard =
            home.is_none_or(|home| matches!(home.contact, Contact::Unknown | Contact::Refused));
        if !self.is_home(stripe) && never_heard && self.running < self.timeout * GRACE {
            return false;
        }
        let Some(before) = order.iter().position(|member| *member == self.own) else {
            return false;
        };
        let before = u32::try_from(before).unwrap_or(u32::MAX);
        history.unclaimed >= (self.timeout * PATIENCE).saturating_mul(before)
    }

    /// Whether of each peer it is known by now whether it is there.
    fn knows_all(&self) -> bool {
        let mut others = self.watched.iter().enumerate();
        self.running >= self.timeout
            || others.all(|(at, peer)| {
                at == self.own || !peer.listed || peer.contact != Contact::Unknown
            })
    }

    /// The members that are alive in the order in which they are to take a stripe: its home, and then each stripe has an
    /// order of its own, so that what one leaves behind spreads over the others.
    fn order(&self, stripe: StripeId) -> Vec<usize> {
        let members = self.watched.iter().enumerate();
        let alive = members.filter(|(at, peer)| *at == self.own || peer.is_alive(self.timeout));
        let mut order: Vec<_> = alive
            .filter_map(|(at, _)| Some((self.rank(at, stripe)?, at)))
            .collect();
        order.sort_unstable();
        order.into_iter().map(|(_, at)| at).collect()
    }

    /// Where a member stands in the order of a stripe: lower ranks come first.
    fn rank(&self, member: usize, stripe: StripeId) -> Option<Rank> {
        let member = self.watched.get(member)?;
        Some(Rank::new(&member.writer, stripe))
    }

    fn home(&self, stripe: StripeId) -> Option<usize> {
        let members = self.watched.iter().enumerate();
        let known = members.filter(|(_, peer)| peer.listed || peer.is_alive(self.timeout));
        let ranks = known.map(|(at, peer)| (Rank::new(&peer.writer, stripe), at));
        let least = ranks.filter(|(rank, _)| rank.is_home()).min();
        least.map(|(_, at)| at)
    }

    fn may_give_back(&self, (_, stripe): Key, history: &History) -> bool {
        let home = self.home(stripe).filter(|home| *home != self.own);
        let Some(home) = home.and_then(|home| self.watched.get(home)) else {
            return false;
        };
        let steady = self.timeout * STEADY;
        home.is_alive(self.timeout)
            && home.steady >= steady
            && history.held >= doubled(steady, history.returns)
    }
}

impl Watched {
    fn new(writer: &Writer) -> Self {
        Self {
            writer: writer.clone(),
            listed: true,
            vacant: false,
            contact: Contact::Unknown,
            silence: Duration::ZERO,
            fresh: false,
            steady: Duration::ZERO,
            claims: BTreeMap::new(),
        }
    }

    /// Whether what it claims is its own.
    fn is_there(&self, timeout: Duration) -> bool {
        self.is_alive(timeout) || (self.contact == Contact::Leaving && self.silence < timeout)
    }

    /// Whether it may take stripes.
    fn is_alive(&self, timeout: Duration) -> bool {
        self.contact == Contact::Heard && self.silence < timeout
    }
}

impl History {
    fn hold(&mut self, number: OwnerNumber, passed: Duration, timeout: Duration) {
        self.held += passed;
        (self.unclaimed, self.away) = (Duration::ZERO, Duration::ZERO);
        if number > OwnerNumber(0) {
            self.failures = 0;
        }
        if self.held >= timeout * FORGET {
            self.losses = 0;
        }
    }

    /// Until what is held is durable the stripe stays this member's: that it is given back is counted once.
    fn give_back(&mut self) {
        self.returns = self.returns.saturating_add(1);
        self.held = Duration::ZERO;
    }

    fn is_away(&mut self, passed: Duration, timeout: Duration) {
        self.away += passed;
        (self.unclaimed, self.held) = (Duration::ZERO, Duration::ZERO);
        if self.away >= timeout * FORGET {
            self.returns = 0;
        }
    }
}

fn doubled(pause: Duration, times: u32) -> Duration {
    pause * (1 << times.min(DOUBLINGS))
}

#[cfg(test)]
mod tests;
