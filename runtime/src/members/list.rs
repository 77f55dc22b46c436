//! The keys of a log in etcd, and what they say.
//!
//! `PREFIX/LOG/sequencers/ADDRESS` and `PREFIX/LOG/writers/ADDRESS`, with a JSON object each. What cannot be read is
//! as if it were not there: anybody may have written it.

use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;

use catalog::{Membership, SEQUENCERS, Writer};
use serde::{Deserialize, Serialize};
use wire::LogId;
use wire::limits::MAX_STRIPES;

use super::Role;
use crate::settings::stripes;

/// Keys of one log that are known, at most. What is beyond them is not read.
pub(super) const ENTRIES: usize = 1024;

/// Stripe-writers of one log that count, at most.
const WRITERS: usize = 256;

/// All that is registered for a log.
#[derive(Debug)]
pub(super) struct List {
    root: String,
    writers: BTreeMap<SocketAddr, Writer>,
    sequencers: BTreeSet<SocketAddr>,
    last: Membership,
}

/// The value of a key. Fields that a later version adds are not read.
#[derive(Debug, Default, Serialize, Deserialize)]
struct Value {
    /// First and last stripe of a stripe-writer.
    #[serde(skip_serializing_if = "Option::is_none")]
    stripes: Option<String>,
}

/// The key and the value of a process.
pub(super) fn entry(root: &str, address: SocketAddr, role: &Role) -> (String, String) {
    let (folder, stripes) = match role {
        Role::Sequencer => (SEQUENCER, None),
        Role::Writer(stripes) => {
            let range = format!("{}-{}", stripes.start(), stripes.end());
            (WRITER, Some(range))
        }
    };
    let value = serde_json::to_string(&Value { stripes }).unwrap_or_default();
    (format!("{root}{folder}{address}"), value)
}

/// What all keys of a log begin with.
pub(super) fn root(prefix: &str, log: LogId) -> String {
    format!("{prefix}/{log}/")
}

impl List {
    pub(super) fn new(root: String) -> Self {
        Self {
            root,
            writers: BTreeMap::new(),
            sequencers: BTreeSet::new(),
            last: Membership::default(),
        }
    }

    pub(super) fn root(&self) -> &str {
        &self.root
    }

    /// Forgets all keys, to be listed anew.
    pub(super) fn clear(&mut self) {
        self.writers.clear();
        self.sequencers.clear();
    }

    /// A key is there. False if it cannot be read, or is one too many.
    pub(super) fn put(&mut self, key: &[u8], value: &[u8]) -> bool {
        let Some((is_writer, address)) = self.parse(key) else {
            return false;
        };
        let known = match is_writer {
            true => self.writers.contains_key(&address),
            false => self.sequencers.contains(&address),
        };
        if !known && self.writers.len() + self.sequencers.len() >= ENTRIES {
            return false;
        }
        if !is_writer {
            self.sequencers.insert(address);
            return true;
        }
        let range = match serde_json::from_slice::<Value>(value) {
            Ok(Value {
                stripes: Some(text),
            }) => stripes(&text),
            Ok(Value { stripes: None }) => u16::try_from(MAX_STRIPES - 1).ok().map(|last| 0..=last),
            Err(_) => None,
        };
        let Some(stripes) = range else {
            return false;
        };
        self.writers.insert(address, Writer { address, stripes });
        true
    }

    /// A key is gone.
    pub(super) fn delete(&mut self, key: &[u8]) {
        match self.parse(key) {
            Some((true, address)) => drop(self.writers.remove(&address)),
            Some((false, address)) => drop(self.sequencers.remove(&address)),
            None => {}
        }
    }

    /// What the keys say now. A list that has become empty stays as it was: those who were there are more likely to
    /// answer than nobody.
    pub(super) fn membership(&mut self) -> Membership {
        if !self.sequencers.is_empty() {
            let first = self.sequencers.iter().take(SEQUENCERS);
            self.last.sequencers = first.copied().collect();
        }
        if !self.writers.is_empty() {
            let first = self.writers.values().take(WRITERS);
            self.last.writers = first.cloned().collect();
        }
        self.last.clone()
    }

    /// Keys that are known and do not count, since there are too many: the same ones for everybody.
    pub(super) fn left_out(&self) -> usize {
        let beyond = |len: usize, most| len.saturating_sub(most);
        beyond(self.sequencers.len(), SEQUENCERS) + beyond(self.writers.len(), WRITERS)
    }

    fn parse(&self, key: &[u8]) -> Option<(bool, SocketAddr)> {
        let key = std::str::from_utf8(key).ok()?.strip_prefix(&self.root)?;
        let (is_writer, address) = match key.strip_prefix(WRITER) {
            Some(address) => (true, address),
            None => (false, key.strip_prefix(SEQUENCER)?),
        };
        let address: SocketAddr = address.parse().ok()?;
        let sound = address.port() != 0 && !address.ip().is_unspecified();
        sound.then_some((is_writer, address))
    }
}

const SEQUENCER: &str = "sequencers/";
const WRITER: &str = "writers/";

#[cfg(test)]
mod tests {
    use super::*;

    fn list() -> List {
        List::new(root("/stripelog", LogId([7; 16])))
    }

    fn address(port: u16) -> SocketAddr {
        ([10, 0, 0, 1], port).into()
    }

    fn put(list: &mut List, port: u16, role: &Role) -> String {
        let (key, value) = entry(list.root(), address(port), role);
        assert!(list.put(key.as_bytes(), value.as_bytes()), "{key}");
        key
    }

    #[test]
    fn what_is_registered_is_the_membership() {
        let mut list = list();
        put(&mut list, 2, &Role::Sequencer);
        let first = put(&mut list, 1, &Role::Sequencer);
        put(&mut list, 5, &Role::Writer(0..=15));
        put(&mut list, 5, &Role::Writer(0..=7));
        put(&mut list, 6, &Role::Writer(8..=15));
        let known = list.membership();
        assert_eq!(known.sequencers, [address(1), address(2)]);
        let stripes: Vec<_> = known.writers.iter().map(|w| w.stripes.clone()).collect();
        assert_eq!(stripes, [0..=7, 8..=15]);
        list.delete(first.as_bytes());
        assert_eq!(list.membership().sequencers, [address(2)]);
        let text = std::str::from_utf8(first.as_bytes()).expect("UTF-8");
        assert_eq!(
            text,
            format!("/stripelog/{}/sequencers/10.0.0.1:1", LogId([7; 16]))
        );
    }

    #[test]
    fn an_empty_list_never_takes_the_place_of_another() {
        let mut list = list();
        assert_eq!(list.membership(), Membership::default());
        put(&mut list, 1, &Role::Sequencer);
        let writer = put(&mut list, 5, &Role::Writer(0..=15));
        let known = list.membership();
        list.delete(writer.as_bytes());
        assert_eq!(list.membership(), known);
        list.clear();
        assert_eq!(list.membership(), known);
        put(&mut list, 6, &Role::Writer(0..=15));
        let later = list.membership();
        assert_eq!(later.sequencers, known.sequencers);
        assert_eq!(later.writers.len(), 1, "only the one that is there");
        assert_eq!(later.writers.first().map(|w| w.address), Some(address(6)));
    }

    #[test]
    fn what_cannot_be_read_is_as_if_it_were_not_there() {
        let mut list = list();
        let root = list.root().to_owned();
        let other = super::root("/stripelog", LogId([8; 16]));
        for (key, value) in [
            (format!("{root}writers/10.0.0.1:5"), "{"),
            (format!("{root}writers/10.0.0.1:5"), "{\"stripes\":\"5-1\"}"),
            (
                format!("{root}writers/10.0.0.1:5"),
                "{\"stripes\":\"0-9999\"}",
            ),
            (format!("{root}writers/0.0.0.0:5"), "{}"),
            (format!("{root}writers/10.0.0.1:0"), "{}"),
            (format!("{root}writers/localhost:5"), "{}"),
            (format!("{root}readers/10.0.0.1:5"), "{}"),
            (format!("{other}writers/10.0.0.1:5"), "{}"),
            (String::new(), "{}"),
        ] {
            assert!(!list.put(key.as_bytes(), value.as_bytes()), "{key} {value}");
        }
        assert!(!list.put(b"\xff", b"{}"));
        assert_eq!(list.membership(), Membership::default());
        let later = format!("{root}writers/10.0.0.1:5");
        assert!(list.put(later.as_bytes(), b"{\"stripes\":\"3\",\"zone\":\"a\"}"));
        assert!(list.put(format!("{root}writers/10.0.0.1:6").as_bytes(), b"{}"));
        let writers = list.membership().writers;
        let stripes: Vec<_> = writers.iter().map(|w| w.stripes.clone()).collect();
        assert_eq!(stripes, [3..=3, 0..=1023]);
    }

    #[test]
    fn what_is_too_much_is_left_out_until_there_is_room() {
        let mut list = list();
        let root = list.root().to_owned();
        let sequencer = |port: u16| format!("{root}sequencers/10.0.0.1:{port}");
        for port in 1..=500_u16 {
            assert!(list.put(format!("{root}writers/10.0.0.1:{port}").as_bytes(), b"{}"));
            assert!(list.put(sequencer(port).as_bytes(), b""));
        }
        let known = list.membership();
        assert_eq!(
            (known.sequencers.len(), known.writers.len()),
            (SEQUENCERS, WRITERS)
        );
        assert_eq!(list.left_out(), 1000 - SEQUENCERS - WRITERS);
        let ports = |list: &mut List| -> Vec<u16> {
            let known = list.membership().sequencers;
            known.iter().map(SocketAddr::port).collect()
        };
        assert_eq!(ports(&mut list), (1..=8).collect::<Vec<_>>());
        list.delete(sequencer(3).as_bytes());
        assert_eq!(ports(&mut list), [1, 2, 4, 5, 6, 7, 8, 9], "it was there");
        for port in 501..=2000 {
            list.put(sequencer(port).as_bytes(), b"");
        }
        assert_eq!(list.sequencers.len() + list.writers.len(), ENTRIES);
        assert!(list.put(sequencer(1).as_bytes(), b""), "known before");
    }
}
