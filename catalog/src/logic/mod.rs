//! Pure parts: no I/O, no clocks.

pub mod assign;
pub mod collect;
pub mod create;
pub mod membership;
pub mod reigning;
pub mod walk;
