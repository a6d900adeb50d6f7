//! A broker that is not the coordinator's: someone has its address, its certificate and its key, and lets
//! everyone write everything. It can withhold, and that is all: what it sends that is not signed, not new or not
//! meant for this node changes nothing, and what it does to the connection costs the routers nothing.

mod broker;
#[path = "../common/mod.rs"]
mod common;
mod flood;
mod forged;
mod links;
mod withheld;

/// The routers of these labs, which see the same network records.
const ROUTERS: [&str; 2] = ["office", "home"];
