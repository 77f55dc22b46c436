//! The membership in a real etcd, of one node, that these tests start and stop themselves.

#![cfg(feature = "etcd")]

use std::net::{SocketAddr, TcpListener};
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use catalog::Membership;
use runtime::members::{self, Following, Registered, Role};
use runtime::settings::{EtcdSettings, Settings};
use tempfile::TempDir;
use tokio::io::copy_bidirectional;
use tokio::net::{TcpListener as Listener, TcpStream};
use tokio::time::{sleep, timeout};
use wire::LogId;

const LOG: LogId = LogId([5; 16]);

/// Far longer than anything here takes, leases and elections and all.
const SOON: Duration = Duration::from_secs(30);

const LEASE: Duration = Duration::from_secs(1);

/// Far longer than a host stands still.
const LONG_LEASE: Duration = Duration::from_secs(15);

/// Bytes that a node takes: one that has more in it takes no writes.
const ROOM: usize = 1 << 20;

/// A node with its data in memory.
struct Etcd {
    directory: TempDir,
    client: SocketAddr,
    peer: SocketAddr,
    child: Child,
    restored: u32,
}

impl Drop for Etcd {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn free_port() -> SocketAddr {
    let socket = TcpListener::bind("127.0.0.1:0").expect("a free port");
    socket.local_addr().expect("bound")
}

impl Etcd {
    async fn start() -> Self {
        let directory = match std::path::Path::new("/dev/shm").is_dir() {
            true => tempfile::tempdir_in("/dev/shm"),
            false => tempfile::tempdir(),
        };
        let directory = directory.expect("a directory");
        let (client, peer) = (free_port(), free_port());
        let child = spawn(&directory, 0, client, peer);
        let etcd = Self {
            directory,
            client,
            peer,
            child,
            restored: 0,
        };
        etcd.ready().await;
        etcd
    }

    async fn ready(&self) {
        let asking = async {
            while self.control(&["put", "ready", "yes"]).is_none() {
                sleep(Duration::from_millis(50)).await;
            }
        };
        timeout(SOON, asking).await.expect("etcd answers");
    }

    /// Blocks its thread: others keep leases alive meanwhile.
    fn control(&self, args: &[&str]) -> Option<String> {
        let output = Command::new("etcdctl")
            .env("ETCDCTL_API", "3")
            .args(args)
            .args(["--endpoints", &format!("http://{}", self.client)])
            .output()
            .expect("etcdctl is installed: scripts/services.sh install etcd");
        let text = String::from_utf8_lossy(&output.stdout).into_owned();
        output.status.success().then_some(text)
    }

    fn must(&self, args: &[&str]) -> String {
        self.control(args)
            .unwrap_or_else(|| panic!("etcdctl {args:?}"))
    }

    /// The newest revision, as text.
    fn revision(&self) -> String {
        let told = self.must(&["get", "ready", "--write-out", "json"]);
        let revision = told.split("\"revision\":").nth(1).expect("a revision");
        revision.chars().take_while(char::is_ascii_digit).collect()
    }

    fn kill(&mut self) {
        self.child.kill().expect("runs");
        self.child.wait().expect("waited for");
    }

    /// Starts it again, with its data.
    async fn run(&mut self) {
        self.child = spawn(&self.directory, self.restored, self.client, self.peer);
        self.ready().await;
    }

    /// Starts it again with nothing but a backup.
    async fn restore(&mut self, backup: &str) {
        self.kill();
        self.restored += 1;
        let data = self.directory.path().join(format!("data{}", self.restored));
        let peer = format!("http://{}", self.peer);
        self.must(&[
            "snapshot",
            "restore",
            backup,
            "--name",
            "one",
            "--data-dir",
            data.to_str().expect("UTF-8"),
            "--initial-cluster",
            &format!("one={peer}"),
            "--initial-advertise-peer-urls",
            &peer,
        ]);
        self.run().await;
    }

    /// As programs have them, with a node before this one at which nobody is.
    fn settings(&self, lease: Duration) -> EtcdSettings {
        settings(&format!("{},{}", free_port(), self.client), lease)
    }

    async fn follow(&self) -> Following {
        let following = timeout(SOON, members::follow(&self.settings(LEASE), LOG, None)).await;
        following.expect("in time").expect("followed")
    }

    fn register(&self, port: u16, role: &Role) -> Registered {
        self.register_for(port, role, LEASE)
    }

    fn register_for(&self, port: u16, role: &Role, lease: Duration) -> Registered {
        let registered = members::register(&self.settings(lease), LOG, address(port), role);
        registered.expect("an address that others reach")
    }
}

fn settings(nodes: &str, lease: Duration) -> EtcdSettings {
    let lease = lease.as_millis().to_string();
    let pairs = [("membership.etcd", nodes), ("membership.lease_ms", &lease)];
    let settings = Settings::from_pairs(&pairs).expect("valid");
    settings.etcd.expect("given")
}

/// Passes connections on, and breaks each off after a while. Counts them.
async fn relay(to: SocketAddr, lasts: Duration) -> (SocketAddr, Arc<AtomicUsize>) {
    let listener = Listener::bind("127.0.0.1:0").await.expect("a free port");
    let address = listener.local_addr().expect("bound");
    let count = Arc::new(AtomicUsize::new(0));
    let counter = Arc::clone(&count);
    tokio::spawn(async move {
        loop {
            let (mut one, _) = listener.accept().await.expect("accepted");
            counter.fetch_add(1, Ordering::Relaxed);
            tokio::spawn(async move {
                let mut other = TcpStream::connect(to).await.expect("etcd is there");
                let _ = timeout(lasts, copy_bidirectional(&mut one, &mut other)).await;
            });
        }
    });
    (address, count)
}

fn spawn(directory: &TempDir, restored: u32, client: SocketAddr, peer: SocketAddr) -> Child {
    let data = directory.path().join(format!("data{restored}"));
    let (client, peer) = (format!("http://{client}"), format!("http://{peer}"));
    let mut command = Command::new("etcd");
    command.args(["--name", "one", "--data-dir"]).arg(data);
    command.args(["--listen-client-urls", &client]);
    command.args(["--advertise-client-urls", &client]);
    command.args(["--listen-peer-urls", &peer]);
    command.args(["--initial-advertise-peer-urls", &peer]);
    command.args(["--initial-cluster", &format!("one={peer}")]);
    command.args(["--quota-backend-bytes", &ROOM.to_string()]);
    command.args(["--heartbeat-interval", "50", "--election-timeout", "250"]);
    let command = command.stdin(Stdio::null()).stdout(Stdio::null());
    let spawned = command.stderr(Stdio::null()).spawn();
    spawned.expect("etcd is installed: scripts/services.sh install etcd")
}

fn address(port: u16) -> SocketAddr {
    ([10, 0, 0, 1], port).into()
}

/// Waits until the membership has these ports of sequencers and of stripe-writers.
async fn is(following: &Following, sequencers: &[u16], writers: &[u16]) {
    let as_wanted = |known: &Membership| {
        let ports: Vec<_> = known.addresses().map(|address| address.port()).collect();
        let own: Vec<_> = known.sequencers.iter().map(SocketAddr::port).collect();
        own == sequencers && ports == writers
    };
    let mut changes = following.changes();
    let waited = timeout(SOON, changes.wait_for(as_wanted)).await.is_ok();
    assert!(waited, "{:?}", following.now());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_registers_is_found_and_who_leaves_or_dies_is_not() {
    let etcd = Etcd::start().await;
    let following = etcd.follow().await;
    assert_eq!(following.now(), Membership::default());
    let first = etcd.register_for(1, &Role::Sequencer, LONG_LEASE);
    let _second = etcd.register_for(2, &Role::Sequencer, LONG_LEASE);
    let writer = etcd.register(5, &Role::Writer(0..=7));
    let _other = etcd.register_for(6, &Role::Writer(8..=15), LONG_LEASE);
    is(&following, &[1, 2], &[5, 6]).await;
    let stripes = following.now().writers.first().map(|w| w.stripes.clone());
    assert_eq!(stripes, Some(0..=7));
    let quick = timeout(LONG_LEASE / 3, async {
        first.leave().await;
        is(&following, &[2], &[5, 6]).await;
    });
    quick.await.expect("at once");
    drop(writer);
    is(&following, &[2], &[6]).await;
    let late = etcd.follow().await;
    is(&late, &[2], &[6]).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_was_known_last_stays_while_etcd_is_away_and_everybody_comes_back() {
    let mut etcd = Etcd::start().await;
    let following = etcd.follow().await;
    let _sequencer = etcd.register(1, &Role::Sequencer);
    let writer = etcd.register(5, &Role::Writer(0..=7));
    is(&following, &[1], &[5]).await;
    etcd.kill();
    sleep(Duration::from_millis(1500)).await;
    is(&following, &[1], &[5]).await;
    drop(writer);
    etcd.run().await;
    let _later = etcd.register(6, &Role::Writer(0..=7));
    is(&following, &[1], &[6]).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_registration_that_somebody_deletes_is_made_again() {
    let etcd = Etcd::start().await;
    let following = etcd.follow().await;
    let _writer = etcd.register(5, &Role::Writer(0..=7));
    let _stays = etcd.register(6, &Role::Writer(0..=7));
    is(&following, &[], &[5, 6]).await;
    let key = format!("/stripelog/{LOG}/writers/{}", address(5));
    let mut changes = following.changes();
    changes.borrow_and_update();
    etcd.must(&["del", &key]);
    let gone = timeout(SOON, changes.changed()).await;
    gone.expect("in time").expect("followed");
    is(&following, &[], &[5, 6]).await;
}

/// What was written between two connections is compacted before the second: it is listed.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_history_that_was_compacted_is_listed_anew() {
    let mut etcd = Etcd::start().await;
    let following = etcd.follow().await;
    let _writer = etcd.register(5, &Role::Writer(0..=7));
    is(&following, &[], &[5]).await;
    etcd.kill();
    etcd.run().await;
    let key = format!("/stripelog/{LOG}/sequencers/{}", address(1));
    for _ in 0..20 {
        etcd.must(&["put", &key, "{}"]);
    }
    etcd.must(&["compaction", &etcd.revision()]);
    is(&following, &[1], &[5]).await;
}

/// Its revisions go back, keys of the dead are there again, and those of the living are not.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_backup_that_is_restored_is_listed_and_the_living_register_again() {
    let mut etcd = Etcd::start().await;
    let ghost = format!("/stripelog/{LOG}/writers/{}", address(4));
    etcd.must(&["put", &ghost, "{\"stripes\":\"0-3\"}"]);
    let backup = etcd.directory.path().join("backup");
    let backup = backup.to_str().expect("UTF-8").to_owned();
    etcd.must(&["snapshot", "save", &backup]);
    etcd.must(&["del", &ghost]);
    let following = etcd.follow().await;
    let _sequencer = etcd.register(1, &Role::Sequencer);
    let _writer = etcd.register(5, &Role::Writer(0..=7));
    for _ in 0..50 {
        etcd.must(&["put", "revisions", "more"]);
    }
    is(&following, &[1], &[5]).await;
    etcd.restore(&backup).await;
    is(&following, &[1], &[4, 5]).await;
    etcd.must(&["del", &ghost]);
    is(&following, &[1], &[5]).await;
}

/// Etcd that is full answers, and takes no writes: who is registered stays, who comes follows the others, and is found
/// when there is room again.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn etcd_that_is_full_forgets_nobody_and_takes_who_comes_later() {
    let etcd = Etcd::start().await;
    let following = etcd.follow().await;
    let lease = 3 * LEASE;
    let _there = etcd.register_for(5, &Role::Writer(0..=7), lease);
    is(&following, &[], &[5]).await;
    let large = "x".repeat(ROOM / 10);
    let is_full = (0..20).any(|_| etcd.control(&["put", "large", &large]).is_none());
    assert!(is_full, "it takes whatever it gets");
    let _comes = etcd.register(6, &Role::Writer(0..=7));
    let late = etcd.follow().await;
    sleep(3 * lease).await;
    is(&following, &[], &[5]).await;
    is(&late, &[], &[5]).await;
    etcd.must(&["compaction", &etcd.revision()]);
    etcd.must(&["defrag"]);
    etcd.must(&["alarm", "disarm"]);
    is(&following, &[], &[5, 6]).await;
}

/// A node that lists, and ends each watch, is not asked as often as it can answer, and nobody is forgotten for it.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_node_that_answers_and_breaks_off_is_left_alone_for_longer_each_time() {
    let etcd = Etcd::start().await;
    let _writer = etcd.register(5, &Role::Writer(0..=7));
    let (relay, connections) = relay(etcd.client, Duration::from_millis(100)).await;
    let through = settings(&relay.to_string(), LEASE);
    let following = members::follow(&through, LOG, Some(SOON)).await;
    let following = following.expect("the first list comes in time");
    is(&following, &[], &[5]).await;
    let before = connections.load(Ordering::Relaxed);
    sleep(Duration::from_secs(8)).await;
    let asked = connections.load(Ordering::Relaxed) - before;
    // With pauses of two tenths at most, they would be some forty.
    assert!((1..20).contains(&asked), "connections={asked}");
    is(&following, &[], &[5]).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn logs_do_not_see_each_other() {
    let etcd = Etcd::start().await;
    let _writer = etcd.register(5, &Role::Writer(0..=7));
    let following = etcd.follow().await;
    is(&following, &[], &[5]).await;
    let other = members::follow(&etcd.settings(LEASE), LogId([6; 16]), None).await;
    assert_eq!(other.expect("followed").now(), Membership::default());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn etcd_that_does_not_answer_is_one_clear_error() {
    let list = free_port().to_string();
    let settings = Settings::from_pairs(&[("membership.etcd", &list)]).expect("valid");
    let settings = settings.etcd.expect("given");
    let patience = Some(Duration::from_millis(500));
    let error = members::follow(&settings, LOG, patience).await;
    let text = error.expect_err("nobody is there").to_string();
    assert!(text.starts_with("etcd does not answer: "), "{text}");
    assert!(
        text.ends_with(&format!("endpoints=http://{list}")),
        "{text}"
    );
}
