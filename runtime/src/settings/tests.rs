use std::collections::BTreeSet;
use std::io::Write;

use clap::Parser;
use config::Map;

use super::layers::Layers;
use super::*;

fn error(pairs: &[(&str, &str)]) -> String {
    Settings::from_pairs(pairs)
        .expect_err("refused")
        .to_string()
}

fn file(text: &str) -> tempfile::NamedTempFile {
    let mut file = tempfile::NamedTempFile::new().expect("temporary file");
    file.write_all(text.as_bytes()).expect("written");
    file
}

fn from_file(text: &str) -> Result<Settings, SettingsError> {
    Settings::from_file(file(text).path())
}

fn environment(pairs: &[(&str, &str)]) -> Result<Settings, SettingsError> {
    let mut layers = Layers::default();
    let own = |(key, value): &(&str, &str)| ((*key).to_owned(), (*value).to_owned());
    layers.environment(Some(pairs.iter().map(own).collect::<Map<_, _>>()))?;
    Settings::checked(layers)
}

#[test]
fn defaults_are_valid() {
    let settings = Settings::from_pairs(&[]).expect("valid");
    assert_eq!(settings.log.stripes, 32);
    assert_eq!(settings.membership.writers[0].stripes, 0..=1023);
    assert_eq!(settings.writer.memory_bytes, 1 << 30);
    assert_eq!(settings.sequencer.admin, None);
    assert_eq!(settings.writer.linger.as_millis(), 50);
}

#[test]
fn a_file_with_every_section_is_read() {
    let settings = from_file(
        r#"
        store = "s3://bucket/log"
        [log]
        stripes = 4
        [membership]
        sequencer = "10.0.0.1:1"
        writers = [{ address = "10.0.0.2:2", stripes = "0-1" }, { address = "10.0.0.3:2", stripes = "2-3" }]
        [sequencer]
        shards = 2
        cores = [4, 5, 6]
        backend = "poll"
        admin = "127.0.0.1:9"
        [writer]
        linger_ms = 0
        [client]
        max_in_flight_mib = 2
        "#,
    );
    let settings = settings.expect("valid");
    assert_eq!(settings.store, "s3://bucket/log");
    assert_eq!(settings.sequencer.cores, [4, 5, 6]);
    assert_eq!(settings.sequencer.backend, Backend::Poll);
    assert_eq!(settings.membership.writers[1].stripes, 2..=3);
    assert_eq!(settings.client.max_in_flight_bytes, 2 << 20);
}

#[test]
fn one_sequencer_is_an_address_and_several_are_a_list() {
    let sequencers = |text: &str| {
        let settings = from_file(&format!("[membership]\nsequencer = {text}"));
        let addresses = settings.expect("valid").membership.sequencers;
        addresses
            .iter()
            .map(ToString::to_string)
            .collect::<Vec<_>>()
    };
    assert_eq!(sequencers("\"10.0.0.1:1\""), ["10.0.0.1:1"]);
    let both = ["10.0.0.1:1", "[::1]:2"];
    assert_eq!(sequencers("[\"10.0.0.1:1\", \"[::1]:2\"]"), both);
    assert_eq!(sequencers("\"10.0.0.1:1, [::1]:2\""), both);
    let nine: Vec<_> = (1..10).map(|port| format!("10.0.0.1:{port}")).collect();
    let text = error(&[("membership.sequencer", &nine.join(","))]);
    assert!(text.contains("up to 8"), "{text}");
}

#[test]
fn unknown_keys_are_errors_that_name_them() {
    let named = |refused: Result<Settings, SettingsError>, key: &str| {
        let text = refused.expect_err(key).to_string();
        assert!(
            text.starts_with(&format!("unknown setting {key} (")),
            "{text}"
        );
        assert!(!text.contains('\n'), "{text}");
    };
    named(from_file("[sequencer]\nshard = 1"), "sequencer.shard");
    named(from_file("[sequencers]\nshards = 1"), "sequencers.shards");
    named(from_file("[other]"), "other");
    named(from_file("stores = \"x\""), "stores");
    named(from_file("[writer.listen_on]\nx = 1"), "writer.listen_on");
    let member = "[membership]\nwriters = [{ address = \"1.1.1.1:1\", stripe = \"0\" }]";
    named(from_file(member), "membership.writers[0].stripe");
    named(
        environment(&[("STRIPELOG__WRITER__LINGER", "1")]),
        "writer.linger",
    );
    named(environment(&[("STRIPELOG__STORES", "1")]), "stores");
    named(Settings::from_pairs(&[("log.k", "1")]), "log.k");
    let text = error(&[("log.k", "1")]);
    assert_eq!(
        text,
        "unknown setting log.k (argument); allowed: log.stripes, log.unit"
    );
    let text = error(&[("nonsense", "1")]);
    assert!(text.ends_with("allowed: store, log, membership, sequencer, writer, client"));
}

#[test]
#[cfg(feature = "etcd")]
fn etcd_is_named_by_its_nodes() {
    let list = "10.0.0.1:2379, http://etcd-2.local:2379,[::1]:2379";
    let pairs = [("membership.etcd", list), ("writer.stripes", "3")];
    let settings = Settings::from_pairs(&pairs).expect("valid");
    assert_eq!(settings.writer.stripes, 3..=3);
    let etcd = settings.etcd.expect("given");
    let urls = [
        "http://10.0.0.1:2379",
        "http://etcd-2.local:2379",
        "http://[::1]:2379",
    ];
    assert_eq!(etcd.endpoints, urls);
    assert_eq!(etcd.prefix, "/stripelog");
    assert_eq!(etcd.lease, std::time::Duration::from_secs(3));
    let none = Settings::from_pairs(&[]).expect("valid");
    assert_eq!(none.etcd, None);
}

#[test]
fn what_is_registered_in_etcd_can_be_reached() {
    let settings = |pairs: &[(&str, &str)]| Settings::from_pairs(pairs).expect("valid");
    let any = [
        ("sequencer.listen", "0.0.0.0:7400"),
        ("writer.listen", "[::]:7500"),
    ];
    let text = settings(&any).registered_sequencer().expect_err("any");
    let refused = "bad setting sequencer.member=0.0.0.0:7400 (with membership.etcd); allowed: the address at which others reach this process";
    assert_eq!(text.to_string(), refused);
    let text = settings(&any).registered_writer().expect_err("any");
    assert!(
        text.to_string()
            .starts_with("bad setting writer.member=[::]:7500 (")
    );
    let named = [
        any[0],
        any[1],
        ("sequencer.member", "10.0.0.1:7400"),
        ("writer.member", "10.0.0.2:7500"),
        ("writer.stripes", "0-7"),
    ];
    let named = settings(&named);
    assert_eq!(
        named.registered_sequencer().expect("named"),
        std::net::SocketAddr::from(([10, 0, 0, 1], 7400))
    );
    let writer = named.registered_writer().expect("named");
    assert_eq!((writer.address.port(), writer.stripes), (7500, 0..=7));
    let alone = settings(&[("writer.takeover_ms", "0")]).registered_writer();
    let text = alone.expect_err("takes nothing over").to_string();
    assert!(
        text.starts_with("bad setting writer.takeover_ms=0 (with membership.etcd)"),
        "{text}"
    );
}

#[test]
#[cfg(not(feature = "etcd"))]
fn a_build_without_etcd_refuses_its_nodes_and_says_how_to_make_another() {
    let text = error(&[("membership.etcd", "10.0.0.1:2379")]);
    assert_eq!(
        text,
        "bad setting membership.etcd=10.0.0.1:2379 (argument); allowed: nothing: this program was built without etcd; \
         cargo build --release --features etcd makes one that has it"
    );
}

#[test]
fn bad_values_are_errors_with_key_value_and_what_is_allowed() {
    let bad = [
        ("store", "/var/lib"),
        ("store", ""),
        ("log.stripes", "0"),
        ("log.stripes", "1025"),
        ("log.unit", "-1"),
        ("membership.sequencer", "localhost"),
        ("membership.sequencer", "127.0.0.1:0"),
        ("membership.sequencer", ""),
        ("membership.sequencer", "1.1.1.1:1,1.1.1.1:1"),
        ("membership.sequencer", "1.1.1.1:1,"),
        ("sequencer.detect_ms", "99"),
        ("membership.etcd", "localhost"),
        ("membership.etcd", "https://localhost:2379"),
        ("membership.etcd", "localhost:0"),
        ("membership.etcd", "a:1,,b:1"),
        ("membership.etcd_prefix", ""),
        ("membership.etcd_prefix", "stripelog"),
        ("membership.etcd_prefix", "/a//b"),
        ("membership.etcd_prefix", "/a/"),
        ("membership.lease_ms", "999"),
        ("sequencer.member", "localhost"),
        ("writer.stripes", "5-4"),
        ("writer.stripes", "0-1024"),
        ("writer.stripes", ""),
        ("sequencer.standby", "yes"),
        ("membership.writers", ""),
        ("membership.writers", "1.1.1.1:1=0-3,1.1.1.2:1=3-4"),
        ("membership.writers", "1.1.1.1:1=0-3,1.1.1.1:1=4-5"),
        ("membership.writers", "1.1.1.1:1,1.1.1.2:1"),
        ("membership.writers", "1.1.1.1:1=3-1"),
        ("membership.writers", "1.1.1.1:1=0-1024"),
        ("sequencer.shards", "two"),
        ("sequencer.shards", "18446744073709551616"),
        ("sequencer.backend", "epoll"),
        ("sequencer.interface", "eth0/1"),
        ("sequencer.interface", "longer-than-it-may-be"),
        ("sequencer.xdp_mode", "offload"),
        ("sequencer.cores", "1,1"),
        ("sequencer.cores", "0,1,2"),
        ("sequencer.cores", "8192"),
        ("sequencer.reservation_max", "1"),
        ("sequencer.admin", "7401"),
        ("writer.linger_ms", "1.5"),
        ("client.max_batch_bytes", "true"),
    ];
    for (key, value) in bad {
        let text = error(&[(key, value)]);
        let shown = if value.is_empty() { "\"\"" } else { value };
        let start = format!("bad setting {key}={shown} (argument); allowed: ");
        assert!(
            text.starts_with(&start) && text.len() > start.len(),
            "{text}"
        );
    }
    let text = error(&[("log.stripes", "0")]);
    assert!(
        text.ends_with("allowed: a whole number from 1 to 1024"),
        "{text}"
    );
    let text = error(&[("store", "a\nb")]);
    assert!(text.contains("store=a\\nb ("), "{text}");
}

#[test]
fn a_program_in_the_driver_hook_has_an_interface_and_one_address_of_it() {
    let xdp = ("sequencer.backend", "xdp");
    let interface = ("sequencer.interface", "eth0");
    let listen = |address| ("sequencer.listen", address);
    let text = error(&[xdp]);
    assert!(text.ends_with("(--interface NAME)"), "{text}");
    for address in [
        "0.0.0.0:1",
        "[::]:1",
        "[::ffff:0.0.0.0]:1",
        "127.0.0.1:1",
        "[::1]:1",
    ] {
        let text = error(&[xdp, interface, listen(address)]);
        assert!(text.contains("sequencer.listen="), "{text}");
        assert!(text.ends_with("one address of the interface with sequencer.backend=xdp"));
        let auto = ("sequencer.backend", "auto");
        Settings::from_pairs(&[auto, interface, listen(address)]).expect("sockets may serve it");
    }
    let other = ("sequencer.interface", "lo");
    Settings::from_pairs(&[xdp, other, listen("127.0.0.1:1")]).expect("valid");
    Settings::from_pairs(&[xdp, interface, listen("10.0.0.1:1")]).expect("valid");
}

#[test]
fn a_stripe_writer_finds_itself_in_the_membership() {
    let own = |pairs: &[(&str, &str)]| {
        let settings = Settings::from_pairs(pairs).expect("valid");
        settings
            .own_writer()
            .map(|writer| writer.stripes.clone())
            .map_err(|e| e.to_string())
    };
    let two = ("membership.writers", "1.1.1.1:1=0-3,1.1.1.2:1=4-7");
    assert_eq!(own(&[("writer.listen", "0.0.0.0:9")]), Ok(0..=1023));
    assert_eq!(own(&[two, ("writer.listen", "1.1.1.2:1")]), Ok(4..=7));
    let listen = ("writer.listen", "0.0.0.0:1");
    assert_eq!(
        own(&[two, listen, ("writer.member", "1.1.1.1:1")]),
        Ok(0..=3)
    );
    let text = own(&[two, listen]).expect_err("not a member");
    assert!(
        text.starts_with("bad setting writer.listen=0.0.0.0:1 ("),
        "{text}"
    );
    assert!(text.ends_with("allowed: 1.1.1.1:1, 1.1.1.2:1"), "{text}");
    let text = own(&[("writer.member", "1.1.1.1:1")]).expect_err("not the only one");
    assert!(
        text.starts_with("bad setting writer.member=1.1.1.1:1 ("),
        "{text}"
    );
}

#[test]
fn bad_files_are_one_line() {
    let text = from_file("[log\nstripes = 1")
        .expect_err("no TOML")
        .to_string();
    assert!(
        text.starts_with("not a settings file: TOML parse error at line 1"),
        "{text}"
    );
    assert!(!text.contains('\n') && !text.contains('|'), "{text}");
    let text = Settings::from_file("/nonexistent/x.toml".as_ref()).expect_err("not there");
    assert_eq!(
        text.to_string(),
        "cannot read the settings file: No such file or directory (os error 2) file=/nonexistent/x.toml"
    );
    let text = from_file("[writer]\nlinger_ms = { a = 1 }")
        .expect_err("a table")
        .to_string();
    assert!(
        text.starts_with("unknown setting writer.linger_ms.a ("),
        "{text}"
    );
    let text = from_file("log = 3").expect_err("a number").to_string();
    assert!(text.starts_with("unknown setting log ("), "{text}");
}

#[derive(Debug, Parser)]
struct Program {
    #[command(flatten)]
    common: CommonArgs,
}

#[test]
fn later_sources_are_stronger() {
    let file =
        file("store = \"file:///a\"\n[log]\nstripes = 1\nunit = 1\n[writer]\nlinger_ms = 1\n");
    let mut layers = Layers::default();
    let unit = |layers: &Layers| Settings::checked(layers.clone()).map(|s| s.log.unit);
    layers.file(file.path()).expect("read");
    assert_eq!(unit(&layers), Ok(1));
    let variables = [
        ("STRIPELOG__LOG__UNIT", "2"),
        ("STRIPELOG_CONFIG", "x"),
        ("OTHER", "y"),
    ];
    let own = variables.map(|(key, value)| (key.to_owned(), value.to_owned()));
    layers
        .environment(Some(own.into_iter().collect()))
        .expect("read");
    assert_eq!(unit(&layers), Ok(2));
    let flags = [("log.unit".to_owned(), "3".to_owned())];
    let given = ["x", "--store", "file:///b", "--set", "store=file:///c"];
    let program = Program::try_parse_from(given).expect("parsed");
    program.common.overrides(&mut layers, &flags).expect("read");
    assert_eq!(unit(&layers), Ok(3));
    let given = ["x", "--store", "file:///b", "--set", "log.unit=4"];
    let program = Program::try_parse_from(given).expect("parsed");
    program.common.overrides(&mut layers, &flags).expect("read");
    let settings = Settings::checked(layers).expect("valid");
    assert_eq!(settings.store, "file:///b");
    assert_eq!((settings.log.unit, settings.log.stripes), (4, 1));
    assert_eq!(settings.writer.linger.as_millis(), 1);
}

#[test]
fn a_variable_with_too_few_underscores_is_an_error_that_tells_the_right_one() {
    for (got, meant) in [
        ("STRIPELOG_STORE", "STRIPELOG__STORE"),
        ("STRIPELOG_WRITER_LINGER_MS", "STRIPELOG__WRITER__LINGER_MS"),
    ] {
        let text = environment(&[(got, "1")]).expect_err(got).to_string();
        assert_eq!(
            text,
            format!("environment variable {got} is none of ours; meant: {meant}")
        );
    }
    // What a cluster sets for a service of that name, and what is ours.
    let others = [("STRIPELOG_SERVICE_HOST", "1"), ("STRIPELOG_CONFIG", "1")];
    assert!(environment(&others).is_ok());
}

#[test]
fn an_empty_name_of_the_file_is_none() {
    let file = |given: &[&str]| {
        Program::try_parse_from(given)
            .expect("parsed")
            .common
            .file()
    };
    assert_eq!(file(&["x", "--config", ""]), None);
    assert_eq!(file(&["x", "--config", "a b"]), Some("a b".into()));
}

#[test]
fn overrides_are_checked_like_everything_else() {
    for (set, start) in [
        ("log.units=1", "unknown setting log.units (--set)"),
        ("log.unit=0", "bad setting log.unit=0 (--set)"),
        ("log.unit", "bad argument --set log.unit"),
    ] {
        let common = CommonArgs {
            set: vec![set.to_owned()],
            ..CommonArgs::default()
        };
        let mut layers = Layers::default();
        let outcome = common.overrides(&mut layers, &[]);
        let text = outcome
            .and_then(|()| Settings::checked(layers))
            .expect_err(set);
        assert!(text.to_string().starts_with(start), "{text}");
    }
}

#[test]
fn the_table_has_each_key_once_and_every_default_is_in_the_help() {
    let names: BTreeSet<&str> = KEYS.iter().map(|key| key.name).collect();
    assert_eq!(names.len(), KEYS.len());
    let help = Settings::describe();
    for key in KEYS {
        assert!(help.contains(&format!("{}=", key.name)), "{}", key.name);
        assert!(!key.meaning.is_empty() && !key.kind.allowed().is_empty());
    }
}

/// A key of the table that nobody reads would be accepted and have no effect.
#[test]
fn every_key_of_the_table_is_read() {
    for key in KEYS {
        let refused = Settings::from_pairs(&[(key.name, "\u{1}")]);
        assert!(refused.is_err(), "{} is not read", key.name);
    }
}

#[test]
fn the_manual_is_current() {
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/../docs/operating/settings.md");
    let current = Settings::describe_markdown();
    if std::env::var_os("BLESS").is_some() {
        std::fs::write(path, &current).expect("written");
    }
    let there = std::fs::read_to_string(path).unwrap_or_default();
    assert!(
        there == current,
        "docs/operating/settings.md is old: BLESS=1 cargo test -p runtime"
    );
}
