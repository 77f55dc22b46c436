//! Pure parts: no I/O, no clocks.

pub(crate) mod membership;
pub(crate) mod walk;
