//! Programs around the one that grants, for tests and load generators on the same machine (`bpf/tools.bpf.c`).

use aya::maps::{Array, MapError, PerCpuArray};
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
    /// Takes the replies to frames of a source, looks at every position whether it was granted before, and lets
    /// everything else through.
    Check,
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
    /// Positions that were granted once more.
    pub twice: u64,
    /// Entries of replies whose positions were not looked at: refused, or not of one position below
    /// [`Tool::CHECKED`].
    pub unchecked: u64,
    /// Replies that were looked at, by the queue that they came by, modulo their number.
    pub queues: [u64; 4],
}

/// Words of `struct counts`.
const COUNTS: usize = 10;

/// Words of an element of the map of positions, and how many of these there are where positions are looked at.
const GRANTED_WORDS: usize = 512;
const GRANTED_ELEMENTS: u32 = 2048;

/// Frames that the kernel has under way at once when it sends them by itself.
const LIVE_BATCH: u32 = 64;

impl Job {
    fn name(self) -> &'static str {
        match self {
            Self::Pass => "pass",
            Self::Reflect => "reflect",
            Self::Sink => "sink",
            Self::Check => "check",
            Self::Source => "source",
        }
    }
}

impl Tool {
    /// The port that frames of a source have to come from, to be looked at.
    pub const SOURCE_PORT: u16 = 4000;

    /// Positions from here on are not looked at.
    pub const CHECKED: u64 = GRANTED_ELEMENTS as u64 * GRANTED_WORDS as u64 * 64;

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
        if job == Job::Check {
            loader.map_max_entries("GRANTED", GRANTED_ELEMENTS);
        }
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
            let map = PerCpuArray::<_, [u64; COUNTS]>::try_from(map).ok()?;
            map.get(&0, 0).ok()
        });
        let mut sum = ToolCounts::default();
        for core in values.iter().flat_map(|values| values.iter()) {
            let [made, replies, others, turned, twice, unchecked, queues @ ..] = core;
            sum.made += made;
            sum.replies += replies;
            sum.others += others;
            sum.turned += turned;
            sum.twice += twice;
            sum.unchecked += unchecked;
            for (sum, queue) in sum.queues.iter_mut().zip(queues) {
                *sum += queue;
            }
        }
        sum
    }

    /// The positions that it has looked at, as ranges in order: first position and end.
    ///
    /// # Errors
    /// [`SequencerError::Xdp`].
    pub fn granted(&self) -> Result<Vec<(u64, u64)>, SequencerError> {
        let unreadable =
            |error: MapError| need::refused(format!("cannot read what was granted: {error}"));
        let map = self.ebpf.map("GRANTED");
        let map = map.ok_or(MapError::KeyNotFound).map_err(unreadable)?;
        let map = Array::<_, [u64; GRANTED_WORDS]>::try_from(map).map_err(unreadable)?;
        let mut ranges = Vec::<(u64, u64)>::new();
        let mut base = 0;
        for words in map.iter() {
            for word in words.map_err(unreadable)? {
                let set = (0..64).filter(|bit| word >> bit & 1 == 1);
                for first in set.map(|bit| base + bit) {
                    match ranges.last_mut() {
                        Some((_, end)) if *end == first => *end += 1,
                        _ => ranges.push((first, first + 1)),
                    }
                }
                base += 64;
            }
        }
        Ok(ranges)
    }

    fn program(&mut self) -> Result<&mut Xdp, SequencerError> {
        let program = self.ebpf.program_mut(self.job.name());
        let program = program.ok_or(ProgramError::NotLoaded);
        let program = program.and_then(TryInto::try_into);
        program.map_err(|error| need::verified(&error))
    }
}
