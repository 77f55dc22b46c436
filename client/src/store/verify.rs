//! Was anything lost? Every chain of every segment, walked and checked.

use catalog::{CatalogError, Chain, Log as Catalog, Walk};
use futures::{StreamExt, stream};
use tokio::time::sleep;
use wire::control::ControlEntry;
use wire::frame::Frontier;
use wire::limits::MAX_POSITION;
use wire::object::Header;
use wire::{Epoch, Position, Segment, SegmentId, Slot, StripeId};

use crate::limits::{VERIFY_LOOKS, VERIFY_MOST_LOOKS, VERIFY_PAUSE, VERIFY_READS};
use crate::{ErrorKind, Result};

/// How thoroughly a log is verified.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Verify {
    /// Every byte is read and every checksum computed.
    #[default]
    All,
    /// Only names and headers are read: chains are complete, but records are neither checked nor
    /// counted.
    Headers,
}

/// Something that is wrong.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Finding {
    /// The segment.
    pub segment: SegmentId,
    /// The stripe.
    pub stripe: StripeId,
    /// First position of the stripe that is concerned.
    pub from: Position,
    /// First position behind, as far as it is known.
    pub to: Option<Position>,
    /// The object, if one is concerned.
    pub object: Option<String>,
    /// What is wrong.
    pub what: String,
}

/// One stripe of one segment.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StripeReport {
    /// The segment.
    pub segment: SegmentId,
    /// The stripe.
    pub stripe: StripeId,
    /// First position of the stripe that its chain does not cover.
    pub end: Position,
    /// Objects in the chain.
    pub objects: u64,
    /// Positions that hold records; 0 if only headers were read.
    pub records: u64,
    /// Positions that are junk; 0 if only headers were read.
    pub junk: u64,
    /// Positions that the chain covers.
    pub positions: u64,
    /// Bytes of the chain's objects.
    pub bytes: u64,
    /// Objects that lie inside the range of another: harmless.
    pub orphans: u64,
    /// Objects behind the chain's end: uploads under way, if nothing is missing.
    pub afloat: u64,
}

/// What verification found.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct VerifyReport {
    /// All stripes, by segment and stripe.
    pub stripes: Vec<StripeReport>,
    /// Positions that should be there and are not.
    pub missing: Vec<Finding>,
    /// Objects that do not pass their checks.
    pub corrupt: Vec<Finding>,
    /// The durable tail that the chains had to reach; `None` if the sequencer did not tell it. Then objects
    /// that are missing at the end of a chain are noticed only as far as the stripe's owner or a snapshot
    /// tells of them.
    pub durable: Option<Position>,
}

impl VerifyReport {
    /// Whether nothing is missing and nothing is corrupt.
    #[must_use]
    pub fn is_clean(&self) -> bool {
        self.missing.is_empty() && self.corrupt.is_empty()
    }

    /// The sum of one figure over all stripes.
    #[must_use]
    pub fn total(&self, figure: impl Fn(&StripeReport) -> u64) -> u64 {
        self.stripes.iter().map(figure).sum()
    }
}

/// What servers said before the walk.
#[derive(Debug, Default)]
pub(crate) struct Known {
    /// The durable tail, from the sequencer.
    pub(crate) durable: Option<Position>,
    /// The reign that grants, from the sequencer.
    pub(crate) granting: Option<Epoch>,
    /// The frontiers of stripes, from their owners.
    pub(crate) frontiers: Vec<Frontier>,
}

impl Known {
    fn frontier(&self, segment: SegmentId, stripe: StripeId) -> Option<Slot> {
        let places = self.frontiers.iter().map(|frontier| frontier.place);
        let own = places.filter(|p| (p.segment, p.stripe) == (segment, stripe));
        // A former owner may answer too: it knows less.
        own.map(|place| place.first).max()
    }
}

pub(crate) async fn run(
    log: &Catalog,
    control: &ControlEntry,
    known: Known,
    how: Verify,
    mut progress: impl FnMut(&VerifyReport),
) -> Result<VerifyReport> {
    let durable = known.durable;
    let mut report = VerifyReport {
        durable,
        ..VerifyReport::default()
    };
    for segment in &control.segments {
        let end = control.segment_end(segment);
        let complete = is_complete(control, segment, known.granting);
        if end.is_some_and(|end| end <= control.trim) {
            continue;
        }
        for stripe in segment.layout.all() {
            let first = segment.first_slot(stripe);
            let slot = |position| segment.layout.slot_at_or_after(stripe, position);
            let trim = segment.layout.slot_at_or_after(stripe, control.trim);
            let stripe = OneStripe {
                chain: log.chain(segment, stripe),
                segment: *segment,
                stripe,
                first: first.max(trim),
                sealed: end.filter(|_| complete).map(slot),
                durable: durable.map(|tail| slot(end.map_or(tail, |end| tail.min(end)))),
                frontier: known.frontier(segment.id, stripe),
            };
            stripe.verify(how, &mut report, &mut progress).await?;
        }
    }
    Ok(report)
}

/// Whether every position of a segment that has ended has to be decided. The last that has ended may still be
/// sealed, as long as no reign grants in the newest (H-4, H-5).
fn is_complete(control: &ControlEntry, segment: &Segment, granting: Option<Epoch>) -> bool {
    let newest = control.segments.last();
    let opened = newest.map(|newest| newest.epoch);
    let open = control.open_segments().iter().any(|s| s.id == segment.id);
    !open || granting >= opened
}

struct OneStripe {
    chain: Chain,
    segment: Segment,
    stripe: StripeId,
    /// First slot that has to be there.
    first: Slot,
    /// First slot behind the stripe's last one, if the segment has ended and all of it has to be there.
    sealed: Option<Slot>,
    /// First slot of the stripe that need not be durable, where it is known.
    durable: Option<Slot>,
    /// First slot that is not durable, by the word of the stripe's owner.
    frontier: Option<Slot>,
}

impl OneStripe {
    async fn verify(
        &self,
        how: Verify,
        report: &mut VerifyReport,
        progress: &mut impl FnMut(&VerifyReport),
    ) -> Result<()> {
        // Read before the walk: the chain grows, and it has to be there then.
        let snapshot = self.chain.snapshot_at(Slot(MAX_POSITION - 1)).await;
        let walk = match self.walk().await {
            Ok(walk) => walk,
            Err(error) if error.kind() == ErrorKind::Corrupt => {
                let finding = self.finding(self.first, None, reason(&error));
                let object = corrupt_name(&error);
                report.corrupt.push(Finding { object, ..finding });
                return Ok(());
            }
            Err(error) => return Err(error.into()),
        };
        self.find_missing(&walk, snapshot.map(|s| s.end), report);
        let index = report.stripes.len();
        report.stripes.push(self.summary(&walk));
        if how == Verify::Headers {
            progress(report);
            return Ok(());
        }
        let checks = stream::iter(walk.headers)
            .map(|header| async move { (header, self.check(&header).await) })
            .buffered(VERIFY_READS);
        let mut checks = std::pin::pin!(checks);
        while let Some((header, checked)) = checks.next().await {
            match checked? {
                Ok((records, junk)) => {
                    if let Some(stripe) = report.stripes.get_mut(index) {
                        stripe.records += records;
                        stripe.junk += junk;
                    }
                }
                Err(what) => {
                    let finding = self.finding(header.start, Some(header.end), what);
                    let object = Some(self.chain.id().object_name(header.start));
                    report.corrupt.push(Finding { object, ..finding });
                }
            }
            progress(report);
        }
        Ok(())
    }

    /// The chain. Objects behind its end may be uploads that overtook others: then it grows. What is missing
    /// is missing at the same place however often it is looked for.
    async fn walk(&self) -> Result<Walk, CatalogError> {
        let start = self.start().await?;
        let mut walk = self.chain.walk(start).await?;
        let mut same = 1;
        for _ in 0..VERIFY_MOST_LOOKS {
            if walk.afloat.is_empty() || same == VERIFY_LOOKS {
                break;
            }
            sleep(VERIFY_PAUSE).await;
            let end = walk.end;
            walk = self.chain.walk(start).await?;
            same = if walk.end == end { same + 1 } else { 1 };
        }
        Ok(walk)
    }

    /// Where the chain starts: at the trim point, where that is an object's start, or at the segment's.
    async fn start(&self) -> Result<Slot, CatalogError> {
        let first = self.chain.first_slot();
        if self.first > first && self.chain.header_at(self.first).await?.is_some() {
            return Ok(self.first);
        }
        Ok(first)
    }

    fn find_missing(&self, walk: &Walk, snapshot: Option<Slot>, report: &mut VerifyReport) {
        let layout = self.segment.layout;
        let afloat = walk.afloat.iter().min().map(|p| layout.slot(*p));
        let gap = (afloat, "objects lie behind a gap in the chain");
        let bounds = [
            gap,
            (self.sealed, "the chain ends before its segment does"),
            // Of a segment that has ended nothing else is known any more.
            (
                self.durable.filter(|_| self.sealed.is_none()),
                "the chain ends before the durable tail",
            ),
            (
                self.frontier,
                "the chain ends before what its owner says is durable",
            ),
            (snapshot, "the chain ends before its last snapshot does"),
        ];
        let short = |(to, what): (Option<Slot>, _)| Some((to.filter(|to| walk.end < *to)?, what));
        if let Some((to, what)) = bounds.into_iter().find_map(short) {
            let finding = self.finding(walk.end, Some(to), what.to_owned());
            report.missing.push(finding);
        }
    }

    /// Reads one object: how many records and how much junk it holds, or what is wrong with it.
    async fn check(&self, header: &Header) -> Result<Result<(u64, u64), String>> {
        let runs = match self.chain.read_object(header.start).await {
            Ok(Some((_, runs))) => runs,
            Ok(None) => return Ok(Err("the object is gone".to_owned())),
            Err(error) if error.kind() == ErrorKind::Corrupt => return Ok(Err(reason(&error))),
            Err(error) => return Err(error.into()),
        };
        let (mut records, mut junk) = (0, 0);
        for run in &runs {
            let of = if run.is_junk() {
                &mut junk
            } else {
                &mut records
            };
            *of += run.count;
        }
        Ok(Ok((records, junk)))
    }

    fn summary(&self, walk: &Walk) -> StripeReport {
        StripeReport {
            segment: self.segment.id,
            stripe: self.stripe,
            end: self.position(walk.end),
            objects: walk.headers.len() as u64,
            records: 0,
            junk: 0,
            positions: walk.headers.iter().map(|h| h.start.until(h.end)).sum(),
            bytes: walk.headers.iter().map(|h| h.object_len).sum(),
            orphans: walk.orphans.len() as u64,
            afloat: walk.afloat.len() as u64,
        }
    }

    fn finding(&self, from: Slot, to: Option<Slot>, what: String) -> Finding {
        Finding {
            segment: self.segment.id,
            stripe: self.stripe,
            from: self.position(from),
            to: to.map(|to| self.position(to)),
            object: None,
            what,
        }
    }

    fn position(&self, slot: Slot) -> Position {
        self.segment.layout.position(self.stripe, slot)
    }
}

/// What is wrong with an object, without its name, which a finding has already.
fn reason(error: &CatalogError) -> String {
    match error {
        CatalogError::Corrupt { source, .. } => source.to_string(),
        CatalogError::Missing { .. } => "the object is missing".to_owned(),
        error => error.to_string(),
    }
}

fn corrupt_name(error: &CatalogError) -> Option<String> {
    match error {
        CatalogError::Corrupt { name, .. } | CatalogError::Missing { name } => Some(name.clone()),
        _ => None,
    }
}
