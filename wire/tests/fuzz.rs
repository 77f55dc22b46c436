//! One fuzz target for each format: bytes from outside never panic, and what is accepted is what would be
//! written.
//!
//! Arbitrary bytes hardly ever have the right magic and checksum. So most inputs are changes to sound
//! bytes, and half of those have their checksums made right again, so that the checks behind are reached.
//!
//! Longer with `BOLERO_RANDOM_ITERATIONS=10000000 cargo test --release -p wire --test fuzz`; a failure
//! prints a seed for `BOLERO_RANDOM_SEED`.

#[allow(dead_code, reason = "each test binary uses its own part of the values")]
mod common;

use std::sync::atomic::{AtomicU32, Ordering};

use bolero::check;
use bytes::Bytes;
use common::{CLIENT, HEAD, LOG, chain, control_entry, frames, joined, object, runs};
use wire::control::{ControlEntry, LogHead};
use wire::datagram::{
    Datagram, Grant, Header, Kind, MAX_DATAGRAM_BYTES, Reply, Report, Status, write,
};
use wire::frame::{Frame, Frontier, PREFIX_BYTES, Prefix, SealedStripe};
use wire::object::{HEADER_BYTES, INDEX_ENTRY_BYTES, Index, Object};
use wire::snapshot::{SNAPSHOT_HEAD_BYTES, Snapshot};
use wire::{
    Fixed, Lane, OwnerNumber, Position, RequestId, RunBody, SegmentId, Slot, StripeId, WireError,
    crc32c, name,
};

/// Inputs of one target, unless the environment says otherwise.
const ITERATIONS: usize = 10_000;

/// Envelope of control entries: offsets of the length and the checksum, and its end.
const ENVELOPE: [usize; 3] = [12, 16, 24];

/// Arbitrary bytes, or sound ones that are changed: cut, continued, overwritten here and there. Tells
/// whether checksums are to be repaired.
fn mutant(input: &[u8], sound: &[u8]) -> (Vec<u8>, bool) {
    let Some((mode, rest)) = input.split_first() else {
        return (Vec::new(), false);
    };
    let repair = mode & 1 == 1;
    let mut bytes = sound.to_vec();
    match (mode >> 1) % 4 {
        0 => bytes = rest.to_vec(),
        1 => {
            let cut = rest
                .first()
                .map_or(0, |at| usize::from(*at) * sound.len() / 255);
            bytes.truncate(cut);
            bytes.extend(rest);
        }
        _ => {
            for change in rest.chunks_exact(3).take(1 + usize::from(mode >> 5)) {
                let at = usize::from(u16::from_le_bytes([change[0], change[1]]));
                let at = at % sound.len().max(1);
                if let Some(byte) = bytes.get_mut(at) {
                    *byte = change[2];
                }
            }
        }
    }
    (bytes, repair)
}

/// Puts the CRC32C of all parts at an offset, if the bytes are long enough.
fn put_crc(bytes: &mut [u8], at: usize, crc: u32) {
    if let Some(place) = bytes.get_mut(at..at + 4) {
        place.copy_from_slice(&crc.to_le_bytes());
    }
}

fn u32_at(bytes: &[u8], at: usize) -> usize {
    let field = bytes.get(at..).and_then(|rest| rest.first_chunk::<4>());
    field.map_or(0, |field| u32::from_le_bytes(*field) as usize)
}

fn datagram_of<T: Fixed>(header: Header, entries: &[T]) -> Vec<u8> {
    let mut out = vec![0; MAX_DATAGRAM_BYTES];
    let len = write(header, entries, &mut out).expect("valid");
    out.truncate(len);
    out
}

fn datagrams() -> [Vec<u8>; 3] {
    let grants = [Grant::new(Lane(1), RequestId(2), 3); 4];
    let reports = [Report::new(RequestId(1), SegmentId(1), StripeId(2), Position(3)); 29];
    let replies = [Reply::new(RequestId(1), Lane(1), Status::Ok, Position(9), 3); 2];
    let header = |kind| Header::request(kind, LOG, CLIENT, 1);
    [
        datagram_of(header(Kind::Grant), &grants),
        datagram_of(header(Kind::Report), &reports),
        datagram_of(header(Kind::Tail).reply(wire::Epoch(1)), &replies),
    ]
}

/// Reads all entries as `T` and writes the datagram again.
fn rewritten<T: Fixed>(datagram: &Datagram<'_>) -> Vec<u8> {
    let entries: Result<Vec<T>, WireError> = datagram.entries().collect();
    datagram_of(datagram.header, &entries.expect("any bytes are an entry"))
}

#[test]
fn datagrams_of_every_kind() {
    let sound = datagrams();
    check!()
        .with_iterations(ITERATIONS)
        .for_each(|input: &[u8]| {
            for sound in &sound {
                let (bytes, _) = mutant(input, sound);
                let Ok(datagram) = Datagram::parse(&bytes, LOG) else {
                    continue;
                };
                assert_eq!(rewritten::<Grant>(&datagram), bytes);
                assert_eq!(rewritten::<Report>(&datagram), bytes);
                assert_eq!(rewritten::<Reply>(&datagram), bytes);
                for grant in datagram.entries::<Grant>().flatten() {
                    let _ = grant.check();
                }
                for report in datagram.entries::<Report>().flatten() {
                    let _ = report.stripe();
                }
                for reply in datagram.entries::<Reply>().flatten() {
                    let _ = (reply.status(), reply.durable());
                }
            }
        });
}

fn check_frame(bytes: &[u8]) {
    let Some((prefix, rest)) = bytes.split_first_chunk::<PREFIX_BYTES>() else {
        return;
    };
    let Ok(read) = Prefix::decode(prefix) else {
        return;
    };
    let Some((head, body)) = rest.split_at_checked(read.head_len) else {
        return;
    };
    let Ok(frame) = Frame::decode(&read, head) else {
        return;
    };
    let again = frame.encode(read.body_len).expect("it came in");
    let reserved = prefix[6..8] != [0, 0];
    assert!(reserved || again == bytes[..PREFIX_BYTES + read.head_len]);
    let body = Bytes::copy_from_slice(body);
    match frame {
        Frame::Append(append) => drop(RunBody::checked(append.count, append.crc, body)),
        Frame::Push(push) => drop(push.run(body)),
        Frame::Ack(ack) => drop(ack.status()),
        Frame::End(end) => drop(end.reason()),
        Frame::Frontiers(_) => {
            for frontier in body.chunks(Frontier::SIZE) {
                let _ = Frontier::read(frontier);
            }
        }
        Frame::Sealed(_) => {
            for stripe in body.chunks(SealedStripe::SIZE) {
                let _ = SealedStripe::read(stripe);
            }
        }
        _ => {}
    }
}

#[test]
fn frames_of_every_kind() {
    let sound: Vec<Vec<u8>> = frames()
        .iter()
        .map(|(_, frame, body)| [&frame.encode(body.len()).expect("valid"), &body[..]].concat())
        .collect();
    check!()
        .with_iterations(ITERATIONS)
        .for_each(|input: &[u8]| {
            for sound in &sound {
                let (mut bytes, repair) = mutant(input, sound);
                let prefix = bytes.first_chunk::<PREFIX_BYTES>().map(Prefix::decode);
                if let (true, Some(Ok(prefix))) = (repair, prefix) {
                    let head = bytes.get(PREFIX_BYTES..PREFIX_BYTES + prefix.head_len);
                    let crc = head.map_or(0, |head| crc32c(&[&bytes[..12], head]));
                    put_crc(&mut bytes, 12, crc);
                }
                check_frame(&bytes);
            }
        });
}

/// Makes both checksums of an object's front right again.
fn repair_object(bytes: &mut [u8]) {
    let end = HEADER_BYTES + u32_at(bytes, 12).saturating_mul(INDEX_ENTRY_BYTES);
    if let Some(index) = bytes.get(HEADER_BYTES..end) {
        let crc = crc32c(&[index]);
        put_crc(bytes, 112, crc);
    }
    if let Some(header) = bytes.get(..HEADER_BYTES - 4) {
        let crc = crc32c(&[header]);
        put_crc(bytes, HEADER_BYTES - 4, crc);
    }
}

#[test]
fn objects_and_indices() {
    let sound = joined(&object());
    check!()
        .with_iterations(ITERATIONS)
        .for_each(|input: &[u8]| {
            let (mut bytes, repair) = mutant(input, &sound);
            if repair {
                repair_object(&mut bytes);
            }
            if let Ok(index) = Index::decode(&bytes) {
                let ends: Vec<_> = index.runs.iter().map(wire::object::IndexRun::end).collect();
                assert!(ends.is_sorted() && ends.last() == Some(&index.header.end));
                let _ = index.run_at(index.header.start);
            }
            let bytes = Bytes::from(bytes);
            if let Ok((index, runs)) = Object::decode(&bytes) {
                let header = index.header;
                let again = Object::build(header.chain, header.author, &runs).expect("it came in");
                let (again, (sound, bytes)) = (joined(&again), canonical(&index, &bytes));
                assert!(!sound || again == bytes);
                assert_eq!(again.len(), bytes.len());
            }
        });
}

/// Whether an object's front has zeros in all that readers ignore: reserved fields, and what an entry of
/// junk has beside its slots.
fn canonical<'a>(index: &Index, bytes: &'a [u8]) -> (bool, &'a [u8]) {
    let zero = |from: usize, len: usize| bytes[from..from + len].iter().all(|byte| *byte == 0);
    let entry = |at: usize| {
        let from = HEADER_BYTES + at * INDEX_ENTRY_BYTES;
        let junk = index.runs[at].records.is_none();
        zero(from + 52, 4) && (!junk || zero(from + 16, 32))
    };
    let all = zero(116, 40) && (0..index.runs.len()).all(entry);
    (all, bytes)
}

/// Makes both checksums of a snapshot right again, and on demand the number of its slots.
fn repair_snapshot(bytes: &mut [u8], count: bool) {
    let Some((head, starts)) = bytes.split_at_mut_checked(SNAPSHOT_HEAD_BYTES) else {
        return;
    };
    if count {
        let objects = u32::try_from(starts.len() / 8).expect("short");
        head[12..16].copy_from_slice(&objects.to_le_bytes());
    }
    put_crc(head, SNAPSHOT_HEAD_BYTES - 8, crc32c(&[starts]));
    let crc = crc32c(&[&head[..SNAPSHOT_HEAD_BYTES - 4]]);
    put_crc(head, SNAPSHOT_HEAD_BYTES - 4, crc);
}

/// What is accepted is what would be written, byte for byte, and what its methods say fits the objects.
#[test]
fn snapshots_of_chains() {
    let sound = Snapshot {
        chain: chain(),
        starts: Vec::from([3, 4, 90, 1 << 33].map(Slot)),
        end: Slot(1 << 34),
        owner: OwnerNumber(5),
    };
    let sound = sound.encode().expect("valid");
    let accepted = AtomicU32::new(0);
    check!()
        .with_iterations(ITERATIONS)
        .for_each(|input: &[u8]| {
            let (mut bytes, repair) = mutant(input, &sound);
            if repair {
                repair_snapshot(&mut bytes, input.last().is_some_and(|last| last & 1 == 1));
            }
            let Ok(snapshot) = Snapshot::decode(&bytes) else {
                return;
            };
            accepted.fetch_add(u32::from(bytes != sound), Ordering::Relaxed);
            assert_eq!(snapshot.encode().as_ref(), Ok(&bytes));
            let objects: Vec<_> = snapshot
                .starts
                .iter()
                .map(|start| snapshot.object_at(*start).expect("an object starts there"))
                .collect();
            assert!(objects.iter().all(|object| object.start < object.end));
            assert!(objects.is_sorted_by(|one, next| one.end == next.start));
            assert_eq!(snapshot.last().as_ref(), objects.last());
            assert_eq!(snapshot.object_at(snapshot.end), None);
            let _ = snapshot.name();
        });
    assert!(
        accepted.into_inner() > 0,
        "no change was ever accepted: nothing was tried"
    );
}

#[test]
fn control_entries_and_heads() {
    let sound = [
        control_entry().encode().expect("valid"),
        HEAD.encode().expect("valid"),
    ];
    check!()
        .with_iterations(ITERATIONS)
        .for_each(|input: &[u8]| {
            for sound in &sound {
                let (mut bytes, repair) = mutant(input, sound);
                let [len, crc, end] = ENVELOPE;
                if let (true, Some(body)) = (repair, bytes.get(end..)) {
                    let (body_len, body_crc) = (u32::try_from(body.len()), crc32c(&[body]));
                    put_crc(&mut bytes, len, body_len.expect("short"));
                    put_crc(&mut bytes, crc, body_crc);
                }
                if let Ok(entry) = ControlEntry::decode(&bytes) {
                    let again = entry.encode().expect("it came in");
                    assert_eq!(ControlEntry::decode(&again), Ok(entry.clone()));
                    assert!(entry.last_segment().is_ok());
                    for segment in &entry.segments {
                        let _ = (
                            entry.segment_end(segment),
                            segment.first_slot(StripeId(u16::MAX)),
                        );
                    }
                    let _ = entry.segment_of(Position(u64::MAX));
                }
                if let Ok(head) = LogHead::decode(&bytes) {
                    let again = head.encode().expect("it came in");
                    let reserved = bytes[20..24] != [0; 4];
                    assert!(reserved || again == bytes);
                }
            }
        });
}

#[test]
fn names() {
    let sound = [
        name::control(LOG, 12),
        name::object(LOG, SegmentId(1), StripeId(2), Position(0xabc)),
    ];
    check!()
        .with_iterations(ITERATIONS)
        .for_each(|input: &[u8]| {
            for sound in &sound {
                let (bytes, _) = mutant(input, sound.as_bytes());
                let text = String::from_utf8_lossy(&bytes);
                if let Ok(number) = name::parse_control(&text) {
                    assert!(text.ends_with(&name::control(LOG, number)[LOG.to_string().len()..]));
                }
                if let Ok(position) = name::parse_object(&text) {
                    let own = name::object(LOG, SegmentId(1), StripeId(2), position);
                    assert_eq!(text.rsplit('/').next(), own.rsplit('/').next());
                }
                let _ = text.parse::<wire::LogId>();
            }
        });
}

#[test]
fn bodies_of_runs() {
    let runs = runs();
    let (_, sound) = runs[0].content.as_ref().expect("records");
    check!()
        .with_iterations(ITERATIONS)
        .for_each(|input: &[u8]| {
            let (bytes, repair) = mutant(input, sound.bytes());
            let count = input.last().map_or(0, |last| u32::from(last % 8));
            let count = if repair { sound.count() } else { count };
            let crc = if repair {
                crc32c(&[&bytes])
            } else {
                sound.crc()
            };
            if let Ok(body) = RunBody::checked(count, crc, bytes.into()) {
                let records: Vec<Bytes> = body.records().collect();
                assert_eq!(RunBody::new(&records).as_ref(), Ok(&body));
                let (from, count) = (crc as usize % 9, usize::from(input[0] % 9));
                if let Ok(part) = body.part(from, count) {
                    let part: Vec<Bytes> = part.records().collect();
                    assert_eq!(part, records[from..from + count]);
                }
            }
        });
}
