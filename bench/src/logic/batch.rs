//! Datagrams of grant requests that are sent together, and written once: each new round changes the request
//! numbers where they stand.
//!
//! All datagrams of a batch are equally long, and lie one behind the other, so that the kernel cuts them
//! apart (UDP_SEGMENT). Every entry has a lane of its own, which has one request outstanding at a time.

use anyhow::{Context, Result, ensure};
use wire::datagram::{self, ENTRY_BYTES, Grant, HEADER_BYTES, Header, Kind, MAX_ENTRIES};
use wire::limits::MAX_GRANT;
use wire::{ClientId, Lane, LogId, RequestId};

use super::ranges::Ranges;

/// Where a header has its kind and its tag, and an entry what is read and changed (docs/formats.md).
const KIND: usize = 5;
const TAG: usize = 40;
const COUNT: usize = 12;
const FIRST: usize = 16;
const STATUS: usize = 32;

/// Kind of a reply to a grant request.
const GRANTED: u8 = 0x81;

/// Status of an entry that was refused for now.
const BUSY: u32 = 1;

/// What every request of a load looks like.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Shape {
    /// Log that is asked.
    pub(crate) log: LogId,
    /// Requests a datagram.
    pub(crate) packed: usize,
    /// Positions a request.
    pub(crate) tokens: u32,
    /// Whether the answer is the request itself.
    pub(crate) echo: bool,
}

impl Shape {
    /// Bytes of a datagram.
    #[must_use]
    pub(crate) fn datagram_bytes(&self) -> usize {
        HEADER_BYTES + self.packed * ENTRY_BYTES
    }

    /// Lanes between the first ones of two datagrams: a power of two, so that the lanes of a datagram are in one of the
    /// blocks in which the sequencer remembers them.
    fn stride(&self) -> usize {
        self.packed.next_power_of_two()
    }

    /// Checks the numbers against what a datagram can carry.
    ///
    /// # Errors
    /// Which one is out of bounds.
    pub(crate) fn check(&self) -> Result<()> {
        ensure!(
            (1..=MAX_ENTRIES).contains(&self.packed),
            "requests a datagram: 1 to {MAX_ENTRIES}"
        );
        ensure!(
            (1..=MAX_GRANT).contains(&self.tokens),
            "tokens a request: 1 to {MAX_GRANT}"
        );
        Ok(())
    }
}

/// What a datagram was, as a reply.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Answer {
    /// The first answer to a datagram: all its requests got what they asked for.
    Done {
        /// When it was meant to be sent.
        due_ns: u64,
        /// Positions that were granted.
        tokens: u64,
    },
    /// Some of its requests were refused for now: they are asked again with the same numbers.
    Busy,
    /// An answer to something that was answered already.
    Stale,
    /// Not an answer to anything that was asked.
    Wrong,
}

#[derive(Debug, Clone, Copy, Default)]
struct Slot {
    request: u64,
    due_ns: u64,
    open: bool,
}

/// Datagrams that are sent together.
#[derive(Debug)]
pub(crate) struct Batch {
    shape: Shape,
    number: u32,
    bytes: Vec<u8>,
    slots: Vec<Slot>,
    used: usize,
    open: usize,
    sent_ns: u64,
}

impl Batch {
    /// The batch of a client with this number, of up to `run` datagrams. `first` is the request number
    /// before its first one.
    ///
    /// # Errors
    /// If the numbers do not fit into what a datagram can carry.
    pub(crate) fn new(
        shape: Shape,
        client: ClientId,
        number: u32,
        run: usize,
        first: u64,
    ) -> Result<Self> {
        shape.check()?;
        let stride = u32::try_from(shape.stride())?;
        let lanes = u32::try_from(run * shape.stride())?;
        let base = number.checked_mul(lanes).context("too many lanes")?;
        let mut bytes = Vec::with_capacity(run * shape.datagram_bytes());
        let mut datagram = vec![0; shape.datagram_bytes()];
        let mut lane = base;
        for slot in 0..u32::try_from(run)? {
            let entries: Vec<_> = (0..u32::try_from(shape.packed)?)
                .map(|entry| Grant::new(Lane(lane + entry), RequestId(first), shape.tokens))
                .collect();
            lane += stride;
            let mut header = Header::request(Kind::Grant, shape.log, client, shape.packed);
            header.tag = u64::from(number) << 32 | u64::from(slot);
            datagram::write(header, &entries, &mut datagram)?;
            bytes.extend_from_slice(&datagram);
        }
        let slot = Slot {
            request: first,
            ..Slot::default()
        };
        Ok(Self {
            shape,
            number,
            bytes,
            slots: vec![slot; run],
            used: 0,
            open: 0,
            sent_ns: 0,
        })
    }

    /// Number of the batch that a reply speaks of.
    #[must_use]
    pub(crate) fn number_in(datagram: &[u8]) -> Option<usize> {
        let tag: [u8; 8] = datagram.get(TAG..TAG + 8)?.try_into().ok()?;
        usize::try_from(u64::from_le_bytes(tag) >> 32).ok()
    }

    /// Most datagrams that it can have.
    #[must_use]
    pub(crate) fn run(&self) -> usize {
        self.slots.len()
    }

    /// Begins the next round: as many datagrams as there are times at which they were meant to be sent.
    pub(crate) fn begin(&mut self, due_ns: impl Iterator<Item = u64>, now_ns: u64) {
        let len = self.shape.datagram_bytes();
        self.used = 0;
        let datagrams = self.bytes.chunks_exact_mut(len).zip(&mut self.slots);
        for ((datagram, slot), due_ns) in datagrams.zip(due_ns) {
            *slot = Slot {
                request: slot.request + 1,
                due_ns,
                open: true,
            };
            number(datagram, slot.request);
            self.used += 1;
        }
        self.open = self.used;
        self.sent_ns = now_ns;
    }

    /// All datagrams, whether they are sent in this round or not.
    #[must_use]
    #[cfg(feature = "xdp")]
    pub(crate) fn whole(&self) -> &[u8] {
        &self.bytes
    }

    /// What is sent in this round.
    #[must_use]
    pub(crate) fn bytes(&self) -> &[u8] {
        let len = self.used * self.shape.datagram_bytes();
        self.bytes.get(..len).unwrap_or(&[])
    }

    /// The same, to be signed.
    pub(crate) fn datagrams_mut(&mut self) -> impl Iterator<Item = &mut [u8]> {
        let len = self.shape.datagram_bytes();
        self.bytes.chunks_exact_mut(len).take(self.used)
    }

    /// Datagrams without an answer.
    #[must_use]
    pub(crate) fn open(&self) -> usize {
        self.open
    }

    /// When it was sent last.
    #[must_use]
    pub(crate) fn sent_ns(&self) -> u64 {
        self.sent_ns
    }

    /// The datagrams to send once more.
    pub(crate) fn again(&mut self, now_ns: u64) -> impl Iterator<Item = &[u8]> {
        self.sent_ns = now_ns;
        let datagrams = self.bytes.chunks_exact(self.shape.datagram_bytes());
        let open = datagrams.zip(&self.slots).filter(|(_, slot)| slot.open);
        open.map(|(datagram, _)| datagram)
    }

    /// Gives up what is open, and tells what that was.
    pub(crate) fn abandon(&mut self) -> Vec<Identity> {
        self.open = 0;
        let number = u64::from(self.number) << 32;
        let slots = (number..).zip(&mut self.slots);
        let open = slots.filter_map(|(tag, slot)| {
            std::mem::take(&mut slot.open).then_some(Identity {
                tag,
                request: slot.request,
            })
        });
        open.collect()
    }

    /// Takes a reply in. The ranges, if they are kept, are those of answers that are [`Answer::Done`].
    pub(crate) fn accept(&mut self, datagram: &[u8], ranges: Option<&mut Ranges>) -> Answer {
        let (head, entries) = datagram.split_at(HEADER_BYTES.min(datagram.len()));
        let kind_is_right = self.shape.echo || head.get(KIND) == Some(&GRANTED);
        let slot = slot_in(head).and_then(|index| self.slots.get_mut(index));
        let (Some(slot), true) = (slot, kind_is_right) else {
            return Answer::Wrong;
        };
        if datagram.len() != self.shape.datagram_bytes() {
            return Answer::Wrong;
        }
        let read = read(entries, slot.request);
        if read.other_requests != 0 || !slot.open {
            return match read.newest <= slot.request {
                true => Answer::Stale,
                false => Answer::Wrong,
            };
        }
        if read.bad_status != 0 {
            return match only_busy(entries) {
                true => Answer::Busy,
                false => Answer::Wrong,
            };
        }
        if read.tokens != u64::from(self.shape.tokens) * self.shape.packed as u64 {
            return Answer::Wrong;
        }
        slot.open = false;
        let due_ns = slot.due_ns;
        self.open -= 1;
        if let Some(ranges) = ranges {
            granted(datagram).for_each(|(first, count)| ranges.add(first, count));
        }
        Answer::Done {
            due_ns,
            tokens: read.tokens,
        }
    }
}

/// Which request a datagram of a client is, or answers.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) struct Identity {
    tag: u64,
    request: u64,
}

impl Identity {
    /// Reads it from a datagram.
    #[must_use]
    pub(crate) fn of(datagram: &[u8]) -> Option<Self> {
        let tag: [u8; 8] = datagram.get(TAG..TAG + 8)?.try_into().ok()?;
        let entry = datagram.get(HEADER_BYTES..)?.as_chunks().0.first()?;
        Some(Self {
            tag: u64::from_le_bytes(tag),
            request: word(entry, 0),
        })
    }
}

/// The ranges that a reply grants.
pub(crate) fn granted(datagram: &[u8]) -> impl Iterator<Item = (u64, u32)> {
    let entries = datagram.get(HEADER_BYTES..).unwrap_or(&[]);
    let (entries, _) = entries.as_chunks::<ENTRY_BYTES>();
    let ranges = entries.iter().filter(|entry| half(entry, STATUS) == 0);
    ranges.map(|entry| (word(entry, FIRST), half(entry, COUNT)))
}

struct Read {
    other_requests: u64,
    newest: u64,
    bad_status: u32,
    tokens: u64,
}

/// One pass without branches: what every entry has is compared at the end.
fn read(entries: &[u8], request: u64) -> Read {
    let mut read = Read {
        other_requests: 0,
        newest: 0,
        bad_status: 0,
        tokens: 0,
    };
    for entry in entries.as_chunks::<ENTRY_BYTES>().0 {
        let got = word(entry, 0);
        read.other_requests |= got ^ request;
        read.newest = read.newest.max(got);
        read.bad_status |= half(entry, STATUS);
        read.tokens += u64::from(half(entry, COUNT));
    }
    read
}

fn only_busy(entries: &[u8]) -> bool {
    let (entries, _) = entries.as_chunks::<ENTRY_BYTES>();
    entries.iter().all(|entry| half(entry, STATUS) <= BUSY)
}

fn number(datagram: &mut [u8], request: u64) {
    let entries = datagram.get_mut(HEADER_BYTES..).unwrap_or(&mut []);
    for entry in entries.as_chunks_mut::<ENTRY_BYTES>().0 {
        if let Some(place) = entry.first_chunk_mut() {
            *place = request.to_le_bytes();
        }
    }
}

fn slot_in(head: &[u8]) -> Option<usize> {
    let tag = head.get(TAG..TAG + 4)?.try_into().ok()?;
    usize::try_from(u32::from_le_bytes(tag)).ok()
}

fn word(entry: &[u8; ENTRY_BYTES], at: usize) -> u64 {
    u64::from_le_bytes(std::array::from_fn(|index| entry[at + index]))
}

fn half(entry: &[u8; ENTRY_BYTES], at: usize) -> u32 {
    u32::from_le_bytes(std::array::from_fn(|index| entry[at + index]))
}

#[cfg(test)]
#[path = "batch_tests.rs"]
mod tests;
