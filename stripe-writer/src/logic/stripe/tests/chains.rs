//! C-3 to C-6, C-8: order of the chain, others' objects, fences.

use super::*;

#[test]
fn c4_acknowledges_in_chain_order() {
    let mut stripe = stripe();
    let ids = fly(&mut stripe, 3, at(0));
    stripe.put_done(ids[2], PutOutcome::Stored, at(60));
    stripe.put_done(ids[1], PutOutcome::Stored, at(60));
    assert_eq!(done(&mut stripe), [""; 0]);
    assert_eq!(stripe.frontier(), Slot(10));
    stripe.put_done(ids[0], PutOutcome::Stored, at(60));
    let expected = [
        "committed [10, 11)",
        "tell 0 [10, 11) Committed",
        "committed [11, 12)",
        "tell 1 [11, 12) Committed",
        "committed [12, 13)",
        "tell 2 [12, 13) Committed",
    ];
    assert_eq!(done(&mut stripe), expected, "r1: committed before told");
    assert_eq!(stripe.frontier(), Slot(13));
}

#[test]
fn c4_an_object_behind_a_lost_one_is_not_acknowledged() {
    let mut stripe = stripe();
    let ids = fly(&mut stripe, 2, at(0));
    stripe.put_done(ids[1], PutOutcome::Stored, at(60));
    let other = taken(author(3), &[junk(10, 11)]);
    stripe.put_done(ids[0], other, at(60));
    let expected = [
        "tell 0 [10, 11) NotOwner",
        "tell 1 [11, 12) NotOwner",
        "fenced",
    ];
    assert_eq!(done(&mut stripe), expected);
    assert_eq!(stripe.frontier(), Slot(10));
}

#[test]
fn c8_an_unknown_outcome_holds_up_all_behind() {
    let mut stripe = stripe();
    let ids = fly(&mut stripe, 3, at(0));
    stripe.put_done(ids[1], PutOutcome::Stored, at(60));
    stripe.put_done(ids[2], taken(author(1), &[junk(12, 13)]), at(60));
    stripe.fill(Slot(20), at(60));
    stripe.seal(Epoch(2), Slot(20), at(60));
    assert_eq!(done(&mut stripe), [""; 0]);
    assert_eq!((stripe.frontier(), stripe.flights()), (Slot(10), 3));
}

#[test]
fn c5_an_object_of_a_former_owner_is_adopted() {
    let mut stripe = stripe();
    append(&mut stripe, 10, 13, 5, at(0));
    append(&mut stripe, 13, 14, 6, at(0));
    let (id, _) = close(&mut stripe, at(50)).expect("due");
    append(&mut stripe, 16, 17, 7, at(50));
    let former = taken(author(1), &[junk(10, 11), run(11, 12, 5)]);
    stripe.put_done(id, former, at(60));
    let expected = ["adopted [10, 12)", "look up for 5 [10, 12) of 5"];
    assert_eq!(done(&mut stripe), expected);
    assert_eq!(stripe.frontier(), Slot(12), "c3: it is the chain's next");
    let (id, runs) = close(&mut stripe, at(60 + 50)).expect("due");
    assert_eq!(runs, "r[12, 13) r[13, 14)", "the rest, planned anew");
    stripe.put_done(id, PutOutcome::Stored, at(120));
    let expected = [
        "committed [12, 14)",
        "tell 5 [12, 13) Committed",
        "tell 6 [13, 14) Committed",
    ];
    assert_eq!(done(&mut stripe), expected);
    assert_eq!(stripe.held_bytes(), RECORD, "16 waits for its hole");
}

#[test]
fn c5_mine_with_other_content_is_adopted() {
    let mut stripe = stripe();
    let ids = fly(&mut stripe, 1, at(0));
    let mine = taken(author(2), &[run(10, 11, 0), junk(11, 15)]);
    stripe.put_done(ids[0], mine, at(60));
    let expected = ["adopted [10, 15)", "look up for 0 [10, 11) of 0"];
    assert_eq!(done(&mut stripe), expected);
}

#[test]
fn c5_flights_given_up_are_not_heard_again() {
    let mut stripe = stripe();
    let ids = fly(&mut stripe, 3, at(0));
    stripe.put_done(ids[0], taken(author(1), &[junk(10, 12)]), at(60));
    let expected = [
        "adopted [10, 12)",
        "look up for 0 [10, 11) of 0",
        "look up for 1 [11, 12) of 1",
    ];
    assert_eq!(done(&mut stripe), expected);
    stripe.put_done(ids[1], PutOutcome::Stored, at(61));
    stripe.put_done(ids[2], PutOutcome::Stored, at(61));
    assert_eq!(done(&mut stripe), [""; 0]);
    assert_eq!((stripe.frontier(), stripe.flights()), (Slot(12), 0));
    let (id, runs) = close(&mut stripe, at(61)).expect("it lingers no second time");
    assert!(
        !ids.contains(&id),
        "numbers of flights are never used twice"
    );
    assert_eq!(runs, "r[12, 13)");
}

#[test]
fn c5_the_first_outcome_of_a_put_counts() {
    let mut stripe = stripe();
    let ids = fly(&mut stripe, 2, at(0));
    stripe.put_done(ids[1], PutOutcome::Stored, at(60));
    stripe.put_done(ids[1], taken(author(3), &[junk(11, 12)]), at(60));
    stripe.put_done(ids[0], PutOutcome::Stored, at(60));
    assert_eq!(stripe.frontier(), Slot(12));
    assert!(!stripe.is_fenced());
}

#[test]
fn c6_only_a_former_owners_object_is_adopted() {
    let same_number = Author {
        writer: WriterId([9; 16]),
        ..author(2)
    };
    for (author, fences) in [
        (author(1), false),
        (author(2), false),
        (same_number, true),
        (author(3), true),
    ] {
        let mut stripe = stripe();
        let ids = fly(&mut stripe, 1, at(0));
        stripe.put_done(ids[0], taken(author, &[junk(10, 11)]), at(60));
        assert_eq!(stripe.is_fenced(), fences, "{author:?}");
        let frontier = if fences { Slot(10) } else { Slot(11) };
        assert_eq!(stripe.frontier(), frontier, "{author:?}");
    }
}

#[test]
fn c6_after_a_fence_nothing_is_acknowledged() {
    let mut stripe = stripe();
    let ids = fly(&mut stripe, 2, at(0));
    append(&mut stripe, 11, 12, 1, at(60)); // in flight: waits
    append(&mut stripe, 12, 13, 3, at(60)); // held
    append(&mut stripe, 20, 21, 4, at(60)); // held behind a hole
    append(&mut stripe, 20, 21, 5, at(60)); // where another is: waits
    stripe.put_done(ids[0], taken(author(3), &[junk(10, 11)]), at(60));
    let expected = [
        "tell 0 [10, 11) NotOwner",
        "tell 1 [11, 12) NotOwner",
        "tell 3 [12, 13) NotOwner",
        "tell 4 [20, 21) NotOwner",
        "tell 1 [11, 12) NotOwner",
        "tell 5 [20, 21) NotOwner",
        "fenced",
    ];
    assert_eq!(done(&mut stripe), expected);
    stripe.put_done(ids[1], PutOutcome::Stored, at(70));
    stripe.verified(ids[1], true, at(70));
    stripe.fence();
    assert_eq!(done(&mut stripe), [""; 0], "told once, and of nothing more");
    append(&mut stripe, 5, 6, 6, at(70)); // decided
    append(&mut stripe, 9, 22, 7, at(70));
    stripe.fill(Slot(30), at(70));
    stripe.seal(Epoch(2), Slot(30), at(70));
    let expected = ["tell 6 [5, 6) NotOwner", "tell 7 [9, 22) NotOwner"];
    assert_eq!(done(&mut stripe), expected);
    assert!(stripe.due().is_none() && close(&mut stripe, at(9999)).is_none());
    assert_eq!((stripe.frontier(), stripe.is_sealed()), (Slot(10), false));
}

/// Two objects of this owner are stored further on when another's comes first. The chain comes to end where
/// the second one starts: that is met again under its name. The first one lies inside and is ignored.
#[test]
fn c3_the_object_at_the_end_of_the_chain_is_next_and_one_inside_is_not() {
    let mut stripe = stripe();
    let ids = fly(&mut stripe, 3, at(0));
    stripe.put_done(ids[1], PutOutcome::Stored, at(60));
    stripe.put_done(ids[2], PutOutcome::Stored, at(60));
    stripe.put_done(ids[0], taken(author(1), &[junk(10, 12)]), at(60));
    let expected = [
        "adopted [10, 12)",
        "look up for 0 [10, 11) of 0",
        "look up for 1 [11, 12) of 1",
    ];
    assert_eq!(done(&mut stripe), expected, "[11, 12) is an orphan");
    let (id, runs) = close(&mut stripe, at(60)).expect("due");
    assert_eq!(runs, "r[12, 13)", "not acknowledged before it is met");
    stripe.put_done(id, PutOutcome::Stored, at(61));
    let expected = ["committed [12, 13)", "tell 2 [12, 13) Committed"];
    assert_eq!(done(&mut stripe), expected);
}
