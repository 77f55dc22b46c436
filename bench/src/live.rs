//! Frames that the kernel sends by itself, one after the other on one core, in the place of clients with sockets: what
//! comes back is counted in the driver hook of the load's end and taken there.

use std::thread;
use std::time::{Duration, Instant};

use anyhow::Result;
use serde::Serialize;

use crate::logic::batch::Shape;
use crate::measure::{WARM_UP, round, whole};
use crate::net::bed::{End, Place};
use crate::net::hook::{Counts, Job, Program, Source};
use crate::options::Backend;
use crate::program::ProgramCounts;
use crate::server::Server;
use crate::stop;

/// Frames of the first call of the kernel and of the longest one. Each call waits twice until no core runs the program of
/// the one before, some 7 ms each time: as few as possible are made.
const FIRST_FRAMES: u32 = 50_000;
const MOST_FRAMES: u32 = 20_000_000;

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
#[derive(Debug, Clone, Serialize)]
pub(crate) struct Answered {
    /// Frames with an answer within the measured time, a second.
    pub(crate) datagrams_per_second: f64,
    /// Frames that were sent within it.
    pub(crate) frames: u64,
    /// How many of these were answered in the end.
    pub(crate) answered: u64,
    /// Answers that were those of a sequencer, not what was sent.
    #[serde(skip)]
    pub(crate) replies: u64,
    /// What the program of the sequencer did with these frames, if it has one.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) program: Option<ProgramCounts>,
}

impl Answered {
    /// The share of the answers that were the program's, if there is one: sockets answer nothing but what it passes up, and
    /// nothing comes back besides.
    #[must_use]
    pub(crate) fn program_share(&self) -> Option<f64> {
        let program = self.program.as_ref()?;
        let of_answers = program.answered / self.answered.max(1) as f64;
        Some(of_answers.min(program.share()))
    }

    /// The share of the frames that came to nobody, or whose answer did not: a queue was full.
    #[must_use]
    pub(crate) fn lost_share(&self) -> f64 {
        1.0 - self.answered as f64 / self.frames.max(1) as f64
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
        let counted = || match backend == Backend::Xdp && !self.shape.echo {
            true => server.metrics().map(|all| Some(ProgramCounts::of(&all))),
            false => Ok(None),
        };
        let place = Place::on(End::Client, self.core);
        place.run(|| self.send(port, &sink, counted))
    }

    fn send(
        &self,
        port: u16,
        sink: &Program,
        counted: impl Fn() -> Result<Option<ProgramCounts>>,
    ) -> Result<Answered> {
        let mut source = Source::load(self.shape, port, self.clients)?;
        let frames = self.warm_up(&mut source)?;
        let (before, made, counted_before) = (drained(sink), source.made(), counted()?);
        // One call is to fill the time; one that was much faster than those before it has another one follow.
        let begin = now();
        while begin.elapsed() < self.time / 2 {
            stop::check()?;
            source.send(frames)?;
        }
        let (seconds, within) = (begin.elapsed().as_secs_f64(), came(&sink.counts()));
        let counts = drained(sink);
        let program = counted()?.zip(counted_before);
        let rate = (within - came(&before)) as f64 / seconds;
        Ok(Answered {
            datagrams_per_second: round(rate),
            frames: source.made() - made,
            answered: came(&counts) - came(&before),
            replies: counts.replies - before.replies,
            program: program.map(|(after, before)| after.since(&before)),
        })
    }
}

impl Live {
    /// Sends until a call is long enough to tell how many frames fill the measured time.
    fn warm_up(&self, source: &mut Source) -> Result<u32> {
        let mut frames = FIRST_FRAMES;
        loop {
            stop::check()?;
            let begin = now();
            source.send(frames)?;
            let took = begin.elapsed();
            if took >= WARM_UP || frames >= MOST_FRAMES {
                let part = self.time.as_secs_f64() / took.as_secs_f64();
                let filling = u32::try_from(whole(f64::from(frames) * part));
                let filling = filling.unwrap_or(MOST_FRAMES);
                return Ok(filling.clamp(FIRST_FRAMES, MOST_FRAMES));
            }
            frames = frames.saturating_mul(2).min(MOST_FRAMES);
        }
    }
}

fn came(counts: &Counts) -> u64 {
    counts.replies + counts.others
}

/// What a sink has counted, once nothing comes any more.
#[allow(clippy::disallowed_methods, reason = "waits for real time")]
pub(crate) fn drained(sink: &Program) -> Counts {
    let begin = now();
    let mut last = sink.counts();
    while begin.elapsed() < DRAIN {
        thread::sleep(LOOK);
        let next = sink.counts();
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
