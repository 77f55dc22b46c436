//! Stores that fail, delay, lose answers and lie.
