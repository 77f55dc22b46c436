//! Stripe-writers that watch one another: the stripes of one that dies are taken over (C-6), and given back.

mod group;

use std::time::Duration;

use group::{Group, STRIPES};
use wire::frame::AckStatus;

/// Long enough that a busy host is not taken for a dead one.
const TIMEOUT: Duration = Duration::from_secs(1);

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn c6_the_stripes_of_a_dead_writer_are_taken_over_and_given_back() {
    let mut group = Group::start(TIMEOUT).await;
    group.become_home().await;
    for stripe in 0..STRIPES {
        let owner = group.home(stripe);
        let status = group.append(owner, stripe, 0).await;
        assert_eq!(status, AckStatus::Committed, "stripe {stripe}");
        let other = (owner + 1) % 3;
        let status = group.append(other, stripe, 1).await;
        assert_eq!(status, AckStatus::NotOwner, "stripe {stripe}");
    }
    group.kill(1);
    let owners = group.become_owned(|_, owner| owner != 1).await;
    for (stripe, owner) in owners {
        let moved = group.home(stripe) == 1;
        assert!(moved || owner == group.home(stripe), "stripe {stripe}");
        // [H-2] The same record again is the record that is there; the next one has its slot.
        for slot in [0, 1] {
            let status = group.append(owner, stripe, slot).await;
            assert_eq!(status, AckStatus::Committed, "stripe {stripe} slot {slot}");
        }
    }
    group.run(1).await;
    group.become_home().await;
    for stripe in 0..STRIPES {
        let owner = group.home(stripe);
        for slot in [0, 1, 2] {
            let status = group.append(owner, stripe, slot).await;
            assert_eq!(status, AckStatus::Committed, "stripe {stripe} slot {slot}");
        }
    }
}
