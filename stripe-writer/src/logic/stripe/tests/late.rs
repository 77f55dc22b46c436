//! C-7: what completes late is verified before it counts.

use super::*;

/// What follows when the put of `[10, 11)`, begun in time, ends `after_ms` after the take-over.
fn late(after_ms: u64, outcome: PutOutcome, in_chain: bool) -> Vec<String> {
    let mut stripe = stripe();
    let ids = fly(&mut stripe, 1, at(0));
    let now = at(after_ms);
    stripe.put_done(ids[0], outcome, now);
    let mut lines = done(&mut stripe);
    stripe.verified(ids[0], in_chain, now);
    lines.extend(done(&mut stripe));
    lines
}

#[test]
fn c7_a_late_completion_is_verified_before_it_is_acknowledged() {
    let committed = ["committed [10, 11)", "tell 0 [10, 11) Committed"];
    let fenced = ["tell 0 [10, 11) NotOwner", "fenced"];
    let asked = |then: [&'static str; 2]| [&["verify 0 of owner 2"], then.as_slice()].concat();
    assert_eq!(late(1000, PutOutcome::Stored, false), committed, "in time");
    assert_eq!(late(1001, PutOutcome::Stored, true), asked(committed));
    assert_eq!(late(1001, PutOutcome::Stored, false), asked(fenced));
    assert_eq!(late(u64::MAX / 2, PutOutcome::Stored, false), asked(fenced));
}

#[test]
fn c7_a_former_owners_object_met_late_is_verified_before_it_is_adopted() {
    let former = || taken(author(1), &[junk(10, 11)]);
    let adopted = ["adopted [10, 11)", "look up for 0 [10, 11) of 0"];
    let fenced = ["tell 0 [10, 11) NotOwner", "fenced"];
    let asked = |then: [&'static str; 2]| [&["verify 0 of owner 1"], then.as_slice()].concat();
    assert_eq!(late(1000, former(), false), adopted, "in time");
    assert_eq!(late(1001, former(), true), asked(adopted));
    assert_eq!(late(1001, former(), false), asked(fenced));
}

#[test]
fn c7_a_new_owners_object_needs_no_walk() {
    let newer = taken(author(3), &[junk(10, 11)]);
    let fenced = ["tell 0 [10, 11) NotOwner", "fenced"];
    assert_eq!(late(1001, newer, true), fenced);
}

/// An object that is in the chain says nothing of what lies behind it, however lately that was looked at.
#[test]
fn c7_after_a_pause_each_flight_is_verified() {
    let mut stripe = stripe();
    let ids = fly(&mut stripe, 3, at(0));
    stripe.put_done(ids[0], PutOutcome::Stored, at(5000));
    stripe.put_done(ids[1], PutOutcome::Stored, at(5000));
    assert_eq!(done(&mut stripe), ["verify 0 of owner 2"], "asked once");
    stripe.verified(ids[0], true, at(5001));
    let expected = [
        "committed [10, 11)",
        "tell 0 [10, 11) Committed",
        "verify 1 of owner 2",
    ];
    assert_eq!(done(&mut stripe), expected);
    stripe.put_done(ids[2], PutOutcome::Stored, at(5002));
    stripe.verified(ids[1], false, at(5002));
    let expected = [
        "tell 1 [11, 12) NotOwner",
        "tell 2 [12, 13) NotOwner",
        "fenced",
    ];
    assert_eq!(done(&mut stripe), expected);
}

#[test]
fn c7_what_began_after_the_pause_is_in_time_behind_one_that_was_verified() {
    let mut stripe = stripe();
    append(&mut stripe, 10, 11, 0, at(5000));
    append(&mut stripe, 11, 12, 1, at(5000));
    stripe.config.target_bytes = 1;
    let (first, _) = close(&mut stripe, at(5000)).expect("full");
    let (second, _) = close(&mut stripe, at(5000)).expect("full");
    stripe.put_done(second, PutOutcome::Stored, at(5010));
    stripe.put_done(first, PutOutcome::Stored, at(5010));
    assert_eq!(done(&mut stripe), ["verify 0 of owner 2"]);
    stripe.verified(first, true, at(5020));
    let expected = [
        "committed [10, 11)",
        "tell 0 [10, 11) Committed",
        "committed [11, 12)",
        "tell 1 [11, 12) Committed",
    ];
    assert_eq!(done(&mut stripe), expected);
}

#[test]
fn c7_the_end_of_the_chain_grows_older_from_the_start_of_a_put() {
    let mut stripe = stripe();
    for (request, begun, ended, verified) in [
        (0, 100, 900, false),
        (1, 900, 1100, false),
        (2, 1000, 1901, true),
    ] {
        let slot = 10 + u64::from(request);
        append(&mut stripe, slot, slot + 1, request, at(begun));
        stripe.flush();
        let (id, _) = close(&mut stripe, at(begun)).expect("due");
        stripe.put_done(id, PutOutcome::Stored, at(ended));
        let lines = done(&mut stripe);
        let asked = lines.iter().any(|line| line.starts_with("verify"));
        assert_eq!(asked, verified, "request {request}: {lines:?}");
    }
}

#[test]
fn c7_a_walk_that_was_not_asked_for_proves_nothing() {
    let mut stripe = stripe();
    let ids = fly(&mut stripe, 2, at(0));
    stripe.verified(ids[0], true, at(60));
    stripe.verified(ids[0], false, at(60));
    stripe.put_done(ids[1], PutOutcome::Stored, at(2000));
    stripe.verified(ids[1], true, at(2000));
    assert_eq!(done(&mut stripe), [""; 0], "0 is still under way");
    stripe.put_done(ids[0], PutOutcome::Stored, at(2000));
    stripe.verified(ids[1], false, at(2000));
    stripe.put_done(ids[0], PutOutcome::Stored, at(2001));
    assert_eq!(done(&mut stripe), ["verify 0 of owner 2"]);
}
