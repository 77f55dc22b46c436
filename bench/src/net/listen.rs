//! Servers of the bench, on free ports of loopback.

use std::net::{Ipv4Addr, SocketAddr};

use anyhow::Result;
use axum::Router;
use tokio::net::TcpListener;
use tokio::task::AbortHandle;

/// Serves a router until it is aborted. `name` is told if it ends before.
///
/// # Errors
/// If no port is free.
pub(super) async fn serve(name: &'static str, router: Router) -> Result<(SocketAddr, AbortHandle)> {
    let listener = std::net::TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?;
    serve_on(listener, name, router)
}

/// The same on a socket that listens already, wherever that is.
///
/// # Errors
/// What the system says.
pub(super) fn serve_on(
    listener: std::net::TcpListener,
    name: &'static str,
    router: Router,
) -> Result<(SocketAddr, AbortHandle)> {
    listener.set_nonblocking(true)?;
    let listener = TcpListener::from_std(listener)?;
    let address = listener.local_addr()?;
    let serve = async move {
        if let Err(error) = axum::serve(listener, router).await {
            eprintln!("the {name} ended: {error}");
        }
    };
    Ok((address, tokio::spawn(serve).abort_handle()))
}
