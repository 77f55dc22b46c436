//! The addresses of a cluster whose daemons have networks of their own.

use super::Cluster;
use crate::net::lan::Sites;

/// Ports of the daemons there.
const SEQUENCER_PORT: u16 = 7400;
const WRITER_PORT: u16 = 7500;

impl Cluster {
    /// Where the sequencers and the stripe-writers are, if each has a network of its own.
    #[must_use]
    pub(crate) fn sites(&self) -> Option<&Sites> {
        self.spec.sites.as_ref()
    }

    /// Gives the daemons the addresses of their sites, where there are some.
    pub(super) fn move_to_sites(&mut self) {
        let Some(sites) = &self.spec.sites else {
            return;
        };
        let sequencers = [&mut self.sequencer].into_iter().chain(&mut self.second);
        for (address, site) in sequencers.zip(&sites.sequencers) {
            *address = site.address(SEQUENCER_PORT);
        }
        let writers = [&mut self.writer]
            .into_iter()
            .chain(&mut self.other_writers);
        for (address, site) in writers.zip(&sites.writers) {
            *address = site.address(WRITER_PORT);
        }
    }
}
