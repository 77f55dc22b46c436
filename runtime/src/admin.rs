//! The endpoint for metrics and health of a daemon.
//!
//! `GET /metrics` gives the registry in the OpenMetrics text format, `GET /healthz` answers 200 if the
//! daemon does its work and 503 with the reason if it does not. It belongs on an address that only
//! operators reach: there is no authentication.

use std::io;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll};
use std::time::Duration;

use axum::Router;
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use axum::serve::Listener;
use prometheus_client::encoding::text::encode;
use prometheus_client::registry::Registry;
use thiserror::Error;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::task::JoinHandle;
use tokio::time::{Sleep, sleep};

/// Most connections at once; others wait in the kernel's queue.
const MAX_CONNECTIONS: usize = 64;

/// Longest life of a connection, so that idle ones do not keep the others out.
const MAX_LIFE: Duration = Duration::from_secs(30);

/// Type of the text that `/metrics` gives.
const METRICS_TYPE: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";

/// The endpoint could not be opened.
#[derive(Debug, Error)]
#[error("cannot listen for metrics and health: {source} address={address}")]
pub struct AdminError {
    /// What the system said.
    pub source: io::Error,
    /// The address.
    pub address: SocketAddr,
}

/// A running endpoint. It ends when this is dropped.
#[derive(Debug)]
pub struct Admin {
    address: SocketAddr,
    task: JoinHandle<()>,
}

impl Admin {
    /// The address that it is bound to.
    #[must_use]
    pub fn address(&self) -> SocketAddr {
        self.address
    }
}

impl Drop for Admin {
    fn drop(&mut self) {
        self.task.abort();
    }
}

/// Opens the endpoint and serves it in the background. `health` tells how the daemon does its work, or why it
/// does not, and must not block.
///
/// # Errors
/// [`AdminError`] if the address cannot be bound.
pub async fn serve(
    address: SocketAddr,
    registry: Arc<Mutex<Registry>>,
    health: impl Fn() -> Result<&'static str, String> + Send + Sync + 'static,
) -> Result<Admin, AdminError> {
    let failed = |source| AdminError { source, address };
    let inner = TcpListener::bind(address).await.map_err(failed)?;
    let bound = inner.local_addr().map_err(failed)?;
    let health = Arc::new(health);
    let router = Router::new()
        .route("/metrics", get(async move || metrics(&registry)))
        .route("/healthz", get(async move || healthz(health())));
    let listener = Bounded {
        inner,
        permits: Arc::new(Semaphore::new(MAX_CONNECTIONS)),
    };
    let task = tokio::spawn(async move {
        if let Err(error) = axum::serve(listener, router).await {
            tracing::error!(%error, "the endpoint for metrics and health ended");
        }
    });
    tracing::info!(address = %bound, "metrics and health are served");
    Ok(Admin {
        address: bound,
        task,
    })
}

fn metrics(registry: &Mutex<Registry>) -> Response {
    let mut text = String::new();
    // A panic elsewhere while the lock was held does not make the counters wrong.
    let outcome = encode(
        &mut text,
        &registry.lock().unwrap_or_else(PoisonError::into_inner),
    );
    match outcome {
        Ok(()) => ([(header::CONTENT_TYPE, METRICS_TYPE)], text).into_response(),
        Err(error) => (StatusCode::INTERNAL_SERVER_ERROR, error.to_string()).into_response(),
    }
}

fn healthz(health: Result<&'static str, String>) -> (StatusCode, String) {
    match health {
        Ok(how) => (StatusCode::OK, format!("{how}\n")),
        Err(reason) => (StatusCode::SERVICE_UNAVAILABLE, format!("{reason}\n")),
    }
}

/// A listener with a bound on connections.
struct Bounded {
    inner: TcpListener,
    permits: Arc<Semaphore>,
}

impl Listener for Bounded {
    type Io = Held;
    type Addr = SocketAddr;

    async fn accept(&mut self) -> (Held, SocketAddr) {
        // The semaphore is never closed, so that there always is a permit in the end.
        let permit = Arc::clone(&self.permits).acquire_owned().await.ok();
        let (stream, peer) = Listener::accept(&mut self.inner).await;
        let end = Box::pin(sleep(MAX_LIFE));
        (
            Held {
                stream,
                end,
                _permit: permit,
            },
            peer,
        )
    }

    fn local_addr(&self) -> io::Result<SocketAddr> {
        self.inner.local_addr()
    }
}

/// A connection that counts against the bound and ends in time.
struct Held {
    stream: TcpStream,
    end: Pin<Box<Sleep>>,
    _permit: Option<OwnedSemaphorePermit>,
}

impl Held {
    fn check(&mut self, cx: &mut Context<'_>) -> io::Result<()> {
        match self.end.as_mut().poll(cx) {
            Poll::Ready(()) => Err(io::ErrorKind::TimedOut.into()),
            Poll::Pending => Ok(()),
        }
    }
}

impl AsyncRead for Held {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        self.check(cx)?;
        Pin::new(&mut self.stream).poll_read(cx, buf)
    }
}

impl AsyncWrite for Held {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &[u8],
    ) -> Poll<io::Result<usize>> {
        self.check(cx)?;
        Pin::new(&mut self.stream).poll_write(cx, buf)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicBool, Ordering};

    use prometheus_client::metrics::counter::Counter;
    use tokio::io::{AsyncReadExt, AsyncWriteExt};

    use super::*;

    async fn ask(address: SocketAddr, path: &str) -> String {
        let mut stream = TcpStream::connect(address).await.expect("connected");
        let request = format!("GET {path} HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n");
        stream.write_all(request.as_bytes()).await.expect("sent");
        let mut answer = String::new();
        stream.read_to_string(&mut answer).await.expect("answered");
        answer
    }

    #[tokio::test]
    async fn tells_counters_and_health() {
        let mut registry = Registry::default();
        let counter: Counter = Counter::default();
        registry.register("grants", "Grants", counter.clone());
        counter.inc_by(7);
        let well = Arc::new(AtomicBool::new(true));
        let seen = Arc::clone(&well);
        let health = move || {
            let well = seen.load(Ordering::Relaxed);
            well.then_some("standby").ok_or_else(|| "fenced".to_owned())
        };
        let any = SocketAddr::from(([127, 0, 0, 1], 0));
        let admin = serve(any, Arc::new(Mutex::new(registry)), health).await;
        let admin = admin.expect("bound");
        let metrics = ask(admin.address(), "/metrics").await;
        assert!(metrics.contains("openmetrics-text"), "{metrics}");
        assert!(metrics.contains("grants_total 7\n"), "{metrics}");
        let sound = ask(admin.address(), "/healthz").await;
        assert!(
            sound.starts_with("HTTP/1.1 200") && sound.ends_with("standby\n"),
            "{sound}"
        );
        well.store(false, Ordering::Relaxed);
        let sick = ask(admin.address(), "/healthz").await;
        assert!(
            sick.starts_with("HTTP/1.1 503") && sick.ends_with("fenced\n"),
            "{sick}"
        );
        assert!(
            ask(admin.address(), "/other")
                .await
                .starts_with("HTTP/1.1 404")
        );
    }

    #[tokio::test]
    async fn an_address_in_use_is_one_clear_error() {
        let taken = TcpListener::bind("127.0.0.1:0").await.expect("bound");
        let address = taken.local_addr().expect("bound");
        let registry = Arc::new(Mutex::new(Registry::default()));
        let refused = serve(address, registry, || Ok("ok"))
            .await
            .expect_err("in use");
        let text = refused.to_string();
        assert!(text.starts_with("cannot listen for metrics and health: Address already in use"));
        assert!(text.ends_with(&format!("address={address}")), "{text}");
    }
}
