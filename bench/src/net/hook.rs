//! Programs in the driver hooks of the bed, around the one of the sequencer: what turns packets round, what takes them,
//! and what makes them.

use std::net::{IpAddr, Ipv4Addr, UdpSocket};

use anyhow::{Context, Result};
use rustix::net::netdevice::name_to_index;
use sequencer_fast::hook::{self, Tool};
use sequencer_fast::{Hook, HookMode};

use super::bed::{CLIENT_IPS, End, Place, SERVER_DEVICE, SERVER_IP};
use super::frame::{Ends, frame};
pub(crate) use super::job::{Counts, Job};
use crate::logic::batch::{Batch, Shape};
use crate::logic::ranges::Ranges;

/// The device at the load's end of the bed.
const CLIENT_DEVICE: &str = "cli0";

/// A program that is attached until this is dropped.
#[derive(Debug)]
pub(crate) struct Program(Tool);

impl Program {
    /// Attaches a program at an end of the bed, for a server at this port.
    ///
    /// # Errors
    /// What is missing.
    pub(crate) fn attach(job: Job, port: u16, end: End) -> Result<Self> {
        let device = match end {
            End::Client => CLIENT_DEVICE,
            End::Server | End::Here => SERVER_DEVICE,
        };
        let cores = Vec::new();
        Place { end, cores }.run(|| Self::attach_here(job, port, device))
    }

    /// The same in the hook of a device of this namespace.
    ///
    /// # Errors
    /// What is missing.
    pub(crate) fn attach_here(job: Job, port: u16, device: &str) -> Result<Self> {
        let job = match job {
            Job::Pass => hook::Job::Pass,
            Job::Reflect => hook::Job::Reflect,
            Job::Sink => hook::Job::Sink,
            Job::Check => hook::Job::Check,
        };
        let hook = Hook {
            interface: device.to_owned(),
            mode: HookMode::Native,
        };
        Ok(Self(Tool::load(job, port, 1, 1)?.attach(&hook)?))
    }

    /// What it has counted so far.
    #[must_use]
    pub(crate) fn counts(&self) -> Counts {
        let counts = self.0.counts();
        Counts {
            replies: counts.replies,
            others: counts.others,
            twice: counts.twice,
            unchecked: counts.unchecked,
            queues: counts.queues,
        }
    }

    /// The positions that it has looked at.
    ///
    /// # Errors
    /// If they cannot be read.
    pub(crate) fn granted(&self) -> Result<Ranges> {
        Ok(self.0.granted()?.into_iter().collect())
    }
}

/// Frames with requests, which the kernel sends by itself.
#[derive(Debug)]
pub(crate) struct Source {
    tool: Tool,
    frame: Vec<u8>,
    interface: u32,
}

impl Source {
    /// Frames of so many clients, a power of two, each with requests like these. To be called on the thread that
    /// sends them, at the load's end of the bed.
    ///
    /// # Errors
    /// What is missing.
    pub(crate) fn load(shape: Shape, port: u16, clients: u32) -> Result<Self> {
        let ends = Ends {
            from: (ipv4(CLIENT_IPS[0])?, Tool::SOURCE_PORT),
            to: (ipv4(SERVER_IP)?, port),
        };
        let request = Batch::new(shape, wire::ClientId(0), 0, 1, 1)?;
        let socket = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0))?;
        let interface = name_to_index(&socket, CLIENT_DEVICE);
        Ok(Self {
            tool: Tool::load(hook::Job::Source, port, clients, 1)?,
            frame: frame(ends, request.whole())?,
            interface: interface.with_context(|| format!("no device {CLIENT_DEVICE}"))?,
        })
    }

    /// Sends so many.
    ///
    /// # Errors
    /// If the kernel does not.
    pub(crate) fn send(&mut self, frames: u32) -> Result<()> {
        Ok(self.tool.send(&self.frame, self.interface, frames)?)
    }

    /// Frames that it has made so far.
    #[must_use]
    pub(crate) fn made(&self) -> u64 {
        self.tool.counts().made
    }
}

/// Whether this was built with them: it was.
///
/// # Errors
/// None here.
#[allow(clippy::unnecessary_wraps, reason = "fails in a build without")]
pub(crate) fn built_in() -> Result<()> {
    Ok(())
}

/// Positions below this are looked at by [`Job::Check`].
pub(crate) const CHECKED: u64 = Tool::CHECKED;

fn ipv4(ip: IpAddr) -> Result<Ipv4Addr> {
    match ip {
        IpAddr::V4(ip) => Ok(ip),
        IpAddr::V6(_) => anyhow::bail!("frames are those of IPv4"),
    }
}
