//! In the place of the program in the driver hook, where this was built without it.

use std::convert::Infallible;
use std::net::SocketAddr;
use std::sync::Arc;

use wire::control::ControlEntry;

use crate::config::Hook;
use crate::error::SequencerError;
use crate::logic::{ProgramCounts, Table, Tail};

/// There is none.
#[derive(Debug)]
pub(crate) struct Attached(Infallible);

/// What the shards of a reign need beside a program.
#[derive(Debug)]
pub(crate) struct Beside {
    pub(crate) tail: Tail,
    pub(crate) table: Arc<Table>,
}

impl Attached {
    pub(crate) fn new(_hook: &Hook, _address: SocketAddr) -> Result<Self, SequencerError> {
        let reason = "this program was built without it: build it with --features xdp".to_owned();
        Err(SequencerError::Xdp { reason })
    }

    pub(crate) fn begin(
        &self,
        _entry: &ControlEntry,
        _blocks: usize,
        _seed: u64,
    ) -> Result<Beside, SequencerError> {
        match self.0 {}
    }

    pub(crate) fn detach(&self) {
        match self.0 {}
    }

    pub(crate) fn is_attached(&self) -> bool {
        match self.0 {}
    }

    pub(crate) fn counts(&self) -> ProgramCounts {
        match self.0 {}
    }
}
