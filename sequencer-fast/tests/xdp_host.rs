//! What the host of a program in the driver hook lets it do, and what happens to it there.

mod common;

use std::time::Duration;

use common::bed::{Bed, CLIENT, NATIVE, SERVER, Shape, attached, counts, ip, pass, pass_in};
use common::writer::{Seals, Writer, stripes};
use common::{Chain, Client, begin, config, eventually, grant, start, start_with, stop, try_begin};
use rustix::thread::{CapabilitySet, capabilities, set_capabilities};
use seccompiler::{
    BpfProgram, SeccompAction, SeccompCmpArgLen, SeccompCmpOp, SeccompCondition, SeccompFilter,
    SeccompRule,
};
use sequencer_fast::{Backend, Config, HookMode};
use wire::datagram::{Kind, Restripe, Status};
use wire::{Lane, Layout, Position, RequestId, SegmentId};

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

/// The kernel sends on what has come: whether its checksum is to be completed is not the program's to say.
#[test]
fn replies_in_generic_mode_find_their_way_where_a_device_completes_checksums() {
    for ipv6 in [false, true] {
        let mode = HookMode::Generic;
        Bed::run_bare(Shape { mode, ipv6 }, |bed| {
            bed.bridge();
            let sequencer = start(&Chain::new(), config(Backend::Xdp));
            let client = Client::new(sequencer.address(), 1);
            // A bridge that was just made does not pass everything on.
            eventually("the first answer", || {
                client.send(Kind::Grant, &[grant(0, 1, 1)]);
                !client.is_silent()
            });
            let other = Client::new(sequencer.address(), 2);
            for request in 1..=100 {
                let reply = other.grant(request, 1);
                assert_eq!(reply.first, Position(request), "ipv6={ipv6}");
            }
            stop(sequencer);
        });
    }
}

/// As where a driver lets a program be set only in the old way: it would stay behind when its process is killed.
#[test]
fn where_the_kernel_gives_no_link_nothing_stays_attached() {
    Bed::run(NATIVE, |_| {
        forbid_links();
        let text = refused(|_| {});
        assert!(text.contains("the kernel gives no link"), "{text}");
        assert!(!attached());
    });
}

/// Has the kernel refuse to make links of programs for this thread, and those that it starts.
fn forbid_links() {
    const LINK_CREATE: u64 = 28;
    const INVALID: u32 = 22;
    let (dword, equal) = (SeccompCmpArgLen::Dword, SeccompCmpOp::Eq);
    let condition = SeccompCondition::new(0, dword, equal, LINK_CREATE).expect("valid");
    let rule = SeccompRule::new(vec![condition]).expect("valid");
    let (allow, refuse) = (SeccompAction::Allow, SeccompAction::Errno(INVALID));
    let processor = std::env::consts::ARCH.try_into().expect("known");
    let rules = [(libc::SYS_bpf, vec![rule])].into();
    let filter = SeccompFilter::new(rules, allow, refuse, processor).expect("valid");
    let filter: BpfProgram = filter.try_into().expect("valid");
    seccompiler::apply_filter(&filter).expect("may be forbidden something");
}

/// A program of the other mode is about to go, as that of a process that was killed.
#[test]
#[allow(clippy::disallowed_methods, reason = "waits for the real kernel")]
fn a_program_that_is_about_to_go_is_waited_for_in_either_mode() {
    for mode in [HookMode::Native, HookMode::Generic] {
        Bed::run(NATIVE, |_| {
            let leaving = pass_in(SERVER, mode);
            let leaves = std::thread::spawn(move || {
                std::thread::sleep(Duration::from_millis(300));
                drop(leaving);
            });
            stop(start(&Chain::new(), config(Backend::Xdp)));
            leaves.join().expect("goes");
        });
    }
}

/// The program keeps the addresses that it began with, as docs/operating/xdp.md says.
#[test]
fn an_interface_whose_addresses_change_is_served_as_the_program_knows_it() {
    Bed::run(NATIVE, |bed| {
        let [srv, cli] = ["srv", "cli"].map(|end| bed.namespace(end));
        let sequencer = start(&Chain::new(), config(Backend::Xdp));
        let client = Client::new(sequencer.address(), 1);
        client.grant(1, 1);
        assert_eq!(counts(&sequencer).granted, 1);
        ip(&format!("-n {srv} addr del 10.99.0.1/24 dev {SERVER}"));
        client.grant(2, 1);
        assert_eq!(counts(&sequencer).granted, 2, "it goes on by itself");
        client.send(Kind::Tail, &[grant(0, 3, 0)]);
        assert!(client.is_silent(), "sockets hear nothing");
        ip(&format!("-n {srv} addr add 10.99.0.1/24 dev {SERVER}"));
        let other = "02:99:00:00:00:09";
        ip(&format!("-n {srv} link set {SERVER} address {other}"));
        ip(&format!(
            "-n {cli} neigh replace 10.99.0.1 lladdr {other} dev {CLIENT} nud permanent"
        ));
        let odd = || {
            counts(&sequencer)
                .passed_up()
                .find(|(why, _)| *why == "odd")
        };
        assert_eq!(odd(), Some(("odd", 1)), "the question");
        client.grant(4, 1);
        assert_eq!(counts(&sequencer).granted, 2, "sockets serve");
        assert_eq!(odd(), Some(("odd", 2)));
        stop(sequencer);
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
