//! Connections to the stripe-writer that break its rules.

use std::collections::BTreeMap;

use anyhow::Result;
use rand::rngs::StdRng;
use rand::{Rng, RngCore};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::timeout;
use wire::frame::{Ack, AckStatus, Append, Frame, Hello, PREFIX_BYTES, Place, Prefix};
use wire::{ClientId, Epoch, Identity, LogId, RequestId, RunBody, SegmentId, Slot, StripeId};

use super::{ANSWER, Args};
use crate::cluster::Cluster;

/// Opens connections to the stripe-writer that break its rules, and says of each kind whether all were
/// refused: by a frame that says why, or by a closed connection where none could be understood.
pub(super) async fn connections(
    cluster: &Cluster,
    log: LogId,
    args: &Args,
    random: &mut StdRng,
) -> Result<BTreeMap<&'static str, bool>> {
    let mut refused = BTreeMap::new();
    for _ in 0..args.connections {
        for (name, bytes) in bad_streams(log, random)? {
            let ended = timeout(ANSWER, ends(cluster, &bytes)).await;
            let all = refused.entry(name).or_insert(true);
            *all &= matches!(ended, Ok(Ok(true)));
        }
    }
    Ok(refused)
}

fn bad_streams(log: LogId, random: &mut StdRng) -> Result<Vec<(&'static str, Vec<u8>)>> {
    let client = ClientId(5);
    let hello = |log| Frame::Hello(Hello { log, client }).encode(0);
    let good = hello(log)?.to_vec();
    let place = Place {
        segment: SegmentId(0),
        stripe: StripeId(0),
        first: Slot(0),
    };
    let ack = Frame::Ack(Ack::new(place, 1, RequestId(1), AckStatus::Committed)).encode(0)?;
    let mut random_bytes = vec![0; random.random_range(PREFIX_BYTES..4096)];
    random.fill_bytes(&mut random_bytes);
    let mut version = good.clone();
    version[4] = random.random_range(2..=u8::MAX);
    let mut kind = good.clone();
    kind[5] = random.random_range(20..=u8::MAX);
    let mut oversized = good.clone();
    oversized[8..12].copy_from_slice(&u32::MAX.to_le_bytes());
    let mut flipped = good.clone();
    let last = flipped.len() - 1 - random.random_range(0..8);
    flipped[last] ^= 1 << random.random_range(0..8);
    let after = |bytes: &[u8]| [good.as_slice(), bytes].concat();
    Ok(vec![
        ("random bytes", random_bytes.clone()),
        ("random bytes after hello", after(&random_bytes)),
        ("wrong version", version),
        ("unknown kind", kind),
        ("oversized body", oversized),
        ("flipped bit", flipped),
        ("wrong log", hello(LogId([9; 16]))?.to_vec()),
        ("no hello", ack.to_vec()),
        ("a server's frame", after(&ack)),
        ("damaged append", after(&damaged_append(random)?)),
        (
            "truncated frame",
            good[..random.random_range(1..good.len())].to_vec(),
        ),
    ])
}

fn damaged_append(random: &mut StdRng) -> Result<Vec<u8>> {
    let body = RunBody::new(&["a record", "another"])?;
    let append = Frame::Append(Append {
        place: Place {
            segment: SegmentId(0),
            stripe: StripeId(0),
            first: Slot(1 << 30),
        },
        epoch: Epoch(1),
        identity: Identity {
            client: ClientId(5),
            request: RequestId(1),
        },
        count: 2,
        crc: body.crc(),
    });
    let mut bytes = append.encode(body.len())?.to_vec();
    let at = bytes.len() + random.random_range(0..body.len());
    bytes.extend_from_slice(body.bytes());
    bytes[at] ^= 1;
    Ok(bytes)
}

/// Sends bytes and closes the sending side: whether the stripe-writer ends the connection without ever
/// acknowledging anything.
async fn ends(cluster: &Cluster, bytes: &[u8]) -> Result<bool> {
    let mut socket = TcpStream::connect(cluster.writer()).await?;
    // It may refuse, and close, before it has read everything.
    let _ = socket.write_all(bytes).await;
    let _ = socket.shutdown().await;
    let mut answer = Vec::new();
    let _ = socket.read_to_end(&mut answer).await;
    Ok(!acknowledges(&answer))
}

fn acknowledges(mut answer: &[u8]) -> bool {
    while let Some((prefix, rest)) = answer.split_first_chunk::<PREFIX_BYTES>() {
        let Ok(prefix) = Prefix::decode(prefix) else {
            return false;
        };
        let Some(head) = rest.get(..prefix.head_len) else {
            return false;
        };
        if matches!(Frame::decode(&prefix, head), Ok(Frame::Ack(_))) {
            return true;
        }
        answer = rest.get(prefix.head_len + prefix.body_len..).unwrap_or(&[]);
    }
    false
}
