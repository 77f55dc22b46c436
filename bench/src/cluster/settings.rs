//! The settings file of a cluster.

use std::fmt::Display;

use super::{Cluster, ETCD_LEASE, ETCD_PREFIX};

impl Cluster {
    /// Its text.
    pub(super) fn settings(&self) -> String {
        let (sequencer, writer, store) = (self.sequencer, self.writer, &self.store);
        let stripes = self.spec.stripes.map(|k| format!("stripes = {k}\n"));
        let unit = self.spec.unit.map(|u| format!("unit = {u}\n"));
        let daemon = |listen, admin| format!("listen = \"{listen}\"\nadmin = \"{admin}\"\n");
        let mut sections = [
            ("sequencer", daemon(sequencer, self.admins[0])),
            ("writer", daemon(writer, self.admins[1])),
            ("client", String::new()),
            (
                "log",
                stripes.unwrap_or_default() + &unit.unwrap_or_default(),
            ),
        ];
        for setting in &self.spec.settings {
            let parts = setting.split_once('.').and_then(|(section, rest)| {
                let (key, value) = rest.split_once('=')?;
                Some((section, key, value))
            });
            for (name, lines) in &mut sections {
                if let Some((_, key, value)) = parts.filter(|(section, _, _)| section == name) {
                    lines.push_str(&format!("{key} = {value}\n"));
                }
            }
        }
        let sections = sections
            .map(|(name, lines)| format!("[{name}]\n{lines}"))
            .join("\n");
        let membership = match self.spec.etcd.as_slice() {
            [] => format!(
                "sequencer = [{}]\nwriters = [{}]\n",
                quoted(&self.sequencers()),
                self.entries()
            ),
            etcd => format!(
                "etcd = [{}]\netcd_prefix = \"{ETCD_PREFIX}\"\nlease_ms = {}\n",
                quoted(etcd),
                ETCD_LEASE.as_millis()
            ),
        };
        format!("store = \"{store}\"\n\n[membership]\n{membership}\n{sections}")
    }

    /// The stripe-writers as the settings name them.
    fn entries(&self) -> String {
        let writers = self.writers().into_iter().map(|writer| {
            let (address, (first, last)) = (writer.address, writer.stripes.into_inner());
            match self.other_writers.is_empty() {
                true => format!("{{ address = \"{address}\" }}"),
                false => format!("{{ address = \"{address}\", stripes = \"{first}-{last}\" }}"),
            }
        });
        writers.collect::<Vec<_>>().join(", ")
    }
}

fn quoted<T: Display>(all: &[T]) -> String {
    let all = all.iter().map(|one| format!("\"{one}\""));
    all.collect::<Vec<_>>().join(", ")
}
