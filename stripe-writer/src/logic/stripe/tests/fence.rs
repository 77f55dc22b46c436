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
