//! What went wrong in other shared logs, each as a script of its own: nothing breaks, and something does as soon as the
//! guard is taken out. Which lesson is which is said in `docs/simulation.md`.

use simulation::event::Post;
use simulation::faults::Faults;
use simulation::world::{Act, Script, Who};
use simulation::{Mutation, World};

/// Seeds of each script: each has its own times and latencies.
const SEEDS: u64 = 40;

const SEQUENCER: Post = Post::Sequencer(0);

/// What breaks where the world does not come to an end.
const STUCK: &str = "nothing comes to rest";

/// A script without faults of its own.
fn acts(acts: &[(u64, Act)]) -> Script {
    Script {
        faults: Faults::quiet(),
        acts: acts.to_vec(),
    }
}

/// A script with these faults all the time.
fn faults(change: impl Fn(&mut Faults), list: &[(u64, Act)]) -> Script {
    let mut script = acts(list);
    change(&mut script.faults);
    script
}

fn live(seed: u64, mutation: Option<Mutation>, script: &Script) -> Option<String> {
    let world = World::scripted(seed, mutation, script.clone()).expect("a world");
    let report = world.live();
    assert!(report.acknowledged > 0, "seed={seed}");
    report.broken
}

/// Nothing breaks, and without the guard one of these does.
fn holds_by(script: &Script, guard: Mutation, shows: &[&str]) {
    for seed in 1..=SEEDS {
        assert_eq!(live(seed, None, script), None, "seed={seed}");
    }
    let says = |broken: &String| shows.iter().any(|shows| broken.starts_with(shows));
    let broken = (1..=SEEDS).find_map(|seed| {
        let world = World::scripted(seed, Some(guard), script.clone()).expect("a world");
        world.live().broken.filter(says)
    });
    assert!(broken.is_some(), "{guard:?} is not noticed: {shows:?}");
}

/// A reigns, then B, then A again; each comes back while the other reigns.
#[test]
fn lesson_01_a_sequencer_that_comes_back_keeps_nothing() {
    let script = acts(&[
        (1500, Act::Pause(Who::Reigning, 3000)),
        (5500, Act::Pause(Who::Reigning, 2500)),
    ]);
    holds_by(&script, Mutation::FencedGoesOn, &["S-1", "S-2", "H-4"]);
}

/// A reigns, cannot reach the store and is heard by clients, while B reigns.
#[test]
fn lesson_01_a_reign_that_nobody_renews_runs_out() {
    let script = acts(&[
        (2000, Act::CutStore(Who::Reigning, 5000)),
        (2000, Act::Cut(Who::Waiting, Who::Reigning, 5000)),
    ]);
    holds_by(&script, Mutation::NoDeadline, &["order"]);
}

#[test]
fn lesson_02_a_reign_begins_from_the_chain_alone() {
    let script = acts(&[
        (1500, Act::Crash(Who::Reigning)),
        (4500, Act::Crash(Who::Reigning)),
    ]);
    holds_by(&script, Mutation::ReignFromStart, &["S-1"]);
}

/// A stripe-writer sleeps while a new reign asks for seals.
#[test]
fn lesson_03_a_seal_counts_when_every_part_is_sealed() {
    let script = acts(&[
        (2000, Act::Pause(Who::Owner(0), 2000)),
        (2000, Act::Crash(Who::Reigning)),
    ]);
    holds_by(&script, Mutation::SealOneLess, &["H-4"]);
}

/// A stripe-writer starts anew while a new reign asks for seals, and answers before it owns anything.
#[test]
fn lesson_03_a_seal_counts_by_the_parts_and_not_by_who_answers() {
    let script = acts(&[
        (2000, Act::Crash(Who::Reigning)),
        (2350, Act::Crash(Who::Owner(0))),
        (5000, Act::Crash(Who::Reigning)),
        (5350, Act::Crash(Who::Owner(1))),
    ]);
    holds_by(&script, Mutation::SealByWriter, &["H-4"]);
}

/// A stripe-writer sleeps while another layout comes, and does not know it when it wakes.
#[test]
fn lesson_04_who_lacks_the_new_layout_learns_it() {
    let script = acts(&[
        (2000, Act::Pause(Who::Owner(0), 2500)),
        (2200, Act::Wish(5, 1)),
        (5500, Act::Crash(Who::Owner(1))),
        (6000, Act::Wish(2, 3)),
    ]);
    holds_by(&script, Mutation::OldLayout, &["H-2", "H-5"]);
}

/// The same of a reign: the stripes come back to one that has not heard of it.
#[test]
fn lesson_04_who_lacks_the_new_reign_learns_it() {
    let script = acts(&[
        (1750, Act::CutServers(Who::Owner(0), 3000)),
        (2250, Act::Crash(Who::Reigning)),
    ]);
    holds_by(&script, Mutation::NeverLearn, &[STUCK]);
}

/// A client sleeps between its token and its records, until the positions are filled.
#[test]
fn lesson_05_a_fill_and_a_record_never_both_hold() {
    let pause = |at| (at, Act::Pause(Who::Newest(Post::Client(0)), 2500));
    let script = acts(&[pause(1000), pause(4000), pause(7000)]);
    let slow = |faults: &mut Faults| (faults.slow, faults.latency_slow) = (20, 1_800_000);
    let script = Script {
        acts: script.acts,
        ..faults(slow, &[])
    };
    holds_by(&script, Mutation::JunkIsCommitted, &["C-4"]);
    holds_by(&script, Mutation::FillAhead, &["H-1"]);
}

/// Objects of one that dies arrive without the one before them.
#[test]
fn lesson_06_a_hole_is_filled_and_not_skipped() {
    let list: Vec<_> = (1..9)
        .map(|n| (n * 1000, Act::Crash(Who::Owner(0))))
        .collect();
    let script = faults(|faults| faults.store.late = 25, &list);
    holds_by(&script, Mutation::LastName, &["S-7", "C-", "H-4", "R-1"]);
}

/// A sequencer sleeps between two attempts at one entry, until the name is free again.
#[test]
fn lesson_09_a_name_that_was_collected_is_not_had_again() {
    let script = acts(&[
        (2000, Act::CutStore(Who::Reigning, 1500)),
        (2700, Act::Pause(Who::Reigning, 6500)),
    ]);
    holds_by(&script, Mutation::NoListing, &["S-1", "S-2", "S-3"]);
}

/// The same of an object, whose name compaction has freed.
#[test]
fn lesson_09_an_object_that_was_merged_is_not_put_again() {
    let mut list = vec![
        (1400, Act::CutServers(Who::Owner(0), 8500)),
        (1600, Act::CutStore(Who::Owner(0), 1500)),
        (1900, Act::Pause(Who::Owner(0), 7600)),
    ];
    list.extend((30..90).map(|n| (n * 100, Act::Compact)));
    holds_by(
        &acts(&list),
        Mutation::NoVerify,
        &["C-4", "S-7", "H-4", "R-1", "C-1"],
    );
}

#[test]
fn lesson_10_an_answer_that_was_lost_is_found_out() {
    let script = faults(
        |faults| {
            (faults.store.answer_lost, faults.store.lost) = (30, 10);
            faults.store.doubled = 30;
        },
        &[],
    );
    holds_by(&script, Mutation::DoubtIsDone, &["C-4"]);
}

#[test]
fn lesson_11_409_says_nothing_about_whose_object_it_is() {
    let script = faults(|faults| faults.store.conflict = 30, &[]);
    holds_by(&script, Mutation::ExistsIsMine, &["C-4", "S-1"]);
}

/// An owner that goes on after its chain was walked by the next one.
#[test]
fn lesson_12_what_a_new_owner_has_read_is_fenced() {
    let script = faults(
        |faults| faults.store.late = 20,
        &[
            (2000, Act::Pause(Who::Owner(0), 700)),
            (4000, Act::Pause(Who::Owner(1), 700)),
            (6000, Act::Pause(Who::Owner(2), 700)),
        ],
    );
    holds_by(&script, Mutation::SkipFence, &["C-", "S-7", "H-4"]);
}

/// Two owners of a stripe write as if each were alone.
#[test]
fn lesson_13_the_fence_is_the_write_itself() {
    let script = acts(&[
        (2000, Act::Pause(Who::Owner(0), 900)),
        (5000, Act::Pause(Who::Owner(1), 900)),
    ]);
    holds_by(&script, Mutation::SameOwner, &["C-6"]);
}

#[test]
fn lesson_14_an_error_is_not_nothing() {
    let script = faults(
        |faults| {
            faults.store.failed_reads = 30;
            faults.severed = 30;
        },
        &[],
    );
    holds_by(&script, Mutation::ErrorIsJunk, &["record"]);
}

/// A reign begins while appends are under way, and a stripe is given back with some.
#[test]
fn lesson_15_a_tail_is_sealed_when_what_is_under_way_has_arrived() {
    let script = acts(&[
        (2000, Act::Crash(Who::Reigning)),
        (3500, Act::Crash(Who::Owner(0))),
        (8000, Act::Stop(Who::Owner(0))),
    ]);
    holds_by(&script, Mutation::SealIgnored, &["H-4"]);
    holds_by(&script, Mutation::GiveBackEarly, &["C-4"]);
}

/// A client cannot reach the sequencer that it asks, and then another one reigns.
#[test]
fn lesson_16_nobody_waits_for_ever_for_a_stale_tail() {
    let client = Who::Newest(Post::Client(0));
    let script = acts(&[
        (2000, Act::Cut(client, Who::Reigning, 2500)),
        (3000, Act::Crash(Who::Reigning)),
        (5000, Act::Pause(Who::Reigning, 6000)),
    ]);
    holds_by(&script, Mutation::StayWithOne, &[STUCK]);
}

/// Questions for the durable tail, and reads, while objects are on their way to a slow store.
#[test]
fn lesson_22_what_is_being_stored_is_not_called_durable() {
    let script = faults(|faults| faults.store_latency = 300_000, &[]);
    holds_by(&script, Mutation::FrontierAhead, &["S-7"]);
}

/// A second sequencer that looks at nobody, beside one that reigns.
#[test]
fn lesson_01_two_that_reign_at_once_grant_nothing_twice() {
    let script = faults(
        |faults| faults.hasty = 100,
        &[(2000, Act::Start(SEQUENCER)), (4000, Act::Start(SEQUENCER))],
    );
    holds_by(&script, Mutation::FencedGoesOn, &["S-1", "S-2"]);
}
