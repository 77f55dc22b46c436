//! What every Stripelog program does around its job.
//!
//! One settings file for all of them ([`settings`]), log lines ([`logging`]), the signal to stop
//! ([`stop`]), the last word on standard error ([`exit`]), and for the daemons an endpoint for metrics
//! and health ([`admin`]). The only protocol that is known here is that of etcd ([`members`]).

#![forbid(unsafe_code)]

#[cfg(feature = "admin")]
pub mod admin;
pub mod exit;
pub mod logging;
pub mod members;
pub mod settings;
pub mod stop;
