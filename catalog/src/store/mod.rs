//! Object storage: the only truth.

pub(crate) mod backoff;
pub(crate) mod chain;
pub(crate) mod check;
#[cfg(feature = "faults")]
pub mod faults;
pub(crate) mod find;
mod local;
pub(crate) mod log;
MODREQ
mod open;

use std::ops::Range;
use std::sync::Arc;

use bytes::Bytes;
use futures::TryStreamExt;
use object_store::path::Path;
use object_store::{
    GetOptions, GetRange, ObjectStore, ObjectStoreExt, PutMode, PutOptions, PutPayload,
};

use crate::logic::create::{self, Seen, Step};
use crate::{CatalogError, ErrorKind};
use backoff::Backoff;
use local::Local;

/// An object store under a prefix.
///
/// Cheap to clone. Writes are creates and deletes; nothing is ever overwritten.
#[derive(Debug, Clone)]
pub struct Store {
    inner: Arc<dyn ObjectStore>,
    /// The same store, by a client that sends each request once.
    creator: Arc<dyn ObjectStore>,
    prefix: Path,
    url: Arc<str>,
    /// The directory of a `file://` store, where creates have to be synced (C-9).
    local: Option<Arc<Local>>,
}

/// Outcome of a create that the store answered.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Create {
    /// Created by this call.
    Done,
    /// The store says that the name exists. That may be by this very call, or not be true at all (C-5).
    Exists,
}

/// An object of a listing.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Listed {
    /// Name below the store's prefix.
    pub name: String,
    /// Size in bytes.
    pub size: u64,
    /// Time of creation by the store's clock, in milliseconds since 1970.
    pub modified_unix_ms: u64,
}

/// Outcome of a create after all doubt is resolved.
pub(crate) enum Resolved {
    /// The object has the bytes of this call, durable.
    Mine,
    /// The object is another's.
    Other,
}

impl Store {
    /// Wraps an object store, for tests and for stores that a URL cannot describe.
    #[must_use]
    pub fn new(inner: Arc<dyn ObjectStore>, prefix: &str) -> Self {
        Self {
            url: format!("{inner}/{prefix}").into(),
            creator: Arc::clone(&inner),
            inner,
            prefix: Path::from(prefix),
            local: None,
        }
    }

    /// The URL that the store was opened from, for messages.
    #[must_use]
    pub fn url(&self) -> &str {
        &self.url
    }

    /// Creates an object if nothing has its name. One request; see [`Create`] for what is not known yet.
    ///
    /// # Errors
    /// If the store failed. Unless the error is definite, the object may exist now or appear later.
    pub async fn create(&self, name: &str, chunks: &[Bytes]) -> Result<Create, CatalogError> {
        let options = PutOptions::from(PutMode::Create);
        let payload: PutPayload = chunks.iter().cloned().collect();
        match self
            .creator
            .put_opts(&self.path(name), payload, options)
            .await
        {
            Ok(_) => {
                self.ensure_reachable(name).await?;
                Ok(Create::Done)
            }
            Err(
                object_store::Error::AlreadyExists { .. }
                | object_store::Error::Precondition { .. },
            ) => Ok(Create::Exists),
            Err(error) => Err(CatalogError::store("create", name, error)),
        }
    }

    /// Creates an object and resolves every doubtful answer (C-5). `is_mine` looks at the object that
    /// has the name and says whether it is the one of this call.
    pub(crate) async fn create_resolved<F, T>(
        &self,
        name: &str,
        chunks: &[Bytes],
        is_mine: F,
    ) -> Result<Resolved, CatalogError>
    where
        F: Fn() -> T,
        T: Future<Output = Result<Option<bool>, CatalogError>>,
    {
        let mut backoff = Backoff::new();
        let mut attempt = 0;
        loop {
            attempt += 1;
            let (seen, error) = match self.create(name, chunks).await {
                Ok(Create::Done) => return Ok(Resolved::Mine),
                Ok(Create::Exists) => match is_mine().await {
                    Ok(Some(true)) => (Seen::Same, None),
                    Ok(Some(false)) => (Seen::Another, None),
                    Ok(None) => (Seen::Nothing, None),
                    Err(error) => (failed(&error, false), Some(error)),
                },
                Err(error) => (failed(&error, error.is_definite()), Some(error)),
            };
            match create::resolve(seen, attempt) {
                Step::Mine => {
                    self.ensure_durable(name).await?;
                    return Ok(Resolved::Mine);
                }
                Step::Other => {
                    self.ensure_durable(name).await?;
                    return Ok(Resolved::Other);
                }
                Step::Again => tracing::debug!(?error, attempt, "create in doubt, trying again"),
                step @ (Step::Refused | Step::Unknown) => {
                    let (name, attempts) = (name.to_owned(), attempt);
                    let error = error.unwrap_or(CatalogError::Contended { name, attempts });
                    return Err(match step {
                        Step::Refused => error,
                        _ => error.in_doubt(),
                    });
                }
            }
            backoff.wait().await;
        }
    }

    /// Reads a whole object; `None` if there certainly is none.
    ///
    /// # Errors
    /// If the store failed: never taken for "not there".
    pub async fn get(&self, name: &str) -> Result<Option<Bytes>, CatalogError> {
        self.get_with(name, GetOptions::default()).await
    }

    /// Reads a range of bytes of an object, shorter if the object is; `None` if there certainly is no
    /// such object.
    ///
    /// # Errors
    /// If the store failed: never taken for "not there".
    pub async fn get_range(
        &self,
        name: &str,
        range: Range<u64>,
    ) -> Result<Option<Bytes>, CatalogError> {
        let start = range.start;
        if range.is_empty() {
            return self.head(name).await.map(|head| head.map(|_| Bytes::new()));
        }
        let options = GetOptions {
            range: Some(GetRange::Bounded(range)),
            ..GetOptions::default()
        };
        let failed = match self.get_with(name, options).await {
            Err(error) => error,
            answered => return answered,
        };
        // Stores refuse a range that begins behind the object's end; a cut-off object has to be told
        // from a store that fails.
        match self.head(name).await {
            Ok(Some(size)) if size <= start => Ok(Some(Bytes::new())),
            _ => Err(failed),
        }
    }

    /// Reads a range of bytes that the object is known to have; `None` if there certainly is no such
    /// object. An object that is shorter after all gives fewer bytes.
    ///
    /// # Errors
    /// If the store failed: never taken for "not there".
    pub async fn get_known_range(
        &self,
        name: &str,
        range: Range<u64>,
    ) -> Result<Option<Bytes>, CatalogError> {
        // A local file is read in one step this way instead of two.
        if self.local.is_some() && !range.is_empty() {
            let ranges = std::slice::from_ref(&range);
            match self.inner.get_ranges(&self.path(name), ranges).await {
                Ok(bytes) => return Ok(bytes.into_iter().next()),
                Err(object_store::Error::NotFound { .. }) => return Ok(None),
                Err(_) => {}
            }
        }
        self.get_range(name, range).await
    }

    async fn head(&self, name: &str) -> Result<Option<u64>, CatalogError> {
        match self.inner.head(&self.path(name)).await {
            Ok(meta) => Ok(Some(meta.size)),
            Err(object_store::Error::NotFound { .. }) => Ok(None),
            Err(error) => Err(CatalogError::store("head", name, error)),
        }
    }

    async fn get_with(
        &self,
        name: &str,
        options: GetOptions,
    ) -> Result<Option<Bytes>, CatalogError> {
        let failed = |error| CatalogError::store("get", name, error);
        match self.inner.get_opts(&self.path(name), options).await {
            Ok(result) => result.bytes().await.map(Some).map_err(failed),
            Err(object_store::Error::NotFound { .. }) => Ok(None),
            Err(error) => Err(failed(error)),
        }
    }

    /// Lists the objects below a prefix, behind the name `after` if one is given, in the order of names.
    ///
    /// # Errors
    /// If the store failed.
    pub async fn list(
        &self,
        prefix: &str,
        after: Option<&str>,
    ) -> Result<Vec<Listed>, CatalogError> {
        let failed = |error| CatalogError::store("list", prefix, error);
        let path = self.path(prefix);
        let stream = match after {
            Some(after) => self.inner.list_with_offset(Some(&path), &self.path(after)),
            None => self.inner.list(Some(&path)),
        };
        let found: Vec<_> = stream.try_collect().await.map_err(failed)?;
        let mut listed: Vec<_> = found.iter().filter_map(|meta| self.listed(meta)).collect();
        listed.sort_by(|a, b| a.name.cmp(&b.name));
        // Not every store honours the offset of a listing.
        if let Some(after) = after {
            listed.retain(|object| object.name.as_str() > after);
        }
        Ok(listed)
    }

    /// Lists as [`Self::list`] does, up to and with the name `last`. Where the store lists in the order of
    /// names it is asked for no more than that. Returns whether names behind `last` were left out: if the
    /// store does not keep the order of names, some before it may be missing then.
    ///
    /// # Errors
    /// If the store failed.
    pub(crate) async fn list_to(
        &self,
        prefix: &str,
        after: Option<&str>,
        last: &str,
    ) -> Result<(Vec<Listed>, bool), CatalogError> {
        if self.local.is_some() {
            let mut listed = self.list(prefix, after).await?;
            let all = listed.len();
            listed.retain(|object| object.name.as_str() <= last);
            let cut = listed.len() < all;
            return Ok((listed, cut));
        }
        let failed = |error| CatalogError::store("list", prefix, error);
        let path = self.path(prefix);
        let mut stream = match after {
            Some(after) => self.inner.list_with_offset(Some(&path), &self.path(after)),
            None => self.inner.list(Some(&path)),
        };
        let (mut listed, mut cut) = (Vec::new(), false);
        while let Some(meta) = stream.try_next().await.map_err(failed)? {
            let Some(object) = self.listed(&meta) else {
                continue;
            };
            if object.name.as_str() > last {
                cut = true;
                break;
            }
            listed.push(object);
        }
        listed.sort_by(|a, b| a.name.cmp(&b.name));
        if let Some(after) = after {
            listed.retain(|object| object.name.as_str() > after);
        }
        Ok((listed, cut))
    }

    /// The first object below a prefix behind a name: one request, where the store lists in the order of
    /// names. Where it does not it is one of those behind the name.
    ///
    /// # Errors
    /// If the store failed.
    pub(crate) async fn first_behind(
        &self,
        prefix: &str,
        after: &str,
    ) -> Result<Option<Listed>, CatalogError> {
        if self.local.is_some() {
            return Ok(self.list(prefix, Some(after)).await?.into_iter().next());
        }
        let failed = |error| CatalogError::store("list", prefix, error);
        let path = self.path(prefix);
        let mut stream = self.inner.list_with_offset(Some(&path), &self.path(after));
        while let Some(meta) = stream.try_next().await.map_err(failed)? {
            let object = self.listed(&meta);
            if let Some(object) = object.filter(|object| object.name.as_str() > after) {
                return Ok(Some(object));
            }
        }
        Ok(None)
    }

    /// Deletes an object; that there is none is no error.
    ///
    /// # Errors
    /// If the store failed.
    pub async fn delete(&self, name: &str) -> Result<(), CatalogError> {
        match self.inner.delete(&self.path(name)).await {
            Ok(()) | Err(object_store::Error::NotFound { .. }) => Ok(()),
            Err(error) => Err(CatalogError::store("delete", name, error)),
        }
    }

    fn listed(&self, meta: &object_store::ObjectMeta) -> Option<Listed> {
        let parts = meta.location.prefix_match(&self.prefix)?;
        let name = parts.map(|p| p.as_ref().to_owned()).collect::<Vec<_>>();
        Some(Listed {
            name: name.join("/"),
            size: meta.size,
            modified_unix_ms: u64::try_from(meta.last_modified.timestamp_millis()).unwrap_or(0),
        })
    }

    fn path(&self, name: &str) -> Path {
        let parts = name.split('/').filter(|part| !part.is_empty());
        parts.fold(self.prefix.clone(), |path, part| path.join(part))
    }
}

/// An attempt that failed. Whatever a store says of a single request, what it makes doubtful is worth another.
fn failed(error: &CatalogError, definite: bool) -> Seen {
    let retry = error.kind() == ErrorKind::Retry || matches!(error, CatalogError::Store { .. });
    Seen::Failed { definite, retry }
}
