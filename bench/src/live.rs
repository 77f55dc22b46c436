//! Frames that the kernel sends by itself, one after the other on one core, in the place of clients with sockets: what
//! comes back is counted in the driver hook of the load's end and taken there.

use std::thread;
use std::time::{Duration, Instant};

use anyhow::Result;
use serde::Serialize;

use crate::logic::batch::Shape;
use crate::measure::{WARM_UP, round};
use crate::net::bed::{End, Place};
use crate::net::hook::{Counts, Job, Program, Source};
use crate::options::Backend;
use crate::server::Server;

/// Frames of one call of the kernel: some hundredths of a second.
const FRAMES: u32 = 100_000;

/// Longest wait for the last replies, and between two looks whether more came.
const DRAIN: Duration = Duration::from_millis(300);
const LOOK: Duration = Duration::from_millis(20);

/// Frames, and whom they ask.
#[derive(Debug, Clone)]
pub(crate) struct Live {
    /// What each asks.
    pub(crate) shape: Shape,
    /// Clients that they are of, a power of two.
    pub(crate) clients: u32,
    /// Core that sends them.
    pub(crate) core: usize,
    /// Measured time.
    pub(crate) time: Duration,
}

/// What became of them.
#[derive(Debug, Clone, Copy, Serialize)]
pub(crate) struct Answered {
    /// Frames with an answer within the measured time, a second.
    pub(crate) datagrams_per_second: f64,
    /// Frames that were sent, those before the measured time among them.
    pub(crate) frames: u64,
    /// How many of these were answered.
    pub(crate) answered: u64,
    /// Answers that were those of a sequencer, not what was sent.
    #[serde(skip)]
    pub(crate) replies: u64,
}

impl Answered {
    /// The part of all frames that so many of them are.
    #[must_use]
    pub(crate) fn share(&self, of: f64) -> f64 {
        of / self.frames.max(1) as f64
    }
}

impl Live {
    /// Sends them to a server on the bed that was started with this backend. Nobody else may load it meanwhile.
    ///
    /// # Errors
    /// What is missing, of rights or of the kernel.
    pub(crate) fn measure(&self, server: &Server, backend: Backend) -> Result<Answered> {
        let port = server.address().port();
        // Frames come in by a program, or not at all.
        let _way_in = match backend {
            Backend::Xdp => None,
            _ => Some(Program::attach(Job::Pass, port, End::Server)?),
        };
        let sink = Program::attach(Job::Sink, port, End::Client)?;
        let place = Place::on(End::Client, self.core);
        place.run(|| self.send(port, &sink))
    }

    fn send(&self, port: u16, sink: &Program) -> Result<Answered> {
        let mut source = Source::load(self.shape, port, self.clients)?;
        let begin = now();
        while begin.elapsed() < WARM_UP {
            source.send(FRAMES)?;
        }
        let (begin, before) = (now(), came(&sink.counts()));
        while begin.elapsed() < self.time {
            source.send(FRAMES)?;
        }
        let (seconds, within) = (begin.elapsed().as_secs_f64(), came(&sink.counts()));
        let counts = drained(|| sink.counts());
        let rate = (within - before) as f64 / seconds;
        Ok(Answered {
            datagrams_per_second: round(rate),
            frames: source.made(),
            answered: came(&counts),
            replies: counts.replies,
        })
    }
}

fn came(counts: &Counts) -> u64 {
    counts.replies + counts.others
}

/// What was counted, once nothing comes any more.
#[allow(clippy::disallowed_methods, reason = "waits for real time")]
pub(crate) fn drained(counts: impl Fn() -> Counts) -> Counts {
    let begin = now();
    let mut last = counts();
    while begin.elapsed() < DRAIN {
        thread::sleep(LOOK);
        let next = counts();
        if came(&next) == came(&last) {
            return next;
        }
        last = next;
    }
    last
}

#[allow(clippy::disallowed_methods, reason = "measures real time")]
fn now() -> Instant {
    Instant::now()
}
