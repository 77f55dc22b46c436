//! Questions about a log: tails, state, verification, and the scans.

use std::net::SocketAddr;
use std::ops::Range;
use std::sync::Arc;
use std::time::Duration;

use catalog::{CatalogError, Chain, Sought};
use futures::{StreamExt, TryStreamExt, stream};
use tokio::time::{sleep, timeout};
use wire::control::ControlEntry;
use wire::datagram::Status as Answered;
use wire::frame::Frontier;
use wire::limits::MAX_POSITION;
use wire::{Epoch, Layout, OwnerNumber, Position, Segment, SegmentId, Slot, StripeId};

use crate::limits::{END_READS, STATUS_TIMEOUT, TAIL_POLL};
use crate::logic::backoff::Backoff;
use crate::net::frames::Lost;
use crate::net::jitter;
use crate::net::sequencer::Told;
use crate::scan::Scan;
use crate::store::verify::{self, Verify, VerifyReport};
use crate::{Log, Result};

/// Which tail is asked for. All are exclusive.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Tail {
    /// First position that is not granted: one question to the sequencer.
    Issued,
    /// First position that is not known to be durable: one question; it may lag behind what is
    /// acknowledged.
    Durable,
    /// A position below which everything is durable, at or above every append acknowledged before the
    /// question: waits until what is issued now is durable.
    Linearizable,
}

/// What the sequencer tells about the tails.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Tails {
    /// Epoch of the reign that answered.
    pub epoch: Epoch,
    /// First position that is not granted.
    pub issued: Position,
    /// First position that is not known to be durable, once all stripes reported in this reign.
    pub durable: Option<Position>,
}

/// What a stripe's owner tells about it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct StripeStatus {
    /// The segment.
    pub segment: SegmentId,
    /// The stripe.
    pub stripe: StripeId,
    /// First position of the stripe that its chain does not cover.
    pub frontier: Position,
    /// How many owners the stripe has had.
    pub owner: OwnerNumber,
    /// Bytes that are held and not durable yet.
    pub held_bytes: u64,
    /// Where its owner is.
    pub address: SocketAddr,
}

/// The state of a log as its servers tell it.
#[derive(Debug, Clone)]
pub struct Status {
    /// The end of the control chain.
    pub control: Arc<ControlEntry>,
    /// The tails, if the sequencer answered.
    pub tails: Option<Tails>,
    /// The stripes of all owners that answered.
    pub stripes: Vec<StripeStatus>,
    /// Servers that did not answer, and why.
    pub problems: Vec<String>,
}

impl Log {
    /// Reads the positions of a range in order. Nothing happens before the first
    /// [`Scan::next`].
    #[must_use]
    pub fn read(&self, range: Range<Position>) -> Scan {
        Scan::new(self.shared.clone(), range, false)
    }

    /// Reads all positions from `from` on, and waits for those that are not durable yet. It needs the
    /// store alone; owners of stripes make it faster.
    #[must_use]
    pub fn follow(&self, from: Position) -> Scan {
        Scan::new(self.shared.clone(), from..Position(MAX_POSITION), true)
    }

    /// One of the tails.
    ///
    /// # Errors
    /// [`Error::Unavailable`](crate::Error::Unavailable) if the sequencer does not answer, or does not know, within the time of an
    /// append.
    pub async fn tail(&self, tail: Tail) -> Result<Position> {
        match tail {
            // The question has this time limit itself, and says why there is no answer.
            Tail::Issued => Ok(self.tails().await?.issued),
            Tail::Durable | Tail::Linearizable => self.durable_tail(tail).await,
        }
    }

    async fn durable_tail(&self, tail: Tail) -> Result<Position> {
        let mut heard = false;
        let asking = async {
            let issued = match tail {
                Tail::Linearizable => self.reigning_tail(&mut heard).await?,
                Tail::Issued | Tail::Durable => Position(0),
            };
            let durable = self.durable_above(issued, &mut heard).await?;
            Ok(if tail == Tail::Durable {
                durable
            } else {
                issued
            })
        };
        let asked = timeout(self.shared.options.append_timeout, asking).await;
        let text = "the durable tail does not come: is a stripe-writer away, or another sequencer in its place?";
        asked.unwrap_or_else(|_| Err(self.shared.sequencer.late(heard, text)))
    }

    /// Both tails, by one question to the sequencer.
    ///
    /// # Errors
    /// [`Error::Unavailable`](crate::Error::Unavailable) if the sequencer does not answer in time.
    pub async fn tails(&self) -> Result<Tails> {
        self.tails_within(self.shared.options.append_timeout).await
    }

    /// The issued tail of the newest reign. A sequencer that has been replaced may answer until its
    /// own clock stops it, while its successor grants: the control chain says who reigns, and it is read
    /// after the answer.
    /// Sets `heard` when a sequencer has answered.
    async fn reigning_tail(&self, heard: &mut bool) -> Result<Position> {
        let mut pauses = Backoff::new(TAIL_POLL);
        loop {
            let told = self.tails().await?;
            *heard = true;
            if self.shared.view.refresh().await?.epoch <= told.epoch {
                return Ok(told.issued);
            }
            self.shared.sequencer.is_over(told.epoch);
            sleep(pauses.pause(jitter())).await;
        }
    }

    pub(crate) async fn tails_within(&self, limit: Duration) -> Result<Tails> {
        let mut heard = false;
        let asking = async {
            let mut pauses = Backoff::new(TAIL_POLL);
            loop {
                let told: Told = self.shared.sequencer.tails(limit).await?;
                if told.status == Answered::Ok {
                    return Ok(Tails {
                        epoch: told.epoch,
                        issued: told.first,
                        durable: told.durable,
                    });
                }
                heard = true;
                sleep(pauses.pause(jitter())).await;
            }
        };
        let asked = timeout(limit, asking).await;
        asked.unwrap_or_else(|_| Err(self.shared.sequencer.late(heard, "it does not reign")))
    }

    /// The durable tail once it is not below `least`. Sets `heard` when the sequencer has told one.
    async fn durable_above(&self, least: Position, heard: &mut bool) -> Result<Position> {
        let mut pauses = Backoff::new(TAIL_POLL);
        loop {
            let durable = self.tails().await?.durable;
            *heard = true;
            if let Some(durable) = durable.filter(|durable| *durable >= least) {
                return Ok(durable);
            }
            sleep(pauses.pause(jitter())).await;
        }
    }

    /// First position that the store does not have in its stripe's chain: what is below is durable. It needs
    /// the store alone, and knows nothing of records that are under way.
    ///
    /// # Errors
    /// If the store failed, or a chain is corrupt.
    pub async fn stored_tail(&self) -> Result<Position> {
        let control = self.shared.view.refresh().await?;
        let mut tail = control.trim;
        for segment in control.open_segments() {
            tail = self.stored_in(&control, segment).await?;
            // The next segment may be open while this one is being sealed.
            if control.segment_end(segment).is_some_and(|end| tail < end) {
                break;
            }
        }
        Ok(tail)
    }

    /// First position of a segment, or behind, that the store does not have in its stripe's chain.
    async fn stored_in(&self, control: &ControlEntry, segment: &Segment) -> Result<Position> {
        let (log, layout) = (self.shared.view.log(), segment.layout);
        let ends = stream::iter(layout.all())
            .map(|stripe| {
                let chain = log.chain(segment, stripe);
                let trim = layout.slot_at_or_after(stripe, control.trim);
                async move { Ok((stripe, end(&chain, trim).await?)) }
            })
            .buffer_unordered(END_READS);
        let tail = ends.try_fold(Position(MAX_POSITION), |tail, (stripe, end)| async move {
            Ok::<_, CatalogError>(tail.min(layout.position(stripe, end)))
        });
        Ok(tail.await?)
    }

    /// The layout of the newest segment, from the control chain.
    ///
    /// # Errors
    /// If the store failed.
    pub async fn layout(&self) -> Result<Layout> {
        let control = self.shared.view.refresh().await?;
        Ok(control.last_segment()?.layout)
    }

    /// The first position that is still readable, from the control chain.
    ///
    /// # Errors
    /// If the store failed.
    pub async fn trim_point(&self) -> Result<Position> {
        Ok(self.shared.view.refresh().await?.trim)
    }

    /// Asks the store and all servers for their state. A server that does not answer is a problem in
    /// the result, not an error.
    ///
    /// # Errors
    /// If the control chain cannot be read.
    pub async fn status(&self) -> Result<Status> {
        let control = self.shared.view.refresh().await?;
        let mut problems = Vec::new();
        let tails = match self.tails_within(STATUS_TIMEOUT).await {
            Ok(tails) => Some(tails),
            Err(error) => {
                problems.push(error.to_string());
                None
            }
        };
        let mut stripes = Vec::new();
        for address in self.shared.writers.addresses() {
            let asked = timeout(STATUS_TIMEOUT, self.frontiers(&control, address));
            match asked.await.unwrap_or(Err(Lost::Silent)) {
                Ok(told) => stripes.extend(told),
                Err(lost) => problems.push(format!("stripe-writer {address}: {lost}")),
            }
        }
        stripes.sort_unstable_by_key(|s| (s.segment, s.stripe, s.address));
        Ok(Status {
            control,
            tails,
            stripes,
            problems,
        })
    }

    async fn frontiers(
        &self,
        control: &ControlEntry,
        address: SocketAddr,
    ) -> Result<Vec<StripeStatus>, Lost> {
        let mut stripes = Vec::new();
        for told in self.shared.frontiers_of(address).await? {
            let Frontier {
                place,
                owner,
                held_bytes,
            } = told;
            let segment = control.segments.iter().find(|s| s.id == place.segment);
            // One that was opened since the control chain was read.
            let Some(layout) = segment.map(|segment| segment.layout) else {
                continue;
            };
            stripes.push(StripeStatus {
                segment: place.segment,
                stripe: place.stripe,
                frontier: layout.position(place.stripe, place.first),
                owner,
                held_bytes,
                address,
            });
        }
        Ok(stripes)
    }

    /// Walks every chain of every segment and checks what is there: was anything lost? `progress` is
    /// called with what is known so far, after every object. The chains have to reach the sequencer's durable
    /// tail, the frontiers that their owners tell, and their own snapshots; without an answer of a server a
    /// chain that lost its last objects may look like a shorter one.
    ///
    /// # Errors
    /// If the store failed. What is wrong with the log is in the report.
    pub async fn verify(
        &self,
        how: Verify,
        progress: impl FnMut(&VerifyReport),
    ) -> Result<VerifyReport> {
        // Asked for before the walk: what was durable then has to be found.
        let tails = self.tails_within(STATUS_TIMEOUT).await.ok();
        let durable = tails.and_then(|tails| tails.durable);
        let granting = tails.map(|tails| tails.epoch);
        let control = self.shared.view.refresh().await?;
        let mut frontiers = Vec::new();
        for address in self.shared.writers.addresses() {
            let asked = timeout(STATUS_TIMEOUT, self.shared.frontiers_of(address));
            frontiers.extend(asked.await.ok().and_then(Result::ok).into_iter().flatten());
        }
        let known = verify::Known {
            durable,
            granting,
            frontiers,
        };
        verify::run(self.shared.view.log(), &control, known, how, progress).await
    }
}

/// First slot that a chain does not cover.
async fn end(chain: &Chain, trim: Slot) -> Result<Slot, CatalogError> {
    let first = chain.first_slot();
    let trimmed = first < trim && chain.header_at(trim).await?.is_some();
    let from = if trimmed { trim } else { first };
    match chain.seek(from, Slot(MAX_POSITION - 1), 0).await? {
        Sought::Behind(end) => Ok(end),
        Sought::In(index, _) => Ok(index.header.end),
    }
}
