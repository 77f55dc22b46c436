use thiserror::Error;

/// Why bytes from outside were refused. Every kind names the check that failed, so that a drop can be
/// counted by its reason.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
#[non_exhaustive]
pub enum WireError {
    /// Fewer bytes than the fixed part needs.
    #[error("too short: got={got} need={need}")]
    Short {
        /// Bytes that are there.
        got: usize,
        /// Bytes that are needed.
        need: usize,
    },
    /// Not one of ours.
    #[error("wrong magic: got={got:#x}")]
    Magic {
        /// The magic number that was read.
        got: u64,
    },
    /// A format version that this build does not speak.
    #[error("unsupported version: got={got} supported={supported}")]
    Version {
        /// The version that was read.
        got: u32,
        /// The only version that this build speaks.
        supported: u32,
    },
    /// A kind that this build does not know.
    #[error("unknown kind: got={got}")]
    Kind {
        /// The kind that was read.
        got: u32,
    },
    /// Another log's bytes.
    #[error("wrong log: got={got} expected={expected}")]
    Log {
        /// The log that the bytes belong to.
        got: crate::LogId,
        /// The log that is served here.
        expected: crate::LogId,
    },
    /// A count outside its bounds.
    #[error("{what} out of bounds: got={got} limit={limit}")]
    Bound {
        /// What was counted.
        what: &'static str,
        /// The value that was read.
        got: u64,
        /// The bound that it breaks.
        limit: u64,
    },
    /// Two lengths that should agree do not.
    #[error("{what} does not add up: got={got} expected={expected}")]
    Length {
        /// What was measured.
        what: &'static str,
        /// The length that is there.
        got: u64,
        /// The length that the header promises.
        expected: u64,
    },
    /// CRC32C mismatch.
    #[error("{what} checksum mismatch: got={got:#010x} expected={expected:#010x}")]
    Checksum {
        /// What the checksum covers.
        what: &'static str,
        /// The checksum of the bytes.
        got: u32,
        /// The checksum that was stored with them.
        expected: u32,
    },
    /// A value that no writer of this format produces.
    #[error("malformed {what}")]
    Malformed {
        /// What is malformed.
        what: &'static str,
    },
}

impl WireError {
    /// A short label, stable over releases, for counters.
    #[must_use]
    pub fn reason(&self) -> &'static str {
        match self {
            Self::Short { .. } => "short",
            Self::Magic { .. } => "magic",
            Self::Version { .. } => "version",
            Self::Kind { .. } => "kind",
            Self::Log { .. } => "log",
            Self::Bound { .. } => "bound",
            Self::Length { .. } => "length",
            Self::Checksum { .. } => "checksum",
            Self::Malformed { .. } => "malformed",
        }
    }
}
