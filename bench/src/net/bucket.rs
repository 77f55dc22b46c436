//! An S3 server in memory that counts what a bill counts, and is slow where it is told to be.
//!
//! It keeps one bucket and honours `If-None-Match: *`. What a real server does with conditions is not shown
//! by it: other points use one.

use std::collections::BTreeMap;
use std::fmt::Write;
use std::net::{Ipv4Addr, SocketAddr, TcpListener};
use std::ops::Bound;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use anyhow::Result;
use axum::Router;
use axum::body::{Body, Bytes};
use axum::extract::{Request, State};
use axum::http::{HeaderMap, Method, Response, StatusCode, header};
use catalog::Store;
use object_store::ClientOptions;
use object_store::aws::AmazonS3Builder;
use serde::Serialize;
use tokio::task::AbortHandle;
use tokio::time::Instant;

use super::listen;

/// Name of the bucket.
const NAME: &str = "stripelog";

/// Most keys of one answer to a listing, as S3 has it.
const KEYS: usize = 1000;

/// Largest body of a request.
const BODY_BYTES: usize = 64 << 20;

/// Requests so far, by how they are billed.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize)]
pub(crate) struct Requests {
    /// PUT, with those that were refused because the name exists: they are billed.
    pub(crate) puts: u64,
    /// LIST: billed as PUT.
    pub(crate) lists: u64,
    /// GET and HEAD.
    pub(crate) gets: u64,
    /// DELETE: free.
    pub(crate) deletes: u64,
}

impl Requests {
    /// What was asked since.
    #[must_use]
    pub(crate) fn since(self, before: Self) -> Self {
        Self {
            puts: self.puts - before.puts,
            lists: self.lists - before.lists,
            gets: self.gets - before.gets,
            deletes: self.deletes - before.deletes,
        }
    }
}

/// How slow it is.
#[derive(Debug, Clone, Default)]
pub(crate) struct Pace {
    /// Added to every request.
    pub(crate) answer: Duration,
    /// Added to every put.
    pub(crate) put: Duration,
    /// Added to puts of names that have this text in them.
    pub(crate) named: Option<(String, Duration)>,
    /// Bytes a second of all puts together.
    pub(crate) bytes_per_second: Option<f64>,
}

/// A running server. It ends when this is dropped.
#[derive(Debug)]
pub(crate) struct Bucket {
    address: SocketAddr,
    state: Arc<Shared>,
    task: AbortHandle,
}

#[derive(Debug, Default)]
struct Shared {
    objects: Mutex<BTreeMap<String, Bytes>>,
    requests: Mutex<Requests>,
    pace: Mutex<Pace>,
    refuses: AtomicBool,
    refused: AtomicU64,
    /// When the line is free again, where it is narrow.
    free: Mutex<Option<Instant>>,
}

impl Bucket {
    /// Starts an empty one.
    ///
    /// # Errors
    /// If no port is free.
    pub(crate) async fn start() -> Result<Self> {
        Self::on(TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?)
    }

    /// Starts an empty one on a socket that listens already.
    ///
    /// # Errors
    /// What the system says.
    pub(crate) fn on(listener: TcpListener) -> Result<Self> {
        let state = Arc::new(Shared::default());
        let router = Router::new()
            .fallback(answer)
            .with_state(Arc::clone(&state));
        let (address, task) = listen::serve_on(listener, "bucket", router)?;
        Ok(Self {
            address,
            state,
            task,
        })
    }

    /// URL of the bucket for programs with [`Self::environment`].
    #[must_use]
    pub(crate) fn url(&self) -> String {
        format!("s3://{NAME}/log")
    }

    /// How programs find it.
    #[must_use]
    pub(crate) fn environment(&self) -> Vec<(String, String)> {
        let endpoint = self.endpoint();
        [
            ("AWS_ENDPOINT", endpoint.as_str()),
            ("AWS_ALLOW_HTTP", "true"),
            ("AWS_REGION", "us-east-1"),
            ("AWS_ACCESS_KEY_ID", "test"),
            ("AWS_SECRET_ACCESS_KEY", "testtest"),
            ("AWS_VIRTUAL_HOSTED_STYLE_REQUEST", "false"),
        ]
        .map(|(name, value)| (name.to_owned(), value.to_owned()))
        .to_vec()
    }

    /// The store at [`Self::url`], for this program itself: its environment is not the daemons'.
    ///
    /// # Errors
    /// None in practice.
    pub(crate) fn store(&self) -> Result<Store> {
        let store = AmazonS3Builder::new()
            .with_endpoint(self.endpoint())
            .with_bucket_name(NAME)
            .with_region("us-east-1")
            .with_access_key_id("test")
            .with_secret_access_key("testtest")
            .with_client_options(ClientOptions::new().with_allow_http(true))
            .build()?;
        Ok(Store::new(Arc::new(store), "log"))
    }

    /// How slow it is from now on.
    pub(crate) fn pace(&self, pace: Pace) {
        *lock(&self.state.pace) = pace;
        *lock(&self.state.free) = None;
    }

    /// Whether every request is refused from now on, as by a service that is out of order.
    pub(crate) fn refuse(&self, all: bool) {
        self.state.refuses.store(all, Ordering::Release);
    }

    /// Requests that were refused so far.
    #[must_use]
    pub(crate) fn refused(&self) -> u64 {
        self.state.refused.load(Ordering::Acquire)
    }

    /// What was asked so far.
    #[must_use]
    pub(crate) fn requests(&self) -> Requests {
        *lock(&self.state.requests)
    }

    fn endpoint(&self) -> String {
        format!("http://{}", self.address)
    }
}

impl Drop for Bucket {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl Shared {
    fn count(&self, method: &Method, whole_bucket: bool) {
        let mut requests = lock(&self.requests);
        match (method, whole_bucket) {
            (&Method::PUT, false) => requests.puts += 1,
            (&Method::GET, true) => requests.lists += 1,
            (&Method::GET | &Method::HEAD, false) => requests.gets += 1,
            (&Method::DELETE, false) | (&Method::POST, _) => requests.deletes += 1,
            _ => {}
        }
    }

    /// How long a put of so many bytes takes.
    fn wait(&self, name: &str, bytes: usize) -> Duration {
        let pace = lock(&self.pace).clone();
        let named = pace.named.filter(|(part, _)| name.contains(part.as_str()));
        let mut wait = named.map_or(pace.put, |(_, wait)| wait);
        if let Some(rate) = pace.bytes_per_second {
            let mut free = lock(&self.free);
            let now = Instant::now();
            let end = free.unwrap_or(now).max(now) + Duration::from_secs_f64(bytes as f64 / rate);
            *free = Some(end);
            wait = wait.max(end - now);
        }
        wait
    }

    async fn put(&self, key: String, request: Request) -> Response<Body> {
        let create = request.headers().contains_key(header::IF_NONE_MATCH);
        let body = match axum::body::to_bytes(request.into_body(), BODY_BYTES).await {
            Ok(body) => body,
            Err(error) => return status(StatusCode::BAD_REQUEST, &error.to_string()),
        };
        let wait = self.wait(&key, body.len());
        if !wait.is_zero() {
            tokio::time::sleep(wait).await;
        }
        let mut objects = lock(&self.objects);
        if create && objects.contains_key(&key) {
            return status(StatusCode::PRECONDITION_FAILED, "PreconditionFailed");
        }
        objects.insert(key, body);
        respond(StatusCode::OK, &[], Body::empty())
    }

    fn get(&self, key: &str, head: bool, headers: &HeaderMap) -> Response<Body> {
        let Some(object) = lock(&self.objects).get(key).cloned() else {
            return status(StatusCode::NOT_FOUND, "NoSuchKey");
        };
        let len = object.len();
        if head {
            return respond(
                StatusCode::OK,
                &[("content-length", len.to_string())],
                Body::empty(),
            );
        }
        let range = headers
            .get(header::RANGE)
            .and_then(|range| range.to_str().ok());
        let Some((start, end)) = range.and_then(|range| parse_range(range, len)) else {
            return respond(StatusCode::OK, &[], Body::from(object));
        };
        if start >= end {
            return status(StatusCode::RANGE_NOT_SATISFIABLE, "InvalidRange");
        }
        let content = format!("bytes {start}-{}/{len}", end - 1);
        let part = object.slice(start..end);
        respond(
            StatusCode::PARTIAL_CONTENT,
            &[("content-range", content)],
            Body::from(part),
        )
    }

    fn list(&self, query: &str) -> Response<Body> {
        let value = |name| {
            let mut pairs = query.split('&').filter_map(|pair| pair.split_once('='));
            pairs
                .find(|(key, _)| *key == name)
                .map(|(_, value)| decode(value))
        };
        let prefix = value("prefix").unwrap_or_default();
        let after = value("continuation-token").or_else(|| value("start-after"));
        let from = match &after {
            Some(after) if *after >= prefix => Bound::Excluded(after.clone()),
            _ => Bound::Included(prefix.clone()),
        };
        let objects = lock(&self.objects);
        let found = objects.range((from, Bound::Unbounded));
        let found: Vec<_> = found
            .take_while(|(key, _)| key.starts_with(&prefix))
            .take(KEYS + 1)
            .map(|(key, object)| (key.clone(), object.len()))
            .collect();
        let more = found.len() > KEYS;
        let mut xml =
            format!("<?xml version=\"1.0\"?><ListBucketResult><IsTruncated>{more}</IsTruncated>");
        for (key, size) in found.iter().take(KEYS) {
            let _ = write!(
                xml,
                "<Contents><Key>{key}</Key><LastModified>2026-01-01T00:00:00.000Z</LastModified><ETag>\"0\"</ETag><Size>{size}</Size></Contents>"
            );
        }
        if let Some((last, _)) = found.get(KEYS - 1).filter(|_| more) {
            let _ = write!(xml, "<NextContinuationToken>{last}</NextContinuationToken>");
        }
        xml.push_str("</ListBucketResult>");
        respond(StatusCode::OK, &[], Body::from(xml))
    }

    async fn delete_all(&self, request: Request) -> Response<Body> {
        let body = axum::body::to_bytes(request.into_body(), BODY_BYTES).await;
        let body = body.unwrap_or_default();
        let text = String::from_utf8_lossy(&body);
        let keys = text.split("<Key>").skip(1);
        let keys = keys.filter_map(|rest| rest.split_once("</Key>"));
        let mut xml = "<?xml version=\"1.0\"?><DeleteResult>".to_owned();
        for (key, _) in keys {
            lock(&self.objects).remove(key);
            let _ = write!(xml, "<Deleted><Key>{key}</Key></Deleted>");
        }
        xml.push_str("</DeleteResult>");
        respond(StatusCode::OK, &[], Body::from(xml))
    }
}

async fn answer(State(shared): State<Arc<Shared>>, request: Request) -> Response<Body> {
    let path = decode(request.uri().path());
    let path = path.trim_start_matches('/');
    let key = path.split_once('/').map_or("", |(_, key)| key).to_owned();
    let method = request.method().clone();
    if shared.refuses.load(Ordering::Acquire) {
        shared.refused.fetch_add(1, Ordering::AcqRel);
        return status(StatusCode::SERVICE_UNAVAILABLE, "ServiceUnavailable");
    }
    shared.count(&method, key.is_empty());
    let wait = lock(&shared.pace).answer;
    if !wait.is_zero() {
        tokio::time::sleep(wait).await;
    }
    match (method, key.is_empty()) {
        (Method::PUT, false) => shared.put(key, request).await,
        (Method::GET, true) => shared.list(request.uri().query().unwrap_or("")),
        (Method::GET, false) => shared.get(&key, false, request.headers()),
        (Method::HEAD, false) => shared.get(&key, true, request.headers()),
        (Method::POST, _) => shared.delete_all(request).await,
        (Method::DELETE, false) => {
            lock(&shared.objects).remove(&key);
            respond(StatusCode::NO_CONTENT, &[], Body::empty())
        }
        _ => status(StatusCode::METHOD_NOT_ALLOWED, "MethodNotAllowed"),
    }
}

/// First byte and first byte behind of a range of HTTP.
fn parse_range(range: &str, len: usize) -> Option<(usize, usize)> {
    let (first, last) = range.strip_prefix("bytes=")?.split_once('-')?;
    let first = first.parse().ok()?;
    let end = last
        .parse::<usize>()
        .map_or(len, |last| last.saturating_add(1));
    Some((first, end.min(len)))
}

/// Percent signs undone.
fn decode(text: &str) -> String {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.as_bytes();
    while let Some((first, behind)) = rest.split_first() {
        let digits = behind.get(..2).filter(|_| *first == b'%');
        let digits = digits.and_then(|digits| std::str::from_utf8(digits).ok());
        match digits.and_then(|digits| u8::from_str_radix(digits, 16).ok()) {
            Some(byte) => {
                bytes.push(byte);
                rest = behind.get(2..).unwrap_or(&[]);
            }
            None => {
                bytes.push(*first);
                rest = behind;
            }
        }
    }
    String::from_utf8_lossy(&bytes).into_owned()
}

fn status(code: StatusCode, name: &str) -> Response<Body> {
    let xml = format!("<?xml version=\"1.0\"?><Error><Code>{name}</Code></Error>");
    respond(code, &[], Body::from(xml))
}

fn respond(code: StatusCode, headers: &[(&str, String)], body: Body) -> Response<Body> {
    let mut response = Response::builder()
        .status(code)
        .header("etag", "\"0\"")
        .header("last-modified", "Thu, 01 Jan 2026 00:00:00 GMT");
    for (name, value) in headers {
        response = response.header(*name, value);
    }
    response.body(body).unwrap_or_default()
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use catalog::Create;

    use super::*;

    #[tokio::test]
    async fn keeps_lists_and_creates_once() {
        let bucket = Bucket::start().await.expect("starts");
        let store = bucket.store().expect("opens");
        let body = [Bytes::from_static(b"0123"), Bytes::from_static(b"456789")];
        for name in ["a/1", "a/2", "b/1"] {
            let created = store.create(name, &body).await.expect("creates");
            assert_eq!(created, Create::Done);
        }
        let again = store.create("a/1", &body).await.expect("answers");
        assert_eq!(again, Create::Exists);
        let part = store.get_range("a/1", 3..6).await.expect("reads");
        assert_eq!(part.as_deref(), Some(&b"345"[..]));
        assert_eq!(store.get("a/3").await.expect("reads"), None);
        let behind = store.get_range("a/1", 90..99).await.expect("reads");
        assert_eq!(behind.as_deref(), Some(&b""[..]));
        let names = |listed: Vec<catalog::Listed>| -> Vec<_> {
            listed.into_iter().map(|one| (one.name, one.size)).collect()
        };
        let listed = names(store.list("a", None).await.expect("lists"));
        assert_eq!(listed, [("a/1".to_owned(), 10), ("a/2".to_owned(), 10)]);
        let listed = names(store.list("a", Some("a/1")).await.expect("lists"));
        assert_eq!(listed, [("a/2".to_owned(), 10)]);
        store.delete("a/2").await.expect("deletes");
        assert_eq!(store.get("a/2").await.expect("reads"), None);
        let requests = bucket.requests();
        assert_eq!((requests.puts, requests.lists, requests.deletes), (4, 2, 1));
    }

    #[tokio::test]
    async fn one_that_refuses_does_nothing() {
        let bucket = Bucket::start().await.expect("starts");
        let store = bucket.store().expect("opens");
        let body = [Bytes::from_static(b"0123")];
        bucket.refuse(true);
        let refused = store.create("a/1", &body).await;
        assert!(refused.is_err(), "{refused:?}");
        bucket.refuse(false);
        assert_eq!(store.get("a/1").await.expect("reads"), None);
        assert_eq!((bucket.requests().puts, bucket.refused() > 0), (0, true));
    }

    #[tokio::test]
    async fn a_narrow_line_is_shared() {
        let shared = Shared::default();
        *lock(&shared.pace) = Pace {
            bytes_per_second: Some(10.0),
            named: Some(("slow".to_owned(), Duration::from_secs(999))),
            ..Pace::default()
        };
        let waits = ["a", "b", "slow"].map(|name| shared.wait(name, 500).as_secs_f64().round());
        assert_eq!(waits, [50.0, 100.0, 999.0]);
    }
}
