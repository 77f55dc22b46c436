//! A running sequencer: its threads, from the first to the last.

use std::io;
use std::net::{SocketAddr, UdpSocket};
use std::sync::Arc;
use std::thread::{self, JoinHandle};
use std::time::Duration;

use catalog::{CatalogError, ErrorKind};
use tokio::runtime::Builder;
use ulid::Ulid;
use wire::WriterId;
use wire::control::ControlEntry;

use crate::config::{Backend, Config, Standby};
use crate::demand::Demand;
use crate::error::SequencerError;
use crate::logic::{Limits, Reign, Shard, Table, Window};
use crate::metrics::Status;
use crate::net::mechanism::{self, Mechanism};
use crate::net::others::Others;
use crate::net::sleeper::Sleeper;
use crate::net::socket;
use crate::net::standing::Standing;
use crate::net::worker::{Granter, Worker};
use crate::net::xdp::{Attached, Beside};
use crate::shards::Shards;
use crate::stop::Stop;
use crate::store::begin::{Begun, begin, retried};
use crate::store::checkpoint::{Checkpoint, Next};
use crate::store::seal::Writers;
use crate::store::standby::succeed;
use crate::store::{Control, Opened};

/// How long a sequencer that has ended its reign still says so: whoever asks now and then, as a standby does, hears
/// it. That a port is closed a host may tell late, or never.
const LAST_WORD: Duration = Duration::from_millis(60);

/// Longest time that a stop waits for the store. Then the next reign starts at the reservation.
const STOP_TIMEOUT: Duration = Duration::from_secs(5);

/// How a sequencer ended that did not fail.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Ended {
    /// It was told to.
    Stopped {
        /// Whether the exact tail is in the control chain, so that no position is wasted.
        clean: bool,
    },
    /// Another sequencer reigns. Not an error.
    Fenced {
        /// What was found.
        reason: String,
    },
}

/// A sequencer that runs in threads of its own.
#[derive(Debug)]
pub struct Sequencer {
    address: SocketAddr,
    stop: Arc<Stop>,
    status: Arc<Status>,
    thread: JoinHandle<Result<Ended, SequencerError>>,
}

impl Sequencer {
    /// Binds the sockets and starts everything else in the background. `open` is called within the
    /// runtime of the checkpoint thread, which the store has to itself.
    ///
    /// # Errors
    /// [`SequencerError::Core`], [`SequencerError::Bind`], [`SequencerError::Setup`] and [`SequencerError::Xdp`].
    /// Whatever fails later is told by [`Self::wait`].
    pub fn start<C, F>(
        config: Config,
        open: impl FnOnce() -> F + Send + 'static,
    ) -> Result<Self, SequencerError>
    where
        C: Control,
        F: Future<Output = Result<Opened<C>, CatalogError>>,
    {
        check_cores(&config.cores, &known_cores())?;
        let shards = config.shards.max(1);
        let bind = |source| {
            let address = config.listen;
            SequencerError::Bind { source, address }
        };
        let sockets = socket::open(config.listen, shards, config.merge).map_err(bind)?;
        let address = sockets.first().map(UdpSocket::local_addr);
        let address = address.transpose().map_err(bind)?.unwrap_or(config.listen);
        // Before the rings: one that is wound up signals this thread, and the kernel verifies no program meanwhile.
        let program = attach(&config, address)?.map(Arc::new);
        let mechanism =
            mechanism::choose(config.backend, config.wait).map_err(setup("io_uring"))?;
        let stop = Arc::new(Stop::default());
        let status = Arc::new(Status::new(shards).with_program(program.clone()));
        let threads = Threads {
            config,
            sockets,
            mechanism,
            program,
            demand: Arc::new(Demand::new()),
            stop: Arc::clone(&stop),
            status: Arc::clone(&status),
        };
        let thread = thread::Builder::new()
            .name("checkpoint".to_owned())
            .spawn(move || threads.checkpoint(open))
            .map_err(setup("checkpoint thread"))?;
        tracing::info!(%address, shards, %mechanism, "listening");
        Ok(Self {
            address,
            stop,
            status,
            thread,
        })
    }

    /// The address that is bound.
    #[must_use]
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// What can be seen from outside: counters, tails, health.
    #[must_use]
    pub fn status(&self) -> &Arc<Status> {
        &self.status
    }

    /// A handle that stops it.
    #[must_use]
    pub fn stop(&self) -> Arc<Stop> {
        Arc::clone(&self.stop)
    }

    /// Waits until it has ended. Blocks the thread.
    ///
    /// # Errors
    /// Why it could not begin or go on.
    pub fn wait(self) -> Result<Ended, SequencerError> {
        self.thread.join().map_err(|_| SequencerError::Panicked)?
    }
}

/// Everything that the threads share or are given.
struct Threads {
    config: Config,
    sockets: Vec<UdpSocket>,
    mechanism: Mechanism,
    /// The program in the driver hook, if there is one.
    program: Option<Arc<Attached>>,
    demand: Arc<Demand>,
    stop: Arc<Stop>,
    status: Arc<Status>,
}

/// A reign that has begun, or why the control chain has none.
type Begins<C> = Result<(Opened<C>, Begun), CatalogError>;

impl Threads {
    /// The checkpoint thread.
    fn checkpoint<C, F>(self, open: impl FnOnce() -> F) -> Result<Ended, SequencerError>
    where
        C: Control,
        F: Future<Output = Result<Opened<C>, CatalogError>>,
    {
        pin(&self.config, self.config.shards);
        let runtime = Builder::new_current_thread()
            .enable_all()
            .build()
            .map_err(setup("runtime"))?;
        let program = self.program.clone();
        let ended = runtime.block_on(self.reign(open));
        if let Some(program) = program {
            program.detach();
        }
        // A call of the store that hangs must not hold up the end.
        runtime.shutdown_background();
        ended
    }

    async fn reign<C, F>(self, open: impl FnOnce() -> F) -> Result<Ended, SequencerError>
    where
        C: Control,
        F: Future<Output = Result<Opened<C>, CatalogError>>,
    {
        let stop = Arc::clone(&self.stop);
        let mut window = Window::new(self.config.reservation_min, self.config.reservation_max);
        let begun = tokio::select! {
            begun = self.begin(open, window.size()) => begun?,
            () = stop.raised() => return Ok(Ended::Stopped { clean: false }),
        };
        let (opened, mut begun) = match begun {
            Ok(begun) => begun,
            Err(error) => return ended(error),
        };
        let mut control = opened.control;
        loop {
            let (reign, table) = self.new_reign(&begun.entry)?;
            let reign = Arc::new(reign.with_stripes(&begun.entry, opened.stripes));
            self.status.begun(Arc::clone(&reign));
            let shards = self.spawn_shards(&reign, table.as_ref())?;
            let checkpoint = Checkpoint::new(
                control,
                begun,
                Arc::clone(&reign),
                window,
                self.config.reign_ttl,
                Arc::clone(&self.demand),
                shards.sleepers(),
            );
            let writers = Writers::new(opened.writers.clone(), opened.changes.clone());
            let over = over(checkpoint, writers, &stop).await;
            reign.end();
            shards.end()?;
            match over? {
                Over::For(ended) => return Ok(ended),
                Over::Next(next) => {
                    Next {
                        control,
                        begun,
                        window,
                    } = *next
                }
            }
        }
    }

    /// Begins a reign, at once or when no other sequencer reigns.
    async fn begin<C, F>(
        &self,
        open: impl FnOnce() -> F,
        window: u64,
    ) -> Result<Begins<C>, SequencerError>
    where
        C: Control,
        F: Future<Output = Result<Opened<C>, CatalogError>>,
    {
        let opened = match open().await {
            Ok(opened) => opened,
            Err(error) => return Ok(Err(error)),
        };
        let owner = WriterId::from(Ulid::generate());
        let begun = match &self.config.standby {
            Some(standby) => self.succeed(standby, &opened, owner, window).await?,
            None => begin(&opened.control, owner, window).await,
        };
        Ok(begun.map(|begun| (opened, begun)))
    }

    /// Stands by until no other sequencer reigns, and begins a reign.
    async fn succeed<C: Control>(
        &self,
        standby: &Standby,
        opened: &Opened<C>,
        owner: WriterId,
        window: u64,
    ) -> Result<Result<Begun, CatalogError>, SequencerError> {
        let control = &opened.control;
        let last = match retried("read the control chain", || control.last()).await {
            Ok(last) => last,
            Err(error) => return Ok(Err(error)),
        };
        let key = self.config.key.as_ref();
        let others = Others::new(&standby.others, last.log, seed(), key);
        let mut others = others.map_err(setup("socket to the other sequencers"))?;
        let own = standby.member.unwrap_or(self.config.listen);
        others.follow(opened.changes.clone(), own);
        let limits = self.limits();
        let (counters, merges) = (self.status.shards(), self.config.merge);
        let standing = Standing::start(&self.sockets, &last, counters, &limits, merges)?;
        self.status.stands_by(true);
        tracing::info!(others = others.count(), detect = ?standby.detect, "standing by");
        // A list that changes may lack the one that reigns, until that one registers again.
        let unheard = match opened.changes {
            Some(_) => self.config.reign_ttl,
            None => standby.detect,
        };
        let detect = (standby.detect, unheard);
        let begun = succeed(control, &mut others, owner, window, detect).await;
        standing.end();
        if begun.is_ok() {
            self.status.took_over();
        }
        self.status.stands_by(false);
        Ok(begun)
    }

    fn limits(&self) -> Limits {
        Limits {
            retry_memory: self.config.retry_memory,
            held_replies: self.config.held_replies,
            rate: self.config.rate,
            key: self.config.key.clone(),
            seed: seed(),
        }
    }

    /// The reign of this entry, and what a program in the driver hook remembers of it.
    fn new_reign(
        &self,
        entry: &ControlEntry,
    ) -> Result<(Reign, Option<Arc<Table>>), SequencerError> {
        let Some(program) = &self.program else {
            return Ok((Reign::new(entry)?, None));
        };
        // The program knows neither keys nor rates: everything is passed up.
        if self.config.key.is_some() || self.config.rate.is_some() {
            tracing::warn!(
                "the program grants nothing while datagrams are signed or rates are limited"
            );
            return Ok((Reign::new(entry)?, None));
        }
        let blocks = self.config.retry_memory.saturating_mul(self.sockets.len());
        match program.begin(entry, blocks, seed()) {
            Ok(Beside { tail, table }) => Ok((Reign::with_counter(entry, tail)?, Some(table))),
            // The reign stands in the chain: it has to be served.
            Err(error) => {
                tracing::warn!(%error, "sockets serve this reign without a program");
                program.detach();
                Ok((Reign::new(entry)?, None))
            }
        }
    }

    /// A thread for each socket, over a copy of it: the sockets outlive a reign.
    fn spawn_shards(
        &self,
        reign: &Arc<Reign>,
        table: Option<&Arc<Table>>,
    ) -> Result<Shards, SequencerError> {
        let mut shards = Shards::default();
        let parts = self.sockets.iter().zip(self.status.shards()).enumerate();
        for (number, (socket, counters)) in parts {
            let sleeper = Arc::new(Sleeper::new().map_err(setup("eventfd"))?);
            let handler = Granter {
                shard: Shard::new(Arc::clone(reign), Arc::clone(counters), self.limits())
                    .with_table(table.cloned()),
                sleeper: Arc::clone(&sleeper),
                demand: Arc::clone(&self.demand),
            };
            let worker = Worker {
                socket: socket.try_clone().map_err(setup("socket"))?,
                handler,
                counters: Arc::clone(counters),
                sleeper: Arc::clone(&sleeper),
                wait: self.config.wait,
                merges: self.config.merge,
            };
            let (config, mechanism) = (self.config.clone(), self.mechanism);
            let (stop, reign) = (Arc::clone(&self.stop), Arc::clone(reign));
            let thread = thread::Builder::new()
                .name(format!("shard-{number}"))
                .spawn(move || {
                    // However a shard ends, the others do not go on without it.
                    let guard = stop.raise_on_drop();
                    pin(&config, number);
                    let served = mechanism.serve(worker);
                    if served.is_ok() && reign.has_ended() {
                        guard.forget();
                    }
                    served
                })
                .map_err(setup("shard thread"));
            shards.push(thread?, sleeper);
        }
        Ok(shards)
    }
}

/// How a reign ended.
enum Over<C> {
    /// For good.
    For(Ended),
    /// The next one has begun, in a segment of its own.
    Next(Box<Next<C>>),
}

/// A reign from the seals to its end.
async fn over<C: Control>(
    mut checkpoint: Checkpoint<C>,
    writers: Writers,
    stop: &Stop,
) -> Result<Over<C>, SequencerError> {
    let over = tokio::select! {
        over = async {
            checkpoint.open(writers).await?;
            checkpoint.run().await
        } => over.map(Some),
        () = stop.raised() => Ok(None),
    };
    let ends = match over {
        Ok(Some(layout)) => tokio::select! {
            next = checkpoint.restripe(layout) => return match next {
                Ok(next) => Ok(Over::Next(Box::new(next))),
                Err(error) => ended(error).map(Over::For),
            },
            // The chain says whether the next reign has begun: nothing is granted in it.
            () = stop.raised() => Ok(Ended::Stopped { clean: false }),
        },
        Ok(None) => match tokio::time::timeout(STOP_TIMEOUT, checkpoint.finish()).await {
            Ok(Ok(())) => {
                tokio::time::sleep(LAST_WORD).await;
                Ok(Ended::Stopped { clean: true })
            }
            Ok(Err(error)) => ended(error),
            Err(_) => Ok(Ended::Stopped { clean: false }),
        },
        Err(error) => ended(error),
    };
    ends.map(Over::For)
}

/// What an error of the control chain makes of a sequencer.
fn ended(error: CatalogError) -> Result<Ended, SequencerError> {
    let (kind, reason) = (error.kind(), error.to_string());
    match kind {
        ErrorKind::Fenced => Ok(Ended::Fenced { reason }),
        kind => Err(SequencerError::Control { kind, reason }),
    }
}

/// Attaches the program to the hook, where there is one and a program is wanted.
fn attach(config: &Config, address: SocketAddr) -> Result<Option<Attached>, SequencerError> {
    match (config.backend, &config.hook) {
        (Backend::Xdp, Some(hook)) => Attached::new(hook, address).map(Some),
        (Backend::Xdp, None) => {
            let reason = "no network interface is named: --interface NAME".to_owned();
            Err(SequencerError::Xdp { reason })
        }
        (Backend::Auto, Some(hook)) => Ok(Attached::new(hook, address).map_or_else(
            |error| {
                tracing::warn!(%error, "sockets serve without a program");
                None
            },
            Some,
        )),
        (Backend::Auto | Backend::IoUring | Backend::Poll, _) => Ok(None),
    }
}

fn setup(what: &'static str) -> impl Fn(io::Error) -> SequencerError {
    move |source| SequencerError::Setup { what, source }
}

/// The cores that this process may run on; empty if the system does not say.
fn known_cores() -> Vec<usize> {
    let ids = core_affinity::get_core_ids().unwrap_or_default();
    ids.into_iter().map(|core| core.id).collect()
}

fn check_cores(wanted: &[usize], known: &[usize]) -> Result<(), SequencerError> {
    match wanted.iter().find(|core| !known.contains(core)) {
        Some(core) if !known.is_empty() => {
            let known: Vec<_> = known.iter().map(usize::to_string).collect();
            let (core, known) = (*core, known.join(","));
            Err(SequencerError::Core { core, known })
        }
        _ => Ok(()),
    }
}

/// Pins the calling thread to its core, if it has one.
fn pin(config: &Config, index: usize) {
    if let Some(id) = config.cores.get(index).copied()
        && !core_affinity::set_for_current(core_affinity::CoreId { id })
    {
        tracing::warn!(core = id, "cannot pin a thread: it runs on any core");
    }
}

/// A number that outsiders cannot guess.
fn seed() -> u64 {
    let mut bytes = [0; 8];
    let ulid = Ulid::generate().to_bytes();
    for (byte, random) in bytes.iter_mut().zip(ulid.into_iter().rev()) {
        *byte = random;
    }
    u64::from_le_bytes(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_core_that_is_not_there_is_refused() {
        assert!(check_cores(&[1, 0], &[0, 1]).is_ok());
        assert!(check_cores(&[], &[0]).is_ok());
        assert!(check_cores(&[5], &[]).is_ok(), "the system does not say");
        let error = check_cores(&[1, 99], &[0, 1]).expect_err("not there");
        let text = "no such core for this process: core=99 cores=0,1";
        assert_eq!(error.to_string(), text);
    }
}
