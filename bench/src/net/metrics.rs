//! What a sequencer shows of itself, read from its admin endpoint.

use std::collections::{BTreeMap, HashMap};
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::time::Duration;

use anyhow::{Context, Result, ensure};

/// Longest wait for an answer.
const TIMEOUT: Duration = Duration::from_secs(5);

/// Counters and gauges by name, each with a value for every shard or the like, and the labels of that.
#[derive(Debug, Clone, Default)]
pub(crate) struct Metrics(HashMap<String, Vec<(String, f64)>>);

impl Metrics {
    /// Asks once. To be called where the address is reached.
    ///
    /// # Errors
    /// If nobody answers.
    pub(crate) fn ask(address: SocketAddr) -> Result<Self> {
        let mut stream = TcpStream::connect_timeout(&address, TIMEOUT)?;
        stream.set_read_timeout(Some(TIMEOUT))?;
        write!(
            stream,
            "GET /metrics HTTP/1.1\r\nhost: bench\r\nconnection: close\r\n\r\n"
        )?;
        let mut answer = String::new();
        stream.read_to_string(&mut answer)?;
        let (head, body) = answer.split_once("\r\n\r\n").context("no answer of HTTP")?;
        ensure!(head.contains(" 200 "), "no metrics: {head}");
        Ok(Self::parse(body))
    }

    /// All values of a name added up, 0 if there is none.
    #[must_use]
    pub(crate) fn get(&self, name: &str) -> f64 {
        self.values(name).sum()
    }

    /// The values of a name that have a label, such as `reason="log"`, added up.
    #[must_use]
    pub(crate) fn labelled(&self, name: &str, label: &str) -> f64 {
        let all = self.0.get(name).into_iter().flatten();
        let labelled = all.filter(|(labels, _)| labels.contains(label));
        labelled.map(|(_, value)| value).sum()
    }

    /// The values of a name by what one label says, such as `reason`.
    #[must_use]
    pub(crate) fn by(&self, name: &str, label: &str) -> BTreeMap<String, f64> {
        let mut found = BTreeMap::new();
        for (labels, value) in self.0.get(name).into_iter().flatten() {
            let start = format!("{label}=\"");
            let text = labels.split_once(&start).map(|(_, text)| text);
            if let Some((text, _)) = text.and_then(|text| text.split_once('"')) {
                *found.entry(text.to_owned()).or_default() += value;
            }
        }
        found
    }

    /// The largest value of a name.
    #[must_use]
    pub(crate) fn largest(&self, name: &str) -> f64 {
        self.values(name).fold(0.0, f64::max)
    }

    /// How much a counter has grown since.
    #[must_use]
    pub(crate) fn since(&self, before: &Self, name: &str) -> f64 {
        self.get(name) - before.get(name)
    }

    fn values(&self, name: &str) -> impl Iterator<Item = f64> {
        self.0
            .get(name)
            .into_iter()
            .flatten()
            .map(|(_, value)| *value)
    }

    fn parse(body: &str) -> Self {
        let mut values = HashMap::<_, Vec<_>>::new();
        for line in body.lines().filter(|line| !line.starts_with('#')) {
            let Some((name, value)) = line.rsplit_once(' ') else {
                continue;
            };
            let (name, labels) = name.split_once('{').unwrap_or((name, ""));
            if let Ok(value) = value.parse::<f64>() {
                let all = values.entry(name.to_owned()).or_default();
                all.push((labels.to_owned(), value));
            }
        }
        Self(values)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn shards_add_up() {
        let text =
            "# HELP a b\na_total{shard=\"0\"} 3\na_total{shard=\"1\"} 4\nheadroom 12\n# EOF\n";
        let metrics = Metrics::parse(text);
        assert_eq!(
            (metrics.get("a_total"), metrics.get("headroom")),
            (7.0, 12.0)
        );
        assert_eq!((metrics.largest("a_total"), metrics.get("b")), (4.0, 0.0));
        assert_eq!(metrics.labelled("a_total", "shard=\"1\""), 4.0);
        let shards = metrics.by("a_total", "shard");
        assert_eq!(
            shards,
            [("0", 3.0), ("1", 4.0)]
                .map(|(name, value)| (name.to_owned(), value))
                .into()
        );
    }
}
