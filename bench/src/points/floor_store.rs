//! What the store takes and gives without a log on it.

use std::time::Duration;

use anyhow::Result;

use crate::host::Host;
use crate::report::Report;
use crate::volume::raw::{self, GetArgs, PutArgs};
use crate::volume::stores::StoreArgs;

/// What is put and got, and where.
#[derive(Debug, Clone, clap::Args)]
pub(crate) struct Args {
    #[command(flatten)]
    store: StoreArgs,
    #[command(flatten)]
    puts: PutArgs,
    #[command(flatten)]
    gets: GetArgs,
    /// Seconds of each
    #[arg(long, default_value_t = 3.0)]
    seconds: f64,
}

/// Measures and reports.
///
/// # Errors
/// If the store fails.
pub(crate) async fn run(args: Args) -> Result<Report> {
    let mut report = Report::new("floor-store");
    report.figure("host", Host::look());
    let scratch = args.store.scratch()?;
    let store = scratch.open()?;
    let time = Duration::from_secs_f64(args.seconds);
    let puts = raw::puts(&store, "raw", args.puts, time).await?;
    let objects = raw::objects(&store, "raw").await?;
    let gets = raw::gets(&store, &objects, args.gets, time).await?;
    raw::clear(&store, "raw").await?;
    report.figure("store", &args.store.store);
    report.figures(&args.puts);
    report.figures(&args.gets);
    report.figure("put", puts.figures());
    report.figure("get", gets.figures());
    Ok(report)
}
