//! Stores by URL.

use std::sync::Arc;
use std::time::Duration;

use object_store::aws::{AmazonS3Builder, Checksum};
use object_store::azure::MicrosoftAzureBuilder;
use object_store::gcp::GoogleCloudStorageBuilder;
use object_store::local::LocalFileSystem;
use object_store::memory::InMemory;
use object_store::path::Path;
use object_store::{ClientOptions, ObjectStore, RetryConfig};
use url::Url;

use super::local::Local;
use crate::{CatalogError, Store};

/// Longest time for one request with its whole body: 16 MB at 0.3 MB/s.
const REQUEST_TIMEOUT: Duration = Duration::from_secs(60);

/// Longest time to open a connection.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);

/// Retries inside one request; the catalog's own, which resolve doubt, go on from there.
const REQUEST_RETRIES: usize = 3;

/// Bound on all retries of one request, well below the 5 minutes for which a signature holds.
const RETRY_TIMEOUT: Duration = Duration::from_secs(90);

/// Endpoints of the environment that no request can be made to: the client of the store does not bear them.
fn check_endpoint() -> Result<(), String> {
    for name in ["AWS_ENDPOINT", "AWS_ENDPOINT_URL", "AWS_ENDPOINT_URL_S3"] {
        let value = std::env::var(name).unwrap_or_default();
        let scheme = ["http://", "https://"]
            .iter()
            .any(|scheme| value.starts_with(scheme));
        if !value.is_empty() && !scheme {
            return Err(format!(
                "{name} has to begin with http:// or https://, not '{value}'"
            ));
        }
        let plain = value.starts_with("http://");
        let allowed = std::env::var("AWS_ALLOW_HTTP").is_ok_and(|v| v == "true" || v == "1");
        if plain && !allowed {
            return Err(format!(
                "{name} is not encrypted: that needs AWS_ALLOW_HTTP=true"
            ));
        }
    }
    Ok(())
}

impl Store {
    /// Opens a store by URL: `file:///directory`, `memory:///`, `s3://bucket/prefix`,
    /// `gs://bucket/prefix` or `az://container/prefix`. Credentials and endpoints come from the usual
    /// environment of each cloud (`AWS_…`, `GOOGLE_…`, `AZURE_…`).
    ///
    /// # Errors
    /// [`CatalogError::Invalid`] that says what is wrong with the URL or the directory.
    pub fn open(url: &str) -> Result<Self, CatalogError> {
        let invalid = |why: String| CatalogError::Invalid(format!("store: {why}: url={url}"));
        let parsed = Url::parse(url).map_err(|error| invalid(error.to_string()))?;
        let prefix = Path::from_url_path(parsed.path()).map_err(|e| invalid(e.to_string()))?;
        let needs_host = matches!(parsed.scheme(), "s3" | "gs" | "az");
        if needs_host && parsed.host_str().is_none() {
            return Err(invalid("no bucket".to_owned()));
        }
        let built = |result: Result<Arc<dyn ObjectStore>, object_store::Error>| {
            result.map_err(|error| invalid(error.to_string()))
        };
        let inner = match parsed.scheme() {
            "file" => return Self::open_local(url, &parsed),
            "memory" => Arc::new(InMemory::new()),
            "s3" => {
                check_endpoint().map_err(invalid)?;
                return twice(url, prefix, |retry| {
                    built(s3(AmazonS3Builder::from_env(), url, retry))
                });
            }
            "gs" => return twice(url, prefix, |retry| built(gcs(url, retry))),
            "az" => return twice(url, prefix, |retry| built(azure(url, retry))),
            scheme => {
                let known = "file, memory, s3, gs, az";
                return Err(invalid(format!(
                    "unknown scheme '{scheme}', known: {known}"
                )));
            }
        };
        Ok(Self {
            creator: Arc::clone(&inner) as Arc<dyn ObjectStore>,
            inner,
            prefix,
            url: url.into(),
            local: None,
        })
    }

    fn open_local(url: &str, parsed: &Url) -> Result<Self, CatalogError> {
        let invalid = |why: &str| CatalogError::Invalid(format!("store: {why}: url={url}"));
        let directory = parsed
            .to_file_path()
            .map_err(|()| invalid("not a file URL with an absolute path, as file:///directory"))?;
        if !directory.is_dir() {
            return Err(invalid("no such directory, create it first"));
        }
        let inner = LocalFileSystem::new_with_prefix(&directory)
            .map_err(|error| invalid(&error.to_string()))?
            // [C-9] Data and directory are synced before a create returns.
            .with_fsync(true);
        let inner = Arc::new(inner);
        Ok(Self {
            creator: Arc::clone(&inner) as Arc<dyn ObjectStore>,
            inner,
            prefix: Path::default(),
            url: url.into(),
            local: Some(Arc::new(Local::new(directory))),
        })
    }
}

/// A store with two clients. Creates are not repeated within a request: were a 500, after which the object
/// may be there, followed by a 403, the answer would look definite (C-8). They are repeated by
/// [`Store::create_resolved`], which knows of the earlier ones.
fn twice<F>(url: &str, prefix: Path, build: F) -> Result<Store, CatalogError>
where
    F: Fn(RetryConfig) -> Result<Arc<dyn ObjectStore>, CatalogError>,
{
    Ok(Store {
        inner: build(retry(REQUEST_RETRIES))?,
        creator: build(retry(0))?,
        prefix,
        url: url.into(),
        local: None,
    })
}

fn client() -> ClientOptions {
    ClientOptions::new()
        .with_timeout(REQUEST_TIMEOUT)
        .with_connect_timeout(CONNECT_TIMEOUT)
}

fn retry(max_retries: usize) -> RetryConfig {
    RetryConfig {
        max_retries,
        retry_timeout: RETRY_TIMEOUT,
        ..RetryConfig::default()
    }
}

fn s3(
    builder: AmazonS3Builder,
    url: &str,
    retry: RetryConfig,
) -> Result<Arc<dyn ObjectStore>, object_store::Error> {
    let plain = std::env::var("AWS_ALLOW_HTTP").is_ok_and(|v| v == "true" || v == "1");
    let mut builder = builder
        .with_url(url)
        .with_client_options(client().with_allow_http(plain))
        .with_retry(retry);
    // TLS protects the body on its way, so that its SHA-256, 10 ms of a core for 16 MB, need not be part of
    // the signature; a checksum that is a tenth of the work goes with it, and the store keeps it.
    let chosen = |key| std::env::var_os(key).is_some();
    if !plain && !chosen("AWS_UNSIGNED_PAYLOAD") && !chosen("AWS_CHECKSUM_ALGORITHM") {
        builder = builder
            .with_unsigned_payload(true)
            .with_checksum_algorithm(Checksum::CRC64NVME);
    }
    Ok(Arc::new(builder.build()?))
}

fn gcs(url: &str, retry: RetryConfig) -> Result<Arc<dyn ObjectStore>, object_store::Error> {
    let store = GoogleCloudStorageBuilder::from_env()
        .with_url(url)
        .with_client_options(client())
        .with_retry(retry)
        .build()?;
    Ok(Arc::new(store))
}

fn azure(url: &str, retry: RetryConfig) -> Result<Arc<dyn ObjectStore>, object_store::Error> {
    let plain = std::env::var("AZURE_ALLOW_HTTP").is_ok_and(|v| v == "true" || v == "1");
    let store = MicrosoftAzureBuilder::from_env()
        .with_url(url)
        .with_client_options(client().with_allow_http(plain))
        .with_retry(retry)
        .build()?;
    Ok(Arc::new(store))
}

#[cfg(test)]
mod tests;
