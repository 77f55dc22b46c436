//! H-3: seals.

use super::*;

#[test]
fn h3_everything_below_is_made_durable_at_once() {
    let mut stripe = stripe();
    append(&mut stripe, 11, 13, 1, at(0));
    assert!(stripe.is_sealed(), "nothing was sealed yet");
    stripe.seal(Epoch(2), Slot(15), at(1));
    assert!(!stripe.is_sealed());
    assert_eq!(stripe.due(), Some(Duration::ZERO), "no linger");
    let (id, runs) = close(&mut stripe, at(1)).expect("due");
    assert_eq!(runs, "j[10, 11) r[11, 13) j[13, 15)");
    assert!(!stripe.is_sealed(), "planned is not durable");
    stripe.put_done(id, PutOutcome::Stored, at(2));
    assert!(stripe.is_sealed());
    let expected = ["committed [10, 15)", "tell 1 [11, 13) Committed"];
    assert_eq!(done(&mut stripe), expected);
}

#[test]
fn h3_sealed_only_when_the_frontier_is_there() {
    let mut stripe = stripe();
    let ids = fly(&mut stripe, 2, at(0));
    stripe.seal(Epoch(2), Slot(12), at(60));
    for id in [ids[1], ids[0]] {
        assert!(!stripe.is_sealed());
        stripe.put_done(id, PutOutcome::Stored, at(60));
    }
    assert!(stripe.is_sealed());
}

#[test]
fn h3_tokens_of_older_epochs_are_refused() {
    let mut stripe = stripe();
    stripe.seal(Epoch(3), Slot(12), at(0));
    stripe.append(&run(12, 13, 1), Epoch(2), &1, at(0));
    stripe.append(&run(12, 14, 2), Epoch(3), &2, at(0));
    assert_eq!(done(&mut stripe), ["tell 1 [12, 13) Sealed"]);
    let (_, runs) = close(&mut stripe, at(0)).expect("due");
    assert_eq!(
        runs, "j[10, 12) r[12, 14)",
        "the new epoch's tokens are taken"
    );
}

/// Below the seal every slot is taken, perhaps by this very record: the answer is what is decided.
#[test]
fn h3_a_sealed_token_is_answered_by_what_is_decided() {
    let mut stripe = stripe();
    append(&mut stripe, 11, 12, 1, at(0));
    stripe.seal(Epoch(2), Slot(13), at(0));
    stripe.append(&run(11, 12, 1), Epoch(1), &77, at(0)); // held
    stripe.append(&run(12, 14, 2), Epoch(1), &2, at(0)); // filled, and behind the seal
    stripe.append(&run(9, 10, 3), Epoch(1), &3, at(0)); // decided
    let expected = ["tell 2 [13, 14) Sealed", "look up for 3 [9, 10) of 3"];
    assert_eq!(done(&mut stripe), expected);
    let (id, runs) = close(&mut stripe, at(0)).expect("due");
    assert_eq!(runs, "j[10, 11) r[11, 12) j[12, 13)");
    stripe.append(&run(12, 13, 4), Epoch(1), &4, at(0)); // under way
    assert_eq!(done(&mut stripe), [""; 0]);
    stripe.put_done(id, PutOutcome::Stored, at(1));
    let expected = [
        "committed [10, 13)",
        "tell 1 [11, 12) Committed",
        "tell 77 [11, 12) Committed",
        "look up for 2 [12, 13) of 2",
        "look up for 4 [12, 13) of 4",
    ];
    assert_eq!(done(&mut stripe), expected);
}

#[test]
fn h3_held_records_of_older_epochs_behind_the_seal_are_given_up() {
    let mut stripe = stripe();
    append(&mut stripe, 10, 11, 1, at(0));
    append(&mut stripe, 15, 16, 2, at(0));
    stripe.seal(Epoch(2), Slot(12), at(0));
    assert_eq!(done(&mut stripe), ["tell 2 [15, 16) Sealed"]);
    assert_eq!(stripe.held_bytes(), RECORD);
    assert_eq!(
        close(&mut stripe, at(0)).expect("due").1,
        "r[10, 11) j[11, 12)"
    );
}

#[test]
fn h3_idempotent_and_never_undone_by_an_older_one() {
    let mut stripe = stripe();
    stripe.seal(Epoch(3), Slot(20), at(0));
    stripe.seal(Epoch(3), Slot(20), at(1));
    stripe.seal(Epoch(2), Slot(30), at(2));
    stripe.seal(Epoch(3), Slot(5), at(3));
    stripe.append(&run(20, 21, 1), Epoch(2), &1, at(3));
    assert_eq!(done(&mut stripe), ["tell 1 [20, 21) Sealed"]);
    let (id, runs) = close(&mut stripe, at(3)).expect("due");
    assert_eq!(runs, "j[10, 20)", "not to 30");
    assert!(!stripe.is_sealed(), "not to 5");
    stripe.put_done(id, PutOutcome::Stored, at(4));
    assert!(stripe.is_sealed());
    stripe.append(&run(21, 22, 2), Epoch(3), &2, at(5));
    stripe.seal(Epoch(3), Slot(20), at(5));
    assert!(stripe.is_sealed() && stripe.due().is_none());
    assert_eq!(stripe.held_bytes(), RECORD, "the reign's own token is kept");
}

#[test]
fn h3_objects_are_signed_with_the_newest_epoch() {
    let mut stripe = stripe();
    stripe.seal(Epoch(4), Slot(12), at(0));
    let (_, object) = stripe.close(at(0)).expect("due");
    assert_eq!(object.index.header.author.epoch, Epoch(4));
}

#[test]
fn h3_a_seal_survives_an_adoption() {
    let mut stripe = stripe();
    append(&mut stripe, 13, 14, 1, at(0));
    stripe.seal(Epoch(2), Slot(15), at(0));
    let (id, _) = close(&mut stripe, at(0)).expect("due");
    stripe.put_done(id, taken(author(1), &[junk(10, 12)]), at(1));
    assert!(!stripe.is_sealed());
    stripe.append(&run(12, 13, 2), Epoch(1), &2, at(1));
    assert_eq!(done(&mut stripe), ["adopted [10, 12)"]);
    let (id, runs) = close(&mut stripe, at(1)).expect("due at once");
    assert_eq!(runs, "j[12, 13) r[13, 14) j[14, 15)");
    stripe.put_done(id, PutOutcome::Stored, at(2));
    assert!(stripe.is_sealed());
}

/// The issued tail and later reigns go on in other segments; this chain does not.
#[test]
fn h5_nothing_is_filled_or_taken_behind_the_end_of_the_segment() {
    let mut stripe = stripe();
    stripe.end_at(Slot(12));
    stripe.seal(Epoch(2), Slot(20), at(0));
    stripe.fill(Slot(30), at(0));
    stripe.append(&run(11, 14, 1), Epoch(2), &1, at(0));
    let (id, runs) = close(&mut stripe, at(0)).expect("due");
    assert_eq!(runs, "j[10, 12)");
    stripe.put_done(id, PutOutcome::Stored, at(1));
    assert!(stripe.is_sealed(), "there is no more to seal");
    let told = done(&mut stripe).join("\n");
    assert!(told.contains("tell 1 [12, 14) Invalid"), "{told}");
    stripe.seal(Epoch(3), Slot(40), at(2));
    assert!(stripe.is_sealed() && stripe.due().is_none());
}
