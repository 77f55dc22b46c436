//! What scans hand out, as plain values.

use stripelog::{Content, Error, Item, Log, Position, Scan};

use super::Fixture;

pub async fn texts(mut scan: Scan) -> (Vec<(u64, String)>, Option<Error>) {
    let mut got = Vec::new();
    loop {
        match scan.next().await {
            Ok(None) => return (got, None),
            Ok(Some(item)) => got.push((item.position.0, text(&item))),
            Err(error) => return (got, Some(error)),
        }
    }
}

pub fn text(item: &Item) -> String {
    match &item.content {
        Content::Record(record) => String::from_utf8(record.to_vec()).expect("text"),
        Content::Junk { count } => format!("junk {count}"),
    }
}

pub fn expected(range: std::ops::Range<u64>) -> Vec<(u64, String)> {
    range.map(|i| (i, format!("record {i}"))).collect()
}

pub fn all(log: &Log) -> Scan {
    log.read(Position(0)..Position(u64::MAX))
}

/// Grants positions that nobody writes.
pub fn waste(fixture: &Fixture, count: u64) {
    fixture.sequencer.state.lock().expect("not poisoned").next += count;
}

/// Moves the trim point.
pub async fn trim(fixture: &Fixture, to: u64) {
    let mut entry = fixture.catalog.last().await.expect("reads");
    entry.number += 1;
    entry.trim = Position(to);
    entry.reservation = entry.reservation.max(Position(1000));
    fixture.catalog.append(&entry).await.expect("appends");
}
