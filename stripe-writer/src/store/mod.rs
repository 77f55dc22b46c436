//! Object storage and clocks: what the stripes' state machines are driven by.

mod clock;
mod fence;
mod history;
mod puts;
mod task;

pub(crate) use clock::now;
pub(crate) use fence::take_over;
pub(crate) use task::{Event, StripeHandle, Workers};
