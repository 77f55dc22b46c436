//! The pure logic of sequencer, stripe-writers, clients and an object store in one process, under one seeded
//! scheduler with virtual time. The same seed is the same run, byte for byte.
//!
//! [`world`] has the processes and the trouble they meet, [`mod@env`] time, network and store; [`sequencer`],
//! [`writer`] and [`client`] drive the product's logic; [`calls`] makes requests to the store as `catalog` does.
//! [`store`], [`tokens`] and [`history`] know what must be true. [`mutation`] takes guards out.

#![forbid(unsafe_code)]

pub mod calls;
pub mod client;
pub mod env;
pub mod event;
pub mod faults;
pub mod history;
pub mod mutation;
pub mod rng;
pub mod sequencer;
pub mod store;
pub mod tokens;
pub mod world;
pub mod writer;

pub use mutation::Mutation;
pub use world::{Report, World};
