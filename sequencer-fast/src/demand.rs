//! How shards ask the checkpoint thread to extend the reservation.

use crossbeam_queue::ArrayQueue;
use tokio::sync::Notify;

use crate::limits::DEMANDS;

/// A bounded queue from the shards to the checkpoint thread.
#[derive(Debug)]
pub(crate) struct Demand {
    queue: ArrayQueue<u64>,
    raised: Notify,
}

impl Demand {
    pub(crate) fn new() -> Self {
        Self {
            queue: ArrayQueue::new(DEMANDS),
            raised: Notify::new(),
        }
    }

    /// The issued tail has reached the low-water mark. Neither blocks nor allocates.
    pub(crate) fn raise(&self, now_ns: u64) {
        let _ = self.queue.push(now_ns);
        self.raised.notify_one();
    }

    /// Waits for demands, and returns when the first was raised.
    pub(crate) async fn wait(&self) -> u64 {
        loop {
            if let Some(raised_ns) = self.queue.pop() {
                while self.queue.pop().is_some() {}
                return raised_ns;
            }
            self.raised.notified().await;
        }
    }
}
