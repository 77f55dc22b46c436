//! Reigns that follow one another: crashes, takeovers, doubtful answers, seals.

mod common;

use std::net::TcpListener;
use std::sync::Arc;
use std::time::Duration;

use catalog::{ErrorKind, Membership};
use common::desk::{Inbox, Peer, limits, request, status};
use common::writer::{Seals, Writer, stripes};
use common::{
    Chain, Client, begin, begin_told, config, eventually, grant, start, start_with, stop,
};
use proptest::prelude::*;
use sequencer_fast::logic::{self, Reign, Shard, ShardCounters};
use sequencer_fast::{Backend, Ended, Sequencer, SequencerError};
use tokio::sync::watch;
use wire::control::ControlEntry;
use wire::datagram::{Kind, Status};
use wire::{Epoch, Layout, Position, WriterId};

/// A sequencer without threads: its last entry and its shard, over a chain that is shared.
struct Life {
    entry: ControlEntry,
    reign: Arc<Reign>,
    shard: Shard<Peer>,
    inbox: Inbox,
}

#[derive(Debug, Clone, Copy)]
enum Act {
    /// Crashes, if it lives, and starts again from the chain.
    Start,
    Grant(u32),
    Extend(u64),
    /// Ends the reign and begins the next one in a segment with so many stripes.
    Restripe(u32),
    Stop,
}

/// The chain's side: the entry is taken if its number is the next one, and the writer fenced if not (S-3).
fn append(chain: &mut Vec<ControlEntry>, entry: ControlEntry) -> bool {
    let next = entry.number == chain.len() as u64;
    if next {
        chain.push(entry);
    }
    next
}

fn act(place: &mut Option<Life>, act: Act, chain: &mut Vec<ControlEntry>, tokens: &mut Vec<Token>) {
    match (act, place.as_mut()) {
        (Act::Start, _) => {
            let last = chain.last().expect("never empty");
            let entry = logic::begin(last, WriterId::default(), 10);
            assert!(append(chain, entry.clone()));
            *place = Some(Life::begin(entry));
        }
        (Act::Grant(count), Some(life)) => {
            let number = tokens.len() as u64 + 1;
            let bytes = request(number, 0, Kind::Grant, &[grant(0, number, count)]);
            life.inbox.put(0, &bytes);
            life.collect(tokens);
        }
        (Act::Extend(more), Some(life)) => {
            let to = life.entry.reservation.plus(more);
            let entry = logic::extend(&life.entry, to);
            if append(chain, entry.clone()) {
                life.entry = entry;
                life.reign.reserve(to);
                life.collect(tokens);
            } else {
                life.reign.end();
                *place = None;
            }
        }
        (Act::Restripe(stripes), Some(life)) => {
            let tail = life.reign.end().expect("was not closed");
            let layout = Layout::new(stripes, 1).expect("valid");
            let entry = logic::restripe(&life.entry, tail, layout, 10);
            if append(chain, entry.clone()) {
                life.reign.reserve(tail);
                life.collect(tokens);
                *place = Some(Life::begin(entry));
            } else {
                *place = None;
            }
        }
        (Act::Stop, Some(life)) => {
            let tail = life.reign.end().expect("was not closed");
            let entry = logic::clean(&life.entry, tail);
            if append(chain, entry) {
                life.reign.reserve(tail);
                life.collect(tokens);
            }
            *place = None;
        }
        (_, None) => {}
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
struct Token {
    first: u64,
    end: u64,
    epoch: Epoch,
}

impl Life {
    /// The reign that an entry begins.
    fn begin(entry: ControlEntry) -> Self {
        let reign = Arc::new(Reign::new(&entry).expect("has a segment"));
        reign.renew(u64::MAX);
        reign.grant();
        let counters = Arc::new(ShardCounters::default());
        let shard = Shard::new(Arc::clone(&reign), counters, limits(64, 64));
        Self {
            entry,
            reign,
            shard,
            inbox: Inbox::default(),
        }
    }

    /// Takes what has left.
    fn collect(&mut self, tokens: &mut Vec<Token>) {
        for sent in self.inbox.serve(&mut self.shard, 0) {
            for reply in sent.replies.iter().filter(|r| status(r) == Status::Ok) {
                let (first, count) = (reply.first.0, u64::from(reply.count));
                let (end, epoch) = (first + count, sent.header.epoch);
                tokens.push(Token { first, end, epoch });
            }
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 2000, failure_persistence: None, ..ProptestConfig::default() })]

    /// Three processes that crash, stall, take over from one another and come back, A to B to A: the
    /// stalled ones go on granting what they reserved, and no position is granted twice.
    #[test]
    fn s1_s4_h5_no_position_twice_over_crashes_takeovers_and_segments(
        acts in prop::collection::vec((0..3_usize, prop_oneof![
            2 => Just(Act::Start),
            6 => (1..9_u32).prop_map(Act::Grant),
            3 => (0..12_u64).prop_map(Act::Extend),
            1 => (1..9_u32).prop_map(Act::Restripe),
            1 => Just(Act::Stop),
        ]), 1..60),
    ) {
        let mut chain = vec![Chain::new().newest()];
        let mut lives = [None, None, None];
        let mut tokens = Vec::new();
        for (who, what) in acts {
            act(&mut lives[who], what, &mut chain, &mut tokens);
        }
        tokens.sort_unstable();
        for pair in tokens.windows(2) {
            prop_assert!(pair[0].end <= pair[1].first, "{:?}", pair);
            prop_assert!(pair[0].epoch <= pair[1].epoch, "{:?}", pair);
        }
        // A token is of the segment that was the newest in its epoch.
        let last = chain.last().expect("never empty");
        for token in &tokens {
            let of = last.segment_of(Position(token.first)).expect("a segment");
            let mut newest = last.segments.iter().filter(|s| s.epoch <= token.epoch.max(Epoch(1)));
            prop_assert_eq!(Some(of), newest.next_back(), "{:?}", token);
        }
        for pair in last.segments.windows(2) {
            prop_assert!(pair[0].start < pair[1].start, "{:?}", pair);
        }
    }
}

#[test]
fn s4_a_reign_starts_at_the_old_reservation_or_at_the_exact_tail() {
    let mut last = Chain::new().newest();
    last.reservation = Position(500);
    for clean in [false, true] {
        last.clean = clean;
        let entry = logic::begin(&last, WriterId([3; 16]), 100);
        assert_eq!(
            (entry.number, entry.epoch),
            (last.number + 1, Epoch(last.epoch.0 + 1))
        );
        assert_eq!(
            (entry.epoch_start, entry.reservation),
            (Position(500), Position(600))
        );
        assert!(!entry.clean);
    }
}

#[test]
fn s4_positions_of_a_crashed_reign_are_not_granted_again() {
    let chain = Chain::new();
    let writer = Writer::start(Seals::Well, stripes(0, 0..4));
    // Entries as a sequencer leaves them that is killed.
    let mut before = 0;
    for epoch in 1..5 {
        let sequencer = start_with(&chain, config(Backend::Poll), vec![writer.address]);
        let client = Client::new(sequencer.address(), epoch);
        let first = client.grant(1, 10).first.0;
        assert_eq!(first, before);
        let entry = chain.newest();
        assert_eq!(entry.epoch, Epoch(epoch));
        stop(sequencer);
        // The clean stop is forgotten, as if there had been a crash.
        chain.entries().pop();
        before = entry.reservation.0;
    }
}

/// An unreadable entry is an error, never an empty chain.
#[test]
fn s4_an_unreadable_chain_is_an_error() {
    let chain = Chain::new();
    chain.make_corrupt();
    let sequencer = begin(&chain, config(Backend::Poll), Vec::new());
    match sequencer.wait() {
        Err(error @ SequencerError::Control { .. }) => assert_eq!(error.kind(), ErrorKind::Corrupt),
        other => panic!("{other:?}"),
    }
    assert_eq!(chain.entries().len(), 1);
}

#[test]
fn s3_a_sequencer_that_finds_another_entry_in_its_place_is_fenced() {
    for by_renewal in [false, true] {
        let chain = Chain::new();
        let mut config = config(Backend::Poll);
        if by_renewal {
            config.reign_ttl = Duration::from_millis(300);
        }
        let sequencer = start(&chain, config);
        let client = Client::new(sequencer.address(), 1);
        client.grant(1, 1);
        let other = logic::begin(&chain.newest(), WriterId([9; 16]), 100);
        chain.entries().push(other.clone());
        if !by_renewal {
            // More than is reserved: held, and never answered with a token.
            client.send(Kind::Grant, &[grant(0, 2, 60_000), grant(1, 2, 60_000)]);
        }
        let reign = sequencer.status().reign().expect("has begun");
        eventually("the end of the reign", || reign.has_ended());
        let ended = sequencer.wait().expect("not an error");
        assert!(matches!(ended, Ended::Fenced { .. }), "{ended:?}");
        assert!(reign.has_ended() && client.is_silent());
        assert_eq!(chain.newest(), other, "nothing was written behind it");
    }
}

#[test]
fn s3_after_a_lost_answer_the_same_entry_is_appended_again() {
    let chain = Chain::new();
    chain.lose_answers(2);
    let sequencer = start(&chain, config(Backend::Poll));
    let client = Client::new(sequencer.address(), 1);
    chain.lose_answers(2);
    for request in 1..100 {
        assert_eq!(client.grant(request, 5_000).first.0, 5_000 * (request - 1));
    }
    chain.lose_answers(2);
    assert_eq!(stop(sequencer), Ended::Stopped { clean: true });
    let entries = chain.entries();
    let numbers: Vec<_> = entries.iter().map(|entry| entry.number).collect();
    let expected: Vec<_> = (0..entries.len() as u64).collect();
    assert_eq!(numbers, expected);
    assert_eq!(
        entries.last().map(|e| e.reservation),
        Some(Position(99 * 5_000))
    );
}

/// A stop that comes while an extension is under way first finds out what became of it.
#[test]
fn s3_a_stop_resolves_the_extension_that_is_under_way() {
    let chain = Chain::new();
    let sequencer = start(&chain, config(Backend::Poll));
    let client = Client::new(sequencer.address(), 1);
    chain.hold_appends(0);
    let before = chain.come();
    client.grant(1, 65_000);
    let reign = sequencer.status().reign().expect("has begun");
    eventually("an extension", || chain.come() > before);
    sequencer.stop().raise();
    eventually("the end of the reign", || reign.has_ended());
    chain.release();
    let ended = sequencer.wait().expect("ends well");
    assert_eq!(ended, Ended::Stopped { clean: true });
    let entries = chain.entries().len();
    assert!(chain.entries()[entries - 2].reservation > Position(1 << 16));
    assert_eq!(chain.newest().reservation, Position(65_000));
    assert!(chain.newest().clean);
}

/// Nothing is extended or renewed while old entries are deleted: that is broken off in time.
#[test]
fn s5_a_collection_that_hangs_does_not_end_a_reign() {
    let chain = Chain::new();
    chain.hang_collections();
    let mut config = config(Backend::Poll);
    config.reign_ttl = Duration::from_secs(3);
    let sequencer = start(&chain, config);
    let client = Client::new(sequencer.address(), 1);
    let reign = sequencer.status().reign().expect("has begun");
    // Renewed three times while it would have run out.
    for request in 1..=3 {
        let before = reign.deadline_ns();
        eventually("a renewal", || reign.deadline_ns() > before);
        assert_eq!(status(&client.grant(request, 1)), Status::Ok, "{request}");
    }
    assert_eq!(stop(sequencer), Ended::Stopped { clean: true });
}

#[test]
fn s5_a_reign_that_cannot_be_renewed_stops_granting_and_goes_on_when_it_can() {
    let chain = Chain::new();
    let mut config = config(Backend::Poll);
    config.reign_ttl = Duration::from_millis(400);
    let sequencer = start(&chain, config);
    let client = Client::new(sequencer.address(), 1);
    chain.set_mute(true);
    let status_of = |request| status(&client.grant(request, 1));
    let mut request = 1;
    eventually("not reigning", || {
        request += 1;
        status_of(request) == Status::NotReigning
    });
    assert!(sequencer.status().health().is_err());
    let tail = sequencer.status().reign().and_then(|reign| reign.tails());
    assert_eq!(status_of(request + 1), Status::NotReigning);
    assert_eq!(
        sequencer.status().reign().and_then(|reign| reign.tails()),
        tail
    );
    chain.set_mute(false);
    eventually("reigning again", || {
        request += 1;
        status_of(request) == Status::Ok
    });
    assert_eq!(stop(sequencer), Ended::Stopped { clean: true });
}

/// A chain whose next reign starts at 777 and has every stripe to seal.
fn crashed() -> Chain {
    let chain = Chain::new();
    stop(start(&chain, config(Backend::Poll)));
    let mut last = chain.newest();
    (last.number, last.clean, last.reservation) = (last.number + 1, false, Position(777));
    chain.entries().push(last);
    chain
}

/// Asks a sequencer for tokens until it grants; until then it has to refuse. `late` has been asked so often by then.
fn refuses_until(sequencer: &Sequencer, late: &Writer, seals: u64) {
    eventually("the reign", || sequencer.status().reign().is_some());
    let client = Client::new(sequencer.address(), 1);
    let mut refused = 0;
    eventually("granting", || {
        let asked = late.asked.load(std::sync::atomic::Ordering::SeqCst);
        let reply = client.grant(refused + 1, 1);
        if status(&reply) == Status::Sealing {
            refused += 1;
            return false;
        }
        assert!(asked >= seals, "granted after {asked} seals");
        assert_eq!(reply.first, Position(777));
        true
    });
    assert!(refused > 0);
}

#[test]
fn h4_nothing_is_granted_before_every_stripe_is_sealed() {
    let chain = crashed();
    let (prompt, late) = (
        Writer::start(Seals::Well, stripes(0, 0..3)),
        Writer::start(Seals::Late, stripes(0, 3..4)),
    );
    let writers = vec![prompt.address, late.address];
    let sequencer = begin(&chain, config(Backend::Poll), writers);
    refuses_until(&sequencer, &late, 3);
    stop(sequencer);
}

/// The owner of two stripes is dead. Nothing is granted while nobody has them, and then it is not waited for.
#[test]
fn h4_a_dead_owner_is_no_obstacle_once_another_has_its_stripes() {
    let chain = crashed();
    let nobody = TcpListener::bind("127.0.0.1:0").expect("free port");
    let dead = nobody.local_addr().expect("bound");
    drop(nobody);
    let (prompt, heir) = (
        Writer::start(Seals::Well, stripes(0, 0..2)),
        Writer::start(Seals::Heir, stripes(0, 2..4)),
    );
    let writers = vec![dead, prompt.address, heir.address];
    let sequencer = begin(&chain, config(Backend::Poll), writers);
    refuses_until(&sequencer, &heir, 4);
    stop(sequencer);
}

/// There is nothing to seal in a log that has never granted anything.
#[test]
fn h4_the_first_reign_seals_nothing() {
    let chain = Chain::new();
    let nobody = TcpListener::bind("127.0.0.1:0").expect("free port");
    let address = nobody.local_addr().expect("bound");
    drop(nobody);
    let sequencer = start_with(&chain, config(Backend::Poll), vec![address]);
    assert_eq!(
        Client::new(sequencer.address(), 1).grant(1, 1).first,
        Position(0)
    );
    stop(sequencer);
}

/// Who lists the stripe-writers may leave out any of them: whatever it says, nothing is granted before every stripe is
/// sealed, by whoever comes into the list.
#[test]
fn h4_stripes_of_writers_that_a_list_lacks_are_waited_for() {
    let chain = crashed();
    let (listed, missing) = (
        Writer::start(Seals::Well, stripes(0, 0..3)),
        Writer::start(Seals::Well, stripes(0, 3..4)),
    );
    let membership = |writers: &[&Writer]| Membership {
        sequencers: Vec::new(),
        writers: writers
            .iter()
            .map(|writer| catalog::Writer {
                address: writer.address,
                stripes: 0..=1023,
            })
            .collect(),
    };
    let (tell, told) = watch::channel(membership(&[]));
    let sequencer = begin_told(&chain, config(Backend::Poll), Vec::new(), Some(told));
    eventually("the reign", || sequencer.status().reign().is_some());
    let client = Client::new(sequencer.address(), 1);
    assert_eq!(status(&client.grant(1, 1)), Status::Sealing);
    tell.send_replace(membership(&[&listed]));
    // As often as it may be asked: it never says that the last stripe is sealed.
    eventually("asked again", || {
        listed.asked.load(std::sync::atomic::Ordering::SeqCst) >= 3
    });
    assert_eq!(status(&client.grant(2, 1)), Status::Sealing);
    tell.send_replace(membership(&[&missing]));
    refuses_until_granting(&client);
    drop(tell);
    stop(sequencer);
}

fn refuses_until_granting(client: &Client) {
    let mut request = 10;
    eventually("granting", || {
        request += 1;
        let reply = client.grant(request, 1);
        status(&reply) == Status::Ok && reply.first == Position(777)
    });
}
