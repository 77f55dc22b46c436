//! Snapshots of chains: few requests with them, and nothing but requests without.

use std::fmt;
use std::ops::Range;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use async_trait::async_trait;
use catalog::{Chain, Located, Log, Sought, Store};
use futures::StreamExt;
use futures::stream::{self, BoxStream};
use object_store::memory::InMemory;
use object_store::path::Path;
use object_store::{
    CopyOptions, GetOptions, GetResult, ListResult, MultipartUpload, ObjectMeta, ObjectStore,
    ObjectStoreExt, PutMultipartOptions, PutOptions, PutPayload, PutResult, Result,
};
use wire::object::{Author, ChainId, Object};
use wire::snapshot::Snapshot;
use wire::{Epoch, Layout, OwnerNumber, Run, Slot, StripeId, WriterId, name};

/// Names that a store gives in one answer to a listing, as S3 does.
const LISTED: u64 = 1000;

/// Slots of each object.
const SLOTS: u64 = 8;

/// Objects of a snapshot.
const NAMED: u64 = 64;

/// A store whose chains have a million objects, which are made up when they are asked for. What else there
/// is, is in memory. Counts requests.
#[derive(Debug, Clone)]
struct Endless {
    inner: Arc<InMemory>,
    objects: u64,
    requests: Arc<AtomicU64>,
    layout: Layout,
}

impl fmt::Display for Endless {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Endless({})", self.objects)
    }
}

impl Endless {
    fn count(&self) {
        self.requests.fetch_add(1, Ordering::Relaxed);
    }

    fn chain_of(&self, path: &str) -> Option<ChainId> {
        let mut parts = path.split('/');
        let log = parts.next()?.parse::<ulid::Ulid>().ok()?;
        if parts.next()? != "stripes" {
            return None;
        }
        let segment = u32::from_str_radix(parts.next()?, 16).ok()?;
        let stripe = u16::from_str_radix(parts.next()?, 16).ok()?;
        Some(ChainId {
            log: log.into(),
            segment: wire::SegmentId(segment),
            stripe: StripeId(stripe),
            layout: self.layout,
        })
    }

    fn made_up(&self, path: &str) -> Option<Vec<u8>> {
        let chain = self.chain_of(path)?;
        let slot = self.layout.slot(name::parse_object(path).ok()?);
        if !slot.0.is_multiple_of(SLOTS) || slot.0 / SLOTS >= self.objects {
            return None;
        }
        let author = Author {
            epoch: Epoch(1),
            owner: OwnerNumber(1),
            writer: WriterId([1; 16]),
        };
        let object = Object::build(chain, author, &[Run::junk(slot, SLOTS)]).expect("valid");
        Some(object.chunks.concat())
    }

    fn names(&self, chain: ChainId, from: u64) -> BoxStream<'static, Result<ObjectMeta>> {
        let of = self.clone();
        let names = (from..self.objects).map(move |object| {
            if (object - from).is_multiple_of(LISTED) {
                of.count();
            }
            Ok(ObjectMeta {
                location: Path::from(chain.object_name(Slot(object * SLOTS))),
                last_modified: std::time::UNIX_EPOCH.into(),
                size: 200,
                e_tag: None,
                version: None,
            })
        });
        stream::iter(names).boxed()
    }
}

#[async_trait]
impl ObjectStore for Endless {
    async fn put_opts(&self, at: &Path, payload: PutPayload, o: PutOptions) -> Result<PutResult> {
        self.inner.put_opts(at, payload, o).await
    }

    async fn put_multipart_opts(
        &self,
        at: &Path,
        o: PutMultipartOptions,
    ) -> Result<Box<dyn MultipartUpload>> {
        self.inner.put_multipart_opts(at, o).await
    }

    async fn get_opts(&self, at: &Path, options: GetOptions) -> Result<GetResult> {
        self.count();
        match self.made_up(at.as_ref()) {
            Some(bytes) => {
                let one = InMemory::new();
                one.put(at, bytes.into()).await?;
                one.get_opts(at, options).await
            }
            None => self.inner.get_opts(at, options).await,
        }
    }

    fn delete_stream(
        &self,
        at: BoxStream<'static, Result<Path>>,
    ) -> BoxStream<'static, Result<Path>> {
        self.inner.delete_stream(at)
    }

    fn list(&self, prefix: Option<&Path>) -> BoxStream<'static, Result<ObjectMeta>> {
        let prefix = prefix.cloned().unwrap_or_default();
        match self.chain_of(prefix.as_ref()) {
            Some(chain) => self.names(chain, 0),
            None => {
                self.count();
                self.inner.list(Some(&prefix))
            }
        }
    }

    fn list_with_offset(
        &self,
        prefix: Option<&Path>,
        offset: &Path,
    ) -> BoxStream<'static, Result<ObjectMeta>> {
        let prefix = prefix.cloned().unwrap_or_default();
        let chain = self.chain_of(prefix.as_ref());
        let position = name::parse_object(offset.as_ref()).ok();
        match (chain, position) {
            (Some(chain), Some(position)) => {
                let behind = self.layout.slot_at_or_after(chain.stripe, position.plus(1));
                self.names(chain, behind.0.div_ceil(SLOTS))
            }
            _ => {
                self.count();
                self.inner.list_with_offset(Some(&prefix), offset)
            }
        }
    }

    async fn list_with_delimiter(&self, prefix: Option<&Path>) -> Result<ListResult> {
        self.inner.list_with_delimiter(prefix).await
    }

    async fn copy_opts(&self, from: &Path, to: &Path, options: CopyOptions) -> Result<()> {
        self.inner.copy_opts(from, to, options).await
    }
}

struct Scene {
    endless: Endless,
    store: Store,
    chain: Chain,
}

/// A log whose chains have `objects` objects, and snapshots of those with these numbers.
async fn scene(objects: u64, snapshots: Range<u64>) -> Scene {
    let endless = Endless {
        inner: Arc::new(InMemory::new()),
        objects,
        requests: Arc::default(),
        layout: Layout::new(4, 2).expect("valid"),
    };
    let store = Store::new(Arc::new(endless.clone()), "");
    let log = Log::create(store.clone(), endless.layout).await;
    let log = log.expect("created");
    let entry = log.last().await.expect("last");
    let chain = log.chain(entry.last_segment().expect("segment"), StripeId(1));
    for number in snapshots {
        put(&chain, number * NAMED..(number + 1) * NAMED).await;
    }
    endless.requests.store(0, Ordering::Relaxed);
    Scene {
        endless,
        store,
        chain,
    }
}

/// Stores a snapshot of the objects with these numbers.
async fn put(chain: &Chain, objects: Range<u64>) -> String {
    let snapshot = Snapshot {
        chain: chain.id(),
        starts: objects.clone().map(|o| Slot(o * SLOTS)).collect(),
        end: Slot(objects.end * SLOTS),
        owner: OwnerNumber(1),
    };
    chain.put_snapshot(&snapshot).await.expect("stored");
    snapshot.name()
}

impl Scene {
    /// Seeks a slot, checks what is found, and returns the requests that it took.
    async fn seek(&self, slot: u64) -> u64 {
        self.endless.requests.store(0, Ordering::Relaxed);
        let sought = self.chain.seek(Slot(0), Slot(slot), 1 << 16).await;
        let start = slot / SLOTS * SLOTS;
        match sought.expect("found") {
            Sought::In(index, _) => {
                let header = index.header;
                assert_eq!(
                    (header.start, header.end),
                    (Slot(start), Slot(start + SLOTS))
                );
            }
            Sought::Behind(end) => {
                assert_eq!(end, Slot(self.endless.objects * SLOTS));
                assert!(slot >= end.0);
            }
        }
        self.endless.requests.load(Ordering::Relaxed)
    }
}

#[tokio::test]
async fn a_slot_among_a_million_objects_takes_three_requests() {
    let objects = 1_000_000;
    let scene = scene(objects, 0..objects / NAMED).await;
    for object in [1, 63, 64, 65, 499_999, 777_777, objects - 1] {
        for slot in [object * SLOTS, object * SLOTS + SLOTS - 1] {
            assert_eq!(scene.seek(slot).await, 3, "{slot}");
        }
    }
    let behind = scene.seek(objects * SLOTS + 5).await;
    assert!(behind <= 4, "{behind}");
}

#[tokio::test]
async fn what_is_behind_the_last_snapshot_takes_a_request_an_object() {
    let objects = 100 * NAMED + 40;
    let scene = scene(objects, 0..100).await;
    let last = scene.seek((objects - 1) * SLOTS).await;
    assert!((4..=4 + 40).contains(&last), "{last}");
    let end = scene.seek(objects * SLOTS).await;
    assert!(end <= 5 + 40, "{end}");
}

#[tokio::test]
async fn a_missing_snapshot_costs_requests_and_nothing_else() {
    let scene = scene(40 * NAMED, 0..40).await;
    for number in [39, 38, 37] {
        let first = scene.chain.id().position(Slot(number * NAMED * SLOTS));
        let id = scene.chain.id();
        let name = name::snapshot(id.log, id.segment, id.stripe, first);
        scene.store.delete(&name).await.expect("deleted");
    }
    let slot = (39 * NAMED + 7) * SLOTS + 3;
    let requests = scene.seek(slot).await;
    // The objects of two snapshots are looked at, and not all of the chain.
    assert!((100..=2 * NAMED + 20).contains(&requests), "{requests}");
    scene.seek(40 * NAMED * SLOTS).await;
}

#[tokio::test]
async fn c3_a_snapshot_that_does_not_hold_changes_nothing_that_is_read() {
    for kind in 0..6 {
        let scene = scene(3 * NAMED, 0..0).await;
        let (chain, id) = (&scene.chain, scene.chain.id());
        let name = put(chain, NAMED..2 * NAMED).await;
        let bytes = scene.store.get(&name).await.expect("read").expect("there");
        let mut bytes = bytes.to_vec();
        let wrong = |starts: Vec<u64>, end: u64| Snapshot {
            chain: id,
            starts: starts.into_iter().map(Slot).collect(),
            end: Slot(end),
            owner: OwnerNumber(1),
        };
        let first = NAMED * SLOTS;
        match kind {
            // Rotten, cut off, empty, of another chain, and true to nothing.
            0 => bytes[70] ^= 1,
            1 => bytes.truncate(100),
            2 => bytes.clear(),
            3 => {
                let mut other = wrong(vec![first], first + SLOTS);
                other.chain.stripe = StripeId(2);
                bytes = other.encode().expect("valid");
            }
            4 => {
                bytes = wrong(vec![first, first + 3], first + 5)
                    .encode()
                    .expect("valid")
            }
            _ => {
                bytes = wrong(vec![first], first + 2 * SLOTS)
                    .encode()
                    .expect("valid")
            }
        }
        super::common::write(&scene.store, &name, &bytes).await;
        for object in [0, NAMED, NAMED + 1, 2 * NAMED, 3 * NAMED - 1, 3 * NAMED] {
            scene.seek(object * SLOTS + 1).await;
        }
    }
}

#[tokio::test]
async fn locate_says_where_a_chain_ends_only_after_a_full_look() {
    let scene = scene(50, 0..0).await;
    let behind = scene.chain.locate(Slot(0), Slot(50 * SLOTS)).await;
    assert_eq!(behind.expect("looked"), Located::Behind(Slot(50 * SLOTS)));
    let scene = super::common::scene(1);
    let (chain, _) = super::common::chains(&scene).await;
    for start in [0, 3, 6] {
        let object = super::common::object(&chain, 1, start, &["a", "b"]);
        chain.put(&object).await.expect("put");
    }
    // Where the store keeps no order of names, or does not honour the offset, the same is found.
    for (lists_backwards, ignores_list_offset) in [(true, false), (false, true), (true, true)] {
        scene.faults.set_quirks(catalog::faults::Quirks {
            lists_backwards,
            ignores_list_offset,
            ..Default::default()
        });
        for slot in 0..9 {
            let located = chain.locate(Slot(0), Slot(slot)).await.expect("looked");
            let Located::In(header) = located else {
                panic!("{slot}: {located:?}");
            };
            assert_eq!(header.start, Slot(slot / 3 * 3));
        }
    }
}
