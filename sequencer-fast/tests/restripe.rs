//! Another layout, asked for while a sequencer reigns (H-5).

mod common;

use std::sync::atomic::Ordering;
use std::time::Duration;

use common::desk::status;
use common::writer::{Seals, Writer, stripes};
use common::{
    Chain, Client, STRIPES_WITH_OWNERS, config, encode, eventually, grant, start_with, stop,
};
use sequencer_fast::{Backend, Config, Ended, Sequencer, logic};
use wire::datagram::{Kind, Reply, Restripe, Status};
use wire::mac::Key;
use wire::{Epoch, Lane, Layout, Position, RequestId, SegmentId, WriterId};

fn layout(stripes: u32, unit: u32) -> Layout {
    Layout::new(stripes, unit).expect("valid")
}

/// Owners of the stripes of a log that goes on with 6 stripes and then with 2.
fn owners() -> Vec<std::net::SocketAddr> {
    let parts = [stripes(0, 0..4), stripes(1, 0..6), stripes(2, 0..2)];
    let writers = parts.map(|stripes| Writer::start(Seals::Well, stripes));
    writers.map(|writer| writer.address).to_vec()
}

fn begun(chain: &Chain, config: Config) -> (Sequencer, Client) {
    let sequencer = start_with(chain, config, owners());
    let client = Client::new(sequencer.address(), 1);
    (sequencer, client)
}

fn wish(client: &Client, layout: Layout, behind: u32) -> Reply {
    let wish = Restripe::new(Lane(9), RequestId(1), layout, SegmentId(behind));
    client.ask(Kind::Restripe, &[wish])[0]
}

/// The first token of a reign, asked for when it grants: the one before goes on until then.
fn granted(client: &Client, epoch: u64) -> Position {
    eventually("granting", || {
        client.send(Kind::Tail, &[grant(8, 1, 0)]);
        let (header, replies) = client.receive();
        status(&replies[0]) == Status::Ok && header.epoch == Epoch(epoch)
    });
    client.grant(1000 * epoch, 1).first
}

#[test]
fn h5_the_next_reign_begins_a_segment_at_the_exact_tail() {
    for (backend, shards) in [(Backend::Poll, 1), (Backend::Auto, 2)] {
        let chain = Chain::new();
        let mut config = config(backend);
        config.shards = shards;
        let (sequencer, client) = begun(&chain, config);
        client.grant(1, 100);
        let told = wish(&client, layout(6, 4), 0);
        assert_eq!((status(&told), told.first), (Status::Ok, Position(100)));
        assert_eq!(granted(&client, 2), Position(100));
        let entry = chain.newest();
        let second = entry.segments[1];
        assert_eq!((second.id, second.epoch), (SegmentId(1), Epoch(2)));
        assert_eq!((second.start, second.layout), (Position(100), layout(6, 4)));
        assert_eq!((entry.epoch_start, entry.clean), (Position(100), false));
        // Once more, by the same process over the same sockets.
        assert_eq!(status(&wish(&client, layout(6, 4), 0)), Status::TailMoved);
        assert_eq!(status(&wish(&client, layout(2, 1), 1)), Status::Ok);
        assert_eq!(granted(&client, 3), Position(101));
        assert_eq!(chain.newest().segments.len(), 3);
        assert_eq!(stop(sequencer), Ended::Stopped { clean: true });
        assert_eq!(chain.newest().reservation, Position(102));
    }
}

/// Where nothing was granted in a segment it has one position all the same: starts rise.
#[test]
fn h5_a_segment_without_a_token_wastes_one_position() {
    let chain = Chain::new();
    let (sequencer, client) = begun(&chain, config(Backend::Poll));
    assert_eq!(status(&wish(&client, layout(6, 4), 0)), Status::Ok);
    assert_eq!(granted(&client, 2), Position(1));
    assert_eq!(chain.newest().segments[1].start, Position(1));
    stop(sequencer);
}

#[test]
fn h5_what_cannot_be_is_refused_and_nothing_is_written() {
    let chain = Chain::new();
    let (sequencer, client) = begun(&chain, config(Backend::Poll));
    client.grant(1, 100);
    let before = chain.newest();
    for (layout, behind, refused) in [
        (layout(4, 8), 0, Status::Invalid),
        (layout(STRIPES_WITH_OWNERS + 1, 8), 0, Status::Invalid),
        (layout(6, 8), 1, Status::TailMoved),
    ] {
        let told = wish(&client, layout, behind);
        assert_eq!(status(&told), refused, "{layout:?} {behind}");
    }
    assert_eq!(client.grant(2, 1).first, Position(100));
    assert_eq!(chain.newest(), before);
    stop(sequencer);
}

/// Were one of the first taken up, the last would be told that another layout is wanted.
#[test]
fn s9_h5_a_wish_that_is_not_signed_with_the_key_is_dropped_and_counted() {
    let (key, other) = (Key::new(&[9; 32]), Key::new(&[8; 32]));
    for (backend, shards) in [(Backend::Poll, 1), (Backend::Auto, 2)] {
        let chain = Chain::new();
        let mut config = config(backend);
        (config.key, config.shards) = (Some(key.clone()), shards);
        let (sequencer, client) = begun(&chain, config);
        let wish = |layout: Layout| {
            let wish = Restripe::new(Lane(9), RequestId(1), layout, SegmentId(0));
            encode(client.header(Kind::Restripe, 1), &[wish])
        };
        let unsigned = wish(layout(6, 4));
        let [mut of_another, mut changed] = [unsigned.clone(), wish(layout(6, 8))];
        other.sign(&mut of_another);
        key.sign(&mut changed);
        let at = unsigned.iter().zip(&changed).rposition(|(a, b)| a != b);
        changed[at.expect("another unit")] = 4;
        for forged in [unsigned, of_another, changed] {
            client.socket.send(&forged).expect("sent");
        }
        assert!(client.is_silent());
        let shards = sequencer.status().shards().to_vec();
        let dropped = |reason| shards.iter().map(|s| s.dropped.get(reason)).sum::<u64>();
        assert_eq!(dropped("mac"), 3, "{backend:?}");
        let mut signed = wish(layout(6, 8));
        key.sign(&mut signed);
        client.socket.send(&signed).expect("sent");
        assert_eq!(status(&client.receive().1[0]), Status::Ok);
        eventually("a segment", || chain.newest().segments.len() > 1);
        assert_eq!(chain.newest().segments[1].layout, layout(6, 8));
        stop(sequencer);
    }
}

/// One owner has not taken its stripe of the new segment yet.
#[test]
fn h4_h5_nothing_is_granted_before_every_stripe_of_both_segments_has_its_owner() {
    let chain = Chain::new();
    let late = Writer::start(Seals::Heir, stripes(1, 5..6));
    let others = [stripes(0, 0..4), stripes(1, 0..5)];
    let mut writers: Vec<_> = others
        .map(|stripes| Writer::start(Seals::Well, stripes).address)
        .to_vec();
    writers.push(late.address);
    let sequencer = start_with(&chain, config(Backend::Poll), writers);
    let client = Client::new(sequencer.address(), 1);
    client.grant(1, 10);
    assert_eq!(status(&wish(&client, layout(6, 4), 0)), Status::Ok);
    let (mut refused, mut request) = (0, 1);
    eventually("granting", || {
        let asked = late.asked.load(Ordering::SeqCst);
        request += 1;
        client.send(Kind::Grant, &[grant(0, request, 1)]);
        let (header, replies) = client.receive();
        match (header.epoch, status(&replies[0])) {
            (Epoch(2), Status::Ok) => {
                assert!(asked >= 4, "granted after {asked} seals");
                true
            }
            (Epoch(2), told) => {
                assert_eq!(told, Status::Sealing);
                refused += 1;
                false
            }
            _ => false,
        }
    });
    assert!(refused > 0);
    stop(sequencer);
}

#[test]
fn s3_after_a_lost_answer_the_segment_is_opened_once() {
    let chain = Chain::new();
    let (sequencer, client) = begun(&chain, config(Backend::Poll));
    client.grant(1, 100);
    chain.lose_answers(3);
    assert_eq!(status(&wish(&client, layout(6, 4), 0)), Status::Ok);
    assert_eq!(granted(&client, 2), Position(100));
    let entry = chain.newest();
    assert_eq!((entry.segments.len(), entry.epoch), (2, Epoch(2)));
    stop(sequencer);
}

#[test]
fn s3_a_sequencer_that_is_fenced_opens_no_segment() {
    let chain = Chain::new();
    let (sequencer, client) = begun(&chain, config(Backend::Poll));
    client.grant(1, 100);
    let other = logic::begin(&chain.newest(), WriterId([9; 16]), 100);
    chain.entries().push(other.clone());
    assert_eq!(status(&wish(&client, layout(6, 4), 0)), Status::Ok);
    let ended = sequencer.wait().expect("not an error");
    assert!(matches!(ended, Ended::Fenced { .. }), "{ended:?}");
    assert_eq!(chain.newest(), other);
}

/// It is not known whether the segment is there: the next reign finds out by reading the chain.
#[test]
fn s4_a_stop_in_the_middle_leaves_it_to_the_chain() {
    let chain = Chain::new();
    let mut config = config(Backend::Poll);
    config.reign_ttl = Duration::from_secs(60);
    let (sequencer, client) = begun(&chain, config.clone());
    client.grant(1, 100);
    chain.hold_appends(0);
    let before = chain.come();
    assert_eq!(status(&wish(&client, layout(6, 4), 0)), Status::Ok);
    eventually("the create", || chain.come() > before);
    assert_eq!(stop(sequencer), Ended::Stopped { clean: false });
    chain.release();
    // The create reaches the store all the same.
    let late = logic::restripe(&chain.newest(), Position(100), layout(6, 4), 50);
    chain.entries().push(late);
    let (sequencer, client) = begun(&chain, config);
    assert_eq!(granted(&client, 3), Position(150));
    assert_eq!(chain.newest().segments.len(), 2);
    stop(sequencer);
}
