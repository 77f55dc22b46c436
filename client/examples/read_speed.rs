//! Reads a log that it writes itself, turn by turn with parallel gets of the same objects, and prints how
//! the speeds compare. Needs no server.
//!
//! `cargo run --release -p stripelog --example read_speed -- --store file:///dev/shm/speed`

use std::error::Error;
use std::time::Instant;

use bytes::Bytes;
use catalog::{Log as Catalog, Membership, Store, Writer};
use clap::Parser;
use futures::{StreamExt, TryStreamExt, stream};
use stripelog::{Content, Log, Options, Position};
use wire::object::{Author, Object};
use wire::{ClientId, Epoch, Identity, Layout, OwnerNumber, RequestId, Run, RunBody, WriterId};

#[derive(Parser)]
struct Args {
    /// URL of a store without a log; the directory of a file store has to exist
    #[arg(long)]
    store: String,
    /// Stripes
    #[arg(long, default_value_t = 64)]
    stripes: u32,
    /// Positions that stay on a stripe
    #[arg(long, default_value_t = 1024)]
    unit: u32,
    /// Objects a stripe
    #[arg(long, default_value_t = 2)]
    objects: u64,
    /// Bytes of a record
    #[arg(long, default_value_t = 1024)]
    record: usize,
    /// Bytes of an object, about
    #[arg(long, default_value_t = 16 << 20)]
    object: usize,
    /// Parallel gets
    #[arg(long, default_value_t = 16)]
    gets: usize,
    /// Turns of each
    #[arg(long, default_value_t = 5)]
    rounds: usize,
    /// MiB that a scan reads ahead
    #[arg(long)]
    read_ahead: Option<usize>,
    /// Directory of a cache
    #[arg(long)]
    cache: Option<std::path::PathBuf>,
    /// MiB of the cache
    #[arg(long, default_value_t = 4096)]
    cache_size: usize,
    /// Scans only, for a profiler
    #[arg(long)]
    scans_only: bool,
}

/// Writes a log, and returns the names of its objects and its end.
async fn write(catalog: &Catalog, args: &Args) -> Result<(Vec<String>, Position), Box<dyn Error>> {
    let segment = *catalog.last().await?.last_segment()?;
    let most = ((1 << 20) / (args.record + 4)).max(1);
    let records: Vec<Bytes> = (0_u8..=255)
        .cycle()
        .take(most)
        .map(|byte| Bytes::from(vec![byte; args.record]))
        .collect();
    let body = RunBody::new(&records)?;
    let runs = (args.object / body.len()).max(1) as u64;
    let slots = runs * u64::from(body.count());
    let author = Author {
        epoch: Epoch(1),
        owner: OwnerNumber(1),
        writer: WriterId([1; 16]),
    };
    let identity = Identity {
        client: ClientId(1),
        request: RequestId(1),
    };
    let (body, objects) = (&body, args.objects);
    let puts = segment.layout.all().flat_map(|stripe| {
        let chain = catalog.chain(&segment, stripe);
        (0..objects).map(move |number| {
            let chain = chain.clone();
            async move {
                let first = chain.first_slot().plus(number * slots);
                let run = |number| {
                    let first = first.plus(number * u64::from(body.count()));
                    Run::records(first, identity, body.clone())
                };
                let runs: Vec<_> = (0..runs).map(run).collect();
                let object = Object::build(chain.id(), author, &runs)?;
                let name = chain.id().object_name(object.index.header.start);
                chain.put(&object).await?;
                Ok::<_, Box<dyn Error>>(name)
            }
        })
    });
    let names = stream::iter(puts).buffered(4).try_collect().await?;
    let unit = u64::from(args.unit);
    let end = objects * slots / unit * unit * u64::from(args.stripes);
    Ok((names, Position(end)))
}

async fn gets(store: &Store, names: &[String], parallel: usize) -> Result<u64, Box<dyn Error>> {
    let gets = stream::iter(names.to_vec()).map(|name| {
        let store = store.clone();
        tokio::spawn(async move { store.get(&name).await })
    });
    let mut gets = gets.buffered(parallel);
    let mut bytes = 0;
    while let Some(got) = gets.next().await {
        bytes += got??.map_or(0, |b| b.len() as u64);
    }
    Ok(bytes)
}

async fn scan(log: &Log, end: Position) -> Result<u64, Box<dyn Error>> {
    let mut scan = log.read(Position(0)..end);
    let mut bytes = 0;
    while let Some(item) = scan.next().await? {
        if let Content::Record(record) = item.content {
            bytes += record.len() as u64;
        }
    }
    Ok(bytes)
}

#[tokio::main]
async fn main() -> Result<(), Box<dyn Error>> {
    let args = Args::parse();
    let store = Store::open(&args.store)?;
    let layout = Layout::new(args.stripes, args.unit)?;
    let catalog = Catalog::create(store.clone(), layout).await?;
    let (names, end) = write(&catalog, &args).await?;
    let membership = Membership {
        sequencers: vec!["127.0.0.1:9".parse()?],
        writers: vec![Writer {
            address: "127.0.0.1:9".parse()?,
            stripes: 0..=1023,
        }],
    };
    let mut options = Options::new(&args.store, membership);
    if let Some(mib) = args.read_ahead {
        options = options.read_ahead_bytes(mib << 20);
    }
    if let Some(directory) = &args.cache {
        options = options.cache(directory, args.cache_size << 20);
    }
    let log = Log::open(options).await?;
    let gbs = |bytes: u64, from: Instant| bytes as f64 / 1e9 / from.elapsed().as_secs_f64();
    let mut ratios = Vec::new();
    for round in 0..args.rounds {
        #[allow(clippy::disallowed_methods, reason = "it measures")]
        let from = Instant::now();
        let raw = match args.scans_only {
            true => 0.0,
            false => gbs(gets(&store, &names, args.gets).await?, from),
        };
        #[allow(clippy::disallowed_methods, reason = "it measures")]
        let from = Instant::now();
        let read = gbs(scan(&log, end).await?, from);
        ratios.push(read / raw);
        eprintln!(
            "round {round}: gets {raw:.2} GB/s, scan {read:.2} GB/s, ratio {:.2}",
            read / raw
        );
    }
    ratios.sort_by(f64::total_cmp);
    let median = ratios.get(ratios.len() / 2).copied().unwrap_or(0.0);
    eprintln!("{{\"ratio_median\":{median:.3},\"end\":{end}}}");
    Ok(())
}
