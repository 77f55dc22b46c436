//! H-2: records that arrive again, or where something is already.

use super::*;

#[test]
fn h2_decided_slots_are_looked_up_and_the_rest_is_held() {
    let mut stripe = stripe();
    append(&mut stripe, 7, 12, 1, at(0)); // a fence lies at [9, 10), say
    assert_eq!(done(&mut stripe), ["look up for 1 [7, 10) of 1"]);
    let (id, runs) = close(&mut stripe, at(50)).expect("due");
    assert_eq!(runs, "r[10, 12)");
    stripe.put_done(id, PutOutcome::Stored, at(60));
    let expected = ["committed [10, 12)", "tell 1 [10, 12) Committed"];
    assert_eq!(done(&mut stripe), expected, "each answer for its own slots");
}

#[test]
fn h2_a_repeat_of_what_is_held_waits_with_it() {
    let mut stripe = stripe();
    append(&mut stripe, 10, 12, 1, at(0));
    stripe.append(&run(10, 12, 1), Epoch(1), &77, at(10));
    let part = run(10, 12, 1).part(Slot(11), Slot(12)).expect("its own");
    stripe.append(&part, Epoch(1), &78, at(10));
    assert_eq!(stripe.held_bytes(), 2 * RECORD, "held once");
    let (id, runs) = close(&mut stripe, at(50)).expect("due");
    assert_eq!(runs, "r[10, 12)");
    stripe.put_done(id, PutOutcome::Stored, at(60));
    let expected = [
        "committed [10, 12)",
        "tell 1 [10, 12) Committed",
        "tell 77 [10, 12) Committed",
        "tell 78 [11, 12) Committed",
    ];
    assert_eq!(done(&mut stripe), expected);
}

#[test]
fn h2_a_repeat_of_what_is_under_way_waits_until_it_is_decided() {
    let mut stripe = stripe();
    let ids = fly(&mut stripe, 2, at(0));
    stripe.append(&run(10, 11, 0), Epoch(1), &77, at(60));
    append(&mut stripe, 11, 13, 1, at(60));
    assert_eq!(done(&mut stripe), [""; 0]);
    stripe.put_done(ids[0], PutOutcome::Stored, at(60));
    let expected = [
        "committed [10, 11)",
        "tell 0 [10, 11) Committed",
        "look up for 77 [10, 11) of 0",
    ];
    assert_eq!(done(&mut stripe), expected);
    stripe.put_done(ids[1], PutOutcome::Stored, at(60));
    let expected = [
        "committed [11, 12)",
        "tell 1 [11, 12) Committed",
        "look up for 1 [11, 12) of 1",
    ];
    assert_eq!(done(&mut stripe), expected, "[12, 13) is held");
    assert_eq!(stripe.held_bytes(), RECORD);
}

/// Junk or another's record that is only held decides nothing yet: a former owner's object may still come
/// first, and hold the very record that would have been called lost.
#[test]
fn h2_nothing_is_told_of_slots_that_others_hold_until_they_are_decided() {
    let mut stripe = stripe();
    append(&mut stripe, 10, 11, 1, at(0));
    append(&mut stripe, 12, 14, 1, at(0));
    stripe.fill(Slot(12), at(0));
    append(&mut stripe, 10, 15, 2, at(10));
    assert_eq!(done(&mut stripe), [""; 0]);
    let (id, runs) = close(&mut stripe, at(50)).expect("due");
    assert_eq!(runs, "r[10, 11) j[11, 12) r[12, 14) r[14, 15)");
    stripe.put_done(id, taken(author(1), &[run(10, 14, 2)]), at(60));
    let expected = [
        "adopted [10, 14)",
        "look up for 1 [10, 11) of 1",
        "look up for 1 [12, 14) of 1",
        "look up for 2 [10, 11) of 2",
        "look up for 2 [11, 12) of 2",
        "look up for 2 [12, 14) of 2",
    ];
    assert_eq!(done(&mut stripe), expected);
    assert_eq!(stripe.held_bytes(), RECORD, "[14, 15) of 2");
}

#[test]
fn junk_cannot_be_appended() {
    let mut stripe = stripe();
    stripe.append(&junk(10, 12), Epoch(1), &1, at(0));
    assert_eq!(done(&mut stripe), ["tell 1 [10, 12) Invalid"]);
    assert!(stripe.due().is_none());
}
