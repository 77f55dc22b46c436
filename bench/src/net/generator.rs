//! The load: one thread a core, each with clients of its own, that spins.
//!
//! Closed loop: every client keeps its window under way. Open loop: datagrams are due at a fixed rate, and
//! their latency counts from then, however late they went out.

use std::io;
use std::os::fd::OwnedFd;
use std::time::{Duration, Instant};

use anyhow::Result;
use rustix::event::epoll;
use sequencer_fast::udp::{Receiver, Sender};
use wire::ClientId;

use super::bed::Place;
use super::flow::{Flow, Wire};
use crate::logic::batch::{Answer, Shape};
use crate::logic::tally::Tally;
use crate::stop;

/// Longest sleep between two looks for a signal.
const WAIT: Duration = Duration::from_millis(50);

/// Between two looks for what has no answer.
const LOOK: Duration = Duration::from_millis(2);

/// Longest wait for the last answers.
const DRAIN: Duration = Duration::from_millis(300);

/// Largest run that the kernel merges, and the buffers for such.
const MERGED_BYTES: usize = 1 << 16;
const MERGED_BUFFERS: usize = 4;

/// Buffers for datagrams that are not merged.
const SINGLE_BYTES: usize = 2048;
const SINGLE_BUFFERS: usize = 32;

/// Most datagrams that one call sends.
const SENDS: usize = 128;

/// What a load is like.
#[derive(Debug, Clone)]
pub(crate) struct Load {
    /// Whom it asks, and how.
    pub(crate) wire: Wire,
    /// What it asks.
    pub(crate) shape: Shape,
    /// Clients of all threads together.
    pub(crate) flows: usize,
    /// Most datagrams that are sent together.
    pub(crate) run: usize,
    /// Batches of that many datagrams that a client has under way.
    pub(crate) batches: usize,
    /// Requests a second of all threads together; closed loop without it.
    pub(crate) rate: Option<f64>,
    /// Time before that which is measured.
    pub(crate) warm_up: Duration,
    /// Measured time.
    pub(crate) time: Duration,
    /// Without an answer for so long a datagram is sent again.
    pub(crate) retry: Duration,
    /// Whether granted ranges are kept.
    pub(crate) keep_ranges: bool,
    /// One thread at each of these.
    pub(crate) places: Vec<Place>,
    /// Number of the first client.
    pub(crate) first_client: u64,
}

/// The clock of a run: all threads measure the same stretch of it.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Stretch {
    epoch: Instant,
    from_ns: u64,
    to_ns: u64,
}

impl Stretch {
    /// A stretch of `time` that begins after `warm_up` from now.
    pub(crate) fn new(warm_up: Duration, time: Duration) -> Self {
        Self {
            epoch: now(),
            from_ns: ns(warm_up),
            to_ns: ns(warm_up + time),
        }
    }

    fn now_ns(&self) -> u64 {
        ns(self.epoch.elapsed())
    }

    /// Waits for the beginning.
    pub(crate) fn wait_begin(&self) {
        self.wait(self.from_ns);
    }

    /// Waits for the end.
    pub(crate) fn wait_end(&self) {
        self.wait(self.to_ns);
    }

    #[allow(
        clippy::disallowed_methods,
        reason = "a thread of the bench that only waits"
    )]
    fn wait(&self, until_ns: u64) {
        while let left = until_ns.saturating_sub(self.now_ns())
            && left > 0
            && !stop::raised()
        {
            std::thread::sleep(Duration::from_nanos(left).min(WAIT));
        }
    }
}

/// Runs one thread of a load, its number `thread`, to the end of the stretch.
///
/// # Errors
/// If it cannot send or receive.
pub(crate) fn run(load: &Load, thread: usize, stretch: Stretch) -> Result<Tally> {
    let mut generator = Generator::new(load, thread, stretch)?;
    generator.work()?;
    Ok(generator.finish())
}

struct Generator<'a> {
    load: &'a Load,
    stretch: Stretch,
    flows: Vec<Flow>,
    poller: Option<OwnedFd>,
    ready: Vec<epoll::Event>,
    receiver: Receiver,
    sender: Sender,
    tally: Tally,
    schedule: Option<Schedule>,
    next_flow: usize,
    measures: bool,
}

/// When datagrams are due, in an open loop.
#[derive(Debug)]
struct Schedule {
    interval_ns: f64,
    begun: u64,
}

impl Schedule {
    fn due_ns(&self, number: u64) -> u64 {
        // Exact up to 2^53 ns, which is three months.
        #[allow(
            clippy::cast_possible_truncation,
            reason = "a positive time within u64"
        )]
        let due = (number as f64 * self.interval_ns) as u64;
        due
    }

    fn waiting(&self, now_ns: u64) -> u64 {
        #[allow(
            clippy::cast_possible_truncation,
            reason = "a positive count within u64"
        )]
        let all = (now_ns as f64 / self.interval_ns) as u64 + 1;
        all.saturating_sub(self.begun)
    }
}

impl<'a> Generator<'a> {
    fn new(load: &'a Load, thread: usize, stretch: Stretch) -> Result<Self> {
        let threads = load.places.len().max(1);
        let flows: Result<Vec<_>> = (thread..load.flows)
            .step_by(threads)
            .map(|flow| {
                let client = ClientId(load.first_client.wrapping_add(flow as u64));
                Flow::new(&load.wire, load.shape, client, load.batches, load.run)
            })
            .collect();
        let flows = flows?;
        let (buffers, size) = match load.wire.merge {
            true => (MERGED_BUFFERS, MERGED_BYTES),
            false => (SINGLE_BUFFERS, SINGLE_BYTES),
        };
        let interval_ns = |rate: f64| load.shape.packed as f64 * threads as f64 * 1e9 / rate;
        Ok(Self {
            load,
            stretch,
            poller: poller(&flows)?,
            ready: Vec::with_capacity(flows.len()),
            flows,
            receiver: Receiver::new(buffers, size),
            sender: Sender::new(SENDS),
            tally: Tally::new(load.keep_ranges)?,
            schedule: load.rate.map(|rate| Schedule {
                interval_ns: interval_ns(rate),
                begun: 0,
            }),
            next_flow: 0,
            measures: false,
        })
    }

    fn work(&mut self) -> Result<()> {
        let (mut before_ns, mut look_ns) = (self.stretch.now_ns(), 0);
        loop {
            let now_ns = self.stretch.now_ns();
            if !self.measures && now_ns >= self.stretch.from_ns {
                self.measures = true;
                self.tally.restart();
            }
            if now_ns >= self.stretch.to_ns {
                self.tally.thread_ns = now_ns - self.stretch.from_ns;
                return self.drain();
            }
            let received = self.receive()?;
            let sent = match self.schedule.is_some() {
                true => self.send_due()?,
                false => self.send_window()?,
            };
            if now_ns >= look_ns {
                stop::check()?;
                look_ns = now_ns + ns(LOOK);
                self.retry(now_ns)?;
            }
            if received + sent == 0 {
                self.tally.idle_ns += now_ns - before_ns;
            }
            before_ns = now_ns;
        }
    }

    /// Waits for the last answers. They count as late as they are, but not as work done in time.
    fn drain(&mut self) -> Result<()> {
        self.measures = false;
        let end_ns = self.stretch.now_ns() + ns(DRAIN.max(self.load.retry * 3));
        let mut look_ns = 0;
        while self.flows.iter().any(|flow| flow.open() > 0) && self.stretch.now_ns() < end_ns {
            self.receive()?;
            let now_ns = self.stretch.now_ns();
            if now_ns >= look_ns {
                look_ns = now_ns + ns(LOOK);
                self.retry(now_ns)?;
            }
        }
        Ok(())
    }

    fn receive(&mut self) -> Result<usize> {
        let Some(poller) = &self.poller else {
            return self.receive_flow(0);
        };
        self.ready.clear();
        let no_wait = rustix::event::Timespec::default();
        let spare = rustix::buffer::spare_capacity(&mut self.ready);
        epoll::wait(poller, spare, Some(&no_wait)).map_err(io::Error::from)?;
        let mut received = 0;
        for index in 0..self.ready.len() {
            let flow = self.ready.get(index).map(|event| event.data.u64());
            let flow = flow.and_then(|flow| usize::try_from(flow).ok());
            received += self.receive_flow(flow.unwrap_or_default())?;
        }
        Ok(received)
    }

    fn receive_flow(&mut self, flow: usize) -> Result<usize> {
        let Some(flow) = self.flows.get_mut(flow) else {
            return Ok(0);
        };
        let (tally, stretch, measures) = (&mut self.tally, self.stretch, self.measures);
        let (packed, open_loop) = (self.load.shape.packed as u64, self.schedule.is_some());
        let mut ranges = tally.ranges.take();
        let mut now_ns = None;
        let received = flow.receive(
            &mut self.receiver,
            ranges.as_mut(),
            |_, answer| match answer {
                Answer::Done { due_ns, tokens } => {
                    let now_ns = *now_ns.get_or_insert_with(|| stretch.now_ns());
                    if measures {
                        tally.requests += packed;
                        tally.tokens += tokens;
                    }
                    // What is late at the end of an open loop was due all the same.
                    if measures || (open_loop && due_ns >= stretch.from_ns) {
                        let latency_ns = now_ns.saturating_sub(due_ns);
                        tally.latency.saturating_record_n(latency_ns, packed);
                    }
                }
                Answer::Busy => tally.busy += 1,
                Answer::Stale => tally.stale += 1,
                Answer::Wrong => tally.wrong += 1,
            },
        );
        self.tally.ranges = ranges;
        Ok(received?)
    }

    fn send_window(&mut self) -> Result<usize> {
        let (mut sent, mut now_ns) = (0, None);
        for flow in &mut self.flows {
            while flow.has_free() {
                let now_ns = *now_ns.get_or_insert_with(|| self.stretch.now_ns());
                let run = flow.run();
                sent += flow.send(&mut self.sender, std::iter::repeat_n(now_ns, run), now_ns)?;
            }
        }
        Ok(sent)
    }

    fn send_due(&mut self) -> Result<usize> {
        let Some(schedule) = &mut self.schedule else {
            return Ok(0);
        };
        let now_ns = self.stretch.now_ns();
        let (mut sent, mut waiting) = (0, schedule.waiting(now_ns));
        for _ in 0..self.flows.len() {
            if waiting == 0 {
                break;
            }
            let count = self.flows.len();
            let Some(flow) = self.flows.get_mut(self.next_flow % count) else {
                break;
            };
            self.next_flow += 1;
            if !flow.has_free() {
                continue;
            }
            let now = waiting.min(flow.run() as u64);
            let due = (schedule.begun..schedule.begun + now).map(|number| schedule.due_ns(number));
            sent += flow.send(&mut self.sender, due, now_ns)?;
            schedule.begun += now;
            waiting -= now;
        }
        Ok(sent)
    }

    fn retry(&mut self, now_ns: u64) -> Result<()> {
        let before_ns = now_ns.saturating_sub(ns(self.load.retry));
        for flow in &mut self.flows {
            self.tally.retries += flow.retry(&mut self.sender, before_ns, now_ns)? as u64;
        }
        Ok(())
    }

    fn finish(mut self) -> Tally {
        let open: usize = self.flows.iter().map(Flow::open).sum();
        self.tally.unanswered = open as u64;
        let Some(schedule) = &self.schedule else {
            return self.tally;
        };
        // What was due and could not even be sent has waited at least until the end.
        let to_ns = self.stretch.to_ns;
        for number in schedule.begun..schedule.begun + schedule.waiting(to_ns) {
            let due_ns = schedule.due_ns(number).max(self.stretch.from_ns);
            let packed = self.load.shape.packed as u64;
            let waited_ns = to_ns.saturating_sub(due_ns);
            self.tally.latency.saturating_record_n(waited_ns, packed);
            self.tally.unsent += 1;
        }
        self.tally
    }
}

/// Tells which of several clients have something to receive.
fn poller(flows: &[Flow]) -> Result<Option<OwnedFd>> {
    if flows.len() < 2 {
        return Ok(None);
    }
    let poller = epoll::create(epoll::CreateFlags::CLOEXEC).map_err(io::Error::from)?;
    for (number, flow) in (0..).zip(flows) {
        let data = epoll::EventData::new_u64(number);
        epoll::add(&poller, flow.socket(), data, epoll::EventFlags::IN).map_err(io::Error::from)?;
    }
    Ok(Some(poller))
}

#[allow(clippy::disallowed_methods, reason = "the clock of the load")]
fn now() -> Instant {
    Instant::now()
}

fn ns(duration: Duration) -> u64 {
    u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX)
}
