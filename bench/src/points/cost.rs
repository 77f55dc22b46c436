//! What a log costs in requests: counted by the server that gets them.

use std::time::Duration;

use anyhow::Result;
use serde::Serialize;
use stripelog::{Log, Options};
use tokio::time::sleep;

use crate::cluster::{Cluster, Spec};
use crate::host::Host;
use crate::logic::tally::Latency;
use crate::measure::{round, whole};
use crate::net::bucket::{Bucket, Requests};
use crate::report::Report;
use crate::volume::appends::{self, Shape};

/// Dollars for a PUT, COPY, POST or LIST: Amazon S3 Standard, us-east-1, 0.005 for 1,000
/// (<https://aws.amazon.com/s3/pricing/>, "Requests & data retrievals").
const PUT_DOLLARS: f64 = 0.005 / 1000.0;

/// Dollars for a GET or HEAD there: 0.0004 for 1,000.
const GET_DOLLARS: f64 = 0.0004 / 1000.0;

/// Dollars for a gigabyte and month there, of the first 50 TB.
const GB_MONTH_DOLLARS: f64 = 0.023;

/// Seconds of a month: 30 days.
const MONTH_SECONDS: f64 = 30.0 * 86_400.0;

/// Puts a second of a slow log with the unit that logs have by default.
const SLOW_PUTS_BAR: f64 = 6.0;

/// A slow log: records a second.
const SLOW_RATE: f64 = 100.0;

/// Longest time between two calls of a fast load: it appends what has come meanwhile.
const CALL_EVERY: f64 = 0.001;

/// How much is appended.
#[derive(Debug, Clone, clap::Args)]
pub(crate) struct Args {
    /// Records a second
    #[arg(long, value_delimiter = ',', default_values_t = [100.0, 10_000.0, 1_000_000.0])]
    rates: Vec<f64>,
    /// Stripes
    #[arg(long, value_name = "K", value_delimiter = ',', default_values_t = [32, 64])]
    stripes: Vec<u32>,
    /// Positions of a unit; 0 is the default of the product
    #[arg(long, value_name = "U", value_delimiter = ',', default_values_t = [1, 0])]
    units: Vec<u32>,
    /// How long a record waits for others
    #[arg(long, value_name = "MS", default_value_t = 250)]
    linger_ms: u64,
    /// Bytes of a record
    #[arg(long, value_name = "BYTES", default_value_t = 100)]
    size: usize,
    /// How long the server takes for a put
    #[arg(long, value_name = "MS", default_value_t = 20)]
    put_ms: u64,
    /// Measured seconds of each cell [default: 20, with --short 6]
    #[arg(long)]
    seconds: Option<f64>,
    /// The slow log only, and seconds
    #[arg(long)]
    short: bool,
}

/// One cell.
#[derive(Debug, Clone, Serialize)]
struct Cell {
    records_per_second: f64,
    stripes: u32,
    unit: u32,
    default_unit: bool,
    puts_per_second: f64,
    lists_per_second: f64,
    gets_per_second: f64,
    request_dollars_a_month: f64,
    storage_dollars_for_a_month_of_records: f64,
    acknowledged_per_second: f64,
    failed: u64,
    #[serde(flatten)]
    latency: Latency,
}

/// Measures all cells and reports.
///
/// # Errors
/// If a log does not run.
pub(crate) async fn run(args: Args) -> Result<Report> {
    let mut report = Report::new("cost");
    report.figure("host", Host::look());
    let (mut cells, mut slow) = (Vec::new(), 0.0_f64);
    let rates = match args.short {
        true => vec![SLOW_RATE],
        false => args.rates.clone(),
    };
    for rate in rates {
        for stripes in &args.stripes {
            for unit in &args.units {
                let cell = cell(&args, rate, *stripes, *unit).await?;
                eprintln!("{}", serde_json::to_string(&cell)?);
                if *unit == 0 && rate <= SLOW_RATE {
                    slow = slow.max(cell.puts_per_second);
                }
                cells.push(cell);
            }
        }
    }
    report.figure("linger_ms", args.linger_ms);
    report.figure("size", args.size);
    report.figure("put_ms", args.put_ms);
    report.figure("dollars_for_1000_puts", PUT_DOLLARS * 1000.0);
    report.figure("dollars_for_1000_gets", GET_DOLLARS * 1000.0);
    if args.units.contains(&0) {
        report.at_most("slow_log_puts_per_second", slow, SLOW_PUTS_BAR);
    }
    let failed: u64 = cells.iter().map(|cell| cell.failed).sum();
    report.exactly("failed", failed, 0);
    report.figure("cells", cells);
    Ok(report)
}

async fn cell(args: &Args, rate: f64, stripes: u32, unit: u32) -> Result<Cell> {
    let bucket = Bucket::start().await?;
    let cluster = Cluster::start(Spec {
        store: Some(bucket.url()),
        stripes: Some(stripes),
        unit: (unit > 0).then_some(unit),
        settings: vec![format!("writer.linger_ms={}", args.linger_ms)],
        environment: bucket.environment(),
        ..Spec::default()
    })
    .await?;
    let log = client(&bucket, cluster.options()).await?;
    let batch = whole(rate * CALL_EVERY).max(1);
    let shape = Shape {
        size: args.size,
        batch,
        calls: 1,
    };
    let logs = [log];
    // Every stripe is taken before the count begins.
    appends::open(&logs, shape, rate.max(10_000.0), Duration::from_secs(1)).await?;
    sleep(Duration::from_millis(2 * args.linger_ms)).await;
    bucket.pace(crate::net::bucket::Pace {
        put: Duration::from_millis(args.put_ms),
        ..Default::default()
    });
    let seconds = args.seconds.unwrap_or(if args.short { 6.0 } else { 20.0 });
    let before = bucket.requests();
    let appended = appends::open(&logs, shape, rate, Duration::from_secs_f64(seconds)).await?;
    let requests = bucket.requests().since(before);
    let unit_of_log = cluster.unit().await?;
    let second = |count: u64| count as f64 / appended.seconds;
    let stored_gb = rate * args.size as f64 * MONTH_SECONDS / 1e9;
    Ok(Cell {
        records_per_second: rate,
        stripes,
        unit: unit_of_log,
        default_unit: unit == 0,
        puts_per_second: round(second(requests.puts)),
        lists_per_second: round(second(requests.lists)),
        gets_per_second: round(second(requests.gets)),
        request_dollars_a_month: round(dollars(requests) / appended.seconds * MONTH_SECONDS),
        storage_dollars_for_a_month_of_records: round(stored_gb * GB_MONTH_DOLLARS),
        acknowledged_per_second: appended.records_per_second().round(),
        failed: appended.failed,
        latency: Latency::of(&appended.latency),
    })
}

fn dollars(requests: Requests) -> f64 {
    (requests.puts + requests.lists) as f64 * PUT_DOLLARS + requests.gets as f64 * GET_DOLLARS
}

/// A client of a log in a bucket.
///
/// # Errors
/// If it cannot be opened.
pub(crate) async fn client(bucket: &Bucket, options: Options) -> Result<Log> {
    let catalog = catalog::Log::open(bucket.store()?).await?;
    Ok(Log::open_in(catalog, options).await?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_bill_counts_puts_lists_and_gets() {
        let requests = Requests {
            puts: 1500,
            lists: 500,
            gets: 10_000,
            deletes: 9,
        };
        assert!((dollars(requests) - 0.014).abs() < 1e-9);
    }
}
