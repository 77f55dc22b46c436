//! What a setting may be.

use std::net::SocketAddr;
use std::ops::RangeInclusive;

use catalog::SEQUENCERS;

/// The kind of a setting's value. Values are texts until here, whichever way they came.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Kind {
    /// A whole number within bounds.
    Count(RangeInclusive<u64>),
    /// An IP address and a port.
    Address,
    /// IP addresses and ports, each once: at least one.
    Addresses,
    /// An IP address and a port, or nothing.
    OptionalAddress,
    /// One of these words.
    Word(&'static [&'static str]),
    /// A URL that begins with one of these.
    Url(&'static [&'static str]),
    /// HTTP addresses of etcd nodes, or nothing.
    Endpoints,
    /// Start of keys: segments of a path.
    Prefix,
    /// First and last stripe.
    Stripes,
    /// Numbers of CPU cores, each once.
    Cores,
    /// Stripe-writers with the stripes that they own.
    Writers,
    /// Name of a file, or nothing.
    OptionalFile,
    /// Name of a network interface, or nothing.
    OptionalInterface,
}

impl Kind {
    /// What is allowed, for people.
    #[must_use]
    pub fn allowed(&self) -> String {
        match self {
            Self::Count(range) => {
                format!("a whole number from {} to {}", range.start(), range.end())
            }
            Self::Address => "an IP address and a port, as in 127.0.0.1:7400".to_owned(),
            Self::Addresses => {
                format!("up to {SEQUENCERS} IP addresses and ports with commas between, each once")
            }
            Self::OptionalAddress => "an IP address and a port, or an empty text".to_owned(),
            Self::Word(words) => words.join(", "),
            Self::Url(starts) => format!("a URL that begins with {}", starts.join(", ")),
            Self::Endpoints => {
                format!(
                    "up to {MAX_ENDPOINTS} of [http://]HOST:PORT with commas between, or nothing"
                )
            }
            Self::Prefix => "letters, digits and _ . - in parts that begin with / each".to_owned(),
            Self::Stripes => "FIRST-LAST, as in 0-15, or one number".to_owned(),
            Self::Cores => "core numbers with commas between, each once, or nothing".to_owned(),
            Self::Writers => "ADDRESS=FIRST-LAST with commas between, every stripe once; \
                              FIRST-LAST may be left out for a single writer"
                .to_owned(),
            Self::OptionalFile => "the name of a file, or an empty text".to_owned(),
            Self::OptionalInterface => {
                "the name of a network interface, or an empty text".to_owned()
            }
        }
    }

    pub(super) fn count(&self, text: &str) -> Option<u64> {
        let Self::Count(range) = self else {
            return None;
        };
        text.trim().parse().ok().filter(|n| range.contains(n))
    }

    pub(super) fn word(&self, text: &str) -> Option<&'static str> {
        let Self::Word(words) = self else { return None };
        words.iter().find(|word| **word == text).copied()
    }

    pub(super) fn url(&self, text: &str) -> Option<String> {
        let Self::Url(starts) = self else { return None };
        let known = starts.iter().any(|start| text.starts_with(start));
        known.then(|| text.to_owned())
    }
}

pub(super) fn address(text: &str) -> Option<SocketAddr> {
    text.trim()
        .parse()
        .ok()
        .filter(|a: &SocketAddr| a.port() != 0)
}

pub(super) fn addresses(text: &str) -> Option<Vec<SocketAddr>> {
    let addresses: Vec<SocketAddr> = text.split(',').map(address).collect::<Option<_>>()?;
    let twice = |(at, address)| addresses.iter().take(at).any(|other| other == address);
    let sound = addresses.len() <= SEQUENCERS && !addresses.iter().enumerate().any(twice);
    sound.then_some(addresses)
}

/// Endpoints as URLs.
pub(super) fn endpoints(text: &str) -> Option<Vec<String>> {
    if text.trim().is_empty() {
        return Some(Vec::new());
    }
    let endpoints: Vec<_> = text.split(',').map(endpoint).collect::<Option<_>>()?;
    (endpoints.len() <= MAX_ENDPOINTS).then_some(endpoints)
}

fn endpoint(text: &str) -> Option<String> {
    let text = text.trim();
    let place = text.strip_prefix("http://").unwrap_or(text);
    let (host, port) = place.rsplit_once(':')?;
    let of_host = |c: char| c.is_ascii_alphanumeric() || ".-_:[]".contains(c);
    let sound = !host.is_empty() && host.chars().all(of_host);
    let port: u16 = port.parse().ok().filter(|port| *port != 0)?;
    sound.then(|| format!("http://{host}:{port}"))
}

pub(super) fn prefix(text: &str) -> Option<String> {
    let of_part = |c: char| c.is_ascii_alphanumeric() || "_.-".contains(c);
    let part = |part: &str| !part.is_empty() && part.chars().all(of_part);
    let parts = text.strip_prefix('/')?;
    let sound = text.len() <= MAX_PREFIX && parts.split('/').all(part);
    sound.then(|| text.to_owned())
}

pub(super) fn cores(text: &str) -> Option<Vec<usize>> {
    if text.trim().is_empty() {
        return Some(Vec::new());
    }
    let cores: Vec<usize> = text
        .split(',')
        .map(|core| core.trim().parse().ok().filter(|n| *n <= MAX_CORE))
        .collect::<Option<_>>()?;
    let twice = |(at, core)| cores.iter().take(at).any(|other| other == core);
    (!cores.iter().enumerate().any(twice)).then_some(cores)
}

/// A name as Linux takes it for an interface; nothing for an empty text.
pub(super) fn interface(text: &str) -> Option<Option<String>> {
    let sound = text.len() <= MAX_INTERFACE
        && !matches!(text, "." | "..")
        && !text.contains(|c: char| c.is_whitespace() || c.is_control() || "/:".contains(c));
    sound.then(|| Some(text.to_owned()).filter(|name| !name.is_empty()))
}

/// Longest name of a network interface, in bytes.
const MAX_INTERFACE: usize = 15;

/// Most etcd nodes of one list: clusters have five, or seven.
const MAX_ENDPOINTS: usize = 16;

/// Longest start of a key, in bytes.
const MAX_PREFIX: usize = 200;

/// Highest core number that is accepted; Linux itself ends at 8,192 CPUs.
const MAX_CORE: usize = 8191;
