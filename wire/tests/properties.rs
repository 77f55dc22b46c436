//! Properties of all formats: what is written is read again, what is changed on its way is found.
//!
//! Longer with `PROPTEST_CASES=100000 cargo test -p wire --test properties`.

#[allow(dead_code, reason = "each test binary uses its own part of the values")]
mod common;

use bytes::Bytes;
use common::any::{
    any_author, any_chain, any_control_entry, any_frame, any_grant, any_log, any_runs,
};
use common::{AUTHOR, HEAD, LOG, chain, frames, joined, object, runs};
use proptest::prelude::*;
use wire::control::{ControlEntry, LogHead};
use wire::datagram::{
    Datagram, ENTRY_BYTES, Grant, HEADER_BYTES, Header, Kind, MAX_DATAGRAM_BYTES, Reply, Report,
    Status, write,
};
use wire::frame::{Frame, PREFIX_BYTES, Prefix};
use wire::limits::MAX_POSITION;
use wire::object::{INDEX_ENTRY_BYTES, Index, Object};
use wire::{
    ClientId, Epoch, Fixed, Lane, Position, RequestId, Run, SegmentId, Slot, StripeId, WireError,
    crc32c,
};

/// Reads a frame from bytes as a connection would: so much as the prefix says, if it is there.
fn read_frame(bytes: &[u8]) -> Result<Frame, WireError> {
    let short = WireError::Short {
        got: bytes.len(),
        need: PREFIX_BYTES,
    };
    let (prefix, rest) = bytes.split_first_chunk::<PREFIX_BYTES>().ok_or(short)?;
    let prefix = Prefix::decode(prefix)?;
    Frame::decode(&prefix, rest.get(..prefix.head_len).ok_or(short)?)
}

fn check_datagram<T>(header: Header, entries: &[T]) -> Result<(), TestCaseError>
where
    T: Fixed + PartialEq + std::fmt::Debug,
{
    let mut out = [0xaa; MAX_DATAGRAM_BYTES + 1];
    let len = write(header, entries, &mut out).expect("room");
    prop_assert_eq!(len, HEADER_BYTES + entries.len() * ENTRY_BYTES);
    prop_assert!(len <= MAX_DATAGRAM_BYTES);
    let read = Datagram::parse(&out[..len], header.log).expect("valid");
    prop_assert_eq!(read.header.count(), entries.len());
    let again: Result<Vec<T>, _> = read.entries().collect();
    prop_assert_eq!(again.expect("valid"), entries);
    // S-9: not one byte more or less, and not another log's.
    let refused = [
        Datagram::parse(&out[..len - 1], header.log),
        Datagram::parse(&out[..=len], header.log),
        Datagram::parse(&out[..len], wire::LogId(header.log.0.map(|byte| !byte))),
    ];
    prop_assert!(refused.iter().all(Result::is_err));
    // S-9: a reply is as long as its request.
    prop_assert_eq!(header.reply(Epoch(1)).datagram_len(), header.datagram_len());
    Ok(())
}

proptest! {
    #[test]
    fn s9_datagrams_of_grants(log in any_log(), client in any::<u64>(), grants in prop::collection::vec(any_grant(), 1..=29), at in any::<bool>()) {
        let kind = if at { Kind::GrantAt } else { Kind::Grant };
        check_datagram(Header::request(kind, log, ClientId(client), grants.len()), &grants)?;
        prop_assert!(grants.iter().all(|grant| grant.check().is_ok()));
    }

    #[test]
    fn s9_datagrams_of_reports(log in any_log(), reports in prop::collection::vec(any::<(u64, u32, u64)>(), 1..=29), stripe in 0_u16..1024) {
        let report = |(request, segment, frontier): (u64, u32, u64)| {
            Report::new(RequestId(request), SegmentId(segment), StripeId(stripe), Position(frontier))
        };
        let reports: Vec<Report> = reports.into_iter().map(report).collect();
        check_datagram(Header::request(Kind::Report, log, ClientId(1), reports.len()), &reports)?;
        prop_assert!(reports.iter().all(|report| report.stripe() == Ok(StripeId(stripe))));
    }

    #[test]
    fn s9_datagrams_of_replies(log in any_log(), replies in prop::collection::vec(any::<(u64, u32, u64, u32, Option<u64>)>(), 1..=29), status in prop::sample::select(Status::ALL.to_vec())) {
        let tails: Vec<_> = replies.iter().map(|reply| reply.4.map(Position)).collect();
        let reply = |(request, lane, first, count, durable): (u64, u32, u64, u32, Option<u64>)| {
            Reply::new(RequestId(request), Lane(lane), status, Position(first), count)
                .with_durable(durable.map(Position))
        };
        let replies: Vec<Reply> = replies.into_iter().map(reply).collect();
        let header = Header::request(Kind::Tail, log, ClientId(1), replies.len()).reply(Epoch(3));
        prop_assert!(header.is_reply() && header.kind() == Ok(Kind::Tail));
        check_datagram(header, &replies)?;
        prop_assert!(replies.iter().all(|reply| reply.status() == Ok(status)));
        prop_assert_eq!(replies.iter().map(Reply::durable).collect::<Vec<_>>(), tails);
    }

    #[test]
    fn a_flipped_bit_or_another_length_of_a_signed_datagram_is_found(key in any::<[u8; 32]>(), log in any_log(), grants in prop::collection::vec(any_grant(), 1..=29), at in any::<prop::sample::Index>(), bit in 0_u8..8) {
        let key = wire::mac::Key::new(&key);
        let mut out = [0; MAX_DATAGRAM_BYTES];
        let len = write(Header::request(Kind::Grant, log, ClientId(1), 0), &grants, &mut out).expect("room");
        let datagram = &mut out[..len];
        key.sign(datagram);
        prop_assert!(key.verify(datagram));
        prop_assert!(!key.verify(&datagram[..len - 1]));
        prop_assert!(!key.verify(&[&*datagram, &[0]].concat()), "a zero more");
        let at = at.index(len);
        datagram[at] ^= 1 << bit;
        prop_assert!(!key.verify(datagram), "byte {}", at);
    }

    #[test]
    fn every_frame_comes_back((frame, body) in any_frame()) {
        let bytes = frame.encode(body.len()).expect("valid");
        prop_assert_eq!(read_frame(&bytes), Ok(frame));
        let prefix = bytes.first_chunk().expect("long enough");
        prop_assert_eq!(Prefix::decode(prefix).expect("valid").body_len, body.len());
        if let Frame::Push(push) = frame {
            let run = push.run(body).expect("valid");
            prop_assert_eq!(Frame::Push(wire::frame::Push::of(push.id, push.place.segment, push.place.stripe, &run)), frame);
        }
    }

    #[test]
    fn r4_a_flipped_bit_of_a_frame_is_found((frame, body) in any_frame(), at in any::<prop::sample::Index>(), bit in 0_u8..8) {
        let mut bytes = frame.encode(body.len()).expect("valid").to_vec();
        let at = at.index(bytes.len());
        bytes[at] ^= 1 << bit;
        prop_assert!(read_frame(&bytes).is_err());
    }

    #[test]
    fn control_entries_and_heads_come_back(entry in any_control_entry(), created_unix_ms in any::<u64>()) {
        let bytes = entry.encode().expect("valid");
        prop_assert_eq!(ControlEntry::decode(&bytes), Ok(entry.clone()));
        let head = LogHead { log: entry.log, created_unix_ms };
        prop_assert_eq!(LogHead::decode(&head.encode().expect("valid")), Ok(head));
    }

    #[test]
    fn s4_a_changed_or_cut_control_entry_is_an_error(entry in any_control_entry(), at in any::<prop::sample::Index>(), change in 1_u8..) {
        let mut bytes = entry.encode().expect("valid").to_vec();
        let at = at.index(bytes.len());
        prop_assert!(ControlEntry::decode(&bytes[..at]).is_err());
        bytes[at] ^= change;
        // Only the reserved bytes of the envelope are nobody's.
        prop_assert_eq!(ControlEntry::decode(&bytes).is_ok(), (20..24).contains(&at));
    }

    #[test]
    fn objects_come_back(chain in any_chain(), author in any_author(), runs in any_runs()) {
        let object = Object::build(chain, author, &runs).expect("valid");
        let bytes = Bytes::from(joined(&object));
        prop_assert_eq!(object.len(), bytes.len());
        let (index, again) = Object::decode(&bytes).expect("valid");
        prop_assert_eq!(&index, &object.index);
        prop_assert_eq!((index.header.chain, index.header.author), (chain, author));
        prop_assert_eq!((Some(index.header.start), Some(index.header.end)), (runs.first().map(|r| r.first), runs.last().map(Run::end)));
        prop_assert_eq!(&again, &runs);
        // The start of an object up to the end of its index is enough for the index, and less is not.
        let end = index.header.index_end();
        prop_assert_eq!(Index::decode(&bytes[..end]), Ok(index.clone()));
        let short = matches!(Index::decode(&bytes[..end - 1]), Err(WireError::Short { .. }));
        prop_assert!(short);
        for run in &again {
            let found = index.run_at(run.first).expect("covered");
            prop_assert_eq!((found.first, found.count), (run.first, run.count));
            prop_assert_eq!(index.run_at(Slot(run.end().0 - 1)), Some(found));
        }
        prop_assert_eq!(index.run_at(index.header.end), None);
    }

    #[test]
    fn r4_a_changed_or_cut_object_is_found(chain in any_chain(), runs in any_runs(), at in any::<prop::sample::Index>(), change in 1_u8..) {
        let object = Object::build(chain, AUTHOR, &runs).expect("valid");
        let mut bytes = joined(&object);
        let at = at.index(bytes.len());
        prop_assert!(Object::decode(&Bytes::copy_from_slice(&bytes[..at])).is_err());
        bytes[at] ^= change;
        prop_assert!(Object::decode(&bytes.into()).is_err());
    }

    #[test]
    fn objects_have_neither_gaps_nor_overlaps(runs in any_runs(), at in any::<prop::sample::Index>(), by in 1_u64..100, overlap in any::<bool>()) {
        prop_assume!(runs.len() > 1);
        let mut runs = runs;
        let at = 1 + at.index(runs.len() - 1);
        let first = &mut runs[at].first.0;
        *first = if overlap { first.saturating_sub(by) } else { *first + by };
        let built = Object::build(chain(), AUTHOR, &runs);
        let refused = matches!(built, Err(WireError::Malformed { .. }));
        prop_assert!(refused);
    }
}

/// Every bit of header, index, payload and footer.
#[test]
fn every_flipped_bit_of_a_signed_datagram_is_found() {
    let key = wire::mac::Key::new(&[3; 32]);
    let grants = [Grant::new(Lane(1), RequestId(2), 3); 3];
    let mut out = [0; MAX_DATAGRAM_BYTES];
    let header = Header::request(Kind::Grant, LOG, ClientId(1), 0);
    let len = write(header, &grants, &mut out).expect("room");
    let datagram = &mut out[..len];
    key.sign(datagram);
    for bit in 0..len * 8 {
        datagram[bit / 8] ^= 1 << (bit % 8);
        assert!(!key.verify(datagram), "bit {bit}");
        datagram[bit / 8] ^= 1 << (bit % 8);
    }
    assert!(key.verify(datagram));
}

#[test]
fn r4_every_flipped_bit_of_an_object_is_found() {
    let sound = joined(&object());
    for at in 0..sound.len() {
        for bit in 0..8 {
            let mut bytes = sound.clone();
            bytes[at] ^= 1 << bit;
            assert!(
                Object::decode(&bytes.into()).is_err(),
                "byte {at} bit {bit}"
            );
        }
    }
}

#[test]
fn r4_every_flipped_bit_of_every_kind_of_frame_is_found() {
    for (kind, frame, body) in frames() {
        let sound = frame.encode(body.len()).expect("valid");
        for at in 0..sound.len() {
            for bit in 0..8 {
                let mut bytes = sound.to_vec();
                bytes[at] ^= 1 << bit;
                assert!(read_frame(&bytes).is_err(), "{kind}: byte {at} bit {bit}");
            }
        }
    }
}

/// An index whose checksums are right and whose runs are not: the checks behind the checksums.
#[test]
fn an_index_with_sound_checksums_and_a_gap_is_refused() {
    const OFFSET: usize = 32;
    const COUNT: usize = 8;
    let sound = joined(&object());
    let entry = |run: usize, field: usize| 160 + run * INDEX_ENTRY_BYTES + field;
    for (what, at) in [
        ("first slot of the first run", entry(0, 0)),
        ("first slot of a run", entry(1, 0)),
        ("count of a run", entry(0, COUNT)),
        ("count of the last run", entry(2, COUNT)),
        ("offset of a body", entry(2, OFFSET)),
        ("start in the header", 80),
        ("end in the header", 88),
        ("first position in the header", 96),
        ("object length in the header", 104),
    ] {
        for change in [1, 0x80] {
            let mut bytes = sound.clone();
            bytes[at] ^= change;
            repair(&mut bytes);
            let refused = Index::decode(&bytes);
            assert!(
                matches!(refused, Err(WireError::Malformed { .. })),
                "{what}: {refused:?}"
            );
        }
    }
    let mut untouched = sound;
    repair(&mut untouched);
    assert!(Index::decode(&untouched).is_ok());
}

/// Makes both checksums of an object's front right again.
fn repair(bytes: &mut [u8]) {
    let index = crc32c(&[&bytes[160..160 + 3 * INDEX_ENTRY_BYTES]]);
    bytes[112..116].copy_from_slice(&index.to_le_bytes());
    let header = crc32c(&[&bytes[..156]]);
    bytes[156..160].copy_from_slice(&header.to_le_bytes());
}

/// Slots behind the last position would all have the same name.
#[test]
fn c2_an_object_behind_the_last_position_is_refused() {
    let last = chain()
        .layout
        .slot_at_or_after(chain().stripe, Position(MAX_POSITION));
    let build = |first| Object::build(chain(), AUTHOR, &[Run::junk(first, 1)]);
    assert!(build(Slot(last.0 - 1)).is_ok());
    let refused = build(last).map(|object| object.index.header);
    assert!(
        matches!(refused, Err(WireError::Bound { .. })),
        "{refused:?}"
    );
}

#[test]
fn a_log_head_with_more_behind_it_is_refused() {
    let mut bytes = HEAD.encode().expect("valid").to_vec();
    bytes.push(0);
    let len = u32::try_from(bytes.len() - 24).expect("short");
    bytes[12..16].copy_from_slice(&len.to_le_bytes());
    let crc = crc32c(&[&bytes[24..]]);
    bytes[16..20].copy_from_slice(&crc.to_le_bytes());
    let refused = LogHead::decode(&bytes);
    assert!(
        matches!(refused, Err(WireError::Length { .. })),
        "{refused:?}"
    );
}

#[test]
fn an_object_without_runs_or_with_an_empty_one_is_refused() {
    assert!(Object::build(chain(), AUTHOR, &[]).is_err());
    let mut runs = runs();
    runs.push(Run::junk(runs[2].end(), 0));
    assert!(Object::build(chain(), AUTHOR, &runs).is_err());
}

#[test]
fn s9_datagrams_without_entries_or_with_too_many_are_refused() {
    let mut out = [0; 2 * MAX_DATAGRAM_BYTES];
    let header = Header::request(Kind::Grant, LOG, ClientId(1), 1);
    let grant = Grant::new(Lane(0), RequestId(0), 1);
    assert!(write::<Grant>(header, &[], &mut out).is_err());
    assert!(write(header, &[grant; 30], &mut out).is_err());
    for count in [0, 30] {
        let header = Header::request(Kind::Grant, LOG, ClientId(1), count);
        header.write(&mut out).expect("room");
        let refused = Datagram::parse(&out[..header.datagram_len()], LOG);
        assert!(matches!(refused, Err(WireError::Bound { .. })), "{count}");
    }
    for count in [0, (1 << 20) + 1] {
        assert!(
            Grant::new(Lane(0), RequestId(0), count).check().is_err(),
            "{count}"
        );
    }
}
