//! Wishes for another layout that cannot be (H-5): dropped and counted, or refused, and nothing comes of them.

use std::collections::BTreeMap;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use rand::Rng;
use rand::rngs::StdRng;
use rand::seq::SliceRandom;
use tokio::net::UdpSocket;
use tokio::time::{sleep, timeout};
use wire::datagram::{
    self, Datagram, ENTRY_BYTES, Grant, HEADER_BYTES, Header, Kind, MAX_DATAGRAM_BYTES,
    MAX_ENTRIES, Reply, Status,
};
use wire::limits::{MAX_STRIPES, MAX_UNIT};
use wire::{ClientId, Lane, LogId, Position, RequestId};

use super::{ANSWER, Args, SILENCE};
use crate::cluster::{Cluster, Daemon};
use crate::net::metrics::Metrics;
use crate::report::Report;

/// Rounds of datagrams that may wait in the sequencer's socket buffer.
const BURST: u32 = 8;

/// Time in which a wish that was taken up after all would have become a segment.
const TAKEN_UP: Duration = Duration::from_secs(2);

/// The layout and the segment of a new log.
const STRIPES: u32 = 32;
const UNIT: u32 = 1024;
const SEGMENT: u32 = 0;

/// Sends them, and tells what became of them.
pub(super) async fn tell(
    cluster: &Cluster,
    log: LogId,
    args: &Args,
    random: &mut StdRng,
    report: &mut Report,
) -> Result<()> {
    let before = cluster.command(&["status"]).await?;
    let asking = Asking::new(cluster, log).await?;
    let counted = cluster.metrics(Daemon::Sequencer).await?;
    let mut sent = BTreeMap::<&str, u32>::new();
    let mut misjudged = BTreeMap::<&str, u32>::new();
    for round in 0..args.datagrams {
        for (reason, bytes) in malformed(log, random)? {
            asking.socket.send(&bytes).await?;
            *sent.entry(reason).or_default() += 1;
        }
        if round % BURST == 0 {
            for (name, wrong) in asking.refused(random).await? {
                *misjudged.entry(name).or_default() += u32::from(wrong);
            }
        }
    }
    // Behind the last of them, which so has been seen.
    asking.refused(random).await?;
    let answered = timeout(SILENCE, asking.socket.recv(&mut [0])).await.is_ok();
    let now = cluster.metrics(Daemon::Sequencer).await?;
    sleep(TAKEN_UP).await;
    let after = cluster.command(&["status"]).await?;
    let dropped = |metrics: &Metrics, reason: &str| {
        metrics.labelled("sequencer_dropped_total", &format!("reason=\"{reason}\""))
    };
    let uncounted = |(reason, count): &(&&str, &u32)| {
        let grown = dropped(&now, reason) - dropped(&counted, reason);
        grown != f64::from(**count)
    };
    let uncounted: Vec<_> = sent
        .iter()
        .filter(uncounted)
        .map(|(name, _)| *name)
        .collect();
    let kept = ["segments", "epoch"].map(|part| before.get(part) == after.get(part));
    report.figure("bad_wishes", &sent);
    report.exactly("bad_wishes_not_counted", uncounted.len(), 0);
    report.exactly("bad_wishes_answered", answered, false);
    report.figure("impossible_wishes", &misjudged);
    report.exactly(
        "impossible_wishes_not_refused",
        misjudged.values().sum::<u32>(),
        0,
    );
    report.exactly("layout_kept", kept == [true; 2], true);
    Ok(())
}

/// Datagrams that are none, each with the reason that it is dropped for.
fn malformed(log: LogId, random: &mut StdRng) -> Result<Vec<(&'static str, Vec<u8>)>> {
    // Were it not for what is wrong with them, all of them would be taken up.
    let entry = wish(1, [2 * STRIPES, UNIT, SEGMENT]);
    let write = |log| -> Result<Vec<u8>> {
        let mut bytes = vec![0; MAX_DATAGRAM_BYTES];
        let header = Header::request(Kind::Restripe, log, ClientId(6), 1);
        let len = datagram::write(header, &[entry], &mut bytes)?;
        bytes.truncate(len);
        Ok(bytes)
    };
    let good = write(log)?;
    let with = |at: usize, byte: u8| {
        let mut bytes = good.clone();
        bytes[at] = byte;
        bytes
    };
    let mut longer = good.clone();
    longer.resize(good.len() + random.random_range(1..=ENTRY_BYTES), 0);
    let too_many = u8::try_from(MAX_ENTRIES + 1)?;
    Ok(vec![
        (
            "short",
            good[..random.random_range(0..HEADER_BYTES)].to_vec(),
        ),
        (
            "length",
            good[..random.random_range(HEADER_BYTES..good.len())].to_vec(),
        ),
        ("length", longer),
        ("length", with(6, random.random_range(2..too_many))),
        ("bound", with(6, 0)),
        ("bound", with(6, random.random_range(too_many..=u8::MAX))),
        ("magic", with(random.random_range(0..4), 0)),
        ("version", with(4, random.random_range(2..=u8::MAX))),
        ("log", write(LogId([9; 16]))?),
        ("malformed", with(5, good[5] | 0x80)),
    ])
}

/// A wish for stripes and unit behind a segment, whatever they are.
fn wish(request: u64, [stripes, unit, behind]: [u32; 3]) -> Grant {
    let expected = Position(u64::from(behind) << 32 | u64::from(unit));
    Grant::at(Lane(0), RequestId(request), stripes, expected)
}

/// Wishes that are refused, each with the status that says why.
fn impossible(random: &mut StdRng) -> Vec<(&'static str, [u32; 3], Status)> {
    let mut above = |limit: u32| random.random_range(limit + 1..=u32::MAX);
    let (stripes, unit, segment) = (above(MAX_STRIPES), above(MAX_UNIT), above(SEGMENT));
    vec![
        ("no stripes", [0, UNIT, SEGMENT], Status::Invalid),
        (
            "one stripe too many",
            [MAX_STRIPES + 1, UNIT, SEGMENT],
            Status::Invalid,
        ),
        (
            "too many stripes",
            [stripes, UNIT, SEGMENT],
            Status::Invalid,
        ),
        ("no unit", [2 * STRIPES, 0, SEGMENT], Status::Invalid),
        (
            "unit above its bound",
            [2 * STRIPES, MAX_UNIT + 1, SEGMENT],
            Status::Invalid,
        ),
        (
            "unit out of range",
            [2 * STRIPES, unit, SEGMENT],
            Status::Invalid,
        ),
        ("layout as it is", [STRIPES, UNIT, SEGMENT], Status::Invalid),
        (
            "segment that is not there",
            [2 * STRIPES, UNIT, segment],
            Status::TailMoved,
        ),
    ]
}

/// Asks the sequencer for what it has to refuse.
struct Asking {
    socket: UdpSocket,
    log: LogId,
}

impl Asking {
    async fn new(cluster: &Cluster, log: LogId) -> Result<Self> {
        let socket = UdpSocket::bind(("127.0.0.1", 0)).await?;
        socket.connect(cluster.sequencer()).await?;
        Ok(Self { socket, log })
    }

    /// Sends all of them in one datagram, in any order: which of them were not refused as they should be. Reserved bytes
    /// mean nothing, whatever is in them.
    async fn refused(&self, random: &mut StdRng) -> Result<Vec<(&'static str, bool)>> {
        let mut asked = impossible(random);
        asked.shuffle(random);
        let entries: Vec<_> = (0..)
            .zip(&asked)
            .map(|(n, (_, of, _))| wish(n, *of))
            .collect();
        let mut bytes = [0; MAX_DATAGRAM_BYTES];
        let header = Header::request(Kind::Restripe, self.log, ClientId(6), entries.len());
        let len = datagram::write(header, &entries, &mut bytes)?;
        for entry in bytes[HEADER_BYTES..len].chunks_mut(ENTRY_BYTES) {
            random.fill(&mut entry[RESERVED_AT..]);
        }
        self.socket.send(&bytes[..len]).await?;
        let received = timeout(ANSWER, self.socket.recv(&mut bytes)).await;
        let len = received.context("the sequencer does not answer any more")??;
        let datagram = Datagram::parse(&bytes[..len], self.log)?;
        ensure!(datagram.header.count() == asked.len(), "another count");
        let told = datagram.entries::<Reply>().zip(asked);
        told.map(|(reply, (name, _, status))| Ok((name, reply?.status() != Ok(status))))
            .collect()
    }
}

/// Where the reserved bytes of a wish begin: they are its end.
const RESERVED_AT: usize = 24;
