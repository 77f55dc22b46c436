//! What every Stripelog program does around its job.
//!
//! One settings file for all of them ([`settings`]), log lines ([`logging`]), the signal to stop
//! ([`stop`]), the last word on standard error ([`exit`]), and for the daemons an endpoint for metrics
//! and health ([`admin`]). No protocol is known here.

#![forbid(unsafe_code)]

#[cfg(feature = "admin")]
pub mod admin;
pub mod exit;
pub mod logging;
pub mod settings;
pub mod stop;
