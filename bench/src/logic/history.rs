//! What clients were told, held against what the log says.

use std::collections::{HashMap, HashSet};

use bytes::Bytes;
use serde::Serialize;
use stripelog::Position;

/// How an append ended, as its caller was told.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Outcome {
    /// Every record is durable at its position.
    Committed(Vec<Position>),
    /// Certainly none of the records is in the log.
    Absent,
    /// Not known.
    Unknown,
}

/// An append: `started` and `ended` come from one counter, so that "ended before it started" is known.
#[derive(Debug, Clone)]
pub(crate) struct Append {
    /// When the call began.
    pub(crate) started: u64,
    /// When its outcome was known.
    pub(crate) ended: u64,
    /// The records, each unlike every other of the whole history.
    pub(crate) records: Vec<Bytes>,
    /// How it ended.
    pub(crate) outcome: Outcome,
}

/// A record as a reader found it.
pub(crate) type Found = (Position, Bytes);

/// A token that was granted and never used.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Token {
    /// First position.
    pub(crate) first: u64,
    /// Number of positions.
    pub(crate) count: u64,
}

/// What was found. All figures but the first three have to be 0.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize)]
pub(crate) struct Findings {
    /// Records that were acknowledged.
    pub(crate) acknowledged: u64,
    /// Records whose outcome is not known.
    pub(crate) unknown: u64,
    /// Records in the log.
    pub(crate) in_log: u64,
    /// Acknowledged records that the log does not have.
    pub(crate) lost: u64,
    /// Acknowledged records that the log has elsewhere, or other bytes where they should be.
    pub(crate) changed: u64,
    /// Records that the log has more than once.
    pub(crate) doubled: u64,
    /// Records in the log that nobody appended, or whose append certainly failed.
    pub(crate) foreign: u64,
    /// Positions that were granted twice.
    pub(crate) granted_twice: u64,
    /// Appends that got a position below that of one which had ended before they began.
    pub(crate) order_broken: u64,
    /// Places where the reader's positions do not rise.
    pub(crate) scan_broken: u64,
}

impl Findings {
    /// Whether the log keeps what it promised.
    #[must_use]
    pub(crate) fn is_clean(&self) -> bool {
        let broken = [
            self.lost,
            self.changed,
            self.doubled,
            self.foreign,
            self.granted_twice,
            self.order_broken,
            self.scan_broken,
        ];
        broken.iter().all(|count| *count == 0)
    }
}

/// Holds a history against a scan of the whole log and the tokens that were never used.
#[must_use]
pub(crate) fn check(appends: &[Append], scan: &[Found], tokens: &[Token]) -> Findings {
    let mut findings = Findings {
        in_log: scan.len() as u64,
        scan_broken: broken_order(scan),
        order_broken: real_time_order(appends),
        granted_twice: granted_twice(appends, tokens),
        ..Findings::default()
    };
    check_records(appends, scan, &mut findings);
    findings
}

fn broken_order(scan: &[Found]) -> u64 {
    let falls = |pair: &&[Found]| matches!(pair, [(a, _), (b, _)] if a >= b);
    scan.windows(2).filter(falls).count() as u64
}

fn check_records(appends: &[Append], scan: &[Found], findings: &mut Findings) {
    let by_position: HashMap<Position, &Bytes> = scan.iter().map(|(p, r)| (*p, r)).collect();
    let mut times: HashMap<&Bytes, u64> = HashMap::with_capacity(scan.len());
    for (_, record) in scan {
        *times.entry(record).or_default() += 1;
    }
    findings.doubled = times.values().filter(|times| **times > 1).count() as u64;
    let mut allowed: HashSet<&Bytes> = HashSet::with_capacity(scan.len());
    for append in appends {
        match &append.outcome {
            Outcome::Committed(positions) => {
                findings.acknowledged += append.records.len() as u64;
                allowed.extend(&append.records);
                for (record, position) in append.records.iter().zip(positions) {
                    let right = by_position
                        .get(position)
                        .is_some_and(|found| *found == record);
                    if !times.contains_key(record) {
                        findings.lost += 1;
                    } else if !right {
                        findings.changed += 1;
                    }
                }
            }
            Outcome::Unknown => {
                findings.unknown += append.records.len() as u64;
                allowed.extend(&append.records);
            }
            Outcome::Absent => {}
        }
    }
    let foreign = |record: &&&Bytes| !allowed.contains(**record);
    findings.foreign = times.keys().filter(foreign).count() as u64;
}

fn granted_twice(appends: &[Append], tokens: &[Token]) -> u64 {
    let written = appends.iter().filter_map(|append| match &append.outcome {
        Outcome::Committed(positions) => Some(positions),
        _ => None,
    });
    let mut ranges: Vec<_> = written.flatten().map(|p| (p.0, p.0 + 1)).collect();
    ranges.extend(
        tokens
            .iter()
            .map(|token| (token.first, token.first + token.count)),
    );
    ranges.sort_unstable();
    let (mut end, mut twice) = (0, 0);
    for (first, behind) in ranges {
        twice += end.min(behind).saturating_sub(first);
        end = end.max(behind);
    }
    twice
}

fn real_time_order(appends: &[Append]) -> u64 {
    // Starts and ends in the order of time; at each start the highest position that was acknowledged.
    let mut events = Vec::with_capacity(appends.len() * 2);
    for append in appends {
        if let Outcome::Committed(positions) = &append.outcome {
            let (lowest, highest) = (positions.iter().min(), positions.iter().max());
            if let (Some(lowest), Some(highest)) = (lowest, highest) {
                events.push((append.started, None, *lowest));
                events.push((append.ended, Some(*highest), *lowest));
            }
        }
    }
    events.sort_unstable();
    let (mut acknowledged, mut before, mut broken) = (None, HashMap::new(), 0);
    for (_, ended, lowest) in events {
        match ended {
            Some(highest) => acknowledged = acknowledged.max(Some(highest)),
            None => drop(before.insert(lowest, acknowledged)),
        }
    }
    for (lowest, highest_before) in before {
        broken += u64::from(highest_before.is_some_and(|highest| highest >= lowest));
    }
    broken
}

#[cfg(test)]
mod tests {
    use super::*;

    fn append(started: u64, ended: u64, records: &[&'static str], positions: &[u64]) -> Append {
        let positions = positions.iter().copied().map(Position).collect();
        Append {
            started,
            ended,
            records: records
                .iter()
                .map(|r| Bytes::from_static(r.as_bytes()))
                .collect(),
            outcome: Outcome::Committed(positions),
        }
    }

    fn scan(found: &[(u64, &'static str)]) -> Vec<Found> {
        let found = found.iter();
        found
            .map(|(p, r)| (Position(*p), Bytes::from_static(r.as_bytes())))
            .collect()
    }

    fn history() -> Vec<Append> {
        vec![
            append(1, 2, &["a", "b"], &[0, 1]),
            append(3, 4, &["c"], &[7]),
        ]
    }

    #[test]
    fn a_sound_history_is_clean() {
        let findings = check(&history(), &scan(&[(0, "a"), (1, "b"), (7, "c")]), &[]);
        assert!(findings.is_clean(), "{findings:?}");
        assert_eq!((findings.acknowledged, findings.in_log), (3, 3));
    }

    #[test]
    fn every_fault_is_found() {
        let full = [(0, "a"), (1, "b"), (7, "c")];
        let check_scan = |found: &[(u64, &'static str)]| check(&history(), &scan(found), &[]);
        assert_eq!(check_scan(&[(0, "a"), (7, "c")]).lost, 1);
        assert_eq!(check_scan(&[(0, "a"), (2, "b"), (7, "c")]).changed, 1);
        assert_eq!(
            check_scan(&[(0, "a"), (1, "b"), (7, "c"), (8, "c")]).doubled,
            1
        );
        assert_eq!(
            check_scan(&[(0, "a"), (1, "b"), (7, "c"), (8, "x")]).foreign,
            1
        );
        assert_eq!(check_scan(&[(0, "a"), (7, "c"), (1, "b")]).scan_broken, 1);
        let token = |first, count| Token { first, count };
        let tokens = [token(2, 3), token(4, 2), token(7, 1)];
        assert_eq!(check(&history(), &scan(&full), &tokens).granted_twice, 2);
        let mut absent = history();
        absent[1].outcome = Outcome::Absent;
        assert_eq!(check(&absent, &scan(&full), &[]).foreign, 1);
    }

    #[test]
    fn an_append_that_began_later_has_to_lie_behind() {
        let late = vec![append(1, 2, &["a"], &[5]), append(3, 4, &["b"], &[4])];
        assert_eq!(
            check(&late, &scan(&[(4, "b"), (5, "a")]), &[]).order_broken,
            1
        );
        let overlapping = vec![append(1, 3, &["a"], &[5]), append(2, 4, &["b"], &[4])];
        assert_eq!(
            check(&overlapping, &scan(&[(4, "b"), (5, "a")]), &[]).order_broken,
            0
        );
    }
}
