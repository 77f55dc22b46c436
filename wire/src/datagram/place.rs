//! Requests that become their replies in place.
//!
//! A request entry and its reply have the same size, and `request`, `lane` and `count` stand at the same
//! offsets in both, so that a sequencer may write its replies over the requests in the buffer that it
//! received, and send that buffer back. Nothing is copied but what changes. The layout is that of the
//! archived structures in [`crate::datagram`], from which every offset here is taken.

use std::mem::offset_of;

use super::{
    ArchivedGrant, ArchivedHeader, ArchivedReply, ENTRY_BYTES, HEADER_BYTES, Kind, MAGIC,
    MAX_ENTRIES, REPLY_BIT, Status, VERSION,
};
use crate::{ClientId, Epoch, Lane, LogId, Position, RequestId, WireError};

/// An entry in the buffer of its datagram.
pub type Entry = [u8; ENTRY_BYTES];

/// What the header of a checked datagram says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Facts {
    /// What the entries are.
    pub kind: Kind,
    /// Whether it is a reply.
    pub reply: bool,
    /// Number of entries.
    pub count: usize,
    /// Who asks.
    pub client: ClientId,
}

/// What a grant entry asks for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Ask {
    /// Number of the request within its lane.
    pub request: RequestId,
    /// Lane of the client.
    pub lane: Lane,
    /// Positions that are wanted.
    pub count: u32,
    /// Where a conditional grant has to start.
    pub expected_tail: Position,
}

/// What is written over a request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Answer {
    /// How the request ended.
    pub status: Status,
    /// First position of the token, or else the issued tail.
    pub first: Position,
    /// Positions granted, 0 unless a token was.
    pub count: u32,
    /// Durable tail, if it is told.
    pub durable: Option<Position>,
}

const MAGIC_AT: usize = offset_of!(ArchivedHeader, magic);
const VERSION_AT: usize = offset_of!(ArchivedHeader, version);
const LOG_AT: usize = offset_of!(ArchivedHeader, log);

const REQUEST: usize = offset_of!(ArchivedReply, request);
const LANE: usize = offset_of!(ArchivedReply, lane);
const COUNT: usize = offset_of!(ArchivedReply, count);
const FIRST: usize = offset_of!(ArchivedReply, first);
const DURABLE: usize = offset_of!(ArchivedReply, durable);
const STATUS: usize = offset_of!(ArchivedReply, status);
const DURABLE_KNOWN: usize = offset_of!(ArchivedReply, durable_known);

const _: () = assert!(offset_of!(ArchivedGrant, request) == REQUEST);
const _: () = assert!(offset_of!(ArchivedGrant, lane) == LANE);
const _: () = assert!(offset_of!(ArchivedGrant, count) == COUNT);
const _: () = assert!(offset_of!(ArchivedGrant, expected_tail) == FIRST);
// What a granted request sets to zero is the end of the entry.
const _: () = assert!(DURABLE < STATUS && STATUS < DURABLE_KNOWN && FIRST < DURABLE);

impl Facts {
    /// Checks the header of a datagram for `log`, and its length. Nothing of its entries has been looked
    /// at afterwards.
    ///
    /// # Errors
    /// The first check that fails, by reason.
    #[inline]
    pub fn check(bytes: &[u8], log: LogId) -> Result<Self, WireError> {
        let Some(header) = bytes.first_chunk::<HEADER_BYTES>() else {
            let (got, need) = (bytes.len(), HEADER_BYTES);
            return Err(WireError::Short { got, need });
        };
        let [code] = take(header, offset_of!(ArchivedHeader, kind));
        let [count] = take(header, offset_of!(ArchivedHeader, count));
        let client = u64::from_le_bytes(take(header, offset_of!(ArchivedHeader, client)));
        let kind = Kind::from_code(code & !REPLY_BIT);
        let count = usize::from(count);
        let sound = take(header, MAGIC_AT) == MAGIC.to_le_bytes()
            && take(header, VERSION_AT) == [VERSION]
            && take(header, LOG_AT) == log.0
            && bytes.len() == HEADER_BYTES + count * ENTRY_BYTES
            && (1..=MAX_ENTRIES).contains(&count);
        match kind {
            Some(kind) if sound => Ok(Self {
                kind,
                reply: code & REPLY_BIT != 0,
                count,
                client: ClientId(client),
            }),
            _ => Err(reason(header, log, bytes.len())),
        }
    }
}

/// Which check a datagram fails that is not sound.
#[cold]
fn reason(header: &[u8; HEADER_BYTES], log: LogId, len: usize) -> WireError {
    let magic = u32::from_le_bytes(take(header, MAGIC_AT));
    let [version] = take(header, VERSION_AT);
    let [code] = take(header, offset_of!(ArchivedHeader, kind));
    let [count] = take(header, offset_of!(ArchivedHeader, count));
    let got = LogId(take(header, LOG_AT));
    if magic != MAGIC {
        let got = u64::from(magic);
        return WireError::Magic { got };
    }
    if version != VERSION {
        let (got, supported) = (u32::from(version), u32::from(VERSION));
        return WireError::Version { got, supported };
    }
    if got != log {
        let expected = log;
        return WireError::Log { got, expected };
    }
    if Kind::from_code(code & !REPLY_BIT).is_none() {
        let got = u32::from(code);
        return WireError::Kind { got };
    }
    let count = usize::from(count);
    if !(1..=MAX_ENTRIES).contains(&count) {
        return WireError::Bound {
            what: "entries",
            got: count as u64,
            limit: MAX_ENTRIES as u64,
        };
    }
    WireError::Length {
        what: "datagram",
        got: len as u64,
        expected: (HEADER_BYTES + count * ENTRY_BYTES) as u64,
    }
}

/// The entries of a checked datagram.
#[must_use]
#[inline]
pub fn entries(datagram: &[u8]) -> &[Entry] {
    datagram.get(HEADER_BYTES..).unwrap_or(&[]).as_chunks().0
}

/// The entries of a checked datagram, to be answered.
#[inline]
pub fn entries_mut(datagram: &mut [u8]) -> &mut [Entry] {
    let entries = datagram.get_mut(HEADER_BYTES..).unwrap_or_default();
    entries.as_chunks_mut().0
}

/// Makes the header of a checked request that of its reply, given in the reign of `epoch`.
#[inline]
pub fn turn(datagram: &mut [u8], epoch: Epoch) {
    if let Some(header) = datagram.first_chunk_mut::<HEADER_BYTES>() {
        header[offset_of!(ArchivedHeader, kind)] |= REPLY_BIT;
        put(
            header,
            offset_of!(ArchivedHeader, epoch),
            epoch.0.to_le_bytes(),
        );
        put(header, offset_of!(ArchivedHeader, mac), [0; 16]);
    }
}

impl Ask {
    /// What is asked for in an entry of a grant or tail request.
    #[must_use]
    #[inline]
    pub fn read(entry: &Entry) -> Self {
        Self {
            request: RequestId(u64::from_le_bytes(take(entry, REQUEST))),
            lane: Lane(u32::from_le_bytes(take(entry, LANE))),
            count: u32::from_le_bytes(take(entry, COUNT)),
            expected_tail: Position(u64::from_le_bytes(take(entry, FIRST))),
        }
    }
}

impl Answer {
    /// A token that was granted.
    #[must_use]
    #[inline]
    pub fn token(first: Position, count: u32) -> Self {
        Self {
            status: Status::Ok,
            first,
            count,
            durable: None,
        }
    }

    /// A refusal that tells no tail.
    #[must_use]
    pub fn refusal(status: Status) -> Self {
        Self {
            status,
            first: Position(0),
            count: 0,
            durable: None,
        }
    }

    /// Writes the answer over the request; its number and lane stay.
    #[inline]
    pub fn write(&self, entry: &mut Entry) {
        let known = u32::from(self.durable.is_some());
        let durable = self.durable.unwrap_or_default();
        put(entry, COUNT, self.count.to_le_bytes());
        put(entry, FIRST, self.first.0.to_le_bytes());
        put(entry, DURABLE, durable.0.to_le_bytes());
        put(entry, STATUS, self.status.code().to_le_bytes());
        put(entry, DURABLE_KNOWN, known.to_le_bytes());
        put(entry, offset_of!(ArchivedReply, reserved), [0; 8]);
    }

    /// Writes over a request that all the positions that it asks for were granted, from `first` on.
    #[inline]
    pub fn grant(entry: &mut Entry, first: Position) {
        put(entry, FIRST, first.0.to_le_bytes());
        put(entry, DURABLE, [0; ENTRY_BYTES - DURABLE]);
    }

    /// The token that an answered entry holds: its first position and how many there are, if there are.
    #[must_use]
    #[inline]
    pub fn granted(entry: &Entry) -> Option<(Position, u32)> {
        let count = u32::from_le_bytes(take(entry, COUNT));
        let first = u64::from_le_bytes(take(entry, FIRST));
        (count > 0).then_some((Position(first), count))
    }

    /// How an answered entry says that its request ended.
    ///
    /// # Errors
    /// [`WireError::Kind`] for a status of a later version.
    pub fn status(entry: &Entry) -> Result<Status, WireError> {
        Status::from_code(u32::from_le_bytes(take(entry, STATUS)))
    }

    /// Moves the token of an answered entry.
    pub fn shift(entry: &mut Entry, by: u64) {
        let first = u64::from_le_bytes(take(entry, FIRST));
        put(entry, FIRST, first.wrapping_add(by).to_le_bytes());
    }
}

/// Clears the lane and count of an entry, which a report uses otherwise.
pub fn clear_lane(entry: &mut Entry) {
    put(entry, LANE, [0; 4]);
    put(entry, COUNT, [0; 4]);
}

// The offsets are constants, so that the checks are done by the compiler.
#[inline(always)]
fn take<const N: usize, const M: usize>(bytes: &[u8; M], at: usize) -> [u8; N] {
    bytes
        .get(at..)
        .and_then(|rest| rest.first_chunk())
        .copied()
        .unwrap_or([0; N])
}

#[inline(always)]
fn put<const N: usize, const M: usize>(bytes: &mut [u8; M], at: usize, value: [u8; N]) {
    if let Some(place) = bytes.get_mut(at..).and_then(|rest| rest.first_chunk_mut()) {
        *place = value;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Fixed;
    use crate::datagram::{self, Grant, Header, Reply};

    const LOG: LogId = LogId([7; 16]);

    fn request(kind: Kind, entries: &[Grant]) -> Vec<u8> {
        let mut header = Header::request(kind, LOG, ClientId(9), entries.len());
        header.tag = 77;
        header.mac = [5; 16];
        let mut bytes = vec![0; header.datagram_len()];
        datagram::write(header, entries, &mut bytes).expect("fits");
        bytes
    }

    #[test]
    fn an_answer_in_place_is_the_reply_as_it_is_written() {
        let asked = Grant::at(Lane(3), RequestId(8), 5, Position(40));
        for kind in Kind::ALL {
            for durable in [None, Some(Position(11))] {
                for status in Status::ALL {
                    let mut bytes = request(kind, &[asked, asked]);
                    let answer = Answer {
                        status,
                        first: Position(40),
                        count: 5,
                        durable,
                    };
                    for entry in entries_mut(&mut bytes) {
                        answer.write(entry);
                    }
                    turn(&mut bytes, Epoch(6));
                    let reply = Reply::new(RequestId(8), Lane(3), status, Position(40), 5);
                    let reply = reply.with_durable(durable);
                    let mut header = Header::request(kind, LOG, ClientId(9), 2);
                    header.tag = 77;
                    let mut expected = vec![0; bytes.len()];
                    let header = header.reply(Epoch(6));
                    datagram::write(header, &[reply, reply], &mut expected).expect("fits");
                    assert_eq!(bytes, expected);
                    assert_eq!(Answer::status(&entries(&bytes)[0]), Ok(status));
                }
            }
        }
    }

    #[test]
    fn an_entry_is_read_as_it_was_written() {
        let asked = Grant::at(Lane(3), RequestId(u64::MAX - 1), 5, Position(40));
        let bytes = request(Kind::GrantAt, &[asked]);
        let ask = Ask::read(&entries(&bytes)[0]);
        assert_eq!((ask.request, ask.lane), (asked.request, asked.lane));
        assert_eq!(
            (ask.count, ask.expected_tail),
            (asked.count, asked.expected_tail)
        );
        let facts = Facts::check(&bytes, LOG).expect("valid");
        assert_eq!((facts.kind, facts.reply), (Kind::GrantAt, false));
        assert_eq!((facts.count, facts.client), (1, ClientId(9)));
        assert_eq!(Grant::read(&entries(&bytes)[0]), Ok(asked));
    }

    #[test]
    fn a_token_is_found_and_moved() {
        let mut bytes = request(Kind::Grant, &[Grant::new(Lane(0), RequestId(1), 5)]);
        let entry = &mut entries_mut(&mut bytes)[0];
        Answer::token(Position(100), 5).write(entry);
        assert_eq!(Answer::granted(entry), Some((Position(100), 5)));
        Answer::shift(entry, 11);
        assert_eq!(Answer::granted(entry), Some((Position(111), 5)));
        let mut other = *entry;
        Answer::token(Position(60), 5).write(entry);
        other[DURABLE..].fill(9);
        Answer::grant(&mut other, Position(60));
        assert_eq!(*entry, other);
        Answer::token(Position(7), 0).write(entry);
        assert_eq!(Answer::granted(entry), None);
    }
}
