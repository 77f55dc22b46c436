//! Requests for another layout behind the newest segment (H-5): a chain of notes that whoever has the store may
//! write to, and that the sequencer which reigns looks at.

use wire::request::{Note, Says};
use wire::{Layout, SegmentId, WireError};

use super::Resolved;
use crate::{CatalogError, Log};

/// Notes behind one segment.
const MAX_NOTES: u32 = 4096;

/// What is asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Asked {
    /// Nothing that has not been refused or withdrawn.
    Nothing,
    /// A segment with this layout; nobody has decided yet.
    For(Layout),
    /// A segment with this layout, which is opened by this reign or the next.
    Granted(Layout),
}

/// The requests behind a segment.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Requests {
    /// The segment.
    pub segment: SegmentId,
    /// Number of the note that comes next.
    pub next: u32,
    /// What is asked for.
    pub asked: Asked,
}

impl Requests {
    /// Before the first note.
    #[must_use]
    pub fn none(segment: SegmentId) -> Self {
        let (next, asked) = (0, Asked::Nothing);
        Self {
            segment,
            next,
            asked,
        }
    }

    /// With one more note.
    #[must_use]
    pub fn and(self, says: &Says) -> Self {
        let asked = match (says, self.asked) {
            (Says::Asked(layout), Asked::Nothing) => Asked::For(*layout),
            (Says::Accepted, Asked::For(layout)) => Asked::Granted(layout),
            (Says::Refused(_) | Says::Withdrawn, Asked::For(_)) => Asked::Nothing,
            // Nothing that is written here.
            (_, asked) => asked,
        };
        let next = self.next.saturating_add(1);
        Self {
            next,
            asked,
            ..self
        }
    }
}

impl Log {
    /// The requests behind a segment, from what was known of them. One read a note, and one for that which is not
    /// there yet.
    ///
    /// # Errors
    /// If the store failed, a note is corrupt, or there are too many.
    pub async fn requests(&self, mut known: Requests) -> Result<Requests, CatalogError> {
        while known.next < MAX_NOTES {
            match self.note_at(known.segment, known.next).await? {
                Some(note) => known = known.and(&note.says),
                None => return Ok(known),
            }
        }
        let segment = known.segment;
        Err(CatalogError::Invalid(format!(
            "too many requests for another layout: segment={segment} limit={MAX_NOTES}"
        )))
    }

    /// A note, if it is there.
    ///
    /// # Errors
    /// If the store failed, or the note is corrupt.
    pub async fn note_at(
        &self,
        segment: SegmentId,
        number: u32,
    ) -> Result<Option<Note>, CatalogError> {
        let name = wire::name::request(self.id(), segment, number);
        let Some(bytes) = self.store().get(&name).await? else {
            return Ok(None);
        };
        let note = Note::decode(&bytes).map_err(|e| CatalogError::corrupt(&name, e))?;
        if note.name() != name {
            let what = "note under a name that is not its own";
            return Err(CatalogError::corrupt(&name, WireError::Malformed { what }));
        }
        Ok(Some(note))
    }

    /// Writes the next note, whatever became of an earlier try. False if another has this number.
    ///
    /// # Errors
    /// If the store failed. After an error that is not definite the note may be there.
    pub async fn write_note(&self, after: Requests, says: Says) -> Result<bool, CatalogError> {
        let note = Note {
            log: self.id(),
            segment: after.segment,
            number: after.next,
            says,
        };
        let (name, bytes) = (note.name(), note.encode()?);
        let same = || async {
            let found = self.store().get(&name).await?;
            Ok(found.map(|found| found == bytes))
        };
        let chunks = std::slice::from_ref(&bytes);
        let resolved = self.store().create_resolved(&name, chunks, same).await?;
        Ok(matches!(resolved, Resolved::Mine))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Store;

    fn layout(stripes: u32) -> Layout {
        Layout::new(stripes, 8).expect("valid")
    }

    async fn log() -> Log {
        let store = Store::open("memory:///").expect("opened");
        Log::create(store, layout(4)).await.expect("created")
    }

    #[tokio::test]
    async fn h5_a_request_is_accepted_or_withdrawn_and_never_both() {
        let log = log().await;
        let none = Requests::none(SegmentId(0));
        let ask = |stripes| Says::Asked(layout(stripes));
        assert!(log.write_note(none, ask(8)).await.expect("written"));
        assert!(log.write_note(none, ask(8)).await.expect("the same again"));
        assert!(!log.write_note(none, ask(9)).await.expect("another came first"));
        let asked = log.requests(none).await.expect("read");
        assert_eq!((asked.next, asked.asked), (1, Asked::For(layout(8))));
        assert!(log.write_note(asked, Says::Withdrawn).await.expect("written"));
        assert!(!log.write_note(asked, Says::Accepted).await.expect("too late"));
        let again = log.requests(asked).await.expect("read");
        assert_eq!((again.next, again.asked), (2, Asked::Nothing));
        assert!(log.write_note(again, ask(16)).await.expect("written"));
        let asked = log.requests(none).await.expect("read");
        assert!(log.write_note(asked, Says::Accepted).await.expect("written"));
        let granted = log.requests(none).await.expect("read");
        assert_eq!((granted.next, granted.asked), (4, Asked::Granted(layout(16))));
        let behind = log.requests(Requests::none(SegmentId(7))).await;
        assert_eq!(behind.expect("read"), Requests::none(SegmentId(7)));
    }

    #[tokio::test]
    async fn a_note_that_is_not_its_own_is_corrupt() {
        let log = log().await;
        let none = Requests::none(SegmentId(0));
        log.write_note(none, Says::Withdrawn).await.expect("written");
        let (store, id) = (log.store(), log.id());
        let name = |number| wire::name::request(id, SegmentId(0), number);
        let bytes = store.get(&name(0)).await.expect("read").expect("there");
        store.create(&name(1), &[bytes]).await.expect("created");
        let error = log.requests(none).await.expect_err("corrupt");
        assert_eq!(error.kind(), crate::ErrorKind::Corrupt, "{error}");
    }
}
