//! A proxy in front of an S3 server that does what no server does on demand: fails before or after a
//! write is applied, loses answers, answers late, and says "exists" of what it has just written.

use std::net::SocketAddr;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use anyhow::{Context, Result};
use axum::Router;
use axum::body::{Body, Bytes};
use axum::extract::{Request, State};
use axum::http::{Method, Response, StatusCode, Uri};
use futures::stream;
use hyper_util::client::legacy::Client;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::TokioExecutor;
use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};
use serde::Serialize;
use tokio::task::AbortHandle;

use super::listen;

/// Longest added delay of a late answer.
const LONGEST_DELAY_MS: u64 = 2000;

/// What the proxy does to a request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Fault {
    None,
    /// 500 without passing it on.
    FailBefore,
    /// 503 `SlowDown` without passing it on.
    SlowDown,
    /// 409 without passing it on: a race that the caller lost, though nothing is there.
    Conflict,
    /// Passes it on, then 500.
    FailAfter,
    /// Passes it on, then 412: "exists", after having written.
    ExistsAfter,
    /// Passes it on, then breaks the connection.
    LoseAnswer,
    /// Waits, then passes it on.
    Late,
}

/// What was done, by kind.
#[derive(Debug, Clone, Copy, Default, Serialize)]
pub(crate) struct Injected {
    requests: u64,
    fail_before: u64,
    slow_down: u64,
    conflict: u64,
    fail_after: u64,
    exists_after: u64,
    lose_answer: u64,
    late: u64,
}

impl Injected {
    /// All faults together.
    #[must_use]
    pub(crate) fn total(&self) -> u64 {
        self.fail_before
            + self.slow_down
            + self.conflict
            + self.fail_after
            + self.exists_after
            + self.lose_answer
            + self.late
    }
}

/// A running proxy. It ends when this is dropped.
#[derive(Debug)]
pub(crate) struct Proxy {
    address: SocketAddr,
    state: Arc<Shared>,
    task: AbortHandle,
}

#[derive(Debug)]
struct Shared {
    target: Uri,
    client: Client<HttpConnector, Body>,
    random: Mutex<StdRng>,
    rate: Mutex<f64>,
    delay: Mutex<Duration>,
    injected: Mutex<Injected>,
}

impl Proxy {
    /// Starts a proxy to the server at `target`, as `http://127.0.0.1:5000`. It does nothing wrong until
    /// [`Proxy::rate`] is set.
    ///
    /// # Errors
    /// If the target is no URI or no port is free.
    pub(crate) async fn start(target: &str, seed: u64) -> Result<Self> {
        let state = Arc::new(Shared {
            target: target.parse().context("the target of the proxy")?,
            client: Client::builder(TokioExecutor::new()).build_http(),
            random: Mutex::new(StdRng::seed_from_u64(seed)),
            rate: Mutex::new(0.0),
            delay: Mutex::default(),
            injected: Mutex::default(),
        });
        let router = Router::new().fallback(pass).with_state(Arc::clone(&state));
        let (address, task) = listen::serve("proxy", router).await?;
        Ok(Self {
            address,
            state,
            task,
        })
    }

    /// URL of the proxy.
    #[must_use]
    pub(crate) fn url(&self) -> String {
        format!("http://{}", self.address)
    }

    /// The share of requests that meet a fault from now on, 0 to 1.
    pub(crate) fn rate(&self, rate: f64) {
        *lock(&self.state.rate) = rate;
    }

    /// Every answer is late by so much from now on.
    pub(crate) fn delay(&self, delay: Duration) {
        *lock(&self.state.delay) = delay;
    }

    /// What was done so far.
    #[must_use]
    pub(crate) fn injected(&self) -> Injected {
        *lock(&self.state.injected)
    }
}

impl Drop for Proxy {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl Shared {
    /// Draws what to do: reads only fail or are late, conditional creates meet everything.
    fn draw(&self, create: bool) -> (Fault, Duration) {
        let faults: &[Fault] = match create {
            true => &[
                Fault::FailBefore,
                Fault::SlowDown,
                Fault::Conflict,
                Fault::FailAfter,
                Fault::ExistsAfter,
                Fault::LoseAnswer,
                Fault::Late,
            ],
            false => &[Fault::FailBefore, Fault::SlowDown, Fault::Late],
        };
        let rate = *lock(&self.rate);
        let mut random = lock(&self.random);
        let fault = match random.random_bool(rate) {
            true => faults[random.random_range(0..faults.len())],
            false => Fault::None,
        };
        let delay = Duration::from_millis(random.random_range(0..LONGEST_DELAY_MS));
        drop(random);
        let mut injected = lock(&self.injected);
        injected.requests += 1;
        match fault {
            Fault::None => {}
            Fault::FailBefore => injected.fail_before += 1,
            Fault::SlowDown => injected.slow_down += 1,
            Fault::Conflict => injected.conflict += 1,
            Fault::FailAfter => injected.fail_after += 1,
            Fault::ExistsAfter => injected.exists_after += 1,
            Fault::LoseAnswer => injected.lose_answer += 1,
            Fault::Late => injected.late += 1,
        }
        (fault, delay)
    }

    async fn forward(&self, request: Request) -> Response<Body> {
        match self.client.request(request).await {
            Ok(response) => response.map(Body::new),
            Err(error) => answer(StatusCode::BAD_GATEWAY, &error.to_string()),
        }
    }
}

async fn pass(State(shared): State<Arc<Shared>>, mut request: Request) -> Response<Body> {
    let mut parts = shared.target.clone().into_parts();
    parts.path_and_query = request.uri().path_and_query().cloned();
    match Uri::from_parts(parts) {
        Ok(uri) => *request.uri_mut() = uri,
        Err(error) => return answer(StatusCode::BAD_REQUEST, &error.to_string()),
    }
    let create = request.method() == Method::PUT && request.headers().contains_key("if-none-match");
    let (fault, delay) = shared.draw(create);
    match fault {
        Fault::FailBefore => return answer(StatusCode::INTERNAL_SERVER_ERROR, "InternalError"),
        Fault::SlowDown => return answer(StatusCode::SERVICE_UNAVAILABLE, "SlowDown"),
        Fault::Conflict => return answer(StatusCode::CONFLICT, "ConditionalRequestConflict"),
        Fault::Late => tokio::time::sleep(delay).await,
        _ => {}
    }
    let response = shared.forward(request).await;
    let slow = *lock(&shared.delay);
    if !slow.is_zero() {
        tokio::time::sleep(slow).await;
    }
    match fault {
        Fault::FailAfter => answer(StatusCode::INTERNAL_SERVER_ERROR, "InternalError"),
        Fault::ExistsAfter => answer(StatusCode::PRECONDITION_FAILED, "PreconditionFailed"),
        Fault::LoseAnswer => broken(),
        _ => response,
    }
}

fn answer(status: StatusCode, code: &str) -> Response<Body> {
    let body = format!(
        "<?xml version=\"1.0\"?><Error><Code>{code}</Code><Message>injected</Message></Error>"
    );
    let mut response = Response::new(Body::from(body));
    *response.status_mut() = status;
    response
}

/// An answer whose body fails at once: the connection breaks off before the caller has a whole answer.
fn broken() -> Response<Body> {
    let failed = Err::<Bytes, _>(std::io::Error::other("lost on purpose"));
    let mut response = Response::new(Body::from_stream(stream::iter([failed])));
    // A status that says nothing: the answer never arrives in full.
    *response.status_mut() = StatusCode::INTERNAL_SERVER_ERROR;
    response
}

fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
