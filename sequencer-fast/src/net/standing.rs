//! What a standby serves: to whoever asks it for something, it says that it does not reign.
//!
//! Threads of its own, asleep while nobody asks, over the sockets that the shards of a reign take over. Nothing may
//! wait in a socket for a reign to come: its request is long given up, and a token for it would be a hole.

use std::io;
use std::net::UdpSocket;
use std::sync::Arc;
use std::thread::{self, JoinHandle};

use wire::Epoch;
use wire::control::ControlEntry;

use super::mechanism::Mechanism;
use super::sleeper::Sleeper;
use super::worker::{Granter, Worker};
use crate::config::Wait;
use crate::demand::Demand;
use crate::error::SequencerError;
use crate::logic::{Limits, Reign, Shard, ShardCounters};

/// Threads that answer until this is ended or dropped.
#[derive(Debug)]
pub(crate) struct Standing {
    sleepers: Vec<Arc<Sleeper>>,
    threads: Vec<JoinHandle<()>>,
}

impl Standing {
    /// Starts a thread for each socket. They have the log of this entry, and no epoch of their own.
    ///
    /// # Errors
    /// [`SequencerError::Setup`], or [`SequencerError::Control`] if the entry has no segment.
    pub(crate) fn start(
        sockets: &[UdpSocket],
        entry: &ControlEntry,
        counters: &[Arc<ShardCounters>],
        limits: &Limits,
        merges: bool,
    ) -> Result<Self, SequencerError> {
        let entry = ControlEntry {
            epoch: Epoch(0),
            ..entry.clone()
        };
        // It is never opened, and has no deadline.
        let reign = Arc::new(Reign::new(&entry)?);
        let setup = |source| SequencerError::Setup {
            what: "standby thread",
            source,
        };
        let mut standing = Self {
            sleepers: Vec::new(),
            threads: Vec::new(),
        };
        for (number, (socket, counters)) in sockets.iter().zip(counters).enumerate() {
            let sleeper = Arc::new(Sleeper::new().map_err(setup)?);
            let worker = Worker {
                socket: socket.try_clone().map_err(setup)?,
                handler: Granter {
                    shard: Shard::new(Arc::clone(&reign), Arc::clone(counters), limits.clone()),
                    sleeper: Arc::clone(&sleeper),
                    demand: Arc::new(Demand::new()),
                },
                counters: Arc::clone(counters),
                sleeper: Arc::clone(&sleeper),
                wait: Wait::Block,
                merges,
            };
            standing.sleepers.push(sleeper);
            standing.threads.push(serve(number, worker).map_err(setup)?);
        }
        Ok(standing)
    }

    /// Ends them: nobody reads from the sockets afterwards.
    pub(crate) fn end(mut self) {
        self.quit();
        for thread in self.threads.drain(..) {
            if thread.join().is_err() {
                tracing::error!("a standby thread panicked");
            }
        }
    }

    fn quit(&self) {
        for sleeper in &self.sleepers {
            sleeper.quit();
        }
    }
}

impl Drop for Standing {
    fn drop(&mut self) {
        self.quit();
    }
}

fn serve(number: usize, worker: Worker<Granter>) -> io::Result<JoinHandle<()>> {
    thread::Builder::new()
        .name(format!("standby-{number}"))
        .spawn(move || {
            // Whatever is wrong with it, the shards that follow find out by themselves.
            if let Err(error) = Mechanism::Poll.serve(worker) {
                tracing::error!(%error, "a standby thread ended: requests are not answered");
            }
        })
}
