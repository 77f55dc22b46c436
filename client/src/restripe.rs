//! Another layout for what is appended from now on (H-5).

use std::time::Duration;

use tokio::time::{sleep, timeout};
use wire::datagram::Status as Answered;
use wire::{Layout, Segment};

use crate::limits::{RESTRIPE_POLL, STATUS_TIMEOUT};
use crate::logic::backoff::Backoff;
use crate::net::jitter;
use crate::{Error, Log, Result};

impl Log {
    /// Has the log go on in a segment with this layout, and returns the segment once positions are granted in it. What
    /// was appended before keeps its layout for ever. Appends of all clients wait meanwhile, mostly for less than a second,
    /// and go on by themselves.
    ///
    /// # Errors
    /// [`ErrorKind::Invalid`](crate::ErrorKind): the newest segment has this layout already, or the membership does not
    /// have exactly one stripe-writer for each of its stripes; nothing has changed then.
    /// [`Error::Unavailable`] if no sequencer that reigns answers, or if the step did not end within `limit`. In that case
    /// it may still be done: the control chain tells, see [`Log::status`].
    pub async fn restripe(&self, layout: Layout, limit: Duration) -> Result<Segment> {
        self.has_writers(layout)?;
        let before = *self.shared.view.refresh().await?.last_segment()?;
        if before.layout == layout {
            let (stripes, unit) = (layout.stripes(), layout.unit());
            let what =
                format!("layout: it is that of the newest segment: stripes={stripes} unit={unit}");
            return Err(Error::Invalid { what });
        }
        // Whoever asks in vain is to know it soon.
        self.tails_within(limit.min(STATUS_TIMEOUT)).await?;
        let late = |_| {
            let text =
                "the new layout did not come in time; it may still come: see the state of the log";
            self.shared.sequencer.unavailable(text)
        };
        timeout(limit, self.reach(layout, &before, limit))
            .await
            .unwrap_or_else(|e| Err(late(e)))
    }

    /// Where the membership changes, ranges of stripe-writers may overlap, and whoever is in it has what nobody names.
    fn has_writers(&self, layout: Layout) -> Result<()> {
        let options = &self.shared.options;
        if options.changes.is_none() {
            options.membership.clone().checked(layout.stripes())?;
        } else if !self.shared.routes.has_any() {
            return Err(Error::invalid("membership: it has no stripe-writer"));
        }
        Ok(())
    }

    async fn reach(&self, layout: Layout, before: &Segment, limit: Duration) -> Result<Segment> {
        let mut pauses = Backoff::new(RESTRIPE_POLL);
        loop {
            let asking = self.shared.sequencer.restripe(layout, before.id, limit);
            match asking.await?.status {
                // Asked again, should who took it up be gone before it did it: the same wish is one wish.
                Answered::Ok | Answered::NotReigning | Answered::Sealing | Answered::TailMoved => {}
                Answered::Busy => {
                    let text = "it is about to open a segment with yet another layout";
                    return Err(self.shared.sequencer.unavailable(text));
                }
                Answered::Invalid => {
                    let what = "layout: the sequencer refuses it: its membership has no stripe-writer for some of the \
                                stripes, or the log has as many segments as a log may have";
                    return Err(Error::invalid(what));
                }
            }
            if let Some(segment) = self.opened_behind(before, layout).await? {
                self.granting_in(&segment, limit).await?;
                return Ok(segment);
            }
            sleep(pauses.pause(jitter())).await;
        }
    }

    /// The segment that was opened behind another, if it was.
    async fn opened_behind(&self, before: &Segment, layout: Layout) -> Result<Option<Segment>> {
        let control = self.shared.view.refresh().await?;
        let mut behind = control.segments.iter().filter(|s| s.id > before.id);
        let Some(opened) = behind.next() else {
            return Ok(None);
        };
        if opened.layout != layout {
            let (stripes, unit) = (opened.layout.stripes(), opened.layout.unit());
            let what = format!("layout: another one came first: stripes={stripes} unit={unit}");
            return Err(Error::Invalid { what });
        }
        Ok(Some(*opened))
    }

    /// Waits until a reign grants that knows a segment.
    async fn granting_in(&self, segment: &Segment, limit: Duration) -> Result<()> {
        let mut pauses = Backoff::new(RESTRIPE_POLL);
        while self.tails_within(limit).await?.epoch < segment.epoch {
            sleep(pauses.pause(jitter())).await;
        }
        Ok(())
    }
}
