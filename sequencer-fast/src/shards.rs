//! The threads of a reign.

use std::io;
use std::sync::Arc;
use std::thread::JoinHandle;

use crate::error::SequencerError;
use crate::net::sleeper::Sleeper;

/// The shards that serve a reign, each in a thread of its own. They are told to end when this goes.
#[derive(Debug, Default)]
pub(crate) struct Shards {
    threads: Vec<JoinHandle<io::Result<()>>>,
    sleepers: Vec<Arc<Sleeper>>,
}

impl Shards {
    pub(crate) fn push(&mut self, thread: JoinHandle<io::Result<()>>, sleeper: Arc<Sleeper>) {
        self.threads.push(thread);
        self.sleepers.push(sleeper);
    }

    /// What wakes them.
    pub(crate) fn sleepers(&self) -> Vec<Arc<Sleeper>> {
        self.sleepers.clone()
    }

    /// Ends them, after the reign has ended: nobody reads from the sockets afterwards.
    ///
    /// # Errors
    /// The first failure of a shard.
    pub(crate) fn end(mut self) -> Result<(), SequencerError> {
        self.quit();
        let mut outcome = Ok(());
        for (shard, thread) in self.threads.drain(..).enumerate() {
            let ended = match thread.join() {
                Ok(Ok(())) => Ok(()),
                Ok(Err(source)) => Err(SequencerError::Shard { shard, source }),
                Err(_) => Err(SequencerError::Panicked),
            };
            outcome = outcome.and(ended);
        }
        outcome
    }

    fn quit(&self) {
        for sleeper in &self.sleepers {
            sleeper.quit();
        }
    }
}

impl Drop for Shards {
    fn drop(&mut self) {
        self.quit();
    }
}
