//! Signs of life for clients that wait for this process, rather than it for them.

use std::sync::Arc;

use tokio::sync::{Notify, mpsc};
use wire::frame::{Ack, AckStatus, Frame};

use super::outgoing::Outgoing;
use crate::limits::PULSE;
use crate::shared::Shared;
use crate::store;

/// A connection, as whatever owes its peer an answer holds it.
#[derive(Debug, Clone, Default)]
pub(crate) struct Owed(Arc<Notify>);

impl Owed {
    /// An answer was lost, since the peer does not read its answers.
    pub(super) fn cut(&self) {
        self.0.notify_one();
    }

    /// Resolves when one was.
    pub(super) async fn is_cut(&self) {
        self.0.notified().await;
    }

    /// Whether anybody holds this but the connection and what serves it.
    fn by_others(&self) -> bool {
        Arc::strong_count(&self.0) > 2
    }
}

/// Tells the peer now and then how things are, while it waits for answers. Never ends.
pub(super) async fn beat(shared: &Shared, owed: &Owed, out: &mpsc::Sender<Outgoing>) {
    let mut gait = Gait::new(shared.metrics.puts_ended());
    loop {
        tokio::time::sleep(PULSE).await;
        let gets_on = gait.gets_on(shared.metrics.puts_ended());
        if !owed.by_others() {
            continue;
        }
        let status = if gets_on && shared.is_pressed(store::now()) {
            AckStatus::Waiting
        } else if shared.metrics.is_unheard() {
            AckStatus::Unheard
        } else {
            continue;
        };
        // A peer that does not read has no use for it.
        let _ = out.try_send(Frame::Ack(Ack::sign(status)).into());
    }
}

/// Whether the store gets on: nothing has failed since an object was last committed. Large objects may take long
/// side by side, and a put that the store does not answer fails in the end.
#[derive(Debug)]
struct Gait {
    before: (u64, u64),
    well: bool,
}

impl Gait {
    fn new(before: (u64, u64)) -> Self {
        Self { before, well: true }
    }

    /// With how many objects have been committed and puts have failed until now.
    fn gets_on(&mut self, now: (u64, u64)) -> bool {
        let before = std::mem::replace(&mut self.before, now);
        self.well = now.0 != before.0 || (self.well && now.1 == before.1);
        self.well
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_store_gets_on_until_a_put_fails_and_none_succeeds() {
        let mut gait = Gait::new((5, 1));
        assert!(gait.gets_on((5, 1)), "they are under way");
        assert!(!gait.gets_on((5, 2)));
        assert!(!gait.gets_on((5, 2)));
        assert!(gait.gets_on((6, 3)));
        assert!(gait.gets_on((6, 3)));
    }

    #[test]
    fn an_answer_is_owed_as_long_as_somebody_is_to_give_it() {
        let connection = Owed::default();
        let serving = connection.clone();
        assert!(!serving.by_others());
        let token = connection.clone();
        assert!(serving.by_others());
        drop(token);
        assert!(!serving.by_others());
    }
}
