//! Programs around the one that grants, for tests and load generators on the same machine (`bpf/tools.bpf.c`).

use aya::maps::PerCpuArray;
use aya::programs::links::FdLink;
use aya::programs::{ProgramError, TestRun, TestRunAttrs, TestRunOptions, Xdp};
use aya::{Ebpf, EbpfLoader};

use super::{link, need};
use crate::config::Hook;
use crate::error::SequencerError;

/// The compiled programs.
static OBJECT: &[u8] = aya::include_bytes_aligned!(concat!(env!("OUT_DIR"), "/tools.bpf.o"));

/// What a program does with frames.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Job {
    /// Lets everything through.
    Pass,
    /// Sends back what is for the server.
    Reflect,
    /// Counts and takes what comes from the server.
    Sink,
    /// Makes requests of frames and sends them.
    Source,
}

/// A loaded program, attached or not.
#[derive(Debug)]
pub struct Tool {
    ebpf: Ebpf,
    job: Job,
    link: Option<FdLink>,
}

/// What a program has counted, on all cores.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct ToolCounts {
    /// Requests that a source has made.
    pub made: u64,
    /// Replies that came to a sink.
    pub replies: u64,
    /// What else came to it from the server.
    pub others: u64,
    /// Frames that were sent back.
    pub turned: u64,
}

/// Frames that the kernel has under way at once when it sends them by itself.
const LIVE_BATCH: u32 = 64;

impl Job {
    fn name(self) -> &'static str {
        match self {
            Self::Pass => "pass",
            Self::Reflect => "reflect",
            Self::Sink => "sink",
            Self::Source => "source",
        }
    }
}

impl Tool {
    /// Loads the program of a job, for a server at this port; a source asks for so many clients, a power of two, with
    /// requests from this number on.
    ///
    /// # Errors
    /// [`SequencerError::Xdp`].
    pub fn load(job: Job, port: u16, clients: u32, request: u64) -> Result<Self, SequencerError> {
        let port = port.to_be_bytes();
        let mut loader = EbpfLoader::new();
        loader
            .override_global("PORT", &port[..], true)
            .override_global("CLIENTS", &clients, true)
            .override_global("FIRST_REQUEST", &request, true);
        let ebpf = loader.load(OBJECT).map_err(|error| need::load(&error))?;
        let link = None;
        let mut tool = Self { ebpf, job, link };
        let loaded = tool.program()?.load();
        loaded.map_err(|error| need::verified(&error))?;
        Ok(tool)
    }

    /// Attaches it, until it is dropped.
    ///
    /// # Errors
    /// [`SequencerError::Xdp`].
    pub fn attach(mut self, hook: &Hook) -> Result<Self, SequencerError> {
        self.link = Some(link::attach(self.program()?, hook)?);
        Ok(self)
    }

    /// Has the kernel send `frame` `repeat` times, each as the program makes it, out of the interface with this
    /// index. Blocks the thread, on whose core all of it is done.
    ///
    /// # Errors
    /// [`SequencerError::Xdp`].
    pub fn send(
        &mut self,
        frame: &[u8],
        interface: u32,
        repeat: u32,
    ) -> Result<(), SequencerError> {
        // `struct xdp_md`: where the data ends, and which interface it came from.
        let len = u32::try_from(frame.len()).unwrap_or(u32::MAX);
        let context: Vec<u8> = [0, len, 0, interface, 0, 0]
            .iter()
            .flat_map(|word: &u32| word.to_ne_bytes())
            .collect();
        let options = TestRunOptions {
            data_in: Some(frame),
            ctx_in: Some(&context),
            repeat,
            attrs: TestRunAttrs::new().xdp_live_frames(LIVE_BATCH),
            ..TestRunOptions::new()
        };
        let sent = self.program()?.test_run(options);
        sent.map(|_| ()).map_err(|error| {
            need::refused(format!("the kernel sends no frames by itself: {error}"))
        })
    }

    /// What it has counted.
    #[must_use]
    pub fn counts(&self) -> ToolCounts {
        let values = self.ebpf.map("COUNTS").and_then(|map| {
            let map = PerCpuArray::<_, [u64; 4]>::try_from(map).ok()?;
            map.get(&0, 0).ok()
        });
        let mut sum = ToolCounts::default();
        for [made, replies, others, turned] in values.iter().flat_map(|values| values.iter()) {
            sum.made += made;
            sum.replies += replies;
            sum.others += others;
            sum.turned += turned;
        }
        sum
    }

    fn program(&mut self) -> Result<&mut Xdp, SequencerError> {
        let program = self.ebpf.program_mut(self.job.name());
        let program = program.ok_or(ProgramError::NotLoaded);
        let program = program.and_then(TryInto::try_into);
        program.map_err(|error| need::verified(&error))
    }
}
