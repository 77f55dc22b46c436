//! No damaged byte is handed out: every damage is an error that names the object.

use catalog::{CatalogError, Chain, ErrorKind};
use wire::object::HEADER_BYTES;
use wire::{Slot, object::Index};

use crate::common::{Scene, bytes_of, chains, object, scene, write};

async fn stored(scene: &Scene) -> (Chain, Index, Vec<u8>) {
    let (chain, _) = chains(scene).await;
    let object = object(&chain, 1, 0, &["some", "records", "of mine"]);
    chain.put(&object).await.expect("put");
    let bytes = bytes_of(&object);
    (chain, object.index, bytes)
}

fn names_it<T: std::fmt::Debug>(chain: &Chain, what: Result<T, CatalogError>) -> bool {
    let Err(error) = what else { return false };
    assert_eq!(error.kind(), ErrorKind::Corrupt, "{error}");
    assert!(
        error.to_string().contains(&chain.id().object_name(Slot(0))),
        "{error}"
    );
    true
}

#[tokio::test]
async fn r4_every_flipped_bit_is_found() {
    let scene = scene(1);
    let (chain, index, good) = stored(&scene).await;
    let name = chain.id().object_name(Slot(0));
    let index_end = index.header.index_end();
    let body = index.runs[0].records.expect("records");
    for at in 0..good.len() {
        let mut bytes = good.clone();
        bytes[at] ^= 1 << (at % 8);
        write(&scene.truth, &name, &bytes).await;
        assert!(
            names_it(&chain, chain.read_object(Slot(0)).await),
            "byte {at}"
        );
        assert_eq!(
            names_it(&chain, chain.header_at(Slot(0)).await),
            at < HEADER_BYTES
        );
        assert_eq!(
            names_it(&chain, chain.walk(Slot(0)).await),
            at < HEADER_BYTES
        );
        assert_eq!(
            names_it(&chain, chain.index_at(Slot(0)).await),
            at < index_end
        );
        let from = usize::try_from(body.offset).expect("small");
        let in_body = (from..from + body.len as usize).contains(&at);
        let run = chain.read_run(&index, &index.runs[0]).await;
        assert_eq!(names_it(&chain, run), in_body, "byte {at}");
    }
}

#[tokio::test]
async fn r4_every_cut_is_found() {
    let scene = scene(1);
    let (chain, index, good) = stored(&scene).await;
    let name = chain.id().object_name(Slot(0));
    let body = index.runs[0].records.expect("records");
    let body_end = usize::try_from(body.offset).expect("small") + body.len as usize;
    for len in 0..good.len() {
        write(&scene.truth, &name, &good[..len]).await;
        assert!(
            names_it(&chain, chain.read_object(Slot(0)).await),
            "cut to {len}"
        );
        assert_eq!(
            names_it(&chain, chain.walk(Slot(0)).await),
            len < HEADER_BYTES
        );
        let cut = names_it(&chain, chain.index_at(Slot(0)).await);
        assert_eq!(cut, len < index.header.index_end(), "cut to {len}");
        let run = chain.read_run(&index, &index.runs[0]).await;
        assert_eq!(names_it(&chain, run), len < body_end, "cut to {len}");
    }
}

// Lesson 24: zero-filled objects after a power loss.
#[tokio::test]
async fn r4_zeros_are_found() {
    let scene = scene(1);
    let (chain, index, good) = stored(&scene).await;
    let name = chain.id().object_name(Slot(0));
    for from in 0..good.len() {
        let mut bytes = good.clone();
        bytes[from..].fill(0);
        // The last bytes of the length in the footer are zeros anyway.
        if bytes == good {
            continue;
        }
        write(&scene.truth, &name, &bytes).await;
        assert!(
            names_it(&chain, chain.read_object(Slot(0)).await),
            "from {from}"
        );
    }
    write(&scene.truth, &name, &vec![0; good.len()]).await;
    assert!(names_it(&chain, chain.walk(Slot(0)).await));
    assert!(names_it(
        &chain,
        chain.read_run(&index, &index.runs[0]).await
    ));
    let longer = [&good[..], b"x"].concat();
    write(&scene.truth, &name, &longer).await;
    assert!(names_it(&chain, chain.read_object(Slot(0)).await));
}

#[tokio::test]
async fn an_object_that_is_gone_is_missing_not_empty() {
    let scene = scene(1);
    let (chain, index, _) = stored(&scene).await;
    let name = chain.id().object_name(Slot(0));
    scene.truth.delete(&name).await.expect("deleted");
    let error = chain
        .read_run(&index, &index.runs[0])
        .await
        .expect_err("gone");
    assert!(
        matches!(&error, CatalogError::Missing { name: n } if *n == name),
        "{error}"
    );
    assert!(chain.read_object(Slot(0)).await.expect("ok").is_none());
}
