//! Requests for another layout, and what becomes of them: a small chain of notes behind each segment (H-5).
//!
//! Whoever creates the next number has spoken: a request that was withdrawn cannot be accepted any more, and one
//! that was accepted cannot be withdrawn.

use bytes::Bytes;
use rkyv::{Archive, Deserialize, Serialize};

use crate::control::{envelope, open_envelope};
use crate::limits::MAX_NOTE_TEXT;
use crate::{Fixed, Layout, LogId, SegmentId, WireError};

/// `STRIPERQ`, read as a little-endian number.
pub const REQUEST_MAGIC: u64 = u64::from_le_bytes(*b"STRIPERQ");

/// What a note says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Says {
    /// Somebody asks for a segment with this layout behind the newest.
    Asked(Layout),
    /// A reign opens that segment, this one or the next that grants.
    Accepted,
    /// No segment is opened, with the reason.
    Refused(String),
    /// Who asked does not want it any more.
    Withdrawn,
}

/// One note behind a segment.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Note {
    /// The log.
    pub log: LogId,
    /// The segment behind which another one is asked for.
    pub segment: SegmentId,
    /// Number of the note, from 0.
    pub number: u32,
    /// What it says.
    pub says: Says,
}

/// The encoding of all but the text.
#[derive(Debug, Clone, Copy, Archive, Serialize, Deserialize)]
#[rkyv(derive(Debug))]
struct Head {
    log: LogId,
    segment: SegmentId,
    number: u32,
    kind: u32,
    stripes: u32,
    unit: u32,
}

const ASKED: u32 = 1;
const ACCEPTED: u32 = 2;
const REFUSED: u32 = 3;
const WITHDRAWN: u32 = 4;

impl Note {
    /// Name of the note.
    #[must_use]
    pub fn name(&self) -> String {
        crate::name::request(self.log, self.segment, self.number)
    }

    /// Encodes the note. A text that is too long is cut.
    ///
    /// # Errors
    /// None in practice.
    pub fn encode(&self) -> Result<Bytes, WireError> {
        let (kind, layout, text) = match &self.says {
            Says::Asked(layout) => (ASKED, Some(layout), ""),
            Says::Accepted => (ACCEPTED, None, ""),
            Says::Refused(text) => (REFUSED, None, cut(text)),
            Says::Withdrawn => (WITHDRAWN, None, ""),
        };
        let head = Head {
            log: self.log,
            segment: self.segment,
            number: self.number,
            kind,
            stripes: layout.map_or(0, |layout| layout.stripes()),
            unit: layout.map_or(0, |layout| layout.unit()),
        };
        let mut body = head.to_vec();
        body.extend(text.as_bytes());
        envelope(REQUEST_MAGIC, &body)
    }

    /// Decodes and checks a note.
    ///
    /// # Errors
    /// The first check that fails.
    pub fn decode(bytes: &[u8]) -> Result<Self, WireError> {
        let body = open_envelope(REQUEST_MAGIC, bytes)?;
        let head = Head::read(body)?;
        let text = body.get(Head::SIZE..).unwrap_or(&[]);
        let what = "note";
        let malformed = WireError::Malformed { what };
        let says = match head.kind {
            ASKED => Says::Asked(Layout::new(head.stripes, head.unit)?),
            ACCEPTED => Says::Accepted,
            REFUSED if text.len() <= MAX_NOTE_TEXT => {
                Says::Refused(String::from_utf8(text.to_vec()).map_err(|_| malformed)?)
            }
            WITHDRAWN => Says::Withdrawn,
            REFUSED => return Err(malformed),
            got => return Err(WireError::Kind { got }),
        };
        let without_text = head.kind == REFUSED || text.is_empty();
        let without_layout = head.kind == ASKED || (head.stripes, head.unit) == (0, 0);
        if !without_text || !without_layout {
            return Err(malformed);
        }
        Ok(Self {
            log: head.log,
            segment: head.segment,
            number: head.number,
            says,
        })
    }
}

/// As much of a text as a note takes, up to the end of a character.
fn cut(text: &str) -> &str {
    let mut end = text.len().min(MAX_NOTE_TEXT);
    while !text.is_char_boundary(end) {
        end -= 1;
    }
    text.get(..end).unwrap_or("")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn note(says: Says) -> Note {
        Note {
            log: LogId([7; 16]),
            segment: SegmentId(3),
            number: 5,
            says,
        }
    }

    #[test]
    fn notes_come_back_and_texts_are_cut() {
        let layout = Layout::new(64, 16).expect("valid");
        let refused = Says::Refused("no writer for stripe=9".to_owned());
        for says in [
            Says::Asked(layout),
            Says::Accepted,
            refused,
            Says::Withdrawn,
        ] {
            let bytes = note(says.clone()).encode().expect("valid");
            assert_eq!(Note::decode(&bytes), Ok(note(says)));
        }
        let long = note(Says::Refused("ä".repeat(MAX_NOTE_TEXT)));
        let Ok(Says::Refused(text)) =
            Note::decode(&long.encode().expect("valid")).map(|n| n.says)
        else {
            panic!("a text that is cut is sound");
        };
        assert_eq!(text.len(), MAX_NOTE_TEXT / 2 * 2);
    }
}
