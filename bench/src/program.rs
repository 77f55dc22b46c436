//! What the program in the driver hook of a sequencer has counted, as its metrics tell it.

use std::collections::BTreeMap;

use serde::Serialize;

use crate::net::metrics::Metrics;

/// Share of frames that the program has to answer itself, so that their rate is its own.
pub(crate) const PROGRAM_SHARE: f64 = 0.999;

/// Counts of a run, or of several together.
#[derive(Debug, Clone, Default, Serialize)]
pub(crate) struct ProgramCounts {
    /// Datagrams that it answered.
    pub(crate) answered: f64,
    /// Requests that it gave a token.
    pub(crate) granted: f64,
    /// Positions that it granted.
    pub(crate) tokens: f64,
    /// Requests that it gave the token that they had.
    pub(crate) retries: f64,
    /// Datagrams that it left to the sockets, by reason.
    pub(crate) passed_up: BTreeMap<String, f64>,
}

impl ProgramCounts {
    /// What a sequencer tells, since it was started.
    #[must_use]
    pub(crate) fn of(metrics: &Metrics) -> Self {
        let get = |name: &str| metrics.get(&format!("sequencer_program_{name}_total"));
        let passed_up = metrics.by("sequencer_program_passed_up_total", "reason");
        Self {
            answered: get("answered"),
            granted: get("granted"),
            tokens: get("tokens"),
            retries: get("retries"),
            passed_up,
        }
    }

    /// What was counted since an earlier look.
    #[must_use]
    pub(crate) fn since(mut self, before: &Self) -> Self {
        self.answered -= before.answered;
        self.granted -= before.granted;
        self.tokens -= before.tokens;
        self.retries -= before.retries;
        for (reason, count) in &mut self.passed_up {
            *count -= before.passed_up.get(reason).unwrap_or(&0.0);
        }
        self
    }

    /// Adds those of another run.
    pub(crate) fn add(&mut self, other: &Self) {
        self.answered += other.answered;
        self.granted += other.granted;
        self.tokens += other.tokens;
        self.retries += other.retries;
        for (reason, count) in &other.passed_up {
            *self.passed_up.entry(reason.clone()).or_default() += count;
        }
    }

    /// The part that it answered itself of all datagrams that it saw.
    #[must_use]
    pub(crate) fn share(&self) -> f64 {
        let all = self.answered + self.passed_up.values().sum::<f64>();
        self.answered / all.max(1.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn counts(answered: f64, busy: f64) -> ProgramCounts {
        ProgramCounts {
            answered,
            passed_up: [("busy".to_owned(), busy)].into(),
            ..ProgramCounts::default()
        }
    }

    #[test]
    fn shares_are_of_what_was_seen_in_a_run() {
        let mut run = counts(100.0, 5.0).since(&counts(10.0, 5.0));
        assert_eq!((run.answered, run.share()), (90.0, 1.0));
        run.add(&counts(0.0, 10.0));
        assert_eq!((run.passed_up["busy"], run.share()), (10.0, 0.9));
    }
}
