//! The daemon on the router.
//!
//! ```text
//!  MQTT, netlink events, timers, control socket, UCI ── Input ──▶ core (pure, takes `now`)
//!                                                                  │ Desired
//!  kernel ── observe ──▶ Observed ──▶ plan (pure) ──▶ Steps ──▶ apply ──▶ kernel
//!                                                                  │ outcome
//!                                              report ─▶ MQTT, control socket, log
//! ```
//!
//! Decisions are pure: `core` and `plan` take values and the time, and give values. Everything else only
//! carries bytes to and from them. What belongs to us in a kernel is said in [`ownership`] alone.

pub mod apply;
pub mod cli;
pub mod config;
pub mod control;
pub mod core;
pub mod crash;
pub mod dns;
pub mod enroll;
pub mod gather;
pub mod identity;
pub mod kernel;
pub mod log;
pub mod model;
pub mod mqtt;
#[cfg(all(target_env = "musl", not(test)))]
mod musl;
pub mod ownership;
pub mod plan;
pub mod probe;
pub mod resolvers;
pub mod runtime;
pub mod show;
pub mod socket;
pub mod sorted;
pub mod store;
pub mod task;
pub mod tls;
pub mod whole;
