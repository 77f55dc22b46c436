//! Object storage and clocks: what the stripes' state machines are driven by.

mod clock;
mod history;
mod puts;
mod snapshots;
mod takeover;
mod task;

pub(crate) use clock::now;
pub(crate) use takeover::take_over;
pub(crate) use task::{Event, StripeHandle, Workers};
