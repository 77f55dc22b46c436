//! Pure state machines: no I/O, no clocks, no threads. Time is an argument, as a duration on
//! `CLOCK_BOOTTIME`, which also counts while a machine sleeps.

pub mod action;
mod flight;
pub mod held;
pub mod hold;
pub mod hole;
pub mod members;
#[cfg(test)]
mod model;
pub mod pace;
pub mod recent;
pub mod stripe;
