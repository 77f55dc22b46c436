//! What programs in driver hooks are for, and what they count.

/// What a program does with packets.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Job {
    /// Lets them through. What a program sends out of one end of a veth pair is lost without one at the other end.
    Pass,
    /// Sends back what is for the server.
    Reflect,
    /// Counts and takes what comes from the server.
    Sink,
    /// Looks at each position that a frame was granted, and lets through what is for sockets.
    Check,
}

/// What a program has counted.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Counts {
    /// Replies of a sequencer.
    pub(crate) replies: u64,
    /// What else came from the server: requests that were turned round.
    pub(crate) others: u64,
    /// Positions that were granted once more.
    pub(crate) twice: u64,
    /// Entries that could not be looked at.
    pub(crate) unchecked: u64,
    /// Replies that were looked at, by the queue that they came by.
    pub(crate) queues: [u64; 4],
}
