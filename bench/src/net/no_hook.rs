//! In the place of programs in driver hooks, where this was built without them.

use std::convert::Infallible;

use anyhow::{Result, bail};

use super::bed::End;
pub(crate) use super::job::{Counts, Job};
use crate::logic::batch::Shape;
use crate::logic::ranges::Ranges;

/// There is none.
#[derive(Debug)]
pub(crate) struct Program(Infallible);

impl Program {
    pub(crate) fn attach(_job: Job, _port: u16, _end: End) -> Result<Self> {
        refuse()
    }

    pub(crate) fn attach_here(_job: Job, _port: u16, _device: &str) -> Result<Self> {
        refuse()
    }

    pub(crate) fn counts(&self) -> Counts {
        match self.0 {}
    }

    pub(crate) fn granted(&self) -> Result<Ranges> {
        match self.0 {}
    }
}

/// There is none.
#[derive(Debug)]
pub(crate) struct Source(Infallible);

impl Source {
    pub(crate) fn load(_shape: Shape, _port: u16, _clients: u32) -> Result<Self> {
        refuse()
    }

    pub(crate) fn send(&mut self, _frames: u32) -> Result<()> {
        match self.0 {}
    }

    pub(crate) fn made(&self) -> u64 {
        match self.0 {}
    }
}

/// Whether this was built with them.
///
/// # Errors
/// That it was not.
pub(crate) fn built_in() -> Result<()> {
    refuse()
}

/// Nothing is looked at.
pub(crate) const CHECKED: u64 = 0;

fn refuse<T>() -> Result<T> {
    bail!("bench was built without programs in the driver hook: build it with --features xdp")
}
