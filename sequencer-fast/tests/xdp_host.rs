//! What the host of a program in the driver hook lets it do, and what happens to it there.

mod common;

use common::bed::{Bed, CLIENT, NATIVE, SERVER, attached, counts, ip, pass};
use common::writer::{Seals, Writer, stripes};
use common::{Chain, Client, begin, config, eventually, grant, start, start_with, stop, try_begin};
use rustix::thread::{CapabilitySet, capabilities, set_capabilities};
use sequencer_fast::{Backend, Config};
use wire::datagram::{Kind, Restripe, Status};
use wire::{Lane, Layout, RequestId, SegmentId};

/// Those that docs/operating/xdp.md names, and no other.
#[test]
fn the_documented_capabilities_suffice() {
    Bed::run(NATIVE, |_| {
        let all = capabilities(None).expect("told");
        let mut few = all;
        few.effective = CapabilitySet::BPF | CapabilitySet::NET_ADMIN | CapabilitySet::PERFMON;
        let mut none = all;
        none.effective = CapabilitySet::empty();
        // The threads of the sequencer have what this one has.
        set_capabilities(None, few).expect("may lose some");
        let sequencer = start(&Chain::new(), config(Backend::Xdp));
        let client_set = set_capabilities(None, all);
        client_set.expect("may take them back");
        let client = Client::new(sequencer.address(), 1);
        client.grant(1, 1);
        assert_eq!(counts(&sequencer).granted, 1);
        stop(sequencer);
        set_capabilities(None, none).expect("may lose all");
        let text = refused(|_| {});
        set_capabilities(None, all).expect("may take them back");
        assert!(
            text.contains("missing=CAP_BPF,CAP_PERFMON,CAP_NET_ADMIN"),
            "{text}"
        );
    });
}

/// The error of a sequencer that does not start.
fn refused(change: impl FnOnce(&mut Config)) -> String {
    let mut config = config(Backend::Xdp);
    change(&mut config);
    let error = try_begin(&Chain::new(), config, Vec::new(), None).expect_err("refused");
    error.to_string()
}

#[test]
fn errors_name_what_is_missing() {
    Bed::run(NATIVE, |_| {
        let text = refused(|config| config.hook = None);
        assert!(text.contains("--interface NAME"), "{text}");
        let text = refused(|config| {
            if let Some(hook) = &mut config.hook {
                hook.interface = "nothing0".to_owned();
            }
        });
        assert!(
            text.ends_with("no such network interface, see ip link interface=nothing0"),
            "{text}"
        );
        let text = refused(|config| config.listen = ([0, 0, 0, 0], 0).into());
        assert!(text.contains("listen on one address"), "{text}");
        // The loopback has no driver that could.
        let text = refused(|config| {
            config.listen = ([127, 0, 0, 1], 0).into();
            if let Some(hook) = &mut config.hook {
                hook.interface = "lo".to_owned();
            }
        });
        assert!(text.contains("--xdp-mode generic"), "{text}");
        // Another one is there already.
        let sequencer = start(&Chain::new(), config(Backend::Xdp));
        let text = refused(|_| {});
        assert!(text.contains("another program is attached"), "{text}");
        // With `auto` sockets serve where a program cannot.
        let mut auto = config(Backend::Xdp);
        auto.backend = Backend::Auto;
        let second = begin(&Chain::new(), auto, Vec::new());
        assert_eq!(second.status().program(), None);
        stop(second);
        stop(sequencer);
    });
}

/// Headers as routers leave them: the reply has some of its own, and a checksum that is right.
#[test]
fn headers_that_a_reply_does_not_keep_are_made_anew() {
    Bed::run(NATIVE, |_| {
        let sequencer = start(&Chain::new(), config(Backend::Xdp));
        let client = Client::new(sequencer.address(), 1);
        client.socket.set_ttl(63).expect("valid");
        client.grant(1, 1);
        socket2::SockRef::from(&client.socket)
            .set_tos_v4(0x10)
            .expect("valid");
        client.grant(2, 1);
        client.socket.set_ttl(64).expect("valid");
        client.grant(3, 1);
        assert_eq!(counts(&sequencer).granted, 3);
        stop(sequencer);
    });
}

/// As where a VLAN on the interface has the address.
#[test]
fn an_address_of_another_interface_is_refused() {
    Bed::run(NATIVE, |bed| {
        let namespace = bed.namespace("srv");
        let (other, address) = ("other0", [10, 98, 0, 1]);
        ip(&format!(
            "-n {namespace} link add {other} type veth peer name {other}p"
        ));
        ip(&format!("-n {namespace} addr add 10.98.0.1/24 dev {other}"));
        ip(&format!("-n {namespace} link set {other} up"));
        let text = refused(|config| config.listen = (address, 0).into());
        assert!(text.contains("of=other0 interface=srv0"), "{text}");
    });
}

#[test]
fn an_ipv4_address_may_be_written_as_one_of_ipv6() {
    Bed::run(NATIVE, |bed| {
        let mut settings = config(Backend::Xdp);
        settings.listen = "[::ffff:10.99.0.1]:0".parse().expect("valid");
        let sequencer = start(&Chain::new(), settings);
        let port = sequencer.address().port();
        let client = Client::new((bed.ip(1), port).into(), 1);
        client.grant(1, 1);
        assert_eq!(counts(&sequencer).granted, 1);
        stop(sequencer);
    });
}

/// The interface is gone and comes back; the next reign has a program there, or sockets serve it.
#[test]
fn a_reign_does_without_a_program_where_it_has_to() {
    Bed::run(NATIVE, |bed| {
        let owned = [stripes(0, 0..4), stripes(1, 0..2), stripes(2, 0..2)];
        let writers = owned.map(|stripes| Writer::start(Seals::Well, stripes).address);
        let sequencer = start_with(&Chain::new(), config(Backend::Xdp), writers.to_vec());
        let client = Client::new(sequencer.address(), 1);
        client.grant(1, 1);
        assert_eq!(counts(&sequencer).granted, 1);
        assert!(sequencer.status().has_program());

        bed.rewire();
        let peer = bed.in_client(|| pass(CLIENT));
        assert!(!attached());
        assert!(!sequencer.status().has_program());
        client.grant(2, 1);
        assert_eq!(counts(&sequencer).granted, 1, "sockets serve");
        another_layout(&client, 0, 2);
        let before = counts(&sequencer).granted;
        client.grant(25, 1);
        assert_eq!(counts(&sequencer).granted, before + 1);
        assert!(attached() && sequencer.status().has_program());

        drop(peer);
        bed.rewire();
        let _peer = bed.in_client(|| pass(CLIENT));
        let _other = pass(SERVER);
        another_layout(&client, 1, 3);
        let before = counts(&sequencer);
        let first = client.grant(40, 1);
        assert_eq!(client.grant(40, 1), first);
        assert_eq!(counts(&sequencer).answered, before.answered);
        assert!(sequencer.status().health().is_ok());
        stop(sequencer);
    });
}

/// Has another layout follow on this segment, and waits for the reign with this number.
fn another_layout(client: &Client, segment: u32, epoch: u64) {
    let layout = Layout::new(2, 8 << segment).expect("valid");
    let wish = Restripe::new(Lane(0), RequestId(epoch), layout, SegmentId(segment));
    let reply = client.ask(Kind::Restripe, &[wish])[0];
    assert_eq!(reply.status(), Ok(Status::Ok));
    eventually("the next reign", || {
        client.send(Kind::Grant, &[grant(0, 10 * epoch, 1)]);
        let (header, replies) = client.receive();
        header.epoch.0 == epoch && replies[0].status() == Ok(Status::Ok)
    });
}
