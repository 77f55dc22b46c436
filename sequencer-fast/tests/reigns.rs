//! Reigns that follow one another: crashes, takeovers, doubtful answers, seals.

mod common;

use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::ops::Range;
use std::sync::Arc;
use std::sync::atomic::AtomicU64;
use std::thread;
use std::time::Duration;

use catalog::ErrorKind;
use common::desk::{Inbox, Peer, limits, request, status};
use common::{Chain, Client, LOG, begin, config, eventually, grant, start, start_with, stop};
use proptest::prelude::*;
use sequencer_fast::logic::{self, Reign, Shard, ShardCounters};
use sequencer_fast::{Backend, Ended, Sequencer, SequencerError};
use wire::control::ControlEntry;
use wire::datagram::{Kind, Status};
use wire::frame::{Frame, PREFIX_BYTES, Prefix, Seal, SealedStripe, Welcome};
use wire::{Epoch, Fixed, Position, SegmentId, StripeId, WriterId};

/// A sequencer without threads: its last entry and its shard, over a chain that is shared.
struct Life {
    entry: ControlEntry,
    reign: Arc<Reign<AtomicU64>>,
    shard: Shard<Peer, AtomicU64>,
    inbox: Inbox,
}

#[derive(Debug, Clone, Copy)]
enum Act {
    /// Crashes, if it lives, and starts again from the chain.
    Start,
    Grant(u32),
    Extend(u64),
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
            let reign = Arc::new(Reign::new(&entry).expect("has a segment"));
            reign.renew(u64::MAX);
            reign.grant();
            let counters = Arc::new(ShardCounters::default());
            let shard = Shard::new(Arc::clone(&reign), counters, limits(64, 64));
            *place = Some(Life {
                entry,
                reign,
                shard,
                inbox: Inbox::default(),
            });
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
    fn s1_s4_no_position_twice_over_crashes_and_takeovers(
        acts in prop::collection::vec((0..3_usize, prop_oneof![
            2 => Just(Act::Start),
            6 => (1..9_u32).prop_map(Act::Grant),
            3 => (0..12_u64).prop_map(Act::Extend),
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
    let writer = Writer::start(Seals::Well, 0..4);
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
        let reign = Arc::clone(sequencer.status().reign().expect("has begun"));
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
    let reign = Arc::clone(sequencer.status().reign().expect("has begun"));
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

/// How a stripe-writer answers a seal.
#[derive(Clone, Copy)]
enum Seals {
    Well,
    /// First with the seal of an older epoch, then not at all, then well.
    Late,
    /// First it owns no stripe, and then it has taken them over.
    Heir,
}

/// A stripe-writer that only seals, as often as it is asked.
struct Writer {
    address: std::net::SocketAddr,
    asked: Arc<AtomicU64>,
}

impl Writer {
    fn start(seals: Seals, stripes: Range<u16>) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").expect("free port");
        let address = listener.local_addr().expect("bound");
        let asked = Arc::new(AtomicU64::new(0));
        let counter = Arc::clone(&asked);
        thread::spawn(move || {
            for stream in listener.incoming() {
                let mut stream = stream.expect("accepted");
                let Frame::Hello(hello) = receive(&mut stream) else {
                    panic!("no hello");
                };
                assert_eq!(hello.log, LOG);
                let (writer, epoch) = (WriterId::default(), Epoch(0));
                send(&mut stream, Frame::Welcome(Welcome { writer, epoch }));
                let Frame::Seal(seal) = receive(&mut stream) else {
                    panic!("no seal");
                };
                let attempt = counter.fetch_add(1, std::sync::atomic::Ordering::SeqCst);
                match (seals, attempt) {
                    (Seals::Late, 0) => {
                        let epoch = Epoch(seal.epoch.0 - 1);
                        send_sealed(&mut stream, Seal { epoch, ..seal }, stripes.clone());
                    }
                    (Seals::Late, 1..4) => {}
                    (Seals::Heir, 0..3) => {
                        send_sealed(&mut stream, seal, stripes.start..stripes.start)
                    }
                    _ => send_sealed(&mut stream, seal, stripes.clone()),
                }
            }
        });
        Self { address, asked }
    }
}

fn send(stream: &mut TcpStream, frame: Frame) {
    let bytes = frame.encode(0).expect("no body");
    stream.write_all(&bytes).expect("sent");
}

fn send_sealed(stream: &mut TcpStream, seal: Seal, stripes: Range<u16>) {
    let name = |stripe| SealedStripe {
        segment: SegmentId(0),
        stripe: StripeId(stripe),
    };
    let body: Vec<u8> = stripes.flat_map(|stripe| name(stripe).to_vec()).collect();
    let head = Frame::Sealed(seal).encode(body.len()).expect("fits");
    stream
        .write_all(&[&head[..], &body].concat())
        .expect("sent");
}

fn receive(stream: &mut TcpStream) -> Frame {
    let mut prefix = [0; PREFIX_BYTES];
    stream.read_exact(&mut prefix).expect("a prefix");
    let prefix = Prefix::decode(&prefix).expect("valid");
    let mut head = vec![0; prefix.head_len];
    stream.read_exact(&mut head).expect("a head");
    Frame::decode(&prefix, &head).expect("valid")
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
        Writer::start(Seals::Well, 0..3),
        Writer::start(Seals::Late, 3..4),
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
        Writer::start(Seals::Well, 0..2),
        Writer::start(Seals::Heir, 2..4),
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
