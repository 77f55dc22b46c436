//! Frames on the TCP connections of a stripe-writer.
//!
//! A prefix of 16 bytes, a head of fixed size for each kind, then a body. The prefix carries a CRC32C
//! over itself and the head: a flipped bit must not move a record to another position. Bodies of records
//! have the checksum that the client computed, in their head.
//!
//! A connection opens with [`Hello`] from the side that connected, answered by [`Welcome`] or [`Refusal`].

mod prefix;

use bytes::Bytes;
use rkyv::{Archive, Deserialize, Serialize};

use crate::limits::MAX_FRAME_BODY;
use crate::{
    ClientId, Epoch, Fixed, Identity, LogId, OwnerNumber, Position, RequestId, Run, RunBody,
    SegmentId, Slot, StripeId, WireError, WriterId,
};
use prefix::encode;

pub use prefix::Prefix;

/// `SLFR`, read as a little-endian number.
pub const MAGIC: u32 = u32::from_le_bytes(*b"SLFR");

/// The only version of the frame format.
pub const VERSION: u8 = 1;

/// Bytes of the prefix.
pub const PREFIX_BYTES: usize = 16;

/// Largest head of any kind.
pub const MAX_HEAD_BYTES: usize = 64;

/// Opens a connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Archive, Serialize, Deserialize)]
#[rkyv(derive(Debug))]
pub struct Hello {
    /// The log that is meant.
    pub log: LogId,
    /// Who connects.
    pub client: ClientId,
}

/// Accepts a connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Archive, Serialize, Deserialize)]
#[rkyv(derive(Debug))]
pub struct Welcome {
    /// The stripe-writer process.
    pub writer: WriterId,
    /// Newest epoch it knows.
    pub epoch: Epoch,
}

/// Which slots of which stripe.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Archive, Serialize, Deserialize)]
#[rkyv(derive(Debug))]
pub struct Place {
    /// The segment.
    pub segment: SegmentId,
    /// The stripe.
    pub stripe: StripeId,
    /// First slot.
    pub first: Slot,
}

/// Appends a run of records. The body is a [`RunBody`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, Archive, Serialize, Deserialize)]
#[rkyv(derive(Debug))]
pub struct Append {
    /// Where the records belong.
    pub place: Place,
    /// Epoch of the token.
    pub epoch: Epoch,
    /// Who appends.
    pub identity: Identity,
    /// Number of records.
    pub count: u32,
    /// CRC32C of the body.
    pub crc: u32,
}

/// What became of appended records.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum AckStatus {
    /// Durable at their positions.
    Committed,
    /// The positions are junk; the records are certainly not in the log by this request.
    Junk,
    /// The token's epoch is sealed; the records are certainly not in the log by this request.
    Sealed,
    /// The positions hold other records; nothing was written.
    Conflict,
    /// What became of the records is not known here, because the stripe is not owned here (any more) or
    /// its chain cannot be read.
    NotOwner,
    /// Nothing was written: a bound is reached, send again later.
    Busy,
    /// Nothing was written, and never will be: the request breaks a rule.
    Invalid,
    /// Answers nothing: the writer has something of this connection, is full or slow, and gets on.
    Waiting,
    /// Answers nothing: the writer has something of this connection, and no answer from the sequencer, without
    /// which it fills no holes.
    Unheard,
}

impl AckStatus {
    /// All statuses.
    pub const ALL: [Self; 9] = [
        Self::Committed,
        Self::Junk,
        Self::Sealed,
        Self::Conflict,
        Self::NotOwner,
        Self::Busy,
        Self::Invalid,
        Self::Waiting,
        Self::Unheard,
    ];

    fn code(self) -> u32 {
        match self {
            Self::Committed => 0,
            Self::Junk => 1,
            Self::Sealed => 2,
            Self::Conflict => 3,
            Self::NotOwner => 4,
            Self::Busy => 5,
            Self::Invalid => 6,
            Self::Waiting => 7,
            Self::Unheard => 8,
        }
    }
}

/// Answers a range of an append, not necessarily all of it at once.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Archive, Serialize, Deserialize)]
#[rkyv(derive(Debug))]
pub struct Ack {
    /// First slot that is answered.
    pub place: Place,
    /// Number of slots that are answered.
    pub count: u32,
    status: u32,
    /// The append request.
    pub request: RequestId,
}

impl Ack {
    /// Answers `count` slots from `place` on.
    #[must_use]
    pub fn new(place: Place, count: u32, request: RequestId, status: AckStatus) -> Self {
        let status = status.code();
        Self {
            place,
            count,
            status,
            request,
        }
    }

    /// Answers nothing, and tells how the writer is.
    #[must_use]
    pub fn sign(status: AckStatus) -> Self {
        let place = Place {
            segment: SegmentId(0),
            stripe: StripeId(0),
            first: Slot(0),
        };
        Self::new(place, 0, RequestId(0), status)
    }

    /// What became of the records.
    ///
    /// # Errors
    /// [`WireError::Kind`] for a status of a later version.
    pub fn status(&self) -> Result<AckStatus, WireError> {
        AckStatus::ALL
            .into_iter()
            .find(|status| status.code() == self.status)
            .ok_or(WireError::Kind { got: self.status })
    }
}

/// Asks for the runs of a stripe from the memory of its owner: a [`Frame::Read`] ends at what is durable
/// now, a [`Frame::Subscribe`] goes on with what becomes durable.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Archive, Serialize, Deserialize)]
#[rkyv(derive(Debug))]
pub struct Ask {
    /// Chosen by the reader, repeated in everything that answers.
    pub id: u32,
    /// From where.
    pub place: Place,
    /// First slot that is not wanted any more.
    pub until: Slot,
}

/// Ends a subscription before its time.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Archive, Serialize, Deserialize)]
#[rkyv(derive(Debug))]
pub struct Unsubscribe {
    /// Number of the subscription.
    pub id: u32,
}

/// A run that is durable. The body is a [`RunBody`], or empty for junk.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Archive, Serialize, Deserialize)]
#[rkyv(derive(Debug))]
pub struct Push {
    /// Number of the read or subscription.
    pub id: u32,
    /// First slot.
    pub place: Place,
    /// Number of slots.
    pub count: u64,
    /// Who appended the records; zeros for junk.
    pub identity: Identity,
    /// CRC32C of the body.
    pub crc: u32,
    junk: u32,
}

impl Push {
    /// The head that sends a run.
    #[must_use]
    pub fn of(id: u32, segment: SegmentId, stripe: StripeId, run: &Run) -> Self {
        let nobody = Identity {
            client: ClientId(0),
            request: RequestId(0),
        };
        let place = Place {
            segment,
            stripe,
            first: run.first,
        };
        Self {
            id,
            place,
            count: run.count,
            identity: run.identity().unwrap_or(nobody),
            crc: run.content.as_ref().map_or(0, |(_, body)| body.crc()),
            junk: u32::from(run.is_junk()),
        }
    }

    /// The run that was sent, checked.
    ///
    /// # Errors
    /// The first check that fails.
    pub fn run(&self, body: Bytes) -> Result<Run, WireError> {
        let what = "pushed run";
        let malformed = WireError::Malformed { what };
        if self.junk != 0 {
            let sound = body.is_empty() && self.count > 0;
            let run = Run::junk(self.place.first, self.count);
            return if sound { Ok(run) } else { Err(malformed) };
        }
        let count = u32::try_from(self.count).map_err(|_| malformed)?;
        let body = RunBody::checked(count, self.crc, body)?;
        Ok(Run::records(self.place.first, self.identity, body))
    }
}

/// Why no more runs come.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum EndReason {
    /// All that was asked for was sent.
    Done,
    /// The reader was too slow, or asked for runs that are in memory no more: they are in the store.
    Lagged,
    /// The stripe is not owned here (any more).
    NotOwner,
}

/// Ends a read or subscription.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Archive, Serialize, Deserialize)]
#[rkyv(derive(Debug))]
pub struct End {
    /// Number of the read or subscription.
    pub id: u32,
    /// First slot that was not sent.
    pub place: Place,
    reason: u32,
}

impl End {
    /// Ends `id` before the slot of `place`.
    #[must_use]
    pub fn new(id: u32, place: Place, reason: EndReason) -> Self {
        let reason = match reason {
            EndReason::Done => 0,
            EndReason::Lagged => 1,
            EndReason::NotOwner => 2,
        };
        Self { id, place, reason }
    }

    /// Why no more runs come.
    ///
    /// # Errors
    /// [`WireError::Kind`] for a reason of a later version.
    pub fn reason(&self) -> Result<EndReason, WireError> {
        match self.reason {
            0 => Ok(EndReason::Done),
            1 => Ok(EndReason::Lagged),
            2 => Ok(EndReason::NotOwner),
            got => Err(WireError::Kind { got }),
        }
    }
}

/// Asks an owner to seal all its stripes (H-3): to refuse tokens below `epoch` from now on, and to make
/// every position below `position` durable, as a record or as junk. Answered with the same head as
/// [`Frame::Sealed`] when that is done; its body has one [`SealedStripe`] for each stripe of which it is true.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Archive, Serialize, Deserialize)]
#[rkyv(derive(Debug))]
pub struct Seal {
    /// The new epoch.
    pub epoch: Epoch,
    /// Where it starts.
    pub position: Position,
}

/// A stripe that is sealed.
#[derive(
    Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Archive, Serialize, Deserialize,
)]
#[rkyv(derive(Debug))]
pub struct SealedStripe {
    /// The segment.
    pub segment: SegmentId,
    /// The stripe.
    pub stripe: StripeId,
}

/// Asks for the frontiers of all stripes of an owner. The body of the answer is one [`Frontier`] a stripe.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Archive, Serialize, Deserialize)]
#[rkyv(derive(Debug))]
pub struct Frontiers {
    /// Newest epoch that the answering side knows; 0 in the question.
    pub epoch: Epoch,
    /// 1 if the answering side is about to end: what it owns no more, others may take at once. 0 in the question.
    pub leaving: u32,
}

/// State of one stripe. While an owner takes a stripe over, it knows neither number nor slot yet, and both are 0.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Archive, Serialize, Deserialize)]
#[rkyv(derive(Debug))]
pub struct Frontier {
    /// The stripe and the first slot that its chain does not cover.
    pub place: Place,
    /// Owner number of this owner.
    pub owner: OwnerNumber,
    /// Bytes that are held and not durable yet.
    pub held_bytes: u64,
}

/// Why a connection or a frame was refused. The body is a text for people; the connection ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Archive, Serialize, Deserialize)]
#[rkyv(derive(Debug))]
pub struct Refusal {
    /// 1 if trying again later may help, 0 if not.
    pub retry: u32,
}

macro_rules! frames {
    ($($(#[$doc:meta])* $name:ident($head:ty) = $code:literal $(, body $max:expr)?;)*) => {
        /// The head of a frame.
        #[derive(Debug, Clone, Copy, PartialEq, Eq)]
        pub enum Frame {
            $($(#[$doc])* $name($head),)*
        }

        $(const _: () = assert!(
            size_of::<<$head as Archive>::Archived>() <= MAX_HEAD_BYTES
        );)*

        impl Frame {
            /// Writes prefix and head; the body follows as it is.
            ///
            /// # Errors
            /// [`WireError::Bound`] if this kind of frame cannot have such a body.
            pub fn encode(&self, body_len: usize) -> Result<Bytes, WireError> {
                match self {
                    $(Self::$name(head) => encode($code, head, body_len, 0 $(+ $max)?),)*
                }
            }

            /// Reads the head that a prefix promised.
            ///
            /// # Errors
            /// The first check that fails.
            pub fn decode(prefix: &Prefix, head: &[u8]) -> Result<Self, WireError> {
                prefix.check(head)?;
                match prefix.kind {
                    $($code => Ok(Self::$name(<$head>::read(head)?)),)*
                    kind => Err(WireError::Kind { got: u32::from(kind) }),
                }
            }
        }

        fn shape(kind: u8) -> Option<(usize, usize)> {
            match kind {
                $($code => Some((<$head as Fixed>::SIZE, 0 $(+ $max)?)),)*
                _ => None,
            }
        }
    };
}

frames! {
    /// Opens a connection.
    Hello(Hello) = 1;
    /// Accepts a connection.
    Welcome(Welcome) = 2;
    /// Ends a connection with a reason, as text in the body.
    Refusal(Refusal) = 3, body 1024;
    /// Appends records.
    Append(Append) = 4, body MAX_FRAME_BODY;
    /// Answers an append.
    Ack(Ack) = 5;
    /// Reads runs that are durable now.
    Read(Ask) = 6;
    /// Reads runs as they become durable.
    Subscribe(Ask) = 7;
    /// Ends a subscription.
    Unsubscribe(Unsubscribe) = 8;
    /// Sends a run.
    Push(Push) = 9, body MAX_FRAME_BODY;
    /// Ends a read or subscription.
    End(End) = 10;
    /// Asks to seal.
    Seal(Seal) = 11;
    /// Says of which stripes the seal is complete, in the body.
    Sealed(Seal) = 12, body 1 << 17;
    /// Asks for frontiers.
    AskFrontiers(Frontiers) = 13;
    /// Tells frontiers, in the body.
    Frontiers(Frontiers) = 14, body 1 << 17;
}
