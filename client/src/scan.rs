use std::fmt;
use std::ops::Range;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use tokio::sync::Notify;
use tokio::time::Instant;
use wire::control::ControlEntry;
use wire::limits::MAX_POSITION;
use wire::{Position, Segment, StripeId};

use crate::limits::{PROOF_TIMEOUT, SCAN_LOOKS, VIEW_AGE};
use crate::net::live::Hub;
use crate::shared::Shared;
use crate::store::budget::Budget;
use crate::store::chunk::Finder;
use crate::store::loads::{Loads, Planned};
use crate::store::stripe::{Ready, StripeReader};
use crate::{Error, ErrorKind, Result};

/// What a scan hands out.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Item {
    /// The position; of junk the first one.
    pub position: Position,
    /// What is there.
    pub content: Content,
}

/// What is at a position.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Content {
    /// A record.
    Record(Bytes),
    /// Junk at `count` positions that follow one another: holes that were filled, for ever. There may
    /// be more behind them, in an item of its own.
    Junk {
        /// How many, at least 1.
        count: u64,
    },
}

/// Reads positions in order, each once, from the store; [`Log::follow`](crate::Log::follow) also waits
/// for what is not there yet.
///
/// It reads ahead, in all stripes, within the bounds of [`limits`](crate::limits). Every record has been
/// checked before it is handed out.
pub struct Scan {
    shared: Arc<Shared>,
    position: Position,
    end: Position,
    follows: bool,
    with_junk: bool,
    hub: Option<Hub>,
    open: Option<OpenSegment>,
    /// What is below is read ahead, or cannot be.
    ahead: Position,
    refreshed: Option<Instant>,
    /// The last position that servers said to be durable while the store did not have it.
    proven: Option<Position>,
}

/// The segment that a scan is in.
#[derive(Debug)]
struct OpenSegment {
    segment: Segment,
    /// First position behind the segment, or behind the scan.
    end: Position,
    /// One for each stripe.
    readers: Vec<StripeReader>,
    /// Told when a reader has more to ask for.
    opened: Arc<Notify>,
}

impl Scan {
    pub(crate) fn new(shared: Arc<Shared>, range: Range<Position>, follows: bool) -> Self {
        let hub = follows.then(|| Hub::new(shared.clone()));
        Self {
            shared,
            position: range.start,
            end: range.end.min(Position(MAX_POSITION)),
            follows,
            with_junk: false,
            hub,
            open: None,
            ahead: range.start,
            refreshed: None,
            proven: None,
        }
    }

    /// Whether junk is handed out too; by default it is skipped.
    #[must_use]
    pub fn with_junk(mut self, junk: bool) -> Self {
        self.with_junk = junk;
        self
    }

    /// The next position that has not been looked at: all below it were handed out or are junk.
    #[must_use]
    pub fn position(&self) -> Position {
        self.position
    }

    /// The next item, or `None` at the end of the range. Cancel-safe. After an error of kind
    /// [`ErrorKind::Retry`] it may be called again and goes on where it was.
    ///
    /// # Errors
    /// [`Error::Trimmed`] at a position below the trim point; [`Error::NotYetDurable`] at one that
    /// is not durable, unless this scan follows; [`ErrorKind::Corrupt`] with the name of an object that does
    /// not pass its checks.
    pub async fn next(&mut self) -> Result<Option<Item>> {
        loop {
            if self.position >= self.end {
                return Ok(None);
            }
            if self.open.as_ref().is_none_or(|o| self.position >= o.end) {
                self.enter_segment().await?;
            }
            self.read_ahead();
            let Some(opened) = self.open.as_ref().map(|open| Arc::clone(&open.opened)) else {
                continue;
            };
            let ready = tokio::select! {
                biased;
                ready = self.ready() => ready,
                // Whoever waits for one object goes on asking for those behind it.
                () = opened.notified() => continue,
            };
            match ready {
                Ok(Ready::Run) => {
                    if let Some(item) = self.step()? {
                        return Ok(Some(item));
                    }
                }
                Ok(Ready::End) => {
                    self.look_again().await?;
                    if self.is_past_segment() {
                        continue;
                    }
                    if !self.is_durable(PROOF_TIMEOUT.0).await? {
                        let position = self.position;
                        return Err(Error::NotYetDurable { position });
                    }
                }
                // The control chain says where it ended, or nothing of it.
                Ok(Ready::Ended) => drop(self.look_again().await?),
                Ok(Ready::Quiet) => {
                    if self.keep_up().await? && !self.is_past_segment() {
                        self.is_durable(PROOF_TIMEOUT.1).await?;
                    }
                }
                // What was deleted because it was trimmed is not lost, and not corrupt.
                Err(error) if error.kind() == ErrorKind::Corrupt => {
                    self.look_again().await?;
                    return Err(error);
                }
                Err(error) => return Err(error),
            }
        }
    }

    /// Whether the position is behind the segment that the scan is in: it has ended there.
    fn is_past_segment(&self) -> bool {
        let open = self.open.as_ref();
        open.is_some_and(|open| self.position >= open.end)
    }

    /// Reads the control entry: the position has to be readable, and the segment may have ended.
    async fn look_again(&mut self) -> Result<Arc<ControlEntry>> {
        let entry = self.shared.view.refresh().await?;
        self.refreshed = Some(Instant::now());
        if self.position < entry.trim {
            let first_readable = entry.trim;
            return Err(Error::Trimmed { first_readable });
        }
        if let Some(open) = self.open.as_mut() {
            open.end = entry
                .segment_end(&open.segment)
                .unwrap_or(self.end)
                .min(self.end);
            for (stripe, reader) in (0..).zip(&mut open.readers) {
                let layout = open.segment.layout;
                reader.set_until(layout.slot_at_or_after(StripeId(stripe), open.end));
            }
        }
        Ok(entry)
    }

    /// Looks now and then whether the segment has ended or the log was trimmed, while nothing comes. Returns
    /// whether it was time for that.
    async fn keep_up(&mut self) -> Result<bool> {
        if self.refreshed.is_some_and(|at| at.elapsed() < VIEW_AGE) {
            return Ok(false);
        }
        self.look_again().await?;
        Ok(true)
    }

    /// Whether the servers say that the position is durable, though the store does not have it. Then it is
    /// looked for once more; an object that is not there after that is lost: a missing object within a chain
    /// looks like one that is still to come.
    async fn is_durable(&mut self, limit: Duration) -> Result<bool> {
        let position = self.position;
        let Some(open) = self.open.as_mut() else {
            return Ok(false);
        };
        let stripe = open.segment.layout.stripe(position);
        let Some(reader) = open.readers.get_mut(usize::from(stripe.0)) else {
            return Ok(false);
        };
        if self.proven == Some(position) {
            let name = reader.missing_name();
            return Err(catalog::CatalogError::Missing { name }.into());
        }
        if !self.shared.is_durable(&open.segment, position, limit).await {
            return Ok(false);
        }
        reader.expect_in_store();
        self.proven = Some(position);
        Ok(true)
    }

    async fn enter_segment(&mut self) -> Result<()> {
        let entry = self.look_again().await?;
        let Some(segment) = entry.segment_of(self.position).copied() else {
            return Err(Error::invalid("position below the first segment"));
        };
        let end = entry
            .segment_end(&segment)
            .unwrap_or(self.end)
            .min(self.end);
        let layout = segment.layout;
        let log = self.shared.view.log();
        let stripes = usize::try_from(layout.stripes()).unwrap_or(usize::MAX);
        let budget = Budget::new(
            self.shared.options.read_ahead_bytes,
            stripes,
            self.shared.cache.is_some(),
        );
        let reader = |stripe| {
            let slot = |position| layout.slot_at_or_after(stripe, position);
            let trim = slot(entry.trim.max(segment.start));
            let chain = log.chain(&segment, stripe);
            let cache = self.shared.cache.clone();
            let finder = Finder::new(log.store().clone(), chain, trim, cache);
            let next = slot(self.position);
            let loads = Loads::new(budget.clone(), finder, next, slot(end));
            StripeReader::new(segment.id, stripe, next, loads, self.follows)
        };
        let readers = layout.all().map(reader).collect();
        (self.ahead, self.proven) = (self.position, None);
        self.open = Some(OpenSegment {
            segment,
            end,
            readers,
            opened: budget.opened(),
        });
        Ok(())
    }

    /// Reads ahead, in the order of positions, as far as the budget goes. It looks only where a run has
    /// come to its end.
    fn read_ahead(&mut self) {
        let Some(open) = self.open.as_mut() else {
            return;
        };
        let layout = open.segment.layout;
        let reader = open
            .readers
            .get(usize::from(layout.stripe(self.position).0));
        if reader.is_some_and(|reader| reader.current().is_some()) {
            return;
        }
        let (mut at, mut unknown) = (self.ahead.max(self.position), 0);
        for _ in 0..open.readers.len().saturating_add(SCAN_LOOKS) {
            let stripe = layout.stripe(at);
            let reader = open.readers.get_mut(usize::from(stripe.0));
            let Some(reader) = reader.filter(|_| at < open.end) else {
                return;
            };
            let unit_end = at.plus(layout.unit_rest(at));
            at = match reader.plan(layout.slot(at)) {
                Planned::Full => return,
                Planned::Until(planned) => unit_end.min(layout.position(stripe, planned)),
                Planned::Unknown if unknown == SCAN_LOOKS => return,
                Planned::Unknown => {
                    unknown += 1;
                    unit_end
                }
            };
            if unknown == 0 {
                self.ahead = at;
            }
        }
    }

    async fn ready(&mut self) -> Result<Ready> {
        let position = self.position;
        let open = self.open.as_mut().ok_or(Error::Closed)?;
        let stripe = open.segment.layout.stripe(position);
        let reader = open.readers.get_mut(usize::from(stripe.0));
        let reader = reader.ok_or(Error::Closed)?;
        reader.ready(self.hub.as_mut()).await
    }

    /// Hands out the record at the position, or goes over junk.
    fn step(&mut self) -> Result<Option<Item>> {
        let position = self.position;
        let open = self.open.as_mut().ok_or(Error::Closed)?;
        let stripe = open.segment.layout.stripe(position);
        let reader = open.readers.get_mut(usize::from(stripe.0));
        let reader = reader.ok_or(Error::Closed)?;
        if let Some(record) = reader.take() {
            self.position = position.plus(1);
            let content = Content::Record(record);
            return Ok(Some(Item { position, content }));
        }
        let behind = open.junk_end(position).min(open.end);
        for (stripe, reader) in (0..).zip(&mut open.readers) {
            let layout = open.segment.layout;
            reader.skip_to(layout.slot_at_or_after(StripeId(stripe), behind));
        }
        self.position = behind;
        let count = behind.0.saturating_sub(position.0);
        let content = Content::Junk { count };
        Ok(self.with_junk.then_some(Item { position, content }))
    }
}

impl OpenSegment {
    /// First position behind `position`, which is junk, that is not known to be junk as well: one step
    /// however long the junk is, once every stripe stands in it.
    fn junk_end(&self, position: Position) -> Position {
        let layout = self.segment.layout;
        let ends = (0..).zip(&self.readers).map(|(stripe, reader)| {
            let junk = reader.current().filter(|current| current.is_junk());
            let slot = junk.map_or(reader.next(), |junk| junk.end());
            layout.position(StripeId(stripe), slot)
        });
        ends.min().unwrap_or(position).max(position.plus(1))
    }
}

impl fmt::Debug for Scan {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Scan")
            .field("position", &self.position)
            .field("end", &self.end)
            .field("follows", &self.follows)
            .finish_non_exhaustive()
    }
}
