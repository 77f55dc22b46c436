//! A sequencer that waits for the reign of others to end.
//!
//! Owned by the checkpoint thread. Safety does not rest on what is found out here: a reign that is begun too early
//! fences one that stood, as any other does.

use std::time::Duration;

use catalog::{CatalogError, ErrorKind};
use tokio::time::{MissedTickBehavior, interval};
use wire::WriterId;
use wire::control::ControlEntry;

use super::begin::{Begun, begin_behind};
use super::control::Control;
use crate::clock;
use crate::logic::Watch;
use crate::net::others::{Others, Sign};

/// Time between two questions to the others, at most: what a planned hand-over waits for.
const ASK_EVERY: Duration = Duration::from_millis(25);

/// Questions within the time of detection, at least.
const QUESTIONS: u32 = 5;

/// Waits until no other sequencer reigns, and begins a reign. Silence counts after the first of the two times of
/// detection, of one that was never heard after the second.
///
/// # Errors
/// Whatever is not cured by trying again. That another standby was faster is no error: then it waits on.
pub(crate) async fn succeed<C: Control>(
    control: &C,
    others: &mut Others,
    owner: WriterId,
    window: u64,
    (detect, unheard): (Duration, Duration),
) -> Result<Begun, CatalogError> {
    let every = ASK_EVERY.min(detect / QUESTIONS);
    let watch = Watch::new(nanos(detect), nanos(every), clock::now_ns());
    let mut watch = watch.with_unheard(nanos(unheard));
    loop {
        let last = over(control, others, &mut watch, every).await?;
        let (epoch, clean) = (last.epoch, last.clean);
        tracing::info!(%epoch, clean, "no sequencer reigns: beginning a reign");
        // [S-4] Behind the entry whose reign was found to be over, and no later one: if the chain has gone on
        // meanwhile, the create fails.
        match begin_behind(control, &last, owner, window).await {
            Err(error) if error.kind() == ErrorKind::Fenced => {
                tracing::info!(%error, "another sequencer was faster: standing by");
                watch.lost();
            }
            begun => return begun,
        }
    }
}

/// Waits until the reign of the chain's newest entry is over, and gives that entry.
async fn over<C: Control>(
    control: &C,
    others: &mut Others,
    watch: &mut Watch,
    every: Duration,
) -> Result<ControlEntry, CatalogError> {
    let mut ticks = interval(every);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut again = false;
    loop {
        // As long as nobody is silent the store is left alone.
        if !std::mem::take(&mut again) {
            until_look(others, watch, &mut ticks).await;
        }
        let look = control.last();
        tokio::pin!(look);
        // A store that is slow does not make the others look silent.
        let looked = loop {
            tokio::select! {
                looked = &mut look => break looked,
                (from, sign) = others.sign() => again |= note(watch, from, sign),
                _ = ticks.tick() => {
                    others.ask();
                    again |= watch.tick(clock::now_ns());
                }
            }
        };
        watch.looked();
        match looked {
            Ok(last) if watch.seen(&last) => return Ok(last),
            Ok(_) => {}
            // [S-4] A failure says nothing about the chain.
            Err(error) if error.kind() == ErrorKind::Retry => {
                tracing::warn!(%error, "cannot read the control chain: trying again");
            }
            Err(error) => return Err(error),
        }
    }
}

async fn until_look(others: &mut Others, watch: &mut Watch, ticks: &mut tokio::time::Interval) {
    loop {
        tokio::select! {
            (from, sign) = others.sign() => if note(watch, from, sign) {
                return;
            },
            _ = ticks.tick() => {
                others.ask();
                if watch.tick(clock::now_ns()) {
                    return;
                }
            }
        }
    }
}

/// Tells the watch. Returns whether the chain is to be looked at now.
fn note(watch: &mut Watch, from: usize, sign: Sign) -> bool {
    match sign {
        Sign::Told(epoch, status) => watch.heard(from, epoch, status),
        Sign::Gone => watch.gone(from),
    }
}

fn nanos(duration: Duration) -> u64 {
    u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX)
}
