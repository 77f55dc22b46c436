//! Stores by URL.

use std::sync::Arc;
use std::time::Duration;

use object_store::aws::AmazonS3Builder;
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
            "s3" => built(s3(url))?,
            "gs" => built(gcs(url))?,
            "az" => built(azure(url))?,
            scheme => {
                let known = "file, memory, s3, gs, az";
                return Err(invalid(format!(
                    "unknown scheme '{scheme}', known: {known}"
                )));
            }
        };
        Ok(Self {
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
        Ok(Self {
            inner: Arc::new(inner),
            prefix: Path::default(),
            url: url.into(),
            local: Some(Arc::new(Local::new(directory))),
        })
    }
}

fn client() -> ClientOptions {
    ClientOptions::new()
        .with_timeout(REQUEST_TIMEOUT)
        .with_connect_timeout(CONNECT_TIMEOUT)
}

fn retry() -> RetryConfig {
    RetryConfig {
        max_retries: REQUEST_RETRIES,
        retry_timeout: RETRY_TIMEOUT,
        ..RetryConfig::default()
    }
}

fn s3(url: &str) -> Result<Arc<dyn ObjectStore>, object_store::Error> {
    let plain = std::env::var("AWS_ALLOW_HTTP").is_ok_and(|v| v == "true" || v == "1");
    let store = AmazonS3Builder::from_env()
        .with_url(url)
        .with_client_options(client().with_allow_http(plain))
        .with_retry(retry())
        .build()?;
    Ok(Arc::new(store))
}

fn gcs(url: &str) -> Result<Arc<dyn ObjectStore>, object_store::Error> {
    let store = GoogleCloudStorageBuilder::from_env()
        .with_url(url)
        .with_client_options(client())
        .with_retry(retry())
        .build()?;
    Ok(Arc::new(store))
}

fn azure(url: &str) -> Result<Arc<dyn ObjectStore>, object_store::Error> {
    let plain = std::env::var("AZURE_ALLOW_HTTP").is_ok_and(|v| v == "true" || v == "1");
    let store = MicrosoftAzureBuilder::from_env()
        .with_url(url)
        .with_client_options(client().with_allow_http(plain))
        .with_retry(retry())
        .build()?;
    Ok(Arc::new(store))
}
