//! A round: a fault, what it costs while it lasts, the heal, and what is to come back behind it.

use std::net::Ipv4Addr;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use rand::Rng;
use tokio::time::{sleep, timeout};

use super::super::failover_writer::{draw, largest};
use super::bars::Cost;
use super::fault::{Fault, Kind};
use super::scene::{CLIENTS, NODES, SEQUENCERS, STORE, Scene, WRITERS};
use crate::net::cut;
use crate::pair::Role;

/// Exit code of a sequencer that was fenced.
const FENCED: i32 = 3;

/// What one says whose predecessor's socket the kernel has not closed yet.
const IN_USE: &str = "Address already in use";

/// Longest time until everybody goes on and every daemon is back, far above every bar.
const BACK_TIMEOUT: Duration = Duration::from_secs(60);

/// Time between two looks.
const LOOK_EVERY: Duration = Duration::from_millis(5);

/// Whom a fault may strike.
#[derive(Debug, Clone, Copy)]
struct Victims {
    /// The sequencer that reigns.
    sequencer: usize,
    /// A stripe-writer that owns something.
    writer: usize,
    /// A node of etcd.
    node: usize,
}

impl Scene<'_> {
    /// A round, from calm to calm.
    #[allow(clippy::disallowed_methods, reason = "measures real time")]
    pub(super) async fn round(&mut self, fault: &Fault) -> Result<Cost> {
        let victims = self.settle().await?;
        self.all_since(Instant::now()).await?;
        sleep(fault.calm).await;
        self.load.take();
        self.strike(fault, victims).await?;
        sleep(fault.lasts).await;
        let pause = largest(self.load.take());
        self.heal(fault, victims).await?;
        let healed_at = Instant::now();
        self.all_since(healed_at).await?;
        let healed = healed_at.elapsed().as_secs_f64() * 1000.0;
        self.load.take();
        self.settle().await?;
        self.all_since(Instant::now()).await?;
        Ok(Cost {
            pause,
            healed,
            settling: largest(self.load.take()),
        })
    }

    async fn strike(&mut self, fault: &Fault, victims: Victims) -> Result<()> {
        let Victims {
            sequencer,
            writer,
            node,
        } = victims;
        match fault.kind {
            Kind::KillSequencer => self.pair.kill(sequencer).await,
            Kind::KillWriter => self.group.kill(writer).await,
            Kind::KillBoth => {
                let (pair, group) = (&mut self.pair, &mut self.group);
                let (one, other) = tokio::join!(pair.kill(sequencer), group.kill(writer));
                one.and(other)
            }
            Kind::StopSequencer => self.pair.signal(sequencer, "-STOP").await,
            Kind::StopWriter => self.group.signal(writer, "-STOP").await,
            Kind::EtcdKilled => {
                let etcd = self.etcd.as_mut().context("no etcd")?;
                etcd.kill(node).await
            }
            _ => {
                let (one, others) = cut_off(fault.kind, victims)?;
                let ip = |number: usize| self.lan.host(number).ip();
                let others: Vec<Ipv4Addr> = others.into_iter().map(ip).collect();
                let text = cut::cut(ip(one), &others, fault.way);
                self.lan.filter(&text).await
            }
        }
    }

    async fn heal(&mut self, fault: &Fault, victims: Victims) -> Result<()> {
        match fault.kind {
            Kind::KillSequencer => self.pair.run(victims.sequencer),
            Kind::KillWriter => self.group.run(victims.writer),
            Kind::KillBoth => {
                self.group.run(victims.writer)?;
                self.pair.run(victims.sequencer)
            }
            Kind::StopSequencer => self.pair.signal(victims.sequencer, "-CONT").await,
            Kind::StopWriter => self.group.signal(victims.writer, "-CONT").await,
            Kind::EtcdKilled => {
                let etcd = self.etcd.as_mut().context("no etcd")?;
                etcd.run(victims.node)
            }
            _ => self.lan.filter(&cut::heal()).await,
        }
    }

    /// Waits until one sequencer reigns, the other stands by, and every stripe has one owner. A sequencer that was fenced
    /// has ended, and is started again, as its operator would. Gives whom the next fault may strike.
    async fn settle(&mut self) -> Result<Victims> {
        let sequencer = timeout(BACK_TIMEOUT, self.reigning()).await;
        let sequencer = sequencer
            .unwrap_or_else(|_| bail!("not one reigns while the other stands by"))
            .with_context(|| self.pair.last_lines())?;
        let owners = self.group.become_owned(&self.log, |_| true).await?;
        Ok(Victims {
            sequencer,
            writer: draw(&owners, &mut self.random),
            node: self.random.random_range(0..NODES.len()),
        })
    }

    async fn reigning(&mut self) -> Result<usize> {
        loop {
            for which in SEQUENCERS {
                if let Some(status) = self.pair.has_ended(which)? {
                    // A supervisor starts one again that found its address in use.
                    let in_use = self.pair.said_last(which, IN_USE);
                    self.in_use += u32::from(in_use);
                    let is_expected = status.code() == Some(FENCED) || in_use;
                    ensure!(is_expected, "sequencer {which} ended: {status}");
                    self.pair.run(which)?;
                }
            }
            match (self.pair.role(0).await, self.pair.role(1).await) {
                (Some(Role::Reigns), Some(Role::Standby)) => return Ok(0),
                (Some(Role::Standby), Some(Role::Reigns)) => return Ok(1),
                _ => sleep(LOOK_EVERY).await,
            }
        }
    }

    /// Waits until every client has had an acknowledgement of every stripe since.
    async fn all_since(&self, since: Instant) -> Result<()> {
        let on = async {
            while !self.load.every_client_since(since) {
                sleep(LOOK_EVERY).await;
            }
        };
        let went_on = timeout(BACK_TIMEOUT, on).await;
        went_on.with_context(|| {
            let (pair, group) = (self.pair.last_lines(), self.group.last_lines());
            format!("not every stripe goes on for every client\n{pair}{group}")
        })
    }
}

/// Which host is cut off, and from which others.
fn cut_off(kind: Kind, victims: Victims) -> Result<(usize, Vec<usize>)> {
    let sequencer = SEQUENCERS.start + victims.sequencer;
    let writer = WRITERS.start + victims.writer;
    let node = NODES.start + victims.node;
    let (one, others) = match kind {
        Kind::SequencerStandby => (sequencer, SEQUENCERS.collect()),
        Kind::SequencerStore => (sequencer, vec![STORE]),
        Kind::SequencerClients => (sequencer, vec![CLIENTS]),
        Kind::SequencerWriters => (sequencer, WRITERS.collect()),
        Kind::WriterStore => (writer, vec![STORE]),
        Kind::WriterPeers => (writer, WRITERS.collect()),
        Kind::WriterClients => (writer, vec![CLIENTS]),
        Kind::EtcdCut => (node, (SEQUENCERS.start..NODES.end).collect()),
        Kind::SequencerEtcd => (sequencer, NODES.collect()),
        Kind::WriterEtcd => (writer, NODES.collect()),
        _ => bail!("no cut: {kind:?}"),
    };
    let others: Vec<usize> = others;
    Ok((
        one,
        others.into_iter().filter(|other| *other != one).collect(),
    ))
}

#[cfg(test)]
mod tests {
    use super::*;

    const VICTIMS: Victims = Victims {
        sequencer: 1,
        writer: 2,
        node: 0,
    };

    #[test]
    fn nobody_is_cut_off_from_itself() {
        for (kind, one, others) in [
            (Kind::SequencerStandby, 1, vec![0]),
            (Kind::SequencerWriters, 1, vec![2, 3, 4]),
            (Kind::WriterPeers, 4, vec![2, 3]),
            (Kind::WriterStore, 4, vec![STORE]),
            (Kind::WriterClients, 4, vec![CLIENTS]),
            (Kind::EtcdCut, 7, vec![0, 1, 2, 3, 4, 5, 6, 8, 9]),
            (Kind::SequencerEtcd, 1, vec![7, 8, 9]),
        ] {
            assert_eq!(
                cut_off(kind, VICTIMS).expect("a cut"),
                (one, others),
                "{kind:?}"
            );
        }
        assert!(cut_off(Kind::KillBoth, VICTIMS).is_err());
    }
}
