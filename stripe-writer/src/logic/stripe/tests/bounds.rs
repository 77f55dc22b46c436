//! L: every bound, and what happens there.

use wire::limits::{MAX_OBJECT_BYTES, MAX_OBJECT_RUNS, MAX_RUN_BYTES};

use super::*;
use crate::limits::WAITERS_A_RUN;

#[test]
fn l_an_object_closes_when_it_is_full() {
    let mut stripe = stripe();
    for slot in 10..13 {
        append(&mut stripe, slot, slot + 1, 1, at(0));
    }
    assert_eq!(stripe.due(), Some(at(50)), "3 of 4");
    append(&mut stripe, 13, 15, 1, at(1));
    assert_eq!(stripe.due(), Some(Duration::ZERO));
    append(&mut stripe, 15, 16, 1, at(2));
    let (_, runs) = close(&mut stripe, at(2)).expect("full");
    assert_eq!(
        runs, "r[10, 11) r[11, 12) r[12, 13) r[13, 15)",
        "as few as it takes"
    );
    assert_eq!(stripe.held_bytes(), RECORD);
    assert_eq!(stripe.due(), Some(at(52)), "the rest lingers");
}

#[test]
fn l_runs_of_an_object() {
    let mut stripe = stripe();
    stripe.config.target_bytes = usize::MAX;
    let body = RunBody::new(&[""]).expect("valid");
    let runs = MAX_OBJECT_RUNS as u64 + 1;
    for slot in 10..10 + runs {
        assert_eq!(
            stripe.due().is_some_and(|due| due.is_zero()),
            slot - 10 >= runs - 1
        );
        let identity = run(0, 1, 1).identity().expect("records");
        let run = Run::records(Slot(slot), identity, body.clone());
        stripe.append(&run, Epoch(1), &1, at(0));
    }
    let (_, object) = stripe.close(at(0)).expect("full");
    assert_eq!(object.index.runs.len(), MAX_OBJECT_RUNS);
    assert_eq!(stripe.held.planned(), Slot(10 + runs - 1));
}

#[test]
fn l_puts_under_way() {
    let mut stripe = stripe();
    let ids = fly(&mut stripe, 4, at(0));
    assert_eq!(ids.len(), FLIGHTS_A_STRIPE);
    append(&mut stripe, 14, 15, 9, at(0));
    assert!(stripe.due().is_none() && close(&mut stripe, at(9999)).is_none());
    stripe.put_done(ids[1], PutOutcome::Stored, at(60));
    assert!(stripe.due().is_none(), "the front is still under way");
    stripe.put_done(ids[0], PutOutcome::Stored, at(60));
    assert_eq!(stripe.due(), Some(at(50)));
}

#[test]
fn l_waiters_of_a_run() {
    let mut stripe = stripe();
    for token in 0..=9 {
        stripe.append(&run(10, 11, 1), Epoch(1), &token, at(0));
    }
    assert_eq!(WAITERS_A_RUN, 8);
    let expected = ["tell 8 [10, 11) Busy", "tell 9 [10, 11) Busy"];
    assert_eq!(done(&mut stripe), expected);
}

#[test]
fn l_repeats_of_what_is_under_way() {
    let mut stripe = stripe();
    let ids = fly(&mut stripe, 1, at(0));
    let run = run(10, 11, 0);
    for token in 0..=1024 {
        stripe.append(&run, Epoch(1), &token, at(0));
    }
    assert_eq!(LATE_A_STRIPE, 1024);
    assert_eq!(done(&mut stripe), ["tell 1024 [10, 11) Busy"]);
    stripe.put_done(ids[0], PutOutcome::Stored, at(60));
    assert_eq!(done(&mut stripe).len(), 2 + LATE_A_STRIPE);
    stripe.append(&run, Epoch(1), &1, at(60));
    assert_eq!(done(&mut stripe), ["look up for 1 [10, 11) of 0"]);
}

#[test]
fn l_slots_ahead_of_the_chain() {
    let mut stripe = stripe();
    let end = 10 + MAX_AHEAD_SLOTS;
    append(&mut stripe, end - 1, end, 1, at(0));
    assert_eq!(done(&mut stripe), [""; 0]);
    append(&mut stripe, end, end + 1, 2, at(0));
    append(&mut stripe, u64::MAX - 3, u64::MAX - 1, 3, at(0));
    let far = format!("tell 2 [{end}, {}) Busy", end + 1);
    let farthest = format!("tell 3 [{}, {}) Busy", u64::MAX - 3, u64::MAX - 1);
    assert_eq!(done(&mut stripe), [far, farthest]);
    append(&mut stripe, 8, 11, 4, at(0));
    assert_eq!(done(&mut stripe), ["look up for 4 [8, 10) of 4"]);
}

#[test]
fn l_an_object_that_cannot_be_built_fences_and_forgets_nobody() {
    let mut stripe = stripe();
    stripe.config.target_bytes = 2 * MAX_OBJECT_BYTES;
    let identity = run(0, 1, 1).identity().expect("records");
    let body = RunBody::new(&vec![vec![0; 1 << 20]; 3]).expect("valid");
    let runs = 2 * u32::try_from(MAX_OBJECT_BYTES / body.len()).expect("small");
    for number in 0..runs {
        let first = Slot(10 + u64::from(number) * 3);
        let run = Run::records(first, identity, body.clone());
        assert!(run.body_len() <= MAX_RUN_BYTES);
        stripe.append(&run, Epoch(1), &number, at(0));
    }
    assert!(stripe.close(at(50)).is_none());
    let lines = done(&mut stripe);
    let told = lines.iter().filter(|line| line.ends_with("NotOwner"));
    assert_eq!(told.count(), runs as usize);
    assert_eq!(lines.last().map(String::as_str), Some("fenced"));
}

#[test]
fn a_stop_puts_without_linger() {
    let mut stripe = stripe();
    append(&mut stripe, 10, 11, 1, at(7));
    stripe.flush();
    assert_eq!(stripe.due(), Some(at(7)));
}
