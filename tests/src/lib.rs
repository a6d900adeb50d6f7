//! Tools to test GateWRT: an emulated Internet ([`lab`]) in which the real programs run, as a network of sites
//! ([`mesh`]).
//!
//! Everything here treats the daemon and the coordinator as programs. Nothing links against them, so that a test sees
//! what a user sees.

pub mod lab;
pub mod mesh;
pub mod phone;
pub mod vm;
pub mod wg;
