//! Arguments that points about failing daemons have in common.

use std::time::Duration;

use anyhow::Result;
use rand::Rng;

use crate::cluster::{Cluster, Spec};
use crate::net::bucket::{Bucket, Pace};
use crate::report::Report;

/// How often, in the long and in the short form.
#[derive(Debug, Clone, clap::Args)]
pub(crate) struct Rounds<const LONG: u32, const SHORT: u32> {
    #[arg(long, help = format!("{SHORT} rounds, not {LONG}"))]
    short: bool,
    #[arg(long, help = format!("Rounds [default: {LONG}, with --short {SHORT}]"))]
    rounds: Option<u32>,
}

impl<const LONG: u32, const SHORT: u32> Rounds<LONG, SHORT> {
    /// So often.
    #[must_use]
    pub(crate) fn count(&self) -> u32 {
        self.rounds.unwrap_or(self.of_form(LONG, SHORT))
    }

    /// What the long form has, or the short one.
    pub(crate) fn of_form<T>(&self, long: T, short: T) -> T {
        if self.short { short } else { long }
    }
}

/// What chance begins with.
#[derive(Debug, Clone, clap::Args)]
pub(crate) struct Seed {
    /// Seed of all that is random; drawn and printed without it
    #[arg(long)]
    seed: Option<u64>,
}

impl Seed {
    /// The seed, which is printed.
    #[must_use]
    pub(crate) fn draw(&self) -> u64 {
        let seed = self.seed.unwrap_or_else(|| rand::rng().random());
        eprintln!("seed {seed}");
        seed
    }
}

/// What chance begins with, and where the log is.
#[derive(Debug, Clone, clap::Args)]
pub(crate) struct Common {
    #[command(flatten)]
    pub(crate) seed: Seed,
    /// URL of the store; a local directory without it
    #[arg(long, value_name = "URL")]
    pub(crate) store: Option<String>,
}

/// Stops in good order, on a store that takes its time.
#[derive(Debug, Clone, clap::Args)]
pub(crate) struct Stops<const LONG: u32, const SHORT: u32> {
    #[command(flatten)]
    pub(crate) rounds: Rounds<LONG, SHORT>,
    /// Time that the store takes for each answer, in milliseconds
    #[arg(long, default_value_t = 10)]
    answer_ms: u64,
    /// Longest wait of a record for others before its object closes, in milliseconds
    #[arg(long, default_value_t = 10)]
    linger_ms: u64,
    #[command(flatten)]
    pub(crate) seed: Seed,
}

impl<const LONG: u32, const SHORT: u32> Stops<LONG, SHORT> {
    /// A cluster that nobody serves yet, and its store.
    ///
    /// # Errors
    /// What keeps it from being created.
    pub(crate) async fn cluster(&self, spec: Spec) -> Result<(Bucket, Cluster)> {
        let bucket = Bucket::start().await?;
        bucket.pace(Pace {
            answer: Duration::from_millis(self.answer_ms),
            ..Pace::default()
        });
        let mut settings = vec![format!("writer.linger_ms={}", self.linger_ms)];
        settings.extend(spec.settings);
        let spec = Spec {
            store: Some(bucket.url()),
            settings,
            environment: bucket.environment(),
            opened: Some(bucket.store()?),
            ..spec
        };
        let cluster = Cluster::create(spec).await?;
        Ok((bucket, cluster))
    }

    /// A report that begins with how it was run.
    #[must_use]
    pub(crate) fn report(&self, point: &'static str, seed: u64) -> Report {
        let mut report = Report::new(point);
        report.figure("seed", seed);
        report.figure("rounds", self.rounds.count());
        report.figure("answer_ms", self.answer_ms);
        report.figure("linger_ms", self.linger_ms);
        report
    }
}
