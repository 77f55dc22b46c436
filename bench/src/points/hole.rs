//! A client that dies between its token and its write leaves a hole; readers pass it, and a write that
//! comes too late is appended again.

use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use bytes::Bytes;
use stripelog::{Content, Position, Tail};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::timeout;
use wire::frame::{AckStatus, Append, Frame, Hello, PREFIX_BYTES, Place, Prefix};
use wire::{ClientId, Epoch, Identity, Layout, LogId, RequestId, RunBody, SegmentId};

use crate::cluster::{Cluster, Spec};
use crate::net::probe::Probe;
use crate::report::Report;

/// How the hole is made.
#[derive(Debug, Clone, clap::Args)]
pub(crate) struct Args {
    /// Age at which a hole becomes junk, in milliseconds
    #[arg(long, default_value_t = 1000)]
    hole_timeout_ms: u64,
}

/// Longest wait for anything, in all.
const LIMIT: Duration = Duration::from_secs(60);

/// Positions of the hole.
const HOLE: u32 = 5;

/// Runs the point and reports.
///
/// # Errors
/// If the daemons do not run, or answer otherwise than a step needs.
pub(crate) async fn run(args: Args) -> Result<Report> {
    timeout(LIMIT, steps(&args))
        .await
        .context("took too long")?
}

#[allow(clippy::disallowed_methods, reason = "how long a reader waits")]
async fn steps(args: &Args) -> Result<Report> {
    let mut report = Report::new("hole");
    let setting = format!("writer.hole_timeout_ms={}", args.hole_timeout_ms);
    let cluster = Cluster::start(Spec {
        settings: vec![setting],
        ..Spec::default()
    })
    .await?;
    let log = cluster.client().await?;
    let before = log.append_one(Bytes::from_static(b"before")).await?;
    // A client takes a token, and is never heard of again.
    let mut dead = Probe::new(cluster.sequencer(), log.id(), 99).await?;
    let token = loop {
        if let Some(token) = dead.grant(HOLE, Duration::from_secs(1)).await? {
            break token;
        }
    };
    let began = Instant::now();
    let behind = log.append_one(Bytes::from_static(b"behind")).await?;
    ensure!(
        behind.0 >= token.first + token.count,
        "the record lies behind the hole"
    );
    let committed_ms = began.elapsed().as_millis();
    let seen = read_over(&log, before, behind).await?;
    let waited_ms = u64::try_from(began.elapsed().as_millis())?;
    report.figure("hole_timeout_ms", args.hole_timeout_ms);
    report.figure(
        "record_behind_committed_after_ms",
        u64::try_from(committed_ms)?,
    );
    report.figure("reader_passed_after_ms", waited_ms);
    report.at_least(
        "reader_waited_ms",
        waited_ms as f64,
        args.hole_timeout_ms as f64,
    );
    report.exactly("junk_positions", seen.0, u64::from(HOLE));
    report.exactly("records_in_order", seen.1, ["before", "behind"]);
    // The dead client comes back: its positions are junk for ever.
    let late = late_write(&cluster, log.id(), token.first).await?;
    report.exactly("late_write", format!("{late:?}"), "Junk");
    let again = late_client(&cluster, args).await?;
    report.exactly("late_record_appended_again", again, true);
    Ok(report)
}

/// Reads everything from `before` to `behind`: how many positions are junk, and the records.
async fn read_over(
    log: &stripelog::Log,
    before: Position,
    behind: Position,
) -> Result<(u64, Vec<String>)> {
    log.tail(Tail::Linearizable).await?;
    let mut scan = log.read(before..behind.plus(1)).with_junk(true);
    let (mut junk, mut records, mut next) = (0, Vec::new(), before);
    while let Some(item) = scan.next().await? {
        ensure!(item.position == next, "a position was skipped: {next}");
        match item.content {
            Content::Junk { count } => {
                junk += count;
                next = item.position.plus(count);
            }
            Content::Record(record) => {
                records.push(String::from_utf8_lossy(&record).into_owned());
                next = item.position.plus(1);
            }
        }
    }
    Ok((junk, records))
}

/// Writes a record at a position whose time has passed, as the client would that had its token.
async fn late_write(cluster: &Cluster, log: LogId, position: u64) -> Result<AckStatus> {
    let mut socket = TcpStream::connect(cluster.writer()).await?;
    let client = ClientId(99);
    let hello = Frame::Hello(Hello { log, client }).encode(0)?;
    socket.write_all(&hello).await?;
    let layout = Layout::new(32, 1024)?;
    let body = RunBody::new(&["too late"])?;
    let place = Place {
        segment: SegmentId(0),
        stripe: layout.stripe(Position(position)),
        first: layout.slot(Position(position)),
    };
    let append = Frame::Append(Append {
        place,
        epoch: Epoch(1),
        identity: Identity {
            client,
            request: RequestId(1),
        },
        count: 1,
        crc: body.crc(),
    });
    socket.write_all(&append.encode(body.len())?).await?;
    socket.write_all(body.bytes()).await?;
    loop {
        let mut prefix = [0; PREFIX_BYTES];
        socket.read_exact(&mut prefix).await?;
        let prefix = Prefix::decode(&prefix)?;
        let mut head = vec![0; prefix.head_len + prefix.body_len];
        socket.read_exact(&mut head).await?;
        let frame = Frame::decode(&prefix, head.get(..prefix.head_len).unwrap_or(&[]))?;
        // Signs of life answer nothing.
        if let Frame::Ack(ack) = frame
            && ack.count > 0
        {
            return Ok(ack.status()?);
        }
    }
}

/// A client whose writer stops for longer than the hole time-out between token and write: the library
/// appends the record again by itself, and it is in the log once.
async fn late_client(cluster: &Cluster, args: &Args) -> Result<bool> {
    let log = crate::net::stall::client(cluster).await?;
    let (log, stall) = log;
    log.append_one(Bytes::from_static(b"warm")).await?;
    stall.hold();
    let append = tokio::spawn({
        let log = log.clone();
        async move { log.append_one(Bytes::from_static(b"late")).await }
    });
    tokio::time::sleep(Duration::from_millis(args.hole_timeout_ms * 3)).await;
    stall.release();
    let position = append.await??;
    let (_, scan) = super::check::read_all(&log).await?;
    let late: Vec<_> = scan
        .iter()
        .filter(|(_, record)| record.as_ref() == b"late")
        .collect();
    let once = matches!(late.as_slice(), [(found, _)] if *found == position);
    Ok(once && log.stats().records_reappended > 0)
}
