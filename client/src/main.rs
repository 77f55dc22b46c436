//! The `stripelog` command.
fn main() {}
