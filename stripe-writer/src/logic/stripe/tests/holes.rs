//! H-1: filling.

use super::*;

#[test]
fn h1_fills_only_below_the_limit() {
    let mut stripe = stripe();
    append(&mut stripe, 15, 16, 1, at(0));
    assert!(stripe.due().is_none(), "behind a hole");
    stripe.fill(Slot(13), at(10));
    assert_eq!(stripe.due(), Some(at(10 + 50)), "junk lingers too");
    assert_eq!(close(&mut stripe, at(60)).expect("due").1, "j[10, 13)");
    stripe.fill(Slot(11), at(70));
    assert!(stripe.due().is_none(), "a lower limit changes nothing");
    append(&mut stripe, 13, 14, 2, at(70));
    assert_eq!(close(&mut stripe, at(120)).expect("due").1, "r[13, 14)");
}

#[test]
fn h1_never_fills_what_is_held() {
    let mut stripe = stripe();
    append(&mut stripe, 11, 13, 1, at(0));
    append(&mut stripe, 15, 16, 2, at(0));
    stripe.fill(Slot(20), at(10));
    let (id, runs) = close(&mut stripe, at(50)).expect("due since 1 came");
    assert_eq!(runs, "j[10, 11) r[11, 13) j[13, 15) r[15, 16) j[16, 20)");
    stripe.put_done(id, PutOutcome::Stored, at(60));
    let expected = [
        "committed [10, 20)",
        "tell 1 [11, 13) Committed",
        "tell 2 [15, 16) Committed",
    ];
    assert_eq!(done(&mut stripe), expected);
}

#[test]
fn h1_a_limit_inside_a_hole_leaves_the_rest_to_its_records() {
    let mut stripe = stripe();
    append(&mut stripe, 12, 14, 1, at(0));
    stripe.fill(Slot(11), at(0));
    append(&mut stripe, 11, 12, 2, at(0));
    let runs = close(&mut stripe, at(50)).expect("due").1;
    assert_eq!(runs, "j[10, 11) r[11, 12) r[12, 14)");
}

#[test]
fn h1_nothing_is_filled_below_the_chain() {
    let mut stripe = stripe();
    stripe.fill(Slot(10), at(0));
    stripe.fill(Slot(3), at(0));
    assert!(stripe.due().is_none());
}

#[test]
fn h1_what_was_filled_is_filled_again_behind_an_adopted_object() {
    let mut stripe = stripe();
    stripe.fill(Slot(20), at(0));
    let (id, _) = close(&mut stripe, at(50)).expect("due");
    append(&mut stripe, 15, 16, 1, at(50));
    stripe.fill(Slot(5), at(50));
    stripe.put_done(id, taken(author(1), &[run(10, 13, 9)]), at(60));
    assert_eq!(done(&mut stripe), ["adopted [10, 13)"]);
    let (id, runs) = close(&mut stripe, at(110)).expect("due");
    assert_eq!(runs, "j[13, 20)");
    stripe.put_done(id, PutOutcome::Stored, at(120));
    let expected = ["committed [13, 20)", "look up for 1 [15, 16) of 1"];
    assert_eq!(done(&mut stripe), expected);
}

#[test]
fn an_object_closes_after_the_linger_of_its_oldest_run() {
    let mut stripe = stripe();
    append(&mut stripe, 11, 12, 1, at(0));
    append(&mut stripe, 10, 11, 2, at(20));
    assert_eq!(stripe.due(), Some(at(50)));
    assert!(close(&mut stripe, at(49)).is_none());
    assert_eq!(
        close(&mut stripe, at(50)).expect("due").1,
        "r[10, 11) r[11, 12)"
    );
    append(&mut stripe, 12, 13, 3, at(60));
    assert_eq!(stripe.due(), Some(at(110)), "the linger of the next one");
}
