//! What happens in one life, and how it has to end.

use std::collections::BTreeMap;
use std::time::Duration;

use wire::Epoch;

use super::owner::{Owner, Stage};
use super::world::{Faults, GRACE, MAX_COMMIT_AGE, Op, World};

/// What has to be met in many lives.
pub(super) const MUST_HAPPEN: [&str; 6] = [
    "committed",
    "junk",
    "conflict",
    "not owner",
    "adopted",
    "verified",
];

/// Rounds in a world without faults after which everything has to be decided.
const LAST_ROUNDS: usize = 200;

type Happening = fn(&mut World);

/// How often what happens, in parts of a sum.
#[derive(Debug)]
struct Mood {
    op: u64,
    close: u64,
    client: u64,
    fill: u64,
    reign: u64,
    owner: u64,
    pause: u64,
    collect: u64,
    sleep: u64,
}

/// Lives a life; gives how often things were met in it.
pub(super) fn live(seed: u64, verbose: bool) -> BTreeMap<&'static str, u64> {
    let mut world = World::new(seed, verbose);
    let mood = mood(&mut world);
    let steps = world.rng.between(50, 500);
    new_owner(&mut world);
    for _ in 0..steps {
        world.now += Duration::from_millis(world.rng.below(8));
        step(&mut world, &mood);
    }
    end(&mut world);
    world.clients.answers.clone()
}

fn mood(world: &mut World) -> Mood {
    let rng = &mut world.rng;
    let trouble = if rng.percent(50) { 4 } else { 1 };
    Mood {
        op: rng.between(20, 60),
        close: rng.between(10, 30),
        client: rng.between(5, 20),
        fill: rng.between(1, 8),
        reign: rng.between(0, 3),
        owner: rng.between(1, 3) * trouble,
        pause: rng.between(0, 3) * trouble,
        collect: rng.between(0, 4) * trouble,
        sleep: rng.between(0, 2) * trouble,
    }
}

fn step(world: &mut World, mood: &Mood) {
    let actions: [(u64, Happening); 9] = [
        (mood.op, |world| _ = world.one_op()),
        (mood.close, |world| {
            if let Some(owner) = running(world) {
                world.close(owner);
                // The sequencer asks until it is answered.
                world.ops.push(Op::Seal { owner });
            }
        }),
        (mood.client, client),
        (mood.fill, |world| {
            if let Some(owner) = running(world) {
                fill(world, owner);
            }
        }),
        (mood.reign, reign),
        (mood.owner, change_owner),
        (mood.pause, pause),
        (mood.collect, collect),
        (mood.sleep, sleep),
    ];
    let mut at = world
        .rng
        .below(actions.iter().map(|(weight, _)| weight).sum());
    for (weight, action) in actions {
        if at < weight {
            return action(world);
        }
        at -= weight;
    }
}

/// One of the processes that run.
fn running(world: &mut World) -> Option<usize> {
    let owners = world.owners.iter().enumerate();
    let running = owners.filter(|(_, owner)| owner.is_alive() && !owner.paused);
    let numbers: Vec<_> = running.map(|(number, _)| number).collect();
    // Mostly the newest.
    match (numbers.last(), world.rng.percent(60)) {
        (None, _) => None,
        (Some(newest), true) => Some(*newest),
        _ => Some(numbers[world.rng.index(numbers.len())]),
    }
}

fn client(world: &mut World) {
    let frames = world.clients.frames.len();
    let kind = world.rng.below(100);
    let frame = if kind < 40 && world.grants {
        let (first, count) = (world.issued, world.rng.between(1, 6));
        world.issued = first.plus(count);
        if world.rng.percent(10) {
            return world.note(|| format!("[{first}, {}) is never written", world.issued));
        }
        world.clients.append(first, count, world.control.0)
    } else if frames == 0 {
        return;
    } else if kind < 95 {
        // Sent again; mostly something new.
        let back = world.rng.below(frames as u64).min(world.rng.below(20));
        frames - 1 - usize::try_from(back).expect("fits")
    } else {
        // A faulty client writes where another did.
        let frame = &world.clients.frames[world.rng.index(frames)];
        let (first, count, epoch) = (frame.run.first, frame.run.count, frame.epoch);
        let skip = world.rng.below(count);
        let count = world.rng.between(1, count - skip);
        world.clients.append(first.plus(skip), count, epoch)
    };
    if let Some(owner) = running(world) {
        world.ops.push(Op::Append { owner, frame });
    }
}

fn fill(world: &mut World, owner: usize) {
    let (issued, now) = (world.issued, world.now);
    let owner = &mut world.owners[owner];
    owner.told = owner.told.max(issued);
    if let Some(stripe) = owner.stripe() {
        stripe.fill(issued, now);
    }
}

/// A new sequencer: its reign begins at the old reservation, and grants when all is sealed.
fn reign(world: &mut World) {
    let start = world.issued.plus(world.rng.below(6));
    world.control = (Epoch(world.control.0.0 + 1), start);
    world.issued = start;
    world.grants = false;
    world.note(|| format!("reign {:?}", world.control));
    for owner in 0..world.owners.len() {
        if world.owners[owner].is_alive() {
            world.ops.push(Op::Seal { owner });
        }
    }
}

fn new_owner(world: &mut World) {
    let number = world.owners.len();
    world.note(|| format!("owner {number} starts"));
    world.owners.push(Owner::new(number, world.control));
}

fn change_owner(world: &mut World) {
    match running(world) {
        Some(owner) if world.rng.percent(40) => crash(world, owner),
        _ => new_owner(world),
    }
}

fn crash(world: &mut World, owner: usize) {
    world.note(|| format!("owner {owner} crashes"));
    world.owners[owner].stage = Stage::Dead;
    world.clients.died(owner);
    for op in std::mem::take(&mut world.ops) {
        match op {
            // It may have left the process before, and lands when it lands.
            Op::Put {
                owner: from,
                object,
                ..
            } if from == owner => {
                if world.rng.percent(80) {
                    let key = None;
                    world.ops.push(Op::Put { owner, object, key });
                }
            }
            Op::PutDone { owner: from, .. }
            | Op::Walk { owner: from, .. }
            | Op::Walked { owner: from, .. }
            | Op::Lookup { owner: from, .. }
            | Op::Append { owner: from, .. }
            | Op::Seal { owner: from }
                if from == owner => {}
            op => world.ops.push(op),
        }
    }
}

fn pause(world: &mut World) {
    let number = world.rng.index(world.owners.len());
    let owner = &mut world.owners[number];
    owner.paused = !owner.paused && owner.is_alive();
    let paused = owner.paused;
    world.note(|| format!("owner {number} paused={paused}"));
}

fn collect(world: &mut World) {
    let now = world.now;
    let deleted = world.store.delete_one(now);
    world.note(|| format!("collection, deleted={deleted}"));
    if !deleted {
        world.store.collect(&mut world.rng, now, GRACE);
    }
}

fn sleep(world: &mut World) {
    world.now += if world.rng.percent(50) {
        MAX_COMMIT_AGE + Duration::from_millis(world.rng.below(500))
    } else {
        GRACE
    };
    while world.rng.percent(90) && world.store.delete_one(world.now) {}
}

/// Faults stop: everything is decided, and whoever lives is told.
fn end(world: &mut World) {
    world.note(|| "faults end".to_owned());
    world.faults = Faults::default();
    for owner in &mut world.owners {
        owner.paused = false;
    }
    for round in 0.. {
        assert!(round < LAST_ROUNDS, "never comes to rest: {world:#?}");
        world.now += Duration::from_millis(30);
        while world.one_op() {}
        if !world.owners.iter().any(Owner::is_owner) {
            new_owner(world);
        }
        let newest = world.owners.iter().rposition(Owner::is_owner);
        for owner in 0..world.owners.len() {
            fill(world, owner);
            world.close(owner);
            let asks = world.ops.iter().any(|op| matches!(op, Op::Append { .. }));
            if Some(owner) == newest && !asks {
                for frame in world.clients.uncertain(&world.store) {
                    world.ops.push(Op::Append { owner, frame });
                }
            }
        }
        let rest = world.ops.is_empty() && world.clients.open() == 0;
        if rest && world.grants && world.store.end() >= world.issued {
            break;
        }
        let (epoch, _) = world.control;
        for owner in 0..world.owners.len() {
            if world.owners[owner].is_owner() && world.owners[owner].heard.0 < epoch {
                world.ops.push(Op::Seal { owner });
            }
        }
    }
    for owner in &mut world.owners {
        if let Some(stripe) = owner.stripe() {
            assert_eq!((stripe.flights(), stripe.held_bytes()), (0, 0), "left over");
        }
    }
    assert!(world.clients.uncertain(&world.store).is_empty());
    world.clients.check(&world.store);
}
