//! The `stripe-writer` daemon.

use std::error::Error;
use std::process::ExitCode;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use catalog::{Log, Membership, Store, Writer};
use clap::Parser;
use prometheus_client::registry::Registry;
use runtime::members::{self, Following, MembersError, Registered, Role};
use runtime::settings::{CommonArgs, Settings};
use stripe_writer::{Options, StripeWriter, Takeover};
use tokio::sync::watch;
use wire::LogId;

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
    let mut stop = std::pin::pin!(runtime::stop::signal()?);
    let registry = Arc::new(Mutex::new(Registry::default()));
    let store = Store::open(&settings.store)?;
    let member = tokio::select! {
        member = Member::find(&settings, &store) => member?,
        signal = &mut stop => {
            tracing::info!(signal, "stopping");
            return Ok(ExitCode::SUCCESS);
        }
    };
    let options = Options {
        listen: settings.writer.listen,
        sequencers: member.membership.sequencers.clone(),
        stripes: member.own.stripes.clone(),
        linger: settings.writer.linger,
        hole_timeout: settings.writer.hole_timeout,
        puts_in_flight: settings.writer.puts_in_flight,
        memory_bytes: settings.writer.memory_bytes,
        max_commit_age: settings.writer.max_commit_age,
        key: settings.key()?,
        takeover: member.takeover(settings.writer.takeover),
        changes: member.changes(),
    };
    let writer = StripeWriter::start(store, &options, &registry).await?;
    let registered = member.register(&settings)?;
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
            if let Some(registered) = registered {
                registered.leave().await;
            }
            writer.stop().await;
            Ok(ExitCode::SUCCESS)
        }
        () = writer.all_fenced() => {
            tracing::warn!("another process owns every stripe now");
            Ok(ExitCode::from(FENCED))
        }
    }
}

/// This process among those of the log.
struct Member {
    own: Writer,
    membership: Membership,
    /// Where the membership comes from etcd.
    followed: Option<(LogId, Following)>,
}

impl Member {
    /// Finds the others: in the settings, or in etcd, however long it takes that to answer.
    async fn find(settings: &Settings, store: &Store) -> Result<Self, Box<dyn Error>> {
        let Some(etcd) = &settings.etcd else {
            return Ok(Self {
                own: settings.own_writer()?.clone(),
                membership: settings.membership.clone(),
                followed: None,
            });
        };
        let own = settings.registered_writer()?;
        let log = Log::open(store.clone()).await?.id();
        let following = members::follow(etcd, log, None).await?;
        let mut membership = following.now();
        membership.writers.retain(|one| one.address != own.address);
        membership.writers.push(own.clone());
        Ok(Self {
            own,
            membership,
            followed: Some((log, following)),
        })
    }

    /// Whom to watch; nobody where this is the only one for good, or where that is turned off.
    fn takeover(&self, timeout: Duration) -> Option<Takeover> {
        let writers = &self.membership.writers;
        let own = writers.iter().position(|writer| *writer == self.own);
        let alone = self.followed.is_none() && writers.len() < 2;
        own.filter(|_| !alone && !timeout.is_zero())
            .map(|own| Takeover {
                writers: writers.clone(),
                own,
                timeout,
                changes: self.changes(),
            })
    }

    fn changes(&self) -> Option<watch::Receiver<Membership>> {
        let followed = self.followed.as_ref();
        followed.map(|(_, following)| following.changes())
    }

    fn register(&self, settings: &Settings) -> Result<Option<Registered>, MembersError> {
        let (Some(etcd), Some((log, _))) = (&settings.etcd, &self.followed) else {
            return Ok(None);
        };
        let role = Role::Writer(self.own.stripes.clone());
        members::register(etcd, *log, self.own.address, &role).map(Some)
    }
}
