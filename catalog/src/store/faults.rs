//! Stores that fail, delay, lose answers and lie.
//!
//! A [`FaultyStore`] stands between a [`Store`](crate::Store) and any other object store. What it does
//! wrong is decided in this order: a step of the script for this request, then chance at the set
//! [`Rates`], with a seed; a [`Lie`] and the [`Quirks`] hold for all requests. All of it is set through
//! a [`Faults`] handle, also while requests are under way.
//!
//! ```
//! # use std::sync::Arc;
//! # use catalog::{Store, faults::{Fault, FaultyStore, Operation}};
//! let faulty = FaultyStore::new(Arc::new(object_store::memory::InMemory::new()), 7);
//! let faults = faulty.faults();
//! let store = Store::new(Arc::new(faulty), "");
//! faults.next(Operation::Create, [Fault::None, Fault::LoseAnswer]);
//! ```

mod kinds;
mod plan;
mod suite;

use std::fmt;
use std::ops::Range;
use std::sync::Arc;

use async_trait::async_trait;
use bytes::Bytes;
use futures::stream::{self, BoxStream};
use futures::{StreamExt, TryStreamExt};
use object_store::path::Path;
use object_store::{
    CopyOptions, Error, GetOptions, GetResult, GetResultPayload, ListResult, MultipartUpload,
    ObjectMeta, ObjectStore, ObjectStoreExt, PutMode, PutMultipartOptions, PutOptions, PutPayload,
    PutResult, RenameOptions, Result,
};

pub use kinds::{Counts, Fault, Injected, Lie, Operation, Quirks, Rates, Requests};
pub use plan::Faults;
pub use suite::{SUITE_URL, suite_store};

/// How often the racy liar yields between its look and its write.
const RACY_YIELDS: usize = 8;

/// An object store that does what its [`Faults`] tell it. Cheap to clone; clones share the faults.
#[derive(Debug, Clone)]
pub struct FaultyStore {
    inner: Arc<dyn ObjectStore>,
    faults: Faults,
}

impl FaultyStore {
    /// Wraps a store. Until told otherwise it does nothing wrong and only counts.
    #[must_use]
    pub fn new(inner: Arc<dyn ObjectStore>, seed: u64) -> Self {
        let faults = Faults::new(seed);
        Self { inner, faults }
    }

    /// The handle to what the store does wrong.
    #[must_use]
    pub fn faults(&self) -> Faults {
        self.faults.clone()
    }

    /// The store beneath, which never fails: for setting a scene and for looking at what is really there.
    #[must_use]
    pub fn inner(&self) -> Arc<dyn ObjectStore> {
        Arc::clone(&self.inner)
    }

    /// A put as the store beneath would do it, or as the set lie does it.
    async fn put(&self, at: &Path, payload: PutPayload, opts: PutOptions) -> Result<PutResult> {
        let lie = match opts.mode {
            PutMode::Create => self.faults.lie(),
            _ => Lie::Honest,
        };
        let overwrite = PutOptions {
            mode: PutMode::Overwrite,
            ..opts.clone()
        };
        let answer = match lie {
            Lie::Honest => self.inner.put_opts(at, payload, opts).await,
            Lie::Ignores => self.inner.put_opts(at, payload, overwrite).await,
            Lie::Racy => {
                let there = self.inner.head(at).await;
                for _ in 0..RACY_YIELDS {
                    tokio::task::yield_now().await;
                }
                match there {
                    Ok(_) => Err(exists(at)),
                    Err(_) => self.inner.put_opts(at, payload, overwrite).await,
                }
            }
            Lie::RefusesButOverwrites => {
                let there = self.inner.head(at).await;
                let written = self.inner.put_opts(at, payload, overwrite).await;
                there.map_or(written, |_| Err(exists(at)))
            }
        };
        match answer {
            Err(Error::AlreadyExists { .. }) if self.faults.quirks().refuses_with_precondition => {
                let (path, source) = (at.to_string(), "412".into());
                Err(Error::Precondition { path, source })
            }
            answer => answer,
        }
    }

    fn list_faulty(
        &self,
        prefix: Option<&Path>,
        listing: impl FnOnce(&dyn ObjectStore, Option<&Path>) -> BoxStream<'static, Result<ObjectMeta>>
        + Send
        + 'static,
    ) -> BoxStream<'static, Result<ObjectMeta>> {
        let (store, prefix) = (self.clone(), prefix.cloned());
        let listed = async move {
            let at = prefix.clone().unwrap_or_default();
            let fault = store.faults.before(Operation::List, &at).await;
            let found = listing(store.inner.as_ref(), prefix.as_ref());
            let found = match fault {
                Fault::Fail | Fault::ApplyLate(_) => return Err(failed(Operation::List)),
                Fault::Deny => return Err(denied(&at)),
                Fault::LoseAnswer => {
                    let all: Vec<_> = found.collect().await;
                    let half = all.len() / 2;
                    let broken = stream::iter([Err(failed(Operation::List))]);
                    stream::iter(all).take(half).chain(broken).boxed()
                }
                _ => found,
            };
            store.faults.after(fault).await;
            if store.faults.quirks().lists_backwards {
                let mut all: Vec<_> = found.try_collect().await?;
                all.sort_by(|a, b| b.location.cmp(&a.location));
                return Ok(stream::iter(all.into_iter().map(Ok)).boxed());
            }
            Ok(found)
        };
        stream::once(listed).try_flatten().boxed()
    }
}

impl fmt::Display for FaultyStore {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "FaultyStore({})", self.inner)
    }
}

#[async_trait]
impl ObjectStore for FaultyStore {
    async fn put_opts(
        &self,
        location: &Path,
        payload: PutPayload,
        opts: PutOptions,
    ) -> Result<PutResult> {
        if !matches!(opts.mode, PutMode::Create) {
            let fault = self.faults.before(Operation::Other, location).await;
            if fault == Fault::Fail {
                return Err(failed(Operation::Other));
            }
            return self.inner.put_opts(location, payload, opts).await;
        }
        let fault = self.faults.before(Operation::Create, location).await;
        match fault {
            Fault::Fail => return Err(failed(Operation::Create)),
            Fault::Deny => return Err(denied(location)),
            Fault::ExistsBefore => return Err(exists(location)),
            Fault::ApplyLate(delay) => {
                let (store, location) = (self.clone(), location.clone());
                drop(tokio::spawn(async move {
                    tokio::time::sleep(delay).await;
                    drop(store.put(&location, payload, opts).await);
                    store.faults.applied_late();
                }));
                return Err(failed(Operation::Create));
            }
            _ => {}
        }
        let answer = self.put(location, payload, opts).await;
        self.faults.after(fault).await;
        match fault {
            Fault::LoseAnswer => Err(failed(Operation::Create)),
            Fault::ExistsAfter => Err(exists(location)),
            _ => answer,
        }
    }

    async fn put_multipart_opts(
        &self,
        location: &Path,
        opts: PutMultipartOptions,
    ) -> Result<Box<dyn MultipartUpload>> {
        self.inner.put_multipart_opts(location, opts).await
    }

    async fn get_opts(&self, location: &Path, options: GetOptions) -> Result<GetResult> {
        let fault = self.faults.before(Operation::Get, location).await;
        if matches!(fault, Fault::Fail | Fault::ApplyLate(_)) {
            return Err(failed(Operation::Get));
        }
        if fault == Fault::Deny {
            return Err(denied(location));
        }
        let answer = self.inner.get_opts(location, options).await;
        self.faults.after(fault).await;
        if fault != Fault::LoseAnswer {
            return answer;
        }
        let mut result = answer.map_err(|_| failed(Operation::Get))?;
        let broken = stream::iter([Err(failed(Operation::Get))]);
        result.payload = GetResultPayload::Stream(broken.boxed());
        Ok(result)
    }

    async fn get_ranges(&self, location: &Path, ranges: &[Range<u64>]) -> Result<Vec<Bytes>> {
        let fault = self.faults.before(Operation::Get, location).await;
        if fault.is_failure() {
            return Err(failed(Operation::Get));
        }
        self.inner.get_ranges(location, ranges).await
    }

    fn delete_stream(
        &self,
        locations: BoxStream<'static, Result<Path>>,
    ) -> BoxStream<'static, Result<Path>> {
        let store = self.clone();
        let deleted = locations.then(move |location| {
            let store = store.clone();
            async move {
                let location = location?;
                let fault = store.faults.before(Operation::Delete, &location).await;
                if matches!(fault, Fault::Fail | Fault::ApplyLate(_)) {
                    return Err(failed(Operation::Delete));
                }
                if fault == Fault::Deny {
                    return Err(denied(&location));
                }
                let answer = store.inner.delete(&location).await;
                store.faults.after(fault).await;
                if fault == Fault::LoseAnswer {
                    return Err(failed(Operation::Delete));
                }
                answer.map(|()| location)
            }
        });
        deleted.boxed()
    }

    fn list(&self, prefix: Option<&Path>) -> BoxStream<'static, Result<ObjectMeta>> {
        self.list_faulty(prefix, |inner, prefix| inner.list(prefix))
    }

    fn list_with_offset(
        &self,
        prefix: Option<&Path>,
        offset: &Path,
    ) -> BoxStream<'static, Result<ObjectMeta>> {
        if self.faults.quirks().ignores_list_offset {
            return self.list(prefix);
        }
        let offset = offset.clone();
        self.list_faulty(prefix, move |inner, prefix| {
            inner.list_with_offset(prefix, &offset)
        })
    }

    async fn list_with_delimiter(&self, prefix: Option<&Path>) -> Result<ListResult> {
        let at = prefix.cloned().unwrap_or_default();
        if self.faults.before(Operation::List, &at).await.is_failure() {
            return Err(failed(Operation::List));
        }
        self.inner.list_with_delimiter(prefix).await
    }

    async fn copy_opts(&self, from: &Path, to: &Path, options: CopyOptions) -> Result<()> {
        self.inner.copy_opts(from, to, options).await
    }

    async fn rename_opts(&self, from: &Path, to: &Path, options: RenameOptions) -> Result<()> {
        self.inner.rename_opts(from, to, options).await
    }
}

fn failed(operation: Operation) -> Error {
    Error::Generic {
        store: "FaultyStore",
        source: format!("injected fault: operation={operation:?}").into(),
    }
}

fn exists(at: &Path) -> Error {
    Error::AlreadyExists {
        path: at.to_string(),
        source: "injected".into(),
    }
}

fn denied(at: &Path) -> Error {
    Error::PermissionDenied {
        path: at.to_string(),
        source: "injected".into(),
    }
}
