use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use catalog::Store;
use runtime::members::{self, Following};
use runtime::settings::EtcdSettings;
use tokio::sync::{Notify, Semaphore};
use tokio::task::JoinSet;
use tokio::time::{Instant, timeout_at};
use wire::limits::MAX_RECORD_BYTES;
use wire::{Lane, LogId, Position};

use crate::call::{Call, Piece, Queue};
use crate::limits::{MEMBERS_TIMEOUT, PERMIT_BYTES, RECORD_OVERHEAD_BYTES};
use crate::logic::routes::Routes;
use crate::net::sequencer::Sequencer;
use crate::net::writers::{self, Writers};
use crate::net::{draw_client, granter};
use crate::patience::{self, Sign, Waiter};
use crate::shared::Shared;
use crate::stats::{Counters, Stats};
use crate::store::cache::Cache;
use crate::store::view::View;
use crate::{Error, Options, Result};

/// An open log. Clones share one identity, one socket to the sequencer and one connection to each
/// stripe-writer; when the last clone is dropped, appends under way end with an unknown outcome.
#[derive(Debug, Clone)]
pub struct Log {
    pub(crate) shared: Arc<Shared>,
    _tasks: Arc<Tasks>,
}

/// The tasks of an open log, which end with it.
#[derive(Debug)]
struct Tasks(Mutex<JoinSet<()>>);

impl Log {
    /// Opens the log that the options name. Nothing is sent to a server before the first append or
    /// question.
    ///
    /// # Errors
    /// [`ErrorKind::Invalid`](crate::ErrorKind) if there is no log at the URL, or the options do not fit it.
    pub async fn open(options: Options) -> Result<Self> {
        let catalog = catalog::Log::open(Store::open(&options.store)?).await?;
        Self::open_in(catalog, options).await
    }

    /// Opens a log whose catalog is open already; the URL of the options is not used.
    ///
    /// # Errors
    /// As [`Self::open`].
    pub async fn open_in(catalog: catalog::Log, options: Options) -> Result<Self> {
        let mut options = options;
        options.check()?;
        let following = match &options.etcd {
            Some(etcd) => Some(follow(etcd, catalog.id()).await?),
            None => None,
        };
        if let Some(following) = &following {
            options.changes = Some(following.changes());
        }
        let (client, counters) = (draw_client(), Arc::new(Counters::default()));
        let view = View::open(catalog).await?;
        let stripes = view.known().last_segment()?.layout.stripes();
        match &options.changes {
            Some(changes) => options.membership = changes.borrow().clone(),
            None => options.membership = options.membership.clone().checked(stripes)?,
        }
        let known = (view.log().id(), view.known().epoch);
        let sequencer = Sequencer::open(&options, known, client, counters.clone()).await?;
        let cache = match &options.cache {
            Some((directory, bytes)) => Some(Cache::open(directory, *bytes).await?),
            None => None,
        };
        let shared = Arc::new(Shared {
            view,
            cache,
            client,
            sequencer,
            queue: Queue::default(),
            memory: Arc::new(Semaphore::new(permits(&options))),
            routes: Routes::new(options.membership.clone()),
            writers: Writers::new(&options.membership),
            room: Notify::new(),
            sign: Sign::default(),
            counters,
            opened: Instant::now(),
            last_problem: Mutex::new(None),
            options,
        });
        let _tasks = Arc::new(Tasks(Mutex::new(spawn_all(&shared, following))));
        Ok(Self { shared, _tasks })
    }

    /// The identity of the log.
    #[must_use]
    pub fn id(&self) -> LogId {
        self.shared.id()
    }

    /// Counters since the log was opened.
    #[must_use]
    pub fn stats(&self) -> Stats {
        self.shared.counters.read()
    }

    /// Writes to the cache's directory what is not there yet, if this log has a cache. Scans go on without it.
    pub async fn close_cache(&self) {
        if let Some(cache) = &self.shared.cache {
            cache.close().await;
        }
    }

    /// Appends records and returns their positions, one each, in the order of the records.
    ///
    /// When it returns, every record is durable. An append that starts after another was acknowledged
    /// gets higher positions, whoever made it. The positions of one call rise, unless some of its records
    /// lost theirs (to a hole that was filled, or a seal) and were appended again; other calls' records
    /// may stand between them.
    ///
    /// It waits as long as there are signs of progress: of its own records, or of those that they wait for while
    /// the log is slower than the load. See [`Options::append_timeout`].
    ///
    /// If the future is dropped before it ends, records that were sent may be appended, now or later;
    /// those that were not sent are not.
    ///
    /// # Errors
    /// [`Error::is_definite`] says whether certainly no record of the call is in the log. If not, any of
    /// them may be, now or later, and appending them again may write them twice. A record above
    /// [`MAX_RECORD_BYTES`] is refused at once.
    pub async fn append(&self, records: Vec<Bytes>) -> Result<Vec<Position>> {
        let (began, timeout) = (self.shared.elapsed(), self.shared.options.append_timeout);
        let mut cost = 0_usize;
        for (index, record) in records.iter().enumerate() {
            let bytes = record.len();
            if bytes > MAX_RECORD_BYTES {
                return Err(Error::RecordTooLarge {
                    index,
                    bytes,
                    limit: MAX_RECORD_BYTES,
                });
            }
            cost = cost.saturating_add((bytes + RECORD_OVERHEAD_BYTES).div_ceil(PERMIT_BYTES));
        }
        if records.is_empty() {
            return Ok(Vec::new());
        }
        // A call larger than all memory takes all of it, and so goes alone.
        let cost = cost.min(permits(&self.shared.options));
        let permits = u32::try_from(cost).unwrap_or(u32::MAX);
        let memory = self.shared.memory.clone().acquire_many_owned(permits);
        let general = &self.shared.sign;
        let end = || patience::end(began, general.last(), timeout);
        let memory = match self.wait(memory, end).await {
            Some(memory) => memory.map_err(|_| Error::Closed)?,
            // It waits for others to be done, who have tokens.
            None => return Err(self.timed_out(true, true)),
        };
        let (call, mut answer) = Call::new(records.len(), memory, self.shared.elapsed());
        let open = Open(call.clone());
        self.shared.queue.push(Piece {
            call,
            first: 0,
            records,
        });
        let end = || open.0.patience(general, timeout);
        if let Some(answer) = self.wait(&mut answer, end).await {
            return answer.map_err(|_| Error::Closed)?;
        }
        let definite = open.0.close();
        // An answer that came before the call was closed stands.
        match answer.try_recv() {
            Ok(answer) => answer,
            Err(_) => Err(self.timed_out(definite, open.0.is_placed())),
        }
    }

    /// Appends one record and returns its position.
    ///
    /// # Errors
    /// As [`Self::append`].
    pub async fn append_one(&self, record: Bytes) -> Result<Position> {
        let positions = self.append(vec![record]).await?;
        positions.first().copied().ok_or(Error::Closed)
    }

    /// Waits for something until `end`, which signs of progress put off. Times count from the opening.
    async fn wait<T>(
        &self,
        what: impl Future<Output = T>,
        end: impl Fn() -> Duration,
    ) -> Option<T> {
        let mut what = std::pin::pin!(what);
        let mut waiter = Waiter::new(end());
        loop {
            let until = self.shared.opened + waiter.until();
            if let Ok(done) = timeout_at(until, &mut what).await {
                return Some(done);
            }
            if waiter.is_over(self.shared.elapsed(), end()) {
                return None;
            }
        }
    }

    fn timed_out(&self, definite: bool, placed: bool) -> Error {
        Error::TimedOut {
            definite,
            reason: self.shared.take_problem(placed),
        }
    }
}

/// Permits for all the memory that appends may hold.
fn permits(options: &Options) -> usize {
    options.in_flight_bytes.div_ceil(PERMIT_BYTES)
}

/// Closes a call when its caller goes away.
struct Open(Arc<Call>);

impl Drop for Open {
    fn drop(&mut self) {
        self.0.close();
    }
}

impl Drop for Tasks {
    fn drop(&mut self) {
        self.0
            .get_mut()
            .unwrap_or_else(PoisonError::into_inner)
            .abort_all();
    }
}

/// The membership of the log in etcd.
async fn follow(etcd: &EtcdSettings, log: LogId) -> Result<Following> {
    let following = members::follow(etcd, log, Some(MEMBERS_TIMEOUT)).await;
    following.map_err(|error| Error::NoMembership {
        reason: error.to_string(),
    })
}

fn spawn_all(shared: &Arc<Shared>, following: Option<Following>) -> JoinSet<()> {
    let mut tasks = JoinSet::new();
    let of = shared.clone();
    tasks.spawn(async move { of.sequencer.receive().await });
    let of = shared.clone();
    tasks.spawn(async move { of.sequencer.send().await });
    for lane in (0..shared.options.grant_lanes).map(Lane) {
        let of = shared.clone();
        tasks.spawn(async move { granter::run(&of, lane).await });
    }
    let of = shared.clone();
    tasks.spawn(async move {
        let changes = of.options.changes.clone();
        writers::run(of, changes).await;
        // Until then it is followed.
        drop(following);
    });
    tasks
}
