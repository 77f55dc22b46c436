//! A log whose daemons have a network of their own each, under load.

use anyhow::Result;
use rand::rngs::StdRng;
use stripelog::Log;
use wire::Layout;

use super::super::check;
use super::super::failover::{HOLE_TIMEOUT, Witness};
use super::super::failover_writer::all_go_on;
use crate::cluster::{Cluster, Spec};
use crate::etcd::Etcd;
use crate::group::Group;
use crate::net::bucket::Bucket;
use crate::net::lan::{Lan, Site, Sites};
use crate::pair::Pair;
use crate::report::Report;
use crate::steady::Steady;

/// Time without a sign after which a standby takes over; that of stripe-writers is as long by default.
pub(super) const DETECT_MS: u32 = 1000;

/// How long a reign lasts that is not renewed. Short, as faults have to last longer.
const REIGN_TTL_MS: u32 = 2000;

/// Hosts by their numbers.
pub(super) const HOSTS: [&str; 10] = [
    "seq0", "seq1", "wr0", "wr1", "wr2", "cli", "store", "etcd0", "etcd1", "etcd2",
];
pub(super) const SEQUENCERS: std::ops::Range<usize> = 0..2;
pub(super) const WRITERS: std::ops::Range<usize> = 2..5;
pub(super) const CLIENTS: usize = 5;
pub(super) const STORE: usize = 6;
pub(super) const NODES: std::ops::Range<usize> = 7..10;

/// Clients that append.
const LOADS: usize = 4;

/// Stripes and unit: small enough that the load goes over all stripes many times a second.
const STRIPES: u32 = 12;
const UNIT: u32 = 16;

/// A store of its own in the network, and a log in it that nobody serves yet. It is called in the network of clients, as
/// everything here.
pub(super) async fn create(lan: &Lan, etcd: Option<&Etcd>) -> Result<(Bucket, Cluster)> {
    let bucket = Bucket::on(lan.host(STORE).listen()?)?;
    let sites = |numbers: std::ops::Range<usize>| numbers.map(|n| lan.host(n).clone()).collect();
    let cluster = Cluster::create(Spec {
        store: Some(bucket.url()),
        stripes: Some(STRIPES),
        unit: Some(UNIT),
        settings: vec![
            HOLE_TIMEOUT.to_owned(),
            format!("sequencer.detect_ms={DETECT_MS}"),
            format!("sequencer.reign_ttl_ms={REIGN_TTL_MS}"),
        ],
        pair: true,
        writers: WRITERS.len(),
        etcd: etcd.map(Etcd::endpoints).unwrap_or_default(),
        environment: bucket.environment(),
        sites: Some(Sites {
            sequencers: sites(SEQUENCERS),
            writers: sites(WRITERS),
        }),
        opened: Some(bucket.store()?),
    })
    .await?;
    Ok((bucket, cluster))
}

/// Starts the nodes of etcd.
pub(super) async fn etcd(lan: &Lan) -> Result<Etcd> {
    let sites: Vec<Site> = NODES.map(|number| lan.host(number).clone()).collect();
    Etcd::at(sites.into_iter().map(Some).collect()).await
}

/// All that runs.
pub(super) struct Scene<'a> {
    pub(super) lan: &'a Lan,
    pub(super) pair: Pair,
    pub(super) group: Group,
    pub(super) etcd: Option<Etcd>,
    pub(super) log: Log,
    pub(super) load: Steady,
    pub(super) random: StdRng,
    /// How often a sequencer ended at its start because its address was in use.
    pub(super) in_use: u32,
    witness: Witness,
}

impl<'a> Scene<'a> {
    /// Starts the daemons and the load.
    pub(super) async fn start(
        lan: &'a Lan,
        cluster: &Cluster,
        etcd: Option<Etcd>,
        (seed, random): (u64, StdRng),
    ) -> Result<Self> {
        // The stripe-writers first: they wait for nobody.
        let group = Group::start(cluster)?;
        let pair = Pair::start(cluster).await?;
        let log = cluster.client().await?;
        group.become_owned(&log, |_| true).await?;
        let mut clients = Vec::new();
        for _ in 0..LOADS {
            clients.push(cluster.client().await?);
        }
        let load = Steady::start(clients, Layout::new(STRIPES, UNIT)?, seed);
        let witness = Witness::start(cluster, &log, seed).await?;
        Ok(Self {
            lan,
            pair,
            group,
            etcd,
            log,
            load,
            random,
            in_use: 0,
            witness,
        })
    }

    /// Ends the load, and holds the log against its history.
    pub(super) async fn finish(self, cluster: &Cluster, report: &mut Report) -> Result<()> {
        all_go_on(&self.load, &self.group).await?;
        report.figure("address_in_use", self.in_use);
        report.figure("held_back", self.load.held_back());
        let tokens = self.witness.finish().await?;
        let finished = self.load.finish().await;
        finished.tell(report);
        check::judge_by(&self.log, cluster, &finished.appends, &tokens, report).await?;
        report.exactly("panics", self.pair.panics() + self.group.panics(), 0);
        Ok(())
    }
}
