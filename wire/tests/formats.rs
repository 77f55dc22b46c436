//! The tables of `docs/formats.md` against the code: offsets that follow one another, and the right sizes.

use std::collections::BTreeMap;

use wire::control::LogHead;
use wire::datagram::{Grant, Header, MAX_DATAGRAM_BYTES, MAX_ENTRIES, Reply, Report, Restripe};
use wire::frame::{
    Ack, Append, Ask, End, Frontier, Frontiers, Hello, PREFIX_BYTES, Place, Push, Refusal, Seal,
    SealedStripe, Unsubscribe, Welcome,
};
use wire::limits::{
    MAX_CONTROL_BYTES, MAX_GRANT, MAX_OBJECT_BYTES, MAX_OBJECT_RUNS, MAX_RECORD_BYTES,
    MAX_RUN_BYTES, MAX_RUN_RECORDS, MAX_SEGMENTS, MAX_SNAPSHOT_OBJECTS, MAX_STRIPES, MAX_UNIT,
    OBJECT_TARGET_BYTES,
};
use wire::object::{FOOTER_BYTES, HEADER_BYTES, INDEX_ENTRY_BYTES};
use wire::snapshot::SNAPSHOT_HEAD_BYTES;
use wire::{Fixed, Segment};

/// All tables that describe bytes: title, promised size, and offset and size of each field.
fn tables() -> BTreeMap<String, (usize, Vec<(usize, usize)>)> {
    let page = concat!(env!("CARGO_MANIFEST_DIR"), "/../docs/formats.md");
    let page = std::fs::read_to_string(page).expect("the page is there");
    let mut tables = BTreeMap::new();
    for part in page.split("\n### ").skip(1) {
        let (title, rest) = part.split_once(": ").expect("a title with a size");
        let size = rest.split_once(" bytes\n").expect("a size").0;
        let table = rest.split("| offset | bytes |").nth(1).expect("a table");
        let number = |cell: &str| cell.trim().parse().expect("a number");
        let rows = table.lines().skip(2).map_while(|row| {
            let mut cells = row.strip_prefix("| ")?.split('|');
            Some((number(cells.next()?), number(cells.next()?)))
        });
        tables.insert(title.to_owned(), (number(size), rows.collect()));
    }
    tables
}

#[test]
fn fields_follow_one_another_and_add_up() {
    for (title, (size, fields)) in tables() {
        let mut end = 0;
        for (offset, bytes) in fields {
            assert_eq!(offset, end, "{title}");
            end += bytes;
        }
        assert_eq!(end, size, "{title}");
    }
}

#[test]
fn sizes_are_those_of_the_code() {
    /// Sizes of structures that are not public; the golden bytes show them.
    const ENVELOPE: usize = 24;
    const CONTROL_STATE: usize = 81;
    let sizes = [
        ("Datagram header", Header::SIZE),
        ("Grant entry", Grant::SIZE),
        ("Report entry", Report::SIZE),
        ("Restripe entry", Restripe::SIZE),
        ("Reply entry", Reply::SIZE),
        ("Frame prefix", PREFIX_BYTES),
        ("Hello", Hello::SIZE),
        ("Welcome", Welcome::SIZE),
        ("Refusal", Refusal::SIZE),
        ("Place", Place::SIZE),
        ("Append", Append::SIZE),
        ("Ack", Ack::SIZE),
        ("Ask", Ask::SIZE),
        ("Unsubscribe", Unsubscribe::SIZE),
        ("Push", Push::SIZE),
        ("End", End::SIZE),
        ("Seal", Seal::SIZE),
        ("Sealed stripe", SealedStripe::SIZE),
        ("Frontiers", Frontiers::SIZE),
        ("Frontier", Frontier::SIZE),
        ("Object header", HEADER_BYTES),
        ("Index entry", INDEX_ENTRY_BYTES),
        ("Object footer", FOOTER_BYTES),
        ("Snapshot head", SNAPSHOT_HEAD_BYTES),
        ("Envelope", ENVELOPE),
        ("Log head", LogHead::SIZE),
        ("Segment", Segment::SIZE),
        ("Control state", CONTROL_STATE),
    ];
    let promised: BTreeMap<String, usize> = tables()
        .into_iter()
        .map(|(title, (size, _))| (title, size))
        .collect();
    let real: BTreeMap<String, usize> = sizes
        .iter()
        .map(|(title, size)| ((*title).to_owned(), *size))
        .collect();
    assert_eq!(promised, real);
}

#[test]
fn limits_are_those_of_the_code() {
    let page = concat!(env!("CARGO_MANIFEST_DIR"), "/../docs/formats.md");
    let page = std::fs::read_to_string(page).expect("the page is there");
    let thousands = |number: usize| {
        let digits = number.to_string();
        let groups: Vec<&[u8]> = digits.as_bytes().rchunks(3).rev().collect();
        String::from_utf8(groups.join(&b',')).expect("digits")
    };
    let mebi = |bytes: usize| format!("{} MiB", bytes >> 20);
    let object = format!(
        "{} at which it closes; {} at most",
        mebi(OBJECT_TARGET_BYTES),
        mebi(MAX_OBJECT_BYTES)
    );
    let limits = [
        ("record", mebi(MAX_RECORD_BYTES)),
        ("records of a run", thousands(MAX_RUN_RECORDS)),
        ("body of a run", mebi(MAX_RUN_BYTES)),
        ("runs of an object", thousands(MAX_OBJECT_RUNS)),
        ("object", object),
        ("positions of a grant", thousands(MAX_GRANT as usize)),
        ("stripes of a layout", thousands(MAX_STRIPES as usize)),
        (
            "unit of a layout",
            format!("{} positions", thousands(MAX_UNIT as usize)),
        ),
        ("objects of a snapshot", thousands(MAX_SNAPSHOT_OBJECTS)),
        ("segments of a log", thousands(MAX_SEGMENTS)),
        ("control entry", format!("{} KiB", MAX_CONTROL_BYTES >> 10)),
        ("entries of a datagram", thousands(MAX_ENTRIES)),
        (
            "datagram",
            format!("{} bytes", thousands(MAX_DATAGRAM_BYTES)),
        ),
    ];
    for (what, bound) in limits {
        let row = format!("\n| {what} | {bound} |\n");
        assert!(page.contains(&row), "no row {row}");
    }
}
