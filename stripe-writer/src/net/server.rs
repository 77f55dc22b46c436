//! Accepts connections.

use std::net::SocketAddr;
use std::sync::Arc;

use tokio::net::TcpListener;
use tokio::sync::Semaphore;

use super::connection;
use crate::limits::CONNECTIONS;
use crate::shared::Shared;

/// The listening socket.
#[derive(Debug)]
pub(crate) struct Server {
    listener: TcpListener,
}

impl Server {
    /// Binds an address.
    ///
    /// # Errors
    /// What the system says, as when the port is in use.
    pub(crate) async fn bind(address: SocketAddr) -> std::io::Result<Self> {
        let listener = TcpListener::bind(address).await?;
        Ok(Self { listener })
    }

    /// The address that it is bound to.
    ///
    /// # Errors
    /// What the system says.
    pub(crate) fn address(&self) -> std::io::Result<SocketAddr> {
        self.listener.local_addr()
    }

    /// Serves connections for ever. At the bound on their number new ones wait.
    pub(crate) async fn run(self, shared: Arc<Shared>) {
        let places = Arc::new(Semaphore::new(CONNECTIONS));
        loop {
            let Ok(place) = Arc::clone(&places).acquire_owned().await else {
                return;
            };
            match self.listener.accept().await {
                Ok((socket, peer)) => {
                    let shared = Arc::clone(&shared);
                    tokio::spawn(async move {
                        connection::serve(shared, socket, peer).await;
                        drop(place);
                    });
                }
                Err(error) => {
                    // Out of file descriptors, most likely: others have to close first.
                    tracing::warn!(%error, "cannot accept a connection");
                    tokio::time::sleep(crate::limits::REPORT_HEARTBEAT).await;
                }
            }
        }
    }
}
