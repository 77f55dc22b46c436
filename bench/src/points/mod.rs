//! What the project promises, each promise a command that measures it.

pub(crate) mod append;
pub(crate) mod backlog;
pub(crate) mod check;
pub(crate) mod cost;
pub(crate) mod etcd;
pub(crate) mod failover;
pub(crate) mod failover_stall;
pub(crate) mod faults;
pub(crate) mod flood;
pub(crate) mod floor_store;
pub(crate) mod follow;
pub(crate) mod grants;
pub(crate) mod headroom;
pub(crate) mod hole;
pub(crate) mod input;
pub(crate) mod latency;
pub(crate) mod lossy;
pub(crate) mod owners;
pub(crate) mod peers;
pub(crate) mod read;
pub(crate) mod rounds;
pub(crate) mod shards;
pub(crate) mod slow_stripe;
pub(crate) mod tokens;
pub(crate) mod wire;
