//! The program in the driver hook and the shards, both at work at once and hard, while reigns come and go: everything
//! that clients are told is checked.

#[path = "xdp_both/asked.rs"]
mod asked;
#[path = "xdp_both/check.rs"]
mod check;
mod common;
#[path = "xdp_both/told.rs"]
mod told;
#[path = "xdp_both/twins.rs"]
mod twins;
#[path = "xdp_both/world.rs"]
mod world;

use std::net::UdpSocket;
use std::sync::Arc;
use std::thread::{self, JoinHandle};
use std::time::Duration;

use common::bed::{Bed, NATIVE};
use common::random::{Random, seed};
use common::writer::{Seals, Writer, stripes};
use common::{Chain, Client, begin, config, eventually, grant, start_with, stop};
use sequencer_fast::{Backend, Config, Ended, Sequencer};
use told::{Decided, Told};
use twins::{Twin, Twins};
use wire::datagram::{Kind, MAX_ENTRIES, Restripe};
use wire::{Lane, Layout, RequestId, SegmentId};
use world::World;

/// Positions that are reserved at once: few, so that the mark and the limit are reached all the time.
const RESERVED: u64 = 4000;

/// Replies of a shard that may wait: few, so that there is no room now and then.
const HELD: usize = 512;

const REIGN_TTL: Duration = Duration::from_millis(400);

/// Rounds of a sequencer, with a reign that ends and one that is silent for a while.
const ROUNDS: u64 = 2;

/// How often the store is slow in a part of a round, and for how long.
const GUSTS: u64 = 25;
const GUST_MS: u64 = 5;
const LULL_MS: u64 = 15;

/// How long the clients hear that nothing is granted.
const SILENCE_MS: u64 = 150;

/// Sockets of a thread.
const SOCKETS: usize = 4;

/// Blocks that are remembered by each of two shards, where none is to be forgotten: that two of the six in use have one
/// place happens in one of some ten thousand reigns.
const PLENTY: usize = 1 << 16;

/// The least, where places are taken over all the time, and names for each pair of threads to do so.
const FEW: usize = 32;
const NAMES: u64 = 200;

/// The second sequencer begins where the first one has stopped.
const SEQUENCERS: u64 = 2;

/// Each request gets one token in a reign, whoever is asked, and whenever. Two shards that decide about copies at the
/// same moment have each a memory of their own: then there are two, and one of them is a hole.
#[test]
fn s6_both_sides_remember_together() {
    let (told, decided) = both(PLENTY, vec![vec![1], vec![2]]);
    let (second, most) = told.second_tokens(|client| client == 1);
    match decided.stuck {
        0 => assert_eq!((second, most), (0, 1), "copies that come to one shard"),
        // The program's core has stood still in a block, as virtual ones do.
        stuck => assert!(
            second as u64 <= MAX_ENTRIES as u64 * stuck,
            "{second} {decided:?}"
        ),
    }
    let (second, most) = told.second_tokens(|client| client == 2);
    // One for each shard, and one of a program that has stood still.
    let bound = if decided.stuck > 0 { 3 } else { 2 };
    assert!(most <= bound, "second={second} most={most} {decided:?}");
}

/// Where places are taken over all the time requests get more than one token, and no token belongs to two.
#[test]
fn s1_both_sides_forget() {
    let names = |pair: u64| (pair * NAMES..(pair + 1) * NAMES).collect();
    let (told, _) = both(FEW, vec![names(1), names(2)]);
    let (second, _) = told.second_tokens(|_| true);
    assert!(second > 100, "places are taken over: second={second}");
}

/// Runs two sequencers, one after the other, for clients of these names. The copies of the first one's requests all come
/// to one shard, those of the second one's to both.
fn both(retry_memory: usize, names: Vec<Vec<u64>>) -> (Told, Decided) {
    let mut done = None;
    let seed = seed();
    Bed::run(NATIVE, |_| done = Some(run(seed, retry_memory, names)));
    let (told, decided, epochs) = done.expect("it has run");
    let (requests, second) = (told.requests, told.second_tokens(|_| true).0);
    let (by_program, by_shards) = (decided.by_program, decided.by_shards);
    eprintln!(
        "both: requests={requests} by_program={by_program} by_shards={by_shards} second_tokens={second} \
         epochs={epochs} seed={seed} replies={} tokens={} tails={} conditional={} refused={} busy={} silenced={} late={} {:?}",
        told.replies,
        told.tokens.len(),
        told.tails,
        told.conditional,
        told.refused,
        told.busy,
        told.silenced,
        told.late,
        decided.passed_up
    );
    for (part, of) in [(by_program, by_shards), (by_shards, by_program)] {
        assert!(part * 9 >= of, "one of them idles: {decided:?}");
    }
    for (what, count) in [
        ("tails", told.tails),
        ("conditional", told.conditional),
        ("busy", told.busy),
        ("silenced", told.silenced),
    ] {
        assert!(count > 10, "none of these: {what}={count}");
    }
    for reason in ["odd", "stopped", "limit", "stale"] {
        assert!(decided.passed_up[reason] > 10, "{reason} {decided:?}");
    }
    (told, decided)
}

fn run(seed: u64, retry_memory: usize, names: Vec<Vec<u64>>) -> (Told, Decided, u64) {
    let chain = Chain::new();
    let segments = u32::try_from(ROUNDS * SEQUENCERS + 1).expect("small");
    let all = (0..segments).flat_map(|segment| stripes(segment, 0..4));
    let writers = vec![Writer::start(Seals::Well, all.collect()).address];
    let mut config = settings(retry_memory);
    let mut sequencer = start_with(&chain, config.clone(), writers.clone());
    config.listen = sequencer.address();
    let world = Arc::new(World::new(chain.clone()));
    let clients = clients(&sequencer, &world, seed, names);
    let mut decided = Decided::default();
    for number in 0..SEQUENCERS {
        for round in 0..ROUNDS {
            gusts(&chain);
            restripe(&sequencer, &chain);
            gusts(&chain);
            silence(&sequencer, &world, number * ROUNDS + round + 1);
        }
        gusts(&chain);
        // In the middle of everything.
        let status = Arc::clone(sequencer.status());
        assert_eq!(stop(sequencer), Ended::Stopped { clean: true });
        decided.add(&status);
        assert!(chain.newest().clean);
        if number + 1 == SEQUENCERS {
            break;
        }
        sequencer = begin(&chain, config.clone(), writers.clone());
        eventually("granting", || sequencer.status().health().is_ok());
    }
    world.end();
    let mut told = Told::default();
    for client in clients {
        told.add(client.join().expect("nothing was wrong"));
    }
    told.assert_disjoint();
    let entries = chain.entries();
    told.assert_within_reigns(&entries);
    // Every reign has ended at its exact tail, where the next one has begun.
    let newest = entries.last().expect("never empty");
    assert_eq!(decided.tokens, newest.reservation.0);
    let last = told.tokens.last().expect("some");
    assert!(last.end <= newest.reservation.0);
    (told, decided, newest.epoch.0)
}

fn settings(retry_memory: usize) -> Config {
    let mut config = config(Backend::Xdp);
    config.shards = 2;
    (config.reservation_min, config.reservation_max) = (RESERVED, RESERVED);
    config.held_replies = HELD;
    config.reign_ttl = REIGN_TTL;
    config.retry_memory = retry_memory;
    config
}

/// Starts two threads for each client. While nobody else asks anything it is found out to which shard their sockets
/// belong: the same for all of the first client, and one for each thread of the second.
fn clients(
    sequencer: &Sequencer,
    world: &Arc<World>,
    seed: u64,
    names: Vec<Vec<u64>>,
) -> Vec<JoinHandle<Told>> {
    let mut random = Random(seed);
    let mut twins = Vec::new();
    for (far, names) in names.into_iter().enumerate() {
        let both = Arc::new(Twins::new(names));
        for shard in [0, far] {
            twins.push(Twin {
                world: Arc::clone(world),
                twins: Arc::clone(&both),
                leads: twins.len() % 2 == 0,
                sockets: (0..SOCKETS).map(|_| socket_of(sequencer, shard)).collect(),
                random: Random(random.below(u64::MAX)),
                told: Told::default(),
                out: 0,
            });
        }
    }
    let start = |twin: Twin| thread::spawn(move || twin.run());
    twins.into_iter().map(start).collect()
}

/// A socket of a client whose datagrams come to this shard.
fn socket_of(sequencer: &Sequencer, shard: usize) -> UdpSocket {
    let received = &sequencer.status().shards()[shard].received;
    loop {
        let client = Client::new(sequencer.address(), u64::MAX);
        let before = received.get();
        client.ask(Kind::Tail, &[grant(0, 1, 0)]);
        if received.get() > before {
            return client.socket;
        }
    }
}

#[allow(clippy::disallowed_methods, reason = "waits for real time")]
fn pause(milliseconds: u64) {
    thread::sleep(Duration::from_millis(milliseconds));
}

/// The store stands still now and then, so that the limit is reached.
fn gusts(chain: &Chain) {
    for _ in 0..GUSTS {
        chain.hold_appends(0);
        pause(GUST_MS);
        chain.release();
        pause(LULL_MS);
    }
}

/// The reign ends, and the next one of the same process begins.
fn restripe(sequencer: &Sequencer, chain: &Chain) {
    let entry = chain.newest();
    let segment = entry.last_segment().expect("there is one");
    let stripes = if segment.layout.stripes() == 2 { 3 } else { 2 };
    let layout = Layout::new(stripes, 8).expect("valid");
    let wish = Restripe::new(Lane(0), RequestId(1), layout, SegmentId(segment.id.0));
    let client = Client::new(sequencer.address(), u64::MAX);
    eventually("the next reign", || {
        client.send(Kind::Restripe, &[wish]);
        pause(1);
        chain.newest().epoch > entry.epoch
    });
    eventually("granting", || sequencer.status().health().is_ok());
}

/// The store is mute until the reign has run out, and for a while more.
fn silence(sequencer: &Sequencer, world: &World, number: u64) {
    // What is left of the reservation has to last longer than the reign: else the limit would stop the program.
    world.set_calm(true);
    pause(30);
    world.chain.set_mute(true);
    world.chain.hold_appends(0);
    eventually("not granting", || sequencer.status().health().is_err());
    world.set_silence(number);
    pause(SILENCE_MS);
    world.set_silence(0);
    world.chain.set_mute(false);
    world.chain.release();
    eventually("granting", || sequencer.status().health().is_ok());
    world.set_calm(false);
}
