//! Object storage and clocks: what the stripes' state machines are driven by.

mod clock;
mod closed;
mod health;
mod history;
mod places;
mod pressure;
mod puts;
mod snapshots;
mod takeover;
mod task;
mod threads;

pub(crate) use clock::now;
pub(crate) use closed::Closed;
pub(crate) use health::StoreHealth;
pub(crate) use places::Places;
pub(crate) use takeover::take_over;
pub(crate) use task::{Event, Start, StripeHandle, Workers};
pub(crate) use threads::StoreThreads;
