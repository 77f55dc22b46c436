//! What servers know of the chains: who says that a position is durable.

use std::net::SocketAddr;
use std::time::Duration;

use futures::future::{Either, select};
use tokio::time::timeout;
use wire::datagram::Status as Answered;
use wire::frame::{Frame, Frontier, Frontiers};
use wire::{Epoch, Fixed, OwnerNumber, Position, Segment};

use crate::net::frames::{self, Lost};
use crate::shared::Shared;

impl Shared {
    /// Whether the sequencer or the owner of its stripe says that a position is durable. What they say was
    /// true before the answer: a look into the store after it has to find the position. Nobody's answer is
    /// no.
    pub(crate) async fn is_durable(
        &self,
        segment: &Segment,
        position: Position,
        limit: Duration,
    ) -> bool {
        let by_sequencer = async {
            let told = timeout(limit, self.sequencer.tails(limit))
                .await
                .ok()?
                .ok()?;
            let durable = told.durable.filter(|_| told.status == Answered::Ok)?;
            Some(position < durable)
        };
        let by_owner = async {
            let stripe = segment.layout.stripe(position);
            let owner = self.routes.owner(stripe)?;
            let told = timeout(limit, self.frontiers_of(owner)).await.ok()?.ok()?;
            let place = told.iter().map(|told| told.place);
            let mut own = place.filter(|p| (p.segment, p.stripe) == (segment.id, stripe));
            Some(segment.layout.slot(position) < own.next()?.first)
        };
        // One that says so is enough, however long the other takes.
        let (by_sequencer, by_owner) = (std::pin::pin!(by_sequencer), std::pin::pin!(by_owner));
        match select(by_sequencer, by_owner).await {
            Either::Left((Some(true), _)) | Either::Right((Some(true), _)) => true,
            Either::Left((_, owner)) => owner.await == Some(true),
            Either::Right((_, sequencer)) => sequencer.await == Some(true),
        }
    }

    /// The frontiers of all stripes that a stripe-writer owns, without those that it is taking over.
    pub(crate) async fn frontiers_of(&self, address: SocketAddr) -> Result<Vec<Frontier>, Lost> {
        let (mut stream, _) = frames::connect(address, self.id(), self.client).await?;
        let question = Frontiers {
            epoch: Epoch(0),
            leaving: 0,
        };
        frames::write(&mut stream, Frame::AskFrontiers(question)).await?;
        let (Frame::Frontiers(_), body) = frames::read(&mut stream).await? else {
            return Err(Lost::Unexpected);
        };
        let frontiers = body.chunks(Frontier::SIZE).map(Frontier::read);
        let mut frontiers = frontiers.collect::<Result<Vec<_>, _>>()?;
        frontiers.retain(|frontier| frontier.owner > OwnerNumber(0));
        Ok(frontiers)
    }
}
