//! What a stripe-writer answers to an append, as tests wait for it.

use std::time::Duration;

use tokio::time::timeout;
use wire::frame::{AckStatus, Frame};

/// Far longer than an answer takes.
const SOON: Duration = Duration::from_secs(20);

/// The next answer of all frames that come, behind those that say that it is still to come.
pub(crate) async fn answer(mut next: impl AsyncFnMut() -> Frame) -> AckStatus {
    let waiting = async {
        loop {
            let frame = next().await;
            let Frame::Ack(ack) = frame else {
                panic!("not an answer: {frame:?}");
            };
            match ack.status().expect("known") {
                AckStatus::Waiting | AckStatus::Unheard => {}
                status => return status,
            }
        }
    };
    timeout(SOON, waiting).await.expect("answered in time")
}
