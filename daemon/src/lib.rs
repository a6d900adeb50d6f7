//! GateWRT's daemon on a router: it turns the signed records of the coordinator into WireGuard interfaces, addresses,
//! routes and firewall rules.
//!
//! ```text
//!  MQTT, netlink events, timers, control socket, UCI ── Input ──▶ core (pure, takes `now`)
//!                                                                  │ Desired
//!  kernel ── observe ──▶ Observed ──▶ plan (pure) ──▶ Steps ──▶ apply ──▶ kernel
//!                                                                  │ outcome
//!                                              report ─▶ MQTT, control socket, log
//! ```
//!
//! Decisions are pure: `core` and `plan` take values and the time, and give values. Everything else only carries bytes
//! to and from them. Only [`ownership`] defines the objects in a kernel that are ours.

pub mod apply;
pub mod atomic_file;
pub mod cli;
pub mod config;
pub mod control;
pub mod core;
pub mod crash;
pub mod dns;
pub mod enroll;
pub mod error_chain;
pub mod http;
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
pub mod store;
pub mod task;
pub mod tls;
