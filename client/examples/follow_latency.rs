//! How long after its acknowledgement a follower sees a record. Takes the settings that the command takes:
//! `scripts/run.sh --keep` prints where its log is.
//!
//! `cargo run --release -p stripelog --example follow_latency`

use std::collections::HashMap;
use std::error::Error;
use std::time::{Duration, Instant};

use bytes::Bytes;
use clap::Parser;
use runtime::settings::{CommonArgs, Settings};
use stripelog::{Content, Log, Options, Position, Tail};
use tokio::sync::mpsc;

#[derive(Parser)]
struct Args {
    #[command(flatten)]
    common: CommonArgs,
    /// Records
    #[arg(long, default_value_t = 2000)]
    records: usize,
    /// Milliseconds between two appends
    #[arg(long, default_value_t = 5)]
    every_ms: u64,
    /// Bytes of a record
    #[arg(long, default_value_t = 1024)]
    record: usize,
}

#[allow(clippy::disallowed_methods, reason = "it measures")]
fn now() -> Instant {
    Instant::now()
}

#[tokio::main]
async fn main() -> Result<(), Box<dyn Error>> {
    let args = Args::parse();
    let settings = Settings::load(&args.common, Vec::new())?;
    let log = Log::open(Options::from_settings(&settings)?).await?;
    let mut scan = log.follow(log.tail(Tail::Linearizable).await?);
    let (acked, mut acks) = mpsc::unbounded_channel::<(Position, Instant)>();
    let appender = log.clone();
    tokio::spawn(async move {
        let mut tick = tokio::time::interval(Duration::from_millis(args.every_ms));
        for _ in 0..args.records {
            tick.tick().await;
            let (log, acked) = (appender.clone(), acked.clone());
            let record = Bytes::from(vec![b'x'; args.record]);
            tokio::spawn(async move {
                if let Ok(position) = log.append_one(record).await {
                    let _ = acked.send((position, now()));
                }
            });
        }
    });
    let mut seen = HashMap::new();
    while seen.len() < args.records {
        if let Some(item) = scan.next().await?
            && let Content::Record(_) = item.content
        {
            seen.insert(item.position, now());
        }
    }
    let mut late = Vec::new();
    while let Some((position, acked)) = acks.recv().await {
        let seen = seen.get(&position).ok_or("not seen")?;
        late.push(seen.saturating_duration_since(acked).as_secs_f64() * 1e3);
    }
    late.sort_by(f64::total_cmp);
    let at = |percent: usize| {
        let index = late.len() * percent / 100;
        late.get(index).or(late.last()).copied().unwrap_or(0.0)
    };
    let (p50, p99, max) = (at(50), at(99), at(100));
    eprintln!(
        "{{\"records\":{},\"p50_ms\":{p50:.3},\"p99_ms\":{p99:.3},\"max_ms\":{max:.3}}}",
        late.len()
    );
    Ok(())
}
