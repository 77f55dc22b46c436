//! What a setting may be.

use std::net::SocketAddr;
use std::ops::RangeInclusive;

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
    /// Numbers of CPU cores, each once.
    Cores,
    /// Stripe-writers with the stripes that they own.
    Writers,
    /// Name of a file, or nothing.
    OptionalFile,
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
                format!(
                    "up to {MAX_ADDRESSES} IP addresses and ports with commas between, each once"
                )
            }
            Self::OptionalAddress => "an IP address and a port, or an empty text".to_owned(),
            Self::Word(words) => words.join(", "),
            Self::Url(starts) => format!("a URL that begins with {}", starts.join(", ")),
            Self::Cores => "core numbers with commas between, each once, or nothing".to_owned(),
            Self::Writers => "ADDRESS=FIRST-LAST with commas between, every stripe once; \
                              FIRST-LAST may be left out for a single writer"
                .to_owned(),
            Self::OptionalFile => "the name of a file, or an empty text".to_owned(),
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
    let sound = addresses.len() <= MAX_ADDRESSES && !addresses.iter().enumerate().any(twice);
    sound.then_some(addresses)
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

/// Most addresses in one list: in doubt all of them are asked.
const MAX_ADDRESSES: usize = 8;

/// Highest core number that is accepted; Linux itself ends at 8,192 CPUs.
const MAX_CORE: usize = 8191;
