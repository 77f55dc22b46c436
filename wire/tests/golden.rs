//! Golden bytes: what was written once is written, and read, in the same way for ever.
//!
//! The bytes of each format stand in `tests/golden/`, as text. A test that fails here means that a format
//! has changed: that takes a new version number and a decision record. New files are written, and changed
//! ones overwritten, by `BLESS=1 cargo test -p wire --test golden`.

#[allow(dead_code, reason = "each test binary uses its own part of the values")]
mod common;

use std::fmt::Write;
use std::path::PathBuf;

use bytes::Bytes;
use common::{
    AUTHOR, CLIENT, HEAD, LOG, PLACE, SEALED, chain, control_entry, frames, joined, object, runs,
};
use wire::control::{ControlEntry, LogHead};
use wire::datagram::{
    Datagram, Grant, Header, Kind, MAX_DATAGRAM_BYTES, Reply, Report, Restripe, Status, write,
};
use wire::frame::{Frame, Frontier, PREFIX_BYTES, Prefix, SealedStripe};
use wire::object::Object;
use wire::snapshot::Snapshot;
use wire::{
    Epoch, Fixed, Lane, Layout, OwnerNumber, Position, RequestId, SegmentId, Slot, StripeId, name,
};

/// The golden bytes of `name`, after a comparison with what is written now.
fn golden(name: &str, bytes: &[u8]) -> Vec<u8> {
    let text = golden_text(&format!("{name}.hex"), &hex(bytes));
    let digits: Vec<u8> = text.bytes().filter(u8::is_ascii_hexdigit).collect();
    let byte = |pair: &[u8]| {
        let pair = std::str::from_utf8(pair).expect("digits");
        u8::from_str_radix(pair, 16).expect("digits")
    };
    digits.chunks(2).map(byte).collect()
}

fn golden_text(file: &str, now: &str) -> String {
    let folder = PathBuf::from(concat!(env!("CARGO_MANIFEST_DIR"), "/tests/golden"));
    let path = folder.join(file);
    if std::env::var_os("BLESS").is_some() {
        std::fs::write(&path, now).expect("written");
    }
    let golden = std::fs::read_to_string(&path).expect(file);
    assert!(
        golden == now,
        "{file} has changed; golden:\n{golden}now:\n{now}"
    );
    golden
}

fn hex(bytes: &[u8]) -> String {
    let mut text = String::new();
    for line in bytes.chunks(16) {
        let line: Vec<String> = line.iter().map(|byte| format!("{byte:02x}")).collect();
        writeln!(text, "{}", line.join(" ")).expect("a string takes everything");
    }
    text
}

fn datagram<T: Fixed + PartialEq + std::fmt::Debug>(name: &str, header: Header, entries: &[T]) {
    let mut out = [0; MAX_DATAGRAM_BYTES];
    let len = write(header, entries, &mut out).expect("valid");
    let bytes = golden(name, &out[..len]);
    let read = Datagram::parse(&bytes, LOG).expect("valid");
    assert_eq!(
        (read.header, read.kind),
        (header, header.kind().expect("valid"))
    );
    let again: Result<Vec<T>, _> = read.entries().collect();
    assert_eq!(again.expect("valid"), entries);
}

fn request(kind: Kind, count: usize) -> Header {
    let mut header = Header::request(kind, LOG, CLIENT, count);
    header.epoch = Epoch(7);
    header.tag = 0x7a67_0001;
    header
}

#[test]
fn datagrams() {
    let (lane, id) = (Lane(5), RequestId(0x0102_0304_0506_0708));
    let grants = [
        Grant::new(lane, id, 1),
        Grant::new(Lane(6), RequestId(1), 1 << 20),
    ];
    datagram("datagram_grant", request(Kind::Grant, 2), &grants);
    let at = [Grant::at(lane, id, 3, Position(0x1122_3344))];
    datagram("datagram_grant_at", request(Kind::GrantAt, 1), &at);
    datagram(
        "datagram_tail",
        request(Kind::Tail, 1),
        &[Grant::new(lane, id, 0)],
    );
    let report = [Report::new(
        id,
        SegmentId(3),
        StripeId(31),
        Position(0x5566),
    )];
    let layout = Layout::new(64, 16).expect("valid");
    let restripe = [Restripe::new(Lane(65), RequestId(7), layout, SegmentId(3))];
    datagram("datagram_restripe", request(Kind::Restripe, 1), &restripe);
    assert_eq!(restripe[0].as_grant().to_vec(), restripe[0].to_vec());
    datagram("datagram_report", request(Kind::Report, 1), &report);
    let replies = Status::ALL.map(|status| {
        Reply::new(id, lane, status, Position(0x99), 4).with_durable(Some(Position(0x88)))
    });
    let mut header = request(Kind::Grant, replies.len()).reply(Epoch(8));
    header.mac = *b"mac: 16 bytes...";
    datagram("datagram_reply", header, &replies);
}

/// A reply with its `mac`. The key is the bytes from 0 on.
#[test]
fn signed_datagram() {
    let key = wire::mac::Key::new(&std::array::from_fn(|at| u8::try_from(at).expect("small")));
    let id = RequestId(0x0102_0304_0506_0708);
    let replies = [Reply::new(id, Lane(5), Status::Ok, Position(0x99), 4); 3];
    let header = request(Kind::Grant, replies.len()).reply(Epoch(8));
    let mut out = [0; MAX_DATAGRAM_BYTES];
    let len = write(header, &replies, &mut out).expect("valid");
    key.sign(&mut out[..len]);
    let bytes = golden("datagram_signed", &out[..len]);
    assert!(key.verify(&bytes));
}

#[test]
fn every_kind_of_frame() {
    for (kind, frame, body) in frames() {
        let mut bytes = frame.encode(body.len()).expect("valid").to_vec();
        bytes.extend(&body);
        let bytes = golden(&format!("frame_{kind}"), &bytes);
        let (prefix, rest) = bytes
            .split_first_chunk::<PREFIX_BYTES>()
            .expect("long enough");
        let prefix = Prefix::decode(prefix).expect("valid");
        let (head, read) = rest.split_at(prefix.head_len);
        assert_eq!(Frame::decode(&prefix, head), Ok(frame), "{kind}");
        assert_eq!(read, &body, "{kind}");
        assert_eq!(prefix.body_len, body.len(), "{kind}");
        if let Frame::Sealed(_) = frame {
            let stripes = read.chunks(SealedStripe::SIZE).map(SealedStripe::read);
            assert!(stripes.eq(SEALED.map(Ok)));
        }
        if let Frame::Push(push) = frame {
            let run = push.run(Bytes::copy_from_slice(read)).expect("valid");
            assert_eq!((run.first, run.count), (PLACE.first, 2));
        }
    }
}

#[test]
fn frontier_in_the_body_of_its_frame() {
    let frontier = Frontier {
        place: PLACE,
        owner: OwnerNumber(2),
        held_bytes: 0x0a0b,
    };
    let bytes = golden("frontier", &frontier.to_vec());
    assert_eq!(Frontier::read(&bytes), Ok(frontier));
}

#[test]
fn stripe_object_with_records_and_junk() {
    let bytes = golden("object", &joined(&object()));
    let (index, read) = Object::decode(&bytes.into()).expect("valid");
    assert_eq!(index, object().index);
    assert_eq!((index.header.chain, index.header.author), (chain(), AUTHOR));
    assert_eq!(read, runs());
}

#[test]
fn snapshot_of_a_chain() {
    let snapshot = Snapshot {
        chain: chain(),
        starts: vec![Slot(0x10), Slot(0x2000), Slot(0x2001)],
        end: Slot(0x3000),
        owner: OwnerNumber(5),
    };
    let bytes = golden("snapshot", &snapshot.encode().expect("valid"));
    assert_eq!(Snapshot::decode(&bytes), Ok(snapshot));
}

#[test]
fn s4_control_entry_and_log_head() {
    let bytes = golden("control_entry", &control_entry().encode().expect("valid"));
    assert_eq!(ControlEntry::decode(&bytes), Ok(control_entry()));
    let bytes = golden("log_head", &HEAD.encode().expect("valid"));
    assert_eq!(LogHead::decode(&bytes), Ok(HEAD));
}

#[test]
fn c2_names() {
    let names = [
        name::HEAD.to_owned(),
        name::CHECK_PREFIX.to_owned(),
        name::control_prefix(LOG),
        name::control(LOG, 12),
        name::chain_prefix(LOG, SegmentId(3), StripeId(31)),
        name::object(LOG, SegmentId(3), StripeId(31), Position(0x00ab_cdef)),
        name::snapshots_prefix(LOG, SegmentId(3), StripeId(31)),
        name::snapshot(LOG, SegmentId(3), StripeId(31), Position(0x00ab_cdef)),
    ];
    golden_text("names.txt", &format!("{}\n", names.join("\n")));
}
