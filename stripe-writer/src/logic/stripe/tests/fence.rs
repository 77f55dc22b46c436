//! The first object of an owner (C-6).

use super::*;

#[test]
fn c6_the_fence_goes_alone_and_is_the_first_object() {
    let mut stripe = newcomer();
    for slot in 10..13 {
        append(&mut stripe, slot, slot + 1, 1, at(0));
    }
    let (id, object) = stripe.close(at(60)).expect("due");
    assert_eq!(object.index.header.author, author(2));
    assert_eq!(object.index.header.start, Slot(10));
    append(&mut stripe, 13, 14, 13, at(60));
    assert!(
        stripe.close(at(500)).is_none(),
        "nothing goes out behind an unstored fence"
    );
    stripe.put_done(id, PutOutcome::Stored, at(510));
    assert_eq!(stripe.frontier(), Slot(13));
    for slot in 14..17 {
        append(&mut stripe, slot, slot + 1, 1, at(510));
        assert!(
            stripe.close(at(600)).is_some(),
            "behind it puts overlap again"
        );
    }
}

#[test]
fn c6_of_two_with_one_number_the_second_takes_the_next_and_fences_the_first() {
    let other = Author {
        writer: WriterId([9; 16]),
        ..author(2)
    };
    let mut second = newcomer();
    append(&mut second, 11, 12, 1, at(0));
    second.fill(Slot(11), at(0));
    let (id, _) = second.close(at(60)).expect("due");
    second.put_done(id, taken(other, &[junk(10, 11)]), at(70));
    assert!(!second.is_fenced());
    assert_eq!(
        (second.frontier(), second.owner()),
        (Slot(11), OwnerNumber(3))
    );
    let (id, object) = second.close(at(130)).expect("its record is put again");
    let fence = object.index.clone();
    assert_eq!(fence.header.author.owner, OwnerNumber(3));
    second.put_done(id, PutOutcome::Stored, at(140));

    let mut first = stripe();
    first.author = other;
    let ids = fly(&mut first, 1, at(0));
    first.put_done(ids[0], PutOutcome::Stored, at(10));
    append(&mut first, 11, 12, 7, at(10));
    let (id, _) = first.close(at(70)).expect("due");
    first.put_done(id, PutOutcome::Taken(Box::new(fence)), at(80));
    assert!(first.is_fenced());
}

#[test]
fn c6_a_newcomer_is_fenced_by_a_newer_one() {
    let mut stripe = newcomer();
    append(&mut stripe, 10, 11, 1, at(0));
    let (id, _) = stripe.close(at(60)).expect("due");
    stripe.put_done(id, taken(author(3), &[junk(10, 11)]), at(70));
    assert!(stripe.is_fenced());
}

/// A former owner that is busy puts objects of 16 MB at the chain's end all the time. One of a single slot
/// that sets out later comes first.
#[test]
fn c6_a_newcomer_that_came_too_late_puts_one_slot_alone() {
    let mut stripe = newcomer();
    append(&mut stripe, 10, 12, 1, at(0));
    append(&mut stripe, 12, 16, 2, at(0));
    append(&mut stripe, 16, 18, 3, at(0));
    let (id, _) = stripe.close(at(60)).expect("due");
    stripe.put_done(id, taken(author(1), &[run(10, 12, 1)]), at(70));
    done(&mut stripe);
    let (id, object) = close(&mut stripe, at(70)).expect("at once");
    assert_eq!(object, "r[12, 13)");
    assert!(stripe.close(at(500)).is_none(), "the fence goes alone");
    stripe.put_done(id, PutOutcome::Stored, at(500));
    let expected = ["committed [12, 13)", "tell 2 [12, 13) Committed"];
    assert_eq!(done(&mut stripe), expected);
    let (id, object) = close(&mut stripe, at(500)).expect("due");
    assert_eq!(object, "r[13, 16) r[16, 18)");
    stripe.put_done(id, PutOutcome::Stored, at(510));
    let expected = [
        "committed [13, 18)",
        "tell 2 [13, 16) Committed",
        "tell 3 [16, 18) Committed",
    ];
    assert_eq!(done(&mut stripe), expected);
    assert_eq!(stripe.held_bytes(), 0);
}

#[test]
fn c6_the_one_slot_may_be_junk() {
    let mut stripe = newcomer();
    append(&mut stripe, 14, 15, 1, at(0));
    stripe.fill(Slot(14), at(0));
    let (id, _) = stripe.close(at(60)).expect("due");
    stripe.put_done(id, taken(author(1), &[junk(10, 11)]), at(70));
    let (_, object) = close(&mut stripe, at(70)).expect("at once");
    assert_eq!(object, "j[11, 12)");
}
