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
    /// What a sequencer tells that nobody has asked anything before.
    #[must_use]
    pub(crate) fn of(metrics: &Metrics) -> Self {
        let get = |name: &str| metrics.get(&format!("sequencer_program_{name}_total"));
        let mut passed_up = metrics.by("sequencer_program_passed_up_total", "reason");
        passed_up.retain(|_, count| *count > 0.0);
        Self {
            answered: get("answered"),
            granted: get("granted"),
            tokens: get("tokens"),
            retries: get("retries"),
            passed_up,
        }
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
