//! `stripelog read` and `stripelog follow`.

use std::pin::pin;
use std::time::Duration;

use futures::FutureExt;
use stripelog::{ErrorKind, Item, Log, Position, Scan, Tail};

use super::failure::Failure;
use super::output::Output;
use super::{FollowArgs, ReadArgs};

/// Where following starts.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Start {
    At(Position),
    Tail,
}

/// When a follower asks whether the servers are there, first and then again and again, until one is not.
const PATIENCE: (Duration, Duration) = (Duration::from_secs(2), Duration::from_secs(30));

/// Pause of a follower after the store failed.
const PAUSE: Duration = Duration::from_secs(1);

pub(crate) fn parse_start(text: &str) -> Result<Start, String> {
    if text == "tail" {
        return Ok(Start::Tail);
    }
    let position = text.parse().map_err(|_| "a position or \"tail\"")?;
    Ok(Start::At(Position(position)))
}

pub(crate) async fn read(log: &Log, args: ReadArgs, json: bool) -> Result<(), Failure> {
    let from = match args.from {
        Some(from) => Position(from),
        None => log.trim_point().await?,
    };
    let to = match args.to {
        Some(to) => Position(to),
        None => end(log).await?,
    };
    let mut out = Output::file(args.out.as_deref())?;
    let mut scan = log.read(from..to).with_junk(args.shown.junk);
    let mut left = args.count.unwrap_or(u64::MAX);
    while left > 0 {
        let next = scan.next().await;
        let item = match next {
            Ok(Some(item)) => item,
            Ok(None) => break,
            Err(error) => {
                // What is before the error was read and is worth having.
                out.flush()?;
                return Err(error.into());
            }
        };
        out.item(&item, &args.shown, json)?;
        left -= u64::from(is_record(&item));
    }
    out.flush()
}

/// Where a read ends that is not told where.
async fn end(log: &Log) -> Result<Position, Failure> {
    // It is asked for its state first: that it is there is known sooner than that nothing is under way.
    let asked = tokio::time::timeout(PATIENCE.0, log.tails()).await;
    if let Ok(Ok(_)) = asked {
        return Ok(log.tail(Tail::Linearizable).await?);
    }
    let end = log.stored_tail().await?;
    tracing::warn!(position = %end, "the sequencer does not answer, reading what is in the store");
    Ok(end)
}

pub(crate) async fn follow(log: &Log, args: FollowArgs, json: bool) -> Result<(), Failure> {
    let from = match args.from {
        Some(Start::At(position)) => position,
        Some(Start::Tail) => log.tail(Tail::Issued).await?,
        None => log.trim_point().await?,
    };
    let stop = runtime::stop::signal().map_err(|source| Failure::Io {
        what: "listening for signals".to_owned(),
        source,
    })?;
    let mut stop = pin!(stop);
    let mut out = Output::stdout();
    let mut scan = log.follow(from).with_junk(args.shown.junk);
    let mut left = args.count.unwrap_or(u64::MAX);
    let mut silence = pin!(tell_silence(log));
    let mut told = false;
    while left > 0 {
        let item = {
            let mut item = pin!(next(&mut scan, &mut out));
            loop {
                tokio::select! {
                    item = &mut item => break item?,
                    _ = &mut stop => break None,
                    () = &mut silence, if !told => told = true,
                }
            }
        };
        let Some(item) = item else {
            break;
        };
        out.item(&item, &args.shown, json)?;
        left -= u64::from(is_record(&item));
    }
    out.flush()
}

/// Tells, once, if a server does not answer: what follows from there comes late, or not at all.
async fn tell_silence(log: &Log) {
    let mut pause = PATIENCE.0;
    loop {
        tokio::time::sleep(pause).await;
        pause = PATIENCE.1;
        if let Ok(status) = log.status().await
            && !status.problems.is_empty()
        {
            let problems = status.problems.join("; ");
            tracing::warn!(%problems, "waiting for servers that do not answer");
            return;
        }
    }
}

/// The next item; what was written before goes out when there is a wait.
async fn next(scan: &mut Scan, out: &mut Output) -> Result<Option<Item>, Failure> {
    loop {
        let ready = scan.next().now_or_never();
        let next = match ready {
            Some(next) => next,
            None => {
                out.flush()?;
                scan.next().await
            }
        };
        match next {
            Ok(item) => return Ok(item),
            Err(error) if error.kind() == ErrorKind::Retry => {
                tracing::warn!(position = %scan.position(), reason = %error, "trying again");
                tokio::time::sleep(PAUSE).await;
            }
            Err(error) => {
                out.flush()?;
                return Err(error.into());
            }
        }
    }
}

fn is_record(item: &Item) -> bool {
    matches!(item.content, stripelog::Content::Record(_))
}
