//! The sequencer daemon: settings in, [`sequencer_fast::Sequencer`] around, exit code out.

use std::net::SocketAddr;
use std::process::ExitCode;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use catalog::{CatalogError, Log, Membership, Store};
use clap::Parser;
use prometheus_client::registry::Registry;
use runtime::members::{self, Following, MembersError, Registered, Role};
use runtime::settings::{
    self, CommonArgs, EtcdSettings, SequencerSettings, Settings, SettingsError,
};
use runtime::{admin, exit, logging, stop};
use sequencer_fast::logic::Rate;
use sequencer_fast::{Backend, Config, Ended, Hook, HookMode, Opened, Sequencer, Standby, Wait};
use tokio::runtime::Handle;
use tokio::sync::watch;
use wire::LogId;
use wire::limits::MAX_STRIPES;
use wire::mac::Key;

/// Exit code of a sequencer that found another one in its place.
const FENCED: u8 = 3;

/// Grants ranges of positions of a Stripelog to whoever asks over UDP.
///
/// Exit codes: 0 stopped by SIGTERM or SIGINT, 1 an error (one line on standard error), 2 bad usage or settings,
/// 3 another sequencer has taken over.
#[derive(Debug, Parser)]
#[command(version = VERSION)]
struct Args {
    #[command(flatten)]
    common: CommonArgs,
    /// UDP address to bind [default: 127.0.0.1:7400]
    #[arg(long, value_name = "ADDRESS")]
    listen: Option<String>,
    /// UDP address at which others reach it, to be registered in etcd [default: the one that it binds]
    #[arg(long, value_name = "ADDRESS")]
    member: Option<String>,
    /// Threads that grant, each with a socket of its own [default: 1]
    #[arg(long, value_name = "THREADS")]
    shards: Option<String>,
    /// Cores to pin the shards to, in order, and then the checkpoint thread, with commas between [default: not pinned]
    #[arg(long, value_name = "CORES")]
    cores: Option<String>,
    /// How datagrams are received and sent: auto, io_uring, poll or xdp [default: auto]
    #[arg(long, value_name = "BACKEND")]
    backend: Option<String>,
    /// Network interface for the program of the backend xdp [default: none]
    #[arg(long, value_name = "NAME")]
    interface: Option<String>,
    /// By whom that program is run: native (the driver) or generic (the kernel) [default: native]
    #[arg(long, value_name = "MODE")]
    xdp_mode: Option<String>,
    /// How shards wait: block, busy_poll or sqpoll [default: block]
    #[arg(long, value_name = "HOW")]
    wait: Option<String>,
    /// Core of the kernel's thread that submits, if there is one [default: any]
    #[arg(long, value_name = "CORE")]
    sqpoll_core: Option<String>,
    /// Whether the kernel hands over datagrams of one client merged: on or off [default: on]
    #[arg(long, value_name = "ON_OFF")]
    merge: Option<String>,
    /// Most requests a second of one source address, 0 for no limit [default: 0]
    #[arg(long, value_name = "REQUESTS")]
    client_rate: Option<String>,
    /// Requests of one source address that may come at once where its rate is limited [default: 10000]
    #[arg(long, value_name = "REQUESTS")]
    client_burst: Option<String>,
    /// Least positions that are reserved at once [default: 65536]
    #[arg(long, value_name = "POSITIONS")]
    reservation_min: Option<String>,
    /// Most positions that are reserved at once [default: 68719476736]
    #[arg(long, value_name = "POSITIONS")]
    reservation_max: Option<String>,
    /// How long to go on granting without a renewal, in milliseconds [default: 10000]
    #[arg(long, value_name = "MS")]
    reign_ttl_ms: Option<String>,
    /// Begin a reign only when no other sequencer reigns: on or off [default: off]
    #[arg(long, value_name = "ON_OFF", num_args = 0..=1, default_missing_value = "on")]
    standby: Option<String>,
    /// How long a standby waits for a sign of the reign of others, in milliseconds [default: 1000]
    #[arg(long, value_name = "MS")]
    detect_ms: Option<String>,
    /// Blocks of 32 lanes whose last requests a shard remembers [default: 16384]
    #[arg(long, value_name = "BLOCKS")]
    retry_memory: Option<String>,
    /// Replies a shard that may wait for the reservation [default: 65536]
    #[arg(long, value_name = "REPLIES")]
    held_replies: Option<String>,
    /// TCP address for metrics and health [default: none]
    #[arg(long, value_name = "ADDRESS")]
    admin: Option<String>,
}

/// The version, and what it was built with.
const VERSION: &str = match (cfg!(feature = "etcd"), cfg!(feature = "xdp")) {
    (false, false) => env!("CARGO_PKG_VERSION"),
    (true, false) => concat!(env!("CARGO_PKG_VERSION"), " (etcd)"),
    (false, true) => concat!(env!("CARGO_PKG_VERSION"), " (xdp)"),
    (true, true) => concat!(env!("CARGO_PKG_VERSION"), " (etcd, xdp)"),
};

type Failure = Box<dyn std::error::Error>;

fn main() -> ExitCode {
    let args = Args::parse();
    match run(&args) {
        Ok(Ended::Stopped { clean }) => {
            tracing::info!(clean, "stopped");
            ExitCode::SUCCESS
        }
        // Nothing is wrong with this process: another one has taken its place.
        Ok(Ended::Fenced { reason }) => {
            let text =
                "another sequencer has taken over; with --standby this one would wait for its turn";
            tracing::warn!(%reason, "{text}");
            ExitCode::from(FENCED)
        }
        Err(error) => exit::with("sequencer-fast", Err::<(), _>(error)),
    }
}

fn run(args: &Args) -> Result<Ended, Failure> {
    logging::init(&args.common.log_level)?;
    let settings = Settings::load(&args.common, args.overrides())?;
    is_built_in(settings.sequencer.backend, cfg!(feature = "xdp"))?;
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()?;
    runtime.block_on(serve(settings))
}

/// Other programs may be told of a backend that this one was built without.
fn is_built_in(backend: settings::Backend, has_xdp: bool) -> Result<(), SettingsError> {
    if backend != settings::Backend::Xdp || has_xdp {
        return Ok(());
    }
    Err(SettingsError::Value {
        key: "sequencer.backend".to_owned(),
        value: "xdp".to_owned(),
        from: "not in this build".to_owned(),
        allowed: "auto, io_uring, poll; cargo build --release --features xdp makes one that has it"
            .to_owned(),
    })
}

/// Serves until a signal comes or the sequencer ends by itself.
async fn serve(settings: Settings) -> Result<Ended, Failure> {
    let signal = stop::signal()?;
    match settings.etcd {
        Some(_) => drop(settings.registered_sequencer()?),
        None => warn_of_unlisted(&settings),
    }
    let key = settings.key()?;
    let config = config(&settings, key);
    let admin_address = settings.sequencer.admin;
    let registration = Registration::default();
    let (found, on) = (registration.clone(), Handle::current());
    let sequencer = Sequencer::start(config, move || open(settings, found, on))?;
    let status = Arc::clone(sequencer.status());
    let _admin = match admin_address {
        Some(address) => {
            let mut registry = Registry::default();
            status.register(&mut registry);
            let health = move || status.health();
            Some(admin::serve(address, Arc::new(Mutex::new(registry)), health).await?)
        }
        None => None,
    };
    let stop = sequencer.stop();
    tokio::spawn(async move {
        let name = signal.await;
        tracing::info!(signal = name, "stopping");
        stop.raise();
    });
    let ended = tokio::task::spawn_blocking(move || sequencer.wait()).await?;
    registration.leave().await;
    Ok(ended?)
}

/// Says so if nobody finds this process by the same settings. There may be a translation of addresses in between.
fn warn_of_unlisted(settings: &Settings) {
    let (listen, listed) = (settings.sequencer.listen, &settings.membership.sequencers);
    if !listen.ip().is_unspecified() && !listed.contains(&listen) {
        let text = "membership.sequencer does not have this address: who goes by it does not find this sequencer";
        tracing::warn!(%listen, ?listed, "{text}");
    }
}

/// What is registered in etcd, and follows the list there; nothing without it.
#[derive(Clone, Default)]
struct Registration(Arc<Mutex<Option<(Registered, Following)>>>);

impl Registration {
    /// Registers this process, and waits until the others are known. The tasks of it run on `on`, away from the
    /// checkpoint thread.
    async fn find(
        &self,
        etcd: EtcdSettings,
        log: LogId,
        address: SocketAddr,
        on: &Handle,
    ) -> Result<watch::Receiver<Membership>, CatalogError> {
        let refused = |error: MembersError| CatalogError::Invalid(error.to_string());
        let finding = on.spawn(async move {
            let registered = members::register(&etcd, log, address, &Role::Sequencer)?;
            let following = members::follow(&etcd, log, None).await?;
            Ok((registered, following))
        });
        let found = finding.await.map_err(|_| refused(MembersError::Ended))?;
        let (registered, following) = found.map_err(refused)?;
        let changes = following.changes();
        *self.lock() = Some((registered, following));
        Ok(changes)
    }

    async fn leave(&self) {
        let found = self.lock().take();
        if let Some((registered, _)) = found {
            registered.leave().await;
        }
    }

    fn lock(&self) -> MutexGuard<'_, Option<(Registered, Following)>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Opens the log, after a check of its store (C-10), and finds its stripe-writers.
async fn open(
    settings: Settings,
    registration: Registration,
    on: Handle,
) -> Result<Opened<Log>, CatalogError> {
    let store = Store::open(&settings.store)?;
    let control = Log::open(store.clone()).await?;
    store.check().await?;
    if let Some(etcd) = settings.etcd.clone() {
        let refused = |error: SettingsError| CatalogError::Invalid(error.to_string());
        let address = settings.registered_sequencer().map_err(refused)?;
        let changes = registration.find(etcd, control.id(), address, &on).await?;
        let writers = changes.borrow().addresses().collect();
        return Ok(Opened {
            writers,
            // Whoever is in the list owns what nobody else does.
            stripes: MAX_STRIPES,
            control,
            changes: Some(changes),
        });
    }
    let last = control.last().await?;
    let stripes = last.last_segment()?.layout.stripes();
    let membership = settings.membership.checked(stripes)?;
    Ok(Opened {
        writers: membership.addresses().collect(),
        stripes: membership.owned_stripes(),
        control,
        changes: None,
    })
}

fn config(settings: &Settings, key: Option<Key>) -> Config {
    let listed = settings.membership.sequencers.iter().copied();
    // With etcd the others are found there.
    let others = listed.filter(|_| settings.etcd.is_none()).collect();
    let settings = &settings.sequencer;
    Config {
        listen: settings.listen,
        shards: settings.shards,
        cores: settings.cores.clone(),
        backend: match settings.backend {
            settings::Backend::Auto => Backend::Auto,
            settings::Backend::IoUring => Backend::IoUring,
            settings::Backend::Poll => Backend::Poll,
            settings::Backend::Xdp => Backend::Xdp,
        },
        hook: settings.interface.clone().map(|interface| Hook {
            interface,
            mode: match settings.xdp_mode {
                settings::XdpMode::Native => HookMode::Native,
                settings::XdpMode::Generic => HookMode::Generic,
            },
        }),
        wait: match settings.wait {
            settings::Wait::Block => Wait::Block,
            settings::Wait::BusyPoll => Wait::BusyPoll,
            settings::Wait::SqPoll => Wait::SqPoll {
                core: settings
                    .sqpoll_core
                    .and_then(|core| u32::try_from(core).ok()),
            },
        },
        merge: settings.merge,
        rate: Some(Rate {
            per_second: settings.client_rate,
            burst: settings.client_burst,
        })
        .filter(|rate| rate.per_second > 0),
        reservation_min: settings.reservation_min,
        reservation_max: settings.reservation_max,
        reign_ttl: settings.reign_ttl,
        retry_memory: settings.retry_memory,
        held_replies: settings.held_replies,
        standby: settings.standby.then(|| standby(others, settings)),
        key,
    }
}

fn standby(mut others: Vec<SocketAddr>, settings: &SequencerSettings) -> Standby {
    let member = settings.member;
    others.retain(|other| *other != settings.listen && Some(*other) != member);
    Standby {
        others,
        member,
        detect: settings.detect,
    }
}

impl Args {
    /// The flags that were given, as settings.
    fn overrides(&self) -> Vec<(String, String)> {
        let flags = [
            ("listen", &self.listen),
            ("member", &self.member),
            ("shards", &self.shards),
            ("cores", &self.cores),
            ("backend", &self.backend),
            ("interface", &self.interface),
            ("xdp_mode", &self.xdp_mode),
            ("wait", &self.wait),
            ("sqpoll_core", &self.sqpoll_core),
            ("merge", &self.merge),
            ("client_rate", &self.client_rate),
            ("client_burst", &self.client_burst),
            ("reservation_min", &self.reservation_min),
            ("reservation_max", &self.reservation_max),
            ("reign_ttl_ms", &self.reign_ttl_ms),
            ("standby", &self.standby),
            ("detect_ms", &self.detect_ms),
            ("retry_memory", &self.retry_memory),
            ("held_replies", &self.held_replies),
            ("admin", &self.admin),
        ];
        let given = flags.into_iter().filter_map(|(key, value)| {
            let value = value.clone()?;
            Some((format!("sequencer.{key}"), value))
        });
        given.collect()
    }
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    use super::*;

    #[test]
    fn a_backend_that_is_not_built_in_is_a_bad_setting() {
        let (xdp, poll) = (settings::Backend::Xdp, settings::Backend::Poll);
        let refused = is_built_in(xdp, false).expect_err("refused");
        assert!(refused.to_string().contains("--features xdp"), "{refused}");
        for (backend, has_xdp) in [(xdp, true), (poll, false), (poll, true)] {
            assert!(is_built_in(backend, has_xdp).is_ok());
        }
    }

    #[test]
    fn every_setting_is_a_flag_with_its_default_in_the_help() {
        Args::command().debug_assert();
        let help = Args::command().render_long_help().to_string();
        for key in settings::KEYS {
            let Some(name) = key.name.strip_prefix("sequencer.") else {
                continue;
            };
            let flag = format!("--{}", name.replace('_', "-"));
            assert!(help.contains(&flag), "{flag}");
            if key.default.is_empty() {
                continue;
            }
            let told = help.split(&flag).nth(1).unwrap_or_default();
            let told = told.split("--").next().unwrap_or_default();
            let default = format!("[default: {}]", key.default);
            assert!(told.contains(&default), "{flag} {default}");
        }
    }
}
