//! The check of a store's promise: of many creates of one name, exactly one wins (C-10).
//!
//! A store that ignores the condition would lose acknowledged records in silence. A sequential check is
//! not enough: some servers look first and write then, and only a race shows it.

use bytes::Bytes;
use futures::future::join_all;
use ulid::Ulid;
use wire::name::CHECK_PREFIX;

use super::backoff::Backoff;
use crate::{CatalogError, Create, ErrorKind, Store};

/// Creates of one name at the same time.
const RACERS: usize = 16;

/// Races, each over a name of its own.
const RACES: usize = 4;

/// How often a round is run when the store fails in it or lets nobody win. 8 rounds with their waits are
/// a few seconds: longer than a store throttles, short enough for a start.
const ROUND_ATTEMPTS: u32 = 8;

/// What the check did and found.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct CheckReport {
    /// Creates in each race.
    pub racers: usize,
    /// Races run.
    pub races: usize,
}

/// Outcome of a round that the store answered in full.
enum Round {
    /// Exactly one create won, and the object is the winner's.
    Sound,
    /// Nobody won: S3 may turn all racers away with 409. Says what the store did.
    Void(String),
    /// The store lies. Says how.
    Dishonest(String),
}

impl Store {
    /// Checks that the store honours create-only puts, one after another and in races. Leaves nothing
    /// behind in the store.
    ///
    /// # Errors
    /// [`CatalogError::Dishonest`] that says what the store did, or the store's own failure.
    pub async fn check(&self) -> Result<CheckReport, CatalogError> {
        let run = format!("{CHECK_PREFIX}/{}", Ulid::generate());
        let result = self.check_below(&run).await;
        self.clean(&run).await;
        result
    }

    async fn check_below(&self, run: &str) -> Result<CheckReport, CatalogError> {
        // The races come first: how many of their racers won says most about a store.
        for number in 0..RACES {
            self.settle(&format!("{run}/race-{number}"), |name| self.race(name))
                .await?;
        }
        self.settle(&format!("{run}/sequential"), |name| self.sequence(name))
            .await?;
        let (racers, races) = (RACERS, RACES);
        Ok(CheckReport { racers, races })
    }

    /// Runs rounds, each over a name of its own, until one tells whether the store is honest.
    async fn settle<F, T>(&self, name: &str, round: F) -> Result<(), CatalogError>
    where
        F: Fn(String) -> T,
        T: Future<Output = Result<Round, CatalogError>>,
    {
        let mut backoff = Backoff::new();
        let mut attempt = 1;
        loop {
            let last = attempt >= ROUND_ATTEMPTS;
            match round(format!("{name}-{attempt}")).await {
                Ok(Round::Sound) => return Ok(()),
                Ok(Round::Dishonest(what)) => return Err(self.dishonest(&what)),
                Ok(Round::Void(what)) if last => return Err(self.dishonest(&what)),
                Err(error) if last || error.kind() != ErrorKind::Retry => return Err(error),
                Ok(Round::Void(what)) => tracing::debug!(what, "round of the store check is void"),
                Err(error) => tracing::debug!(%error, "round of the store check is void"),
            }
            attempt += 1;
            backoff.wait().await;
        }
    }

    /// Two creates of one name, one after the other.
    async fn sequence(&self, name: String) -> Result<Round, CatalogError> {
        let first = self.create(&name, &[body(0)]).await?;
        if first == Create::Exists {
            let what = "it refuses to create a name that was never used";
            return Ok(Round::Void(what.to_owned()));
        }
        let second = self.create(&name, &[body(1)]).await?;
        let content = self.get(&name).await?;
        let answers = [first, second].into_iter().enumerate();
        Ok(judge(answers, content, "one after the other"))
    }

    /// Creates of one name at the same time. A failure of the store leaves the round undecided, unless
    /// several have won already.
    async fn race(&self, name: String) -> Result<Round, CatalogError> {
        let create = |racer| {
            let name = &name;
            async move { self.create(name, &[body(racer)]).await }
        };
        let (mut answers, mut failed) = (Vec::new(), None);
        for (racer, outcome) in join_all((0..RACERS).map(create))
            .await
            .into_iter()
            .enumerate()
        {
            match outcome {
                Ok(answer) => answers.push((racer, answer)),
                Err(error) => failed = Some(error),
            }
        }
        let content = self.get(&name).await?;
        let round = judge(answers.into_iter(), content, "at the same time");
        match (round, failed) {
            (round @ Round::Dishonest(_), _) | (round, None) => Ok(round),
            (_, Some(error)) => Err(error),
        }
    }

    fn dishonest(&self, what: &str) -> CatalogError {
        let url = self.url();
        CatalogError::Dishonest(format!(
            "it does not keep the promise of a conditional create: {what}: store={url}"
        ))
    }

    /// Rubbish that a failing store keeps is no reason to refuse it.
    async fn clean(&self, run: &str) {
        let mut backoff = Backoff::new();
        for _ in 0..ROUND_ATTEMPTS {
            match self.delete_below(run).await {
                Ok(()) => return,
                Err(error) => tracing::debug!(%error, "scratch objects stay, trying again"),
            }
            backoff.wait().await;
        }
        tracing::warn!(
            prefix = run,
            "the store check leaves scratch objects behind"
        );
    }

    async fn delete_below(&self, prefix: &str) -> Result<(), CatalogError> {
        for object in self.list(prefix, None).await? {
            self.delete(&object.name).await?;
        }
        self.remove_directory(prefix).await
    }
}

fn judge(
    answers: impl Iterator<Item = (usize, Create)>,
    content: Option<Bytes>,
    how: &str,
) -> Round {
    let answers: Vec<_> = answers.collect();
    let won = |(number, answer): &(usize, Create)| (*answer == Create::Done).then_some(*number);
    let winners: Vec<_> = answers.iter().filter_map(won).collect();
    let holds = match &content {
        Some(bytes) => format!("holds '{}'", String::from_utf8_lossy(bytes)),
        None => "is not there".to_owned(),
    };
    let (won, all) = (winners.len(), answers.len());
    let what = format!(
        "{won} of {all} creates of one name {how} won, must be exactly 1, and the object {holds}"
    );
    match winners.as_slice() {
        [] => Round::Void(what),
        [winner] if content == Some(body(*winner)) => Round::Sound,
        [winner] => Round::Dishonest(format!("{what}, must hold 'racer {winner}'")),
        _ => Round::Dishonest(what),
    }
}

fn body(racer: usize) -> Bytes {
    format!("racer {racer}").into()
}
