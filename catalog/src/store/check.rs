//! The check of a store's promise: of many creates of one name, exactly one wins (C-10).
//!
//! A store that ignores the condition would lose acknowledged records in silence. A sequential check is
//! not enough: some servers look first and write then, and only a race shows it.

use bytes::Bytes;
use futures::future::join_all;
use ulid::Ulid;
use wire::name::CHECK_PREFIX;

use super::backoff::Backoff;
use crate::{CatalogError, Create, Store};

/// Creates of one name at the same time.
const RACERS: usize = 16;

/// Races, each over a name of its own.
const RACES: usize = 4;

/// How often a race is run again when the store failed in it.
const RACE_ATTEMPTS: u32 = 4;

/// What the check did and found.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct CheckReport {
    /// Creates in each race.
    pub racers: usize,
    /// Races run.
    pub races: usize,
}

/// Outcome of one race that the store answered in full.
struct Race {
    winners: Vec<usize>,
    content: Option<Bytes>,
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
        let cleaned = self.delete_below(&run).await;
        let report = result?;
        cleaned?;
        Ok(report)
    }

    async fn check_below(&self, run: &str) -> Result<CheckReport, CatalogError> {
        self.check_sequential(&format!("{run}/sequential")).await?;
        for number in 0..RACES {
            self.check_race(&format!("{run}/race-{number}")).await?;
        }
        let (racers, races) = (RACERS, RACES);
        Ok(CheckReport { racers, races })
    }

    async fn check_sequential(&self, name: &str) -> Result<(), CatalogError> {
        let first = Bytes::from_static(b"first");
        self.create(name, std::slice::from_ref(&first)).await?;
        let second = self.create(name, &[Bytes::from_static(b"second")]).await?;
        let content = self.get(name).await?;
        if second == Create::Done || content.as_ref() != Some(&first) {
            return Err(CatalogError::Dishonest(format!(
                "it ignores the condition of a create: a second create of one name {}, the object holds the {} content: store={}",
                if second == Create::Done {
                    "succeeded"
                } else {
                    "was refused"
                },
                if content == Some(first) {
                    "first"
                } else {
                    "second"
                },
                self.url(),
            )));
        }
        Ok(())
    }

    async fn check_race(&self, name: &str) -> Result<(), CatalogError> {
        let mut backoff = Backoff::new();
        let mut attempt = 1;
        loop {
            let race = self.race(&format!("{name}-{attempt}")).await;
            match race {
                Ok(race) if race.winners.len() > 1 => return Err(self.dishonest(&race)),
                Ok(race) => {
                    let winner = race.winners.first().map(|racer| body(*racer));
                    if winner.is_some() && race.content == winner {
                        return Ok(());
                    }
                    // S3 may turn all racers away with 409; then nobody has won and the race is void.
                    if winner.is_some() || attempt >= RACE_ATTEMPTS {
                        return Err(self.dishonest(&race));
                    }
                }
                Err(error) if attempt >= RACE_ATTEMPTS || error.is_definite() => return Err(error),
                Err(error) => tracing::debug!(%error, "race of the store check is void"),
            }
            attempt += 1;
            backoff.wait().await;
        }
    }

    /// Lets all racers create one name. An error of the store makes the race void, unless several have
    /// won already.
    async fn race(&self, name: &str) -> Result<Race, CatalogError> {
        let racers =
            (0..RACERS).map(|racer| async move { self.create(name, &[body(racer)]).await });
        let (mut winners, mut failed) = (Vec::new(), None);
        for (racer, outcome) in join_all(racers).await.into_iter().enumerate() {
            match outcome {
                Ok(Create::Done) => winners.push(racer),
                Ok(Create::Exists) => {}
                Err(error) => failed = Some(error),
            }
        }
        match failed {
            Some(error) if winners.len() <= 1 => Err(error),
            _ => {
                let content = self.get(name).await?;
                Ok(Race { winners, content })
            }
        }
    }

    fn dishonest(&self, race: &Race) -> CatalogError {
        let winners = race.winners.len();
        let content = match &race.content {
            Some(bytes) => String::from_utf8_lossy(bytes).into_owned(),
            None => "nothing".to_owned(),
        };
        CatalogError::Dishonest(format!(
            "it does not keep the promise of a conditional create: {winners} of {RACERS} racers won, must be exactly 1 (the object holds '{content}'): store={}",
            self.url(),
        ))
    }

    async fn delete_below(&self, prefix: &str) -> Result<(), CatalogError> {
        for object in self.list(prefix, None).await? {
            self.delete(&object.name).await?;
        }
        Ok(())
    }
}

fn body(racer: usize) -> Bytes {
    format!("racer {racer}").into()
}
