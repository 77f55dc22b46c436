//! Numbers and names that must not be mixed up.

use std::fmt;
use std::str::FromStr;

use rkyv::{Archive, Deserialize, Serialize};
use ulid::Ulid;

macro_rules! number {
    ($(#[$doc:meta])* $name:ident, $inner:ty) => {
        $(#[$doc])*
        #[derive(
            Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default,
            Archive, Serialize, Deserialize,
        )]
        #[rkyv(derive(Debug))]
        pub struct $name(pub $inner);

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                self.0.fmt(f)
            }
        }

        impl From<$inner> for $name {
            fn from(value: $inner) -> Self {
                Self(value)
            }
        }
    };
}

number!(
    /// A slot in the total order of the log, from 0.
    Position, u64
);
number!(
    /// Number of a sequencer's reign, from 1; a lower one is refused.
    Epoch, u64
);
number!(
    /// A stretch of the log with one layout; its number is the epoch that opened it.
    SegmentId, u32
);
number!(
    /// A lane that positions map to, from 0 to K - 1.
    StripeId, u16
);
number!(
    /// Index of a position within its stripe's own sequence.
    Slot, u64
);
number!(
    /// Counts the owners of a stripe; a lower one is fenced.
    OwnerNumber, u64
);
number!(
    /// One client process, drawn at random at its start.
    ClientId, u64
);
number!(
    /// Number of a request within one client.
    RequestId, u64
);
number!(
    /// A client's independent sequence of grant requests; one request of a lane is under way at a time.
    Lane, u32
);

macro_rules! name {
    ($(#[$doc:meta])* $name:ident) => {
        $(#[$doc])*
        #[derive(
            Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default,
            Archive, Serialize, Deserialize,
        )]
        #[rkyv(derive(Debug))]
        pub struct $name(pub [u8; 16]);

        impl From<Ulid> for $name {
            fn from(value: Ulid) -> Self {
                Self(value.to_bytes())
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                fmt::Display::fmt(&Ulid::from_bytes(self.0), f)
            }
        }

        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, "{}({self})", stringify!($name))
            }
        }

        impl FromStr for $name {
            type Err = ulid::DecodeError;

            fn from_str(text: &str) -> Result<Self, Self::Err> {
                Ok(Ulid::from_string(text)?.into())
            }
        }
    };
}

name!(
    /// Identity of a log, drawn when it is created. A log deleted and made again under the same URL
    /// has another one, so that late requests meant for the old log miss the new one.
    LogId
);
name!(
    /// Identity of a process that writes objects or control entries, drawn at its start.
    WriterId
);

impl Position {
    /// The position `count` further on.
    #[must_use]
    pub fn plus(self, count: u64) -> Self {
        Self(self.0.saturating_add(count))
    }
}

impl Slot {
    /// The slot `count` further on.
    #[must_use]
    pub fn plus(self, count: u64) -> Self {
        Self(self.0.saturating_add(count))
    }

    /// Slots from here to `end`, 0 if `end` is not behind.
    #[must_use]
    pub fn until(self, end: Self) -> u64 {
        end.0.saturating_sub(self.0)
    }
}
