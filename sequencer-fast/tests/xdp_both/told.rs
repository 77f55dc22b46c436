//! What clients were told, and whether it can be true.

use std::collections::BTreeMap;

use sequencer_fast::Status;
use wire::Epoch;
use wire::control::ControlEntry;

/// A token as it was told.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Token {
    pub(crate) first: u64,
    pub(crate) end: u64,
    pub(crate) epoch: u64,
    pub(crate) client: u64,
    pub(crate) lane: u32,
    pub(crate) request: u64,
}

/// What a client was told.
#[derive(Debug, Default)]
pub(crate) struct Told {
    pub(crate) tokens: Vec<Token>,
    pub(crate) requests: u64,
    pub(crate) replies: u64,
    pub(crate) tails: u64,
    pub(crate) conditional: u64,
    pub(crate) refused: u64,
    pub(crate) busy: u64,
    /// Refusals to requests that were made while nothing may be granted.
    pub(crate) silenced: u64,
    /// Replies to what was asked so long ago that it is not known any more.
    pub(crate) late: u64,
}

impl Told {
    pub(crate) fn add(&mut self, mut other: Self) {
        self.tokens.append(&mut other.tokens);
        self.requests += other.requests;
        self.replies += other.replies;
        self.tails += other.tails;
        self.conditional += other.conditional;
        self.refused += other.refused;
        self.busy += other.busy;
        self.silenced += other.silenced;
        self.late += other.late;
    }

    /// [S-1] No position belongs to two requests, nor twice to one. What was told again is the same.
    pub(crate) fn assert_disjoint(&mut self) {
        self.tokens.sort_unstable();
        self.tokens.dedup();
        for pair in self.tokens.windows(2) {
            assert!(pair[0].end <= pair[1].first, "twice: {pair:?}");
        }
    }

    /// Each token lies where its reign was.
    pub(crate) fn assert_within_reigns(&self, entries: &[ControlEntry]) {
        let mut reigns = BTreeMap::<u64, (u64, u64)>::new();
        for entry in entries {
            let Epoch(epoch) = entry.epoch;
            let bounds = (entry.epoch_start.0, entry.reservation.0);
            if reigns.insert(epoch, bounds).is_none()
                && let Some((_, before)) = reigns.range_mut(..epoch).next_back()
            {
                // What was held for want of reservation is covered by where the next one starts.
                before.1 = entry.epoch_start.0;
            }
        }
        for token in &self.tokens {
            let (start, end) = reigns.get(&token.epoch).expect("a reign of the chain");
            assert!(
                token.first >= *start && token.end <= *end,
                "not in its reign: start={start} end={end} {token:?}"
            );
        }
    }

    /// [S-6] How many tokens requests got beyond their first of a reign, and the most that one got, of some clients.
    /// To be called after [`Self::assert_disjoint`].
    pub(crate) fn second_tokens(&self, clients: impl Fn(u64) -> bool) -> (usize, usize) {
        let mut of: Vec<_> = self
            .tokens
            .iter()
            .filter(|token| clients(token.client))
            .map(|token| {
                (
                    token.client,
                    token.lane,
                    token.request,
                    token.epoch,
                    token.first,
                )
            })
            .collect();
        of.sort_unstable();
        let same = |a: &(u64, u32, u64, u64, u64), b: &(u64, u32, u64, u64, u64)| {
            (a.0, a.1, a.2, a.3) == (b.0, b.1, b.2, b.3)
        };
        let (mut second, mut most) = (0, 0);
        for tokens in of.chunk_by(same) {
            second += tokens.len() - 1;
            most = most.max(tokens.len());
        }
        (second, most)
    }
}

/// Who decided how much.
#[derive(Debug, Default)]
pub(crate) struct Decided {
    pub(crate) by_program: u64,
    pub(crate) by_shards: u64,
    /// Blocks that the program did not leave in time.
    pub(crate) stuck: u64,
    pub(crate) tokens: u64,
    /// Datagrams that the program has passed up, by reason.
    pub(crate) passed_up: BTreeMap<&'static str, u64>,
}

impl Decided {
    pub(crate) fn add(&mut self, status: &Status) {
        let program = status.program().expect("there is one");
        for (reason, count) in program.passed_up() {
            *self.passed_up.entry(reason).or_default() += count;
        }
        self.by_program += program.granted + program.retries;
        self.tokens += program.tokens;
        for shard in status.shards() {
            self.by_shards += shard.granted.get() + shard.retries.get();
            self.stuck += shard.stuck.get();
            self.tokens += shard.tokens.get();
        }
    }
}
