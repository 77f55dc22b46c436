//! Datagrams between the sequencer and those who ask it.
//!
//! A header of 64 bytes, then 1 to 29 entries of 48 bytes, all of the kind that the header names: one
//! datagram carries many requests, and datagrams with equally many entries are equally long, as
//! segmentation offload needs. A reply has the size of its request, so that a forged sender address
//! gains nothing (S-9).

pub mod place;

use rkyv::{Archive, Deserialize, Serialize};

use self::place::Facts;
use crate::limits::{MAX_GRANT, MAX_STRIPES};
use crate::{
    ClientId, Epoch, Fixed, Lane, Layout, LogId, Position, RequestId, SegmentId, StripeId,
    WireError,
};

/// `SLOG`, read as a little-endian number.
pub const MAGIC: u32 = u32::from_le_bytes(*b"SLOG");

/// The only version of the datagram format.
pub const VERSION: u8 = 1;

/// Bytes of a header.
pub const HEADER_BYTES: usize = 64;

/// Bytes of an entry, request and reply alike.
pub const ENTRY_BYTES: usize = 48;

/// Most entries of a datagram.
pub const MAX_ENTRIES: usize = 29;

/// Largest datagram: what a path with an MTU of 1,500 carries behind IPv4 and UDP headers.
pub const MAX_DATAGRAM_BYTES: usize = 1472;

const _: () = assert!(HEADER_BYTES + MAX_ENTRIES * ENTRY_BYTES <= MAX_DATAGRAM_BYTES);
const _: () = assert!(size_of::<ArchivedHeader>() == HEADER_BYTES);
const _: () = assert!(size_of::<ArchivedGrant>() == ENTRY_BYTES);
const _: () = assert!(size_of::<ArchivedReport>() == ENTRY_BYTES);
const _: () = assert!(size_of::<ArchivedRestripe>() == ENTRY_BYTES);
const _: () = assert!(size_of::<ArchivedReply>() == ENTRY_BYTES);

/// What the entries of a datagram ask for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Kind {
    /// Grant a token for `count` positions.
    Grant,
    /// Grant only if the token starts exactly at `expected_tail` (S-8).
    GrantAt,
    /// Tell the tails.
    Tail,
    /// A stripe's owner tells its frontier and is told the tails.
    Report,
    /// Somebody wants another layout behind the newest segment (H-5), and is told the tails.
    Restripe,
}

impl Kind {
    /// All kinds.
    pub const ALL: [Self; 5] = [
        Self::Grant,
        Self::GrantAt,
        Self::Tail,
        Self::Report,
        Self::Restripe,
    ];

    fn code(self) -> u8 {
        match self {
            Self::Grant => 1,
            Self::GrantAt => 2,
            Self::Tail => 3,
            Self::Report => 4,
            Self::Restripe => 5,
        }
    }

    #[inline]
    pub(crate) fn from_code(code: u8) -> Option<Self> {
        match code {
            1 => Some(Self::Grant),
            2 => Some(Self::GrantAt),
            3 => Some(Self::Tail),
            4 => Some(Self::Report),
            5 => Some(Self::Restripe),
            _ => None,
        }
    }
}

/// Bit of the kind byte that marks a reply.
pub(crate) const REPLY_BIT: u8 = 0x80;

/// What stands before the entries of a datagram.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Archive, Serialize, Deserialize)]
#[rkyv(derive(Debug))]
pub struct Header {
    magic: u32,
    version: u8,
    kind: u8,
    count: u8,
    flags: u8,
    /// The log that is meant.
    pub log: LogId,
    /// Who asks. A reply repeats it.
    pub client: ClientId,
    /// In a request the newest epoch that the sender knows; in a reply the epoch of the reign that answers.
    pub epoch: Epoch,
    /// Chosen by the sender, repeated in the reply.
    pub tag: u64,
    /// Keyed checksum over the datagram with this field zero; all zero where no key is in use.
    pub mac: [u8; 16],
}

impl Header {
    /// Header of a request with `count` entries.
    #[must_use]
    pub fn request(kind: Kind, log: LogId, client: ClientId, count: usize) -> Self {
        Self {
            magic: MAGIC,
            version: VERSION,
            kind: kind.code(),
            count: u8::try_from(count).unwrap_or(u8::MAX),
            flags: 0,
            log,
            client,
            epoch: Epoch(0),
            tag: 0,
            mac: [0; 16],
        }
    }

    /// Header of the reply to this request, given by a reign.
    #[must_use]
    pub fn reply(&self, epoch: Epoch) -> Self {
        Self {
            kind: self.kind | REPLY_BIT,
            epoch,
            mac: [0; 16],
            ..*self
        }
    }

    /// Whether this is a reply.
    #[must_use]
    pub fn is_reply(&self) -> bool {
        self.kind & REPLY_BIT != 0
    }

    /// What the entries are.
    ///
    /// # Errors
    /// [`WireError::Kind`].
    pub fn kind(&self) -> Result<Kind, WireError> {
        Kind::from_code(self.kind & !REPLY_BIT).ok_or(WireError::Kind {
            got: u32::from(self.kind),
        })
    }

    /// Number of entries.
    #[must_use]
    pub fn count(&self) -> usize {
        usize::from(self.count)
    }

    /// Length of the whole datagram in bytes.
    #[must_use]
    pub fn datagram_len(&self) -> usize {
        HEADER_BYTES + self.count() * ENTRY_BYTES
    }
}

/// A grant request, plain or conditional; a tail request uses only `request` and `lane`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Archive, Serialize, Deserialize)]
#[rkyv(derive(Debug))]
pub struct Grant {
    /// Number of the request within its lane, rising; repeated when the request is.
    pub request: RequestId,
    /// Lane of the client.
    pub lane: Lane,
    /// Positions that are wanted.
    pub count: u32,
    /// Where a conditional grant has to start.
    pub expected_tail: Position,
    reserved: [u64; 3],
}

impl Grant {
    /// A request for `count` positions.
    #[must_use]
    pub fn new(lane: Lane, request: RequestId, count: u32) -> Self {
        Self::at(lane, request, count, Position(0))
    }

    /// A request for `count` positions from exactly `expected_tail` on.
    #[must_use]
    pub fn at(lane: Lane, request: RequestId, count: u32, expected_tail: Position) -> Self {
        let reserved = [0; 3];
        Self {
            request,
            lane,
            count,
            expected_tail,
            reserved,
        }
    }

    /// Checks the count against [`MAX_GRANT`].
    ///
    /// # Errors
    /// [`WireError::Bound`].
    pub fn check(&self) -> Result<(), WireError> {
        if self.count == 0 || self.count > MAX_GRANT {
            let (got, limit) = (u64::from(self.count), u64::from(MAX_GRANT));
            return Err(WireError::Bound {
                what: "grant count",
                got,
                limit,
            });
        }
        Ok(())
    }
}

/// A stripe's frontier, told by its owner.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Archive, Serialize, Deserialize)]
#[rkyv(derive(Debug))]
pub struct Report {
    /// Number of the report, repeated in the reply.
    pub request: RequestId,
    /// First position of the stripe that its chain does not cover.
    pub frontier: Position,
    /// Segment that is reported on.
    pub segment: SegmentId,
    stripe: u32,
    reserved: [u64; 3],
}

impl Report {
    /// A report on one stripe.
    #[must_use]
    pub fn new(
        request: RequestId,
        segment: SegmentId,
        stripe: StripeId,
        frontier: Position,
    ) -> Self {
        Self {
            request,
            frontier,
            segment,
            stripe: u32::from(stripe.0),
            reserved: [0; 3],
        }
    }

    /// The stripe that is reported on.
    ///
    /// # Errors
    /// [`WireError::Bound`] if no layout can have it.
    pub fn stripe(&self) -> Result<StripeId, WireError> {
        u16::try_from(self.stripe)
            .ok()
            .filter(|stripe| u32::from(*stripe) < MAX_STRIPES)
            .map(StripeId)
            .ok_or(WireError::Bound {
                what: "stripe",
                got: u64::from(self.stripe),
                limit: u64::from(MAX_STRIPES),
            })
    }
}

/// The wish for a segment with another layout behind the newest one (H-5). The layout is checked by who is asked.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Archive, Serialize, Deserialize)]
#[rkyv(derive(Debug))]
pub struct Restripe {
    /// Number of the request, repeated in the reply.
    pub request: RequestId,
    /// Lane of the client.
    pub lane: Lane,
    /// Stripes that are wanted.
    pub stripes: u32,
    /// Positions of a unit that are wanted.
    pub unit: u32,
    /// The segment that has to be the newest.
    pub segment: SegmentId,
    reserved: [u64; 3],
}

impl Restripe {
    /// The wish for this layout behind a segment.
    #[must_use]
    pub fn new(lane: Lane, request: RequestId, layout: Layout, segment: SegmentId) -> Self {
        Self {
            request,
            lane,
            stripes: layout.stripes(),
            unit: layout.unit(),
            segment,
            reserved: [0; 3],
        }
    }

    /// The same bytes as an entry of the other requests, for who sends all kinds alike.
    #[must_use]
    pub fn as_grant(&self) -> Grant {
        let behind = u64::from(self.segment.0) << u32::BITS;
        let expected_tail = Position(behind | u64::from(self.unit));
        Grant::at(self.lane, self.request, self.stripes, expected_tail)
    }
}

/// How a request ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Status {
    /// Granted, told, or taken up.
    Ok,
    /// Nothing was granted, ask again later: the reservation is used up, or a bound is reached.
    Busy,
    /// A condition did not hold: of a conditional grant where it starts, of a wish for another layout which segment is
    /// the newest. Nothing was granted, `first` is the issued tail.
    TailMoved,
    /// Nothing was granted, and never will be: the request breaks a bound.
    Invalid,
    /// Whoever answers does not reign, or not any more. Nothing was granted.
    NotReigning,
    /// This reign has begun, and grants as soon as every stripe is sealed (H-4). Nothing was granted.
    Sealing,
}

impl Status {
    /// All statuses.
    pub const ALL: [Self; 6] = [
        Self::Ok,
        Self::Busy,
        Self::TailMoved,
        Self::Invalid,
        Self::NotReigning,
        Self::Sealing,
    ];

    pub(crate) fn code(self) -> u32 {
        match self {
            Self::Ok => 0,
            Self::Busy => 1,
            Self::TailMoved => 2,
            Self::Invalid => 3,
            Self::NotReigning => 4,
            Self::Sealing => 5,
        }
    }

    pub(crate) fn from_code(code: u32) -> Result<Self, WireError> {
        let known = Self::ALL.into_iter().find(|status| status.code() == code);
        known.ok_or(WireError::Kind { got: code })
    }
}

/// The answer to one request entry.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Archive, Serialize, Deserialize)]
#[rkyv(derive(Debug))]
pub struct Reply {
    /// Number of the request.
    pub request: RequestId,
    /// Lane of the request, 0 for reports.
    pub lane: Lane,
    /// Positions granted, 0 unless a token was.
    pub count: u32,
    /// First position of the token, or else the issued tail.
    pub first: Position,
    /// Durable tail, valid if `durable_known`.
    durable: Position,
    status: u32,
    durable_known: u32,
    reserved: u64,
}

impl Reply {
    /// A reply with the positions that it speaks of.
    #[must_use]
    pub fn new(
        request: RequestId,
        lane: Lane,
        status: Status,
        first: Position,
        count: u32,
    ) -> Self {
        Self {
            request,
            lane,
            count,
            first,
            durable: Position(0),
            status: status.code(),
            durable_known: 0,
            reserved: 0,
        }
    }

    /// Adds the durable tail, if all stripes reported in this reign.
    #[must_use]
    pub fn with_durable(mut self, tail: Option<Position>) -> Self {
        self.durable = tail.unwrap_or_default();
        self.durable_known = u32::from(tail.is_some());
        self
    }

    /// How the request ended.
    ///
    /// # Errors
    /// [`WireError::Kind`] for a status of a later version.
    pub fn status(&self) -> Result<Status, WireError> {
        Status::from_code(self.status)
    }

    /// The durable tail, if the sequencer knows it.
    #[must_use]
    pub fn durable(&self) -> Option<Position> {
        (self.durable_known != 0).then_some(self.durable)
    }
}

/// A datagram whose header has been checked: right magic, version, log and kind, and as many bytes as
/// its count of entries takes.
#[derive(Debug, Clone, Copy)]
pub struct Datagram<'a> {
    /// The header.
    pub header: Header,
    /// What the entries are.
    pub kind: Kind,
    entries: &'a [u8],
}

impl<'a> Datagram<'a> {
    /// Checks a datagram for `log`. Nothing of its entries has been looked at afterwards.
    ///
    /// # Errors
    /// The first check that fails, by reason.
    pub fn parse(bytes: &'a [u8], log: LogId) -> Result<Self, WireError> {
        let kind = Facts::check(bytes, log)?.kind;
        let header = Header::read(bytes)?;
        let entries = bytes.get(HEADER_BYTES..).unwrap_or(&[]);
        Ok(Self {
            header,
            kind,
            entries,
        })
    }

    /// The entries in order, read as `T`: [`Grant`], [`Report`] or [`Reply`], as the kind says.
    pub fn entries<T: Fixed>(&self) -> impl Iterator<Item = Result<T, WireError>> + use<'a, T> {
        self.entries.chunks_exact(ENTRY_BYTES).map(T::read)
    }
}

/// Writes a datagram to `out` and returns its length. `header.count` is taken from the entries.
///
/// # Errors
/// [`WireError::Bound`] if there are no entries or too many, [`WireError::Short`] if `out` is.
pub fn write<T: Fixed>(
    mut header: Header,
    entries: &[T],
    out: &mut [u8],
) -> Result<usize, WireError> {
    if entries.is_empty() || entries.len() > MAX_ENTRIES {
        return Err(WireError::Bound {
            what: "entries",
            got: entries.len() as u64,
            limit: MAX_ENTRIES as u64,
        });
    }
    header.count = u8::try_from(entries.len()).unwrap_or(u8::MAX);
    let (got, need) = (out.len(), header.datagram_len());
    let out = out.get_mut(..need).ok_or(WireError::Short { got, need })?;
    let (head, rest) = out.split_at_mut(HEADER_BYTES);
    header.write(head)?;
    for (entry, place) in entries.iter().zip(rest.chunks_exact_mut(ENTRY_BYTES)) {
        entry.write(place)?;
    }
    Ok(need)
}
