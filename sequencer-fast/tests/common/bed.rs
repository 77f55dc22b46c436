//! Two network namespaces with a wire between them, for tests of a program in the driver hook: made and taken away by
//! each test for itself.

use std::cell::RefCell;
use std::fs::File;
use std::net::{IpAddr, SocketAddr, UdpSocket};
use std::os::fd::AsFd;
use std::process::{self, Command, Output};
use std::rc::Rc;
use std::sync::atomic::{AtomicU32, Ordering};

use rustix::thread::{LinkNameSpaceType, move_into_link_name_space};
use sequencer_fast::logic::ProgramCounts;
use sequencer_fast::{Hook, HookMode, Sequencer};

thread_local! {
    /// The bed of the test that this thread runs, in whose namespace of the server it is.
    static CURRENT: RefCell<Option<Rc<Bed>>> = const { RefCell::new(None) };
}

/// Beds that this process has made.
static BEDS: AtomicU32 = AtomicU32::new(0);

pub(crate) const SERVER: &str = "srv0";
pub(crate) const CLIENT: &str = "cli0";

/// What `ethtool -K port0 tx off` does: ETHTOOL_STXCSUM of <linux/ethtool.h>.
const NO_OFFLOAD: &str = "
import array, fcntl, socket, struct
value = array.array('B', struct.pack('II', 0x17, 0))
any = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
fcntl.ioctl(any, 0x8946, struct.pack('16sP', b'port0', value.buffer_info()[0]))
";

/// What a bed is like.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Shape {
    pub(crate) mode: HookMode,
    pub(crate) ipv6: bool,
}

/// Run by the driver, over IPv4.
pub(crate) const NATIVE: Shape = Shape {
    mode: HookMode::Native,
    ipv6: false,
};

pub(crate) struct Bed {
    name: String,
    shape: Shape,
    here: File,
    server: File,
    client: File,
}

impl Bed {
    /// Makes a bed. Fails where this process may not.
    pub(crate) fn new(shape: Shape) -> Self {
        let number = BEDS.fetch_add(1, Ordering::Relaxed);
        let name = format!("slx{}n{number}", process::id());
        let (srv, cli) = (format!("{name}-srv"), format!("{name}-cli"));
        let commands = format!(
            "netns add {srv}\n\
             netns add {cli}"
        );
        for command in commands.lines() {
            ip(command);
        }
        let open = |name: &str| File::open(format!("/run/netns/{name}")).expect("a namespace");
        let bed = Self {
            here: File::open("/proc/thread-self/ns/net").expect("a namespace"),
            server: open(&srv),
            client: open(&cli),
            name,
            shape,
        };
        bed.wire();
        bed
    }

    /// Takes the wire away, with both interfaces, and makes it anew.
    pub(crate) fn rewire(&self) {
        ip(&format!("-n {} link del {SERVER}", self.namespace("srv")));
        self.wire();
    }

    fn wire(&self) {
        let (srv, cli) = (self.namespace("srv"), self.namespace("cli"));
        let commands = format!(
            "link add {SERVER} netns {srv} address 02:99:00:00:00:01 numrxqueues 2 numtxqueues 2 type veth \
             peer name {CLIENT} netns {cli} address 02:99:00:00:00:02 numrxqueues 2 numtxqueues 2\n\
             -n {srv} addr add 10.99.0.1/24 dev {SERVER}\n\
             -n {cli} addr add 10.99.0.2/24 dev {CLIENT}\n\
             -n {srv} addr add fd99::1/64 dev {SERVER} nodad\n\
             -n {cli} addr add fd99::2/64 dev {CLIENT} nodad\n\
             -n {srv} link set lo up\n\
             -n {cli} link set lo up\n\
             -n {srv} link set {SERVER} up\n\
             -n {cli} link set {CLIENT} up\n\
             -n {srv} neigh replace 10.99.0.2 lladdr 02:99:00:00:00:02 dev {SERVER} nud permanent\n\
             -n {cli} neigh replace 10.99.0.1 lladdr 02:99:00:00:00:01 dev {CLIENT} nud permanent\n\
             -n {srv} neigh replace fd99::2 lladdr 02:99:00:00:00:02 dev {SERVER} nud permanent\n\
             -n {cli} neigh replace fd99::1 lladdr 02:99:00:00:00:01 dev {CLIENT} nud permanent"
        );
        for command in commands.lines() {
            ip(command);
        }
    }

    /// The namespace of the server or the client, as `ip` knows it.
    pub(crate) fn namespace(&self, end: &str) -> String {
        format!("{}-{end}", self.name)
    }

    /// The address of the server, at any port.
    pub(crate) fn address(&self) -> SocketAddr {
        SocketAddr::new(self.ip(1), 0)
    }

    pub(crate) fn ip(&self, host: u16) -> IpAddr {
        let text = match self.shape.ipv6 {
            true => format!("fd99::{host}"),
            false => format!("10.99.0.{host}"),
        };
        text.parse().expect("valid")
    }

    /// Where the program of a server goes.
    pub(crate) fn hook(&self) -> Hook {
        Hook {
            interface: SERVER.to_owned(),
            mode: self.shape.mode,
        }
    }

    /// Puts a bridge between the two ends, whose way to the client completes checksums by itself.
    pub(crate) fn bridge(&self) {
        let cli = self.namespace("cli");
        let commands = format!(
            "-n {cli} link set {CLIENT} down\n\
             -n {cli} addr flush dev {CLIENT}\n\
             -n {cli} link set {CLIENT} name uplink0 address 02:99:00:00:00:03\n\
             -n {cli} link add bridge0 type bridge\n\
             -n {cli} link add {CLIENT} address 02:99:00:00:00:02 type veth peer name port0\n\
             -n {cli} link set uplink0 master bridge0\n\
             -n {cli} link set port0 master bridge0\n\
             -n {cli} addr add 10.99.0.2/24 dev {CLIENT}\n\
             -n {cli} addr add fd99::2/64 dev {CLIENT} nodad\n\
             -n {cli} link set bridge0 up\n\
             -n {cli} link set uplink0 up\n\
             -n {cli} link set port0 up\n\
             -n {cli} link set {CLIENT} up\n\
             -n {cli} neigh replace 10.99.0.1 lladdr 02:99:00:00:00:01 dev {CLIENT} nud permanent\n\
             -n {cli} neigh replace fd99::1 lladdr 02:99:00:00:00:01 dev {CLIENT} nud permanent"
        );
        for command in commands.lines() {
            ip(command);
        }
        let mut turn_off = Command::new("ip");
        turn_off.args(["netns", "exec", &cli, "python3", "-c", NO_OFFLOAD]);
        assert!(turn_off.status().expect("ip is there").success());
    }

    pub(crate) fn in_client<T>(&self, act: impl FnOnce() -> T) -> T {
        enter(&self.client);
        let done = act();
        enter(&self.server);
        done
    }

    /// Runs a test on a bed, in the namespace of the server.
    pub(crate) fn run(shape: Shape, test: impl FnOnce(&Self)) {
        Self::run_bare(shape, |bed| {
            // Without a program at this end, what the other one sends back is lost.
            #[cfg(feature = "xdp")]
            let _peer = bed.in_client(|| pass(CLIENT));
            test(bed);
        });
    }

    /// The same with no program at the client's end.
    pub(crate) fn run_bare(shape: Shape, test: impl FnOnce(&Self)) {
        let bed = Rc::new(Self::new(shape));
        enter(&bed.server);
        CURRENT.set(Some(Rc::clone(&bed)));
        test(&bed);
        CURRENT.set(None);
        enter(&bed.here);
    }
}

impl Drop for Bed {
    fn drop(&mut self) {
        // The devices go with their namespaces.
        for end in ["srv", "cli"] {
            let name = self.namespace(end);
            let _ = Command::new("ip").args(["netns", "del", &name]).status();
        }
    }
}

/// A program that lets everything through, in the hook of an interface of this namespace.
#[cfg(feature = "xdp")]
pub(crate) fn pass(interface: &str) -> sequencer_fast::hook::Tool {
    pass_in(interface, HookMode::Native)
}

/// The same in a mode.
#[cfg(feature = "xdp")]
pub(crate) fn pass_in(interface: &str, mode: HookMode) -> sequencer_fast::hook::Tool {
    use sequencer_fast::hook::{Job, Tool};
    let hook = Hook {
        interface: interface.to_owned(),
        mode,
    };
    let tool = Tool::load(Job::Pass, 1, 1, 1).expect("loads");
    tool.attach(&hook).expect("attaches")
}

/// The bed of this test, if it has one.
pub(crate) fn current() -> Option<Rc<Bed>> {
    CURRENT.with_borrow(Option::clone)
}

/// Whether `ip` tells of a program at the server's interface.
pub(crate) fn attached() -> bool {
    let bed = current().expect("on a bed");
    let namespace = bed.namespace("srv");
    let shown = ip(&format!("-n {namespace} link show dev {SERVER}"));
    String::from_utf8_lossy(&shown.stdout).contains("xdp")
}

/// What the program of a sequencer has counted.
pub(crate) fn counts(sequencer: &Sequencer) -> ProgramCounts {
    sequencer.status().program().expect("there is one")
}

/// A socket of a client of this test, at any port.
pub(crate) fn client_socket() -> UdpSocket {
    let bind = |address| UdpSocket::bind(address).expect("free port");
    match current() {
        Some(bed) => bed.in_client(|| bind(SocketAddr::new(bed.ip(2), 0))),
        None => bind(SocketAddr::from(([127, 0, 0, 1], 0))),
    }
}

/// Runs `ip`, which has to succeed.
pub(crate) fn ip(arguments: &str) -> Output {
    let output = Command::new("ip")
        .args(arguments.split_whitespace())
        .output();
    let output = output.expect("ip is there");
    let told = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "ip {arguments}: {told}");
    output
}

fn enter(namespace: &File) {
    let kind = Some(LinkNameSpaceType::Network);
    move_into_link_name_space(namespace.as_fd(), kind).expect("may enter a namespace");
}
