//! Bad input of every kind: one clear error each, no panic, and the service goes on.

mod commands;
mod streams;
mod wishes;

use std::collections::BTreeMap;
use std::time::Duration;

use anyhow::{Result, ensure};
use bytes::Bytes;
use rand::rngs::StdRng;
use rand::{Rng, RngCore, SeedableRng};
use stripelog::Log;
use tokio::net::UdpSocket;
use tokio::time::timeout;
use wire::datagram::{self, Grant, Header, Kind, MAX_DATAGRAM_BYTES};
use wire::limits::MAX_RECORD_BYTES;
use wire::{ClientId, Lane, LogId, RequestId};

use crate::arguments::Seed;
use crate::cluster::{Cluster, Daemon, Spec};
use crate::net::probe::Probe;
use crate::report::Report;

/// How much bad input is sent.
#[derive(Debug, Clone, clap::Args)]
pub(crate) struct Args {
    /// Datagrams of each kind
    #[arg(long, default_value_t = 2000)]
    datagrams: u32,
    /// Connections of each kind
    #[arg(long, default_value_t = 50)]
    connections: u32,
    #[command(flatten)]
    seed: Seed,
}

/// Longest wait for an answer that must not come.
const SILENCE: Duration = Duration::from_millis(300);

/// Longest wait for an answer that has to come.
const ANSWER: Duration = Duration::from_secs(10);

/// Datagrams that may wait in the sequencer's socket buffer.
const BURST: u32 = 64;

/// Runs the point and reports.
///
/// # Errors
/// If the daemons do not run.
pub(crate) async fn run(args: Args) -> Result<Report> {
    let seed = args.seed.draw();
    let mut random = StdRng::seed_from_u64(seed);
    let mut report = Report::new("bad-input");
    report.figure("seed", seed);
    let mut cluster = Cluster::start(Spec::default()).await?;
    let log = cluster.client().await?;
    log.append_one(Bytes::from_static(b"before")).await?;

    let (sent, answered) = datagrams(&cluster, log.id(), &args, &mut random).await?;
    report.figure("bad_datagrams", sent);
    report.exactly("bad_datagrams_answered", answered, 0);
    wishes::tell(&cluster, log.id(), &args, &mut random, &mut report).await?;
    let refused = streams::connections(&cluster, log.id(), &args, &mut random).await?;
    report.exactly(
        "bad_connections_not_refused",
        refused.values().filter(|ok| !**ok).count(),
        0,
    );
    report.figure("bad_connections", refused);
    let too_large = log.append_one(vec![0; MAX_RECORD_BYTES + 1].into()).await;
    let definite = too_large.is_err_and(|error| error.is_definite());
    report.exactly("record_above_limit_refused", definite, true);
    let commands = commands::commands(&cluster).await?;
    let unclear: Vec<_> = commands.iter().filter(|(_, ok)| ok.is_err()).collect();
    for (case, why) in &unclear {
        eprintln!("{case}: {}", why.as_ref().err().map_or("", String::as_str));
    }
    report.exactly("commands_without_one_clear_error", unclear.len(), 0);
    let lines: BTreeMap<_, _> = commands
        .iter()
        .filter_map(|(c, ok)| Some((c, ok.as_ref().ok()?)))
        .collect();
    report.figure("commands", lines);

    let goes_on = goes_on(&mut cluster, &log).await?;
    report.exactly("service_goes_on", goes_on, true);
    let panics = cluster.panics(Daemon::Sequencer) + cluster.panics(Daemon::Writer);
    report.exactly("panics", panics, 0);
    Ok(report)
}

async fn goes_on(cluster: &mut Cluster, log: &Log) -> Result<bool> {
    log.append_one(Bytes::from_static(b"after")).await?;
    Ok(cluster.runs(Daemon::Sequencer)? && cluster.runs(Daemon::Writer)?)
}

/// Sends bad datagrams to the sequencer: how many, and how many answers came.
async fn datagrams(
    cluster: &Cluster,
    log: LogId,
    args: &Args,
    random: &mut StdRng,
) -> Result<(u32, u32)> {
    let socket = UdpSocket::bind(("127.0.0.1", 0)).await?;
    socket.connect(cluster.sequencer()).await?;
    let (mut sent, mut answered) = (0, 0);
    for number in 0..args.datagrams {
        for bad in bad_datagrams(log, random)? {
            socket.send(&bad).await?;
            sent += 1;
        }
        if number % BURST == 0 {
            let mut probe = Probe::new(cluster.sequencer(), log, 5).await?;
            let token = probe.grant(1, ANSWER).await?;
            ensure!(token.is_some(), "the sequencer does not answer any more");
        }
    }
    let mut buffer = [0; 2048];
    while timeout(SILENCE, socket.recv(&mut buffer)).await.is_ok() {
        answered += 1;
    }
    Ok((sent, answered))
}

fn bad_datagrams(log: LogId, random: &mut StdRng) -> Result<Vec<Vec<u8>>> {
    let client = ClientId(5);
    let write = |log: LogId, kind, count| -> Result<Vec<u8>> {
        let mut buffer = vec![0; MAX_DATAGRAM_BYTES];
        let entry = Grant::new(Lane(0), RequestId(1), count);
        let len = datagram::write(Header::request(kind, log, client, 1), &[entry], &mut buffer)?;
        buffer.truncate(len);
        Ok(buffer)
    };
    let good = write(log, Kind::Grant, 1)?;
    let mut random_bytes = vec![0; random.random_range(0..MAX_DATAGRAM_BYTES)];
    random.fill_bytes(&mut random_bytes);
    let mut wrong_version = good.clone();
    wrong_version[4] = random.random_range(2..=u8::MAX);
    let mut wrong_kind = good.clone();
    wrong_kind[5] = random.random_range(6..0x80);
    let mut a_reply = good.clone();
    a_reply[5] |= 0x80;
    let mut wrong_count = good.clone();
    wrong_count[6] = random.random_range(2..=u8::MAX);
    let mut no_entries = good.clone();
    no_entries[6] = 0;
    let mut too_long = good.clone();
    too_long.extend([0; 48]);
    let mut oversized = good.clone();
    oversized.resize(random.random_range(MAX_DATAGRAM_BYTES + 1..9000), 0);
    let truncated = good[..random.random_range(0..good.len())].to_vec();
    Ok(vec![
        random_bytes,
        truncated,
        wrong_version,
        wrong_kind,
        a_reply,
        wrong_count,
        no_entries,
        too_long,
        oversized,
        write(LogId([9; 16]), Kind::Grant, 1)?,
    ])
}
