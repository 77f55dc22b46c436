//! Seeds that have to hold, and guards whose absence has to be noticed.

use simulation::{Mutation, Report, World};

/// Seeds among which a mutation has to be noticed: more than twice as many as it took when this was written.
const SEEDS: u64 = 2500;

/// What breaks where a life does not come to an end.
const STUCK: &str = "nothing comes to rest";

fn live(seed: u64, mutation: Option<Mutation>) -> Report {
    World::new(seed, mutation, false).expect("a world").live()
}

/// A seed has to break the rule that the guard is for: which one is first to break another is chance.
fn is_noticed(mutation: Mutation, shows: &str) {
    // That a life does not end says little, but where it is what has to be seen.
    let says = |broken: &String| {
        broken.starts_with(shows) && (shows == STUCK || !broken.starts_with(STUCK))
    };
    let broken = (1..=SEEDS).find_map(|seed| live(seed, Some(mutation)).broken.filter(says));
    assert!(broken.is_some(), "{mutation:?} is not noticed: {shows}");
}

#[test]
fn no_seed_breaks_a_rule() {
    for seed in 1..=150 {
        let report = live(seed, None);
        assert_eq!(report.broken, None, "seed={seed}");
        assert!(report.acknowledged > 0, "seed={seed}");
    }
}

#[test]
fn the_same_seed_is_the_same_run() {
    for seed in [1, 7, 20] {
        assert_eq!(live(seed, None), live(seed, None), "seed={seed}");
    }
    assert_ne!(live(1, None).trace, live(2, None).trace);
}

/// One test a guard: rule and row of the lessons, guard, and how its absence shows.
macro_rules! guards {
    ($($name:ident: $mutation:ident => $shows:literal;)*) => {
        $(#[test]
        fn $name() {
            is_noticed(Mutation::$mutation, $shows);
        })*

        #[test]
        fn every_guard_has_a_test() {
            let tested = [$(Mutation::$mutation),*];
            assert!(Mutation::ALL.iter().all(|(_, mutation)| tested.contains(mutation)));
        }
    };
}

guards! {
    s3_lesson_1_fenced_is_fenced: FencedGoesOn => "";
    s5_lesson_1_a_reign_runs_out: NoDeadline => "order";
    s4_lesson_2_a_reign_starts_at_the_reservation: ReignFromStart => "S-1";
    s4_a_standby_begins_behind_the_reign_that_is_over: BeginAnywhere => "S-4";
    s2_a_reply_waits_for_the_reservation: ReplyBeforeDurable => "S-2";
    s3_lesson_9_a_listing_follows_the_create: NoListing => "";
    h4_lesson_3_every_stripe_is_sealed: SealOneLess => "H-4";
    h4_seals_are_counted_by_stripe: SealByWriter => "H-4";
    h5_every_open_segment_is_sealed_and_not_the_newest_alone: SealNewOnly => "";
    h5_every_open_segment_is_sealed_and_not_the_older_alone: SealOldOnly => "H-4";
    h5_a_segment_begins_where_nothing_is_granted_any_more: RestripeOpen => "H-5";
    h5_a_segment_begins_at_the_issued_tail: RestripeAtDurable => "H-5";
    h5_a_reign_that_has_not_granted_opens_no_segment: RestripeUnsealed => "H-5";
    h5_lesson_4_a_token_is_split_by_its_own_segments: OldLayout => "H-2";
    h3_lesson_4_who_lacks_the_new_reign_learns_it: NeverLearn => "nothing comes to rest";
    s4_lesson_16_whoever_reigns_is_found: StayWithOne => "nothing comes to rest";
    h3_lesson_15_a_seal_seals: SealIgnored => "H-4";
    s7_lesson_15_only_what_is_durable_is_reported: FrontierAhead => "S-7";
    c5_lesson_11_exists_is_not_mine: ExistsIsMine => "";
    c8_lesson_10_doubt_is_resolved: DoubtIsDone => "";
    c6_lesson_13_every_owner_has_its_number: SameOwner => "C-6";
    c6_lesson_12_a_stripe_is_taken_by_a_fence: SkipFence => "";
    c4_lesson_15_what_is_given_back_is_durable: GiveBackEarly => "C-4";
    c7_lesson_9_a_late_commit_is_verified: NoVerify => "";
    c3_lesson_6_an_owner_goes_on_at_the_end_of_the_chain: LastName => "";
    h1_nothing_is_filled_that_was_not_granted: FillAhead => "H-1";
    h2_lesson_5_a_record_over_junk_is_junk: JunkIsCommitted => "C-4";
    h2_lesson_14_an_error_is_not_nothing: ErrorIsJunk => "record";
    h2_not_owner_leaves_it_open: NotOwnerIsRefused => "record";
    r5_a_tail_is_of_who_reigns: TailOfAnyone => "order";
}
