//! What the project promises, each promise a command that measures it.

pub mod check;
pub mod faults;
pub mod hole;
pub mod rounds;
