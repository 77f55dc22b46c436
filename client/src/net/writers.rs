//! The connections to the stripe-writers of the membership, as it changes.
//!
//! Whoever finds out whom to ask for a stripe and hands it frames does both under [`Writers::read`]: a connection goes
//! away only while nobody does, and only with nothing left to send or to be answered.

use std::collections::BTreeMap;
use std::future::pending;
use std::net::SocketAddr;
use std::sync::{Arc, PoisonError, RwLock, RwLockReadGuard};

use catalog::Membership;
use runtime::members::changed;
use tokio::sync::watch;
use tokio::task::{AbortHandle, JoinSet};
use tokio::time::sleep;

use super::connection::Outgoing;
use crate::limits::RELIST_AGAIN;
use crate::logic::routes::Routes;
use crate::shared::Shared;

type Connections = BTreeMap<SocketAddr, Arc<Outgoing>>;

/// All connections by address.
#[derive(Debug)]
pub(crate) struct Writers(RwLock<Connections>);

impl Writers {
    pub(crate) fn new(membership: &Membership) -> Self {
        let open = |address| (address, Arc::new(Outgoing::new(address)));
        Self(RwLock::new(membership.addresses().map(open).collect()))
    }

    /// The connections, which stay as long as this is held. Not to be held twice, nor over an await.
    pub(crate) fn read(&self) -> RwLockReadGuard<'_, Connections> {
        self.0.read().unwrap_or_else(PoisonError::into_inner)
    }

    /// The addresses of all.
    pub(crate) fn addresses(&self) -> Vec<SocketAddr> {
        self.read().keys().copied().collect()
    }

    /// Whether one of them has more frames than it can send soon.
    pub(crate) fn any_is_full(&self) -> bool {
        self.read().values().any(|connection| connection.is_full())
    }

    /// These are the writers now. One that is not among them stays until it has nothing more to do.
    fn relist(&self, membership: &Membership, routes: &Routes) {
        let mut open = self.0.write().unwrap_or_else(PoisonError::into_inner);
        routes.relist(membership.clone());
        for address in membership.addresses() {
            open.entry(address)
                .or_insert_with(|| Arc::new(Outgoing::new(address)));
        }
        open.retain(|address, connection| routes.has(*address) || !connection.is_idle());
    }
}

/// Serves all connections and takes in changes of the membership, for ever.
pub(crate) async fn run(shared: Arc<Shared>, mut changes: Option<watch::Receiver<Membership>>) {
    let (mut tasks, mut served) = (JoinSet::new(), BTreeMap::new());
    let mut unfinished = None;
    loop {
        serve(&shared, &mut tasks, &mut served);
        let again = async {
            match unfinished.clone() {
                Some(membership) => {
                    sleep(RELIST_AGAIN).await;
                    membership
                }
                None => pending().await,
            }
        };
        let membership: Membership = tokio::select! {
            membership = changed(&mut changes) => membership,
            membership = again => membership,
        };
        shared.writers.relist(&membership, &shared.routes);
        unfinished = match shared.sequencer.relist(&membership.sequencers).await {
            Ok(()) => None,
            Err((address, error)) => {
                shared.problem(format!("membership: sequencer {address}: {error}"));
                Some(membership)
            }
        };
        // Who waits for room may wait for a connection that is no more.
        shared.room.notify_waiters();
    }
}

/// Starts a task for each connection that has none, and ends those of connections that are no more.
fn serve(
    shared: &Arc<Shared>,
    tasks: &mut JoinSet<()>,
    served: &mut BTreeMap<SocketAddr, AbortHandle>,
) {
    let open = shared.writers.read();
    served.retain(|address, task| {
        let stays = open.contains_key(address);
        if !stays {
            task.abort();
        }
        stays
    });
    for (address, connection) in open.iter() {
        if !served.contains_key(address) {
            let (connection, shared) = (Arc::clone(connection), Arc::clone(shared));
            let task = tasks.spawn(async move { connection.run(&shared).await });
            served.insert(*address, task);
        }
    }
    while tasks.try_join_next().is_some() {}
}
