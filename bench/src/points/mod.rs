//! What the project promises, each promise a command that measures it.

pub(crate) mod check;
pub(crate) mod faults;
pub(crate) mod grants;
pub(crate) mod hole;
pub(crate) mod input;
pub(crate) mod rounds;
pub(crate) mod tokens;
pub(crate) mod wire;
