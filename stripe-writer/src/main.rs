//! The `stripe-writer` daemon.

use std::error::Error;
use std::process::ExitCode;
use std::sync::{Arc, Mutex};

use catalog::Store;
use clap::Parser;
use prometheus_client::registry::Registry;
use runtime::settings::{CommonArgs, Settings, SettingsError};
use stripe_writer::{Options, StripeWriter, Takeover};

/// Exit code of a process whose stripes are all owned by another one now.
const FENCED: u8 = 3;

/// Aggregates the records of a Stripelog into objects, one chain a stripe.
#[derive(Debug, Parser)]
#[command(version, after_help = Settings::describe())]
struct Args {
    #[command(flatten)]
    common: CommonArgs,
    /// TCP address to listen on, as writer.listen
    #[arg(long, value_name = "ADDRESS")]
    listen: Option<String>,
    /// TCP address for metrics and health, as writer.admin
    #[arg(long, value_name = "ADDRESS")]
    admin: Option<String>,
}

fn main() -> ExitCode {
    let args = Args::parse();
    let runtime = match tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()
    {
        Ok(runtime) => runtime,
        Err(error) => return runtime::exit::with("stripe-writer", Err(error)),
    };
    let ended = runtime.block_on(run(&args));
    // Blocking calls on a local store that hangs must not keep the process.
    runtime.shutdown_background();
    match ended {
        Ok(code) => code,
        Err(error) => runtime::exit::with("stripe-writer", Err(error)),
    }
}

async fn run(args: &Args) -> Result<ExitCode, Box<dyn Error>> {
    let mut flags = Vec::new();
    for (key, value) in [
        ("writer.listen", &args.listen),
        ("writer.admin", &args.admin),
    ] {
        flags.extend(value.iter().map(|value| (key.to_owned(), value.clone())));
    }
    let settings = Settings::load(&args.common, flags)?;
    runtime::logging::init(&args.common.log_level)?;
    let stop = runtime::stop::signal()?;
    let registry = Arc::new(Mutex::new(Registry::default()));
    let options = Options {
        listen: settings.writer.listen,
        sequencers: settings.membership.sequencers.clone(),
        stripes: settings.own_writer()?.stripes.clone(),
        linger: settings.writer.linger,
        hole_timeout: settings.writer.hole_timeout,
        puts_in_flight: settings.writer.puts_in_flight,
        memory_bytes: settings.writer.memory_bytes,
        max_commit_age: settings.writer.max_commit_age,
        key: settings.key()?,
        takeover: takeover(&settings)?,
    };
    let writer = StripeWriter::start(Store::open(&settings.store)?, &options, &registry).await?;
    let _admin = match settings.writer.admin {
        Some(address) => {
            let health = writer.health();
            let told = move || health().map(|()| "ok");
            Some(runtime::admin::serve(address, registry, told).await?)
        }
        None => None,
    };
    tokio::select! {
        signal = stop => {
            tracing::info!(signal, "stopping");
            writer.stop().await;
            Ok(ExitCode::SUCCESS)
        }
        () = writer.all_fenced() => {
            tracing::warn!("another process owns every stripe now");
            Ok(ExitCode::from(FENCED))
        }
    }
}

/// Whom to watch; nobody where this is the only one, or where that is turned off.
fn takeover(settings: &Settings) -> Result<Option<Takeover>, SettingsError> {
    let (writers, own) = (&settings.membership.writers, settings.own_writer()?);
    let own = writers.iter().position(|writer| writer == own);
    let watches = |_: &usize| writers.len() > 1 && !settings.writer.takeover.is_zero();
    Ok(own.filter(watches).map(|own| Takeover {
        writers: writers.clone(),
        own,
        timeout: settings.writer.takeover,
    }))
}
