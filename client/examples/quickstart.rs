//! Appends two records and reads them back. Takes the settings that the command takes:
//! `scripts/run.sh --keep` prints where its log is.
//!
//! `cargo run --release -p stripelog --example quickstart`

use std::error::Error;

use bytes::Bytes;
use clap::Parser;
use runtime::settings::{CommonArgs, Settings};
use stripelog::{Content, Log, Options, Tail};

#[derive(Parser)]
struct Args {
    #[command(flatten)]
    common: CommonArgs,
}

#[tokio::main]
async fn main() -> Result<(), Box<dyn Error>> {
    let settings = Settings::load(&Args::parse().common, Vec::new())?;
    let log = Log::open(Options::from_settings(&settings)?).await?;

    let positions = log
        .append(vec![Bytes::from("first"), Bytes::from("second")])
        .await?;
    eprintln!("durable at {positions:?}");

    let tail = log.tail(Tail::Linearizable).await?;
    let mut scan = log.read(positions[0]..tail);
    while let Some(item) = scan.next().await? {
        if let Content::Record(record) = item.content {
            eprintln!("{} {}", item.position, String::from_utf8_lossy(&record));
        }
    }
    Ok(())
}
