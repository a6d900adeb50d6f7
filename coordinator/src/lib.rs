//! The GateWRT coordinator: stores the admin's settings, signs them, and publishes them over MQTT. Never in
//! the data path.
//!
//! ```text
//! admin ── HTTPS ──▶ http ──┐                                       ┌──▶ store (SQLite, one transaction a change)
//!                           ├──▶ controller ── registry ── records ──┤
//! routers ─ MQTT ─▶ broker ─┘    (one task)    (pure)      (pure)    └──▶ broker (retained, signed) ──▶ routers
//! ```
//!
//! | module | what it is |
//! | --- | --- |
//! | [`registry`] | networks, nodes, codes, egress, exits, clients, rules as one value, and all checks of their settings |
//! | [`records`] | Registry → contents of records; a revision grows only when its content does |
//! | [`space`] | sets of addresses and of services, of which access rules consist |
//! | [`audit`] | entries of the audit log |
//! | [`live`] | current sessions, presence and last reports of nodes |
//! | [`obeyed`] | which nodes have a change in effect, and why others have not |
//! | [`controller`] | the one task that owns the state: plan, store, publish, answer |
//! | [`clock`] | the time, and the latest time that was seen |
//! | [`store`] | SQL database |
//! | [`pki`], [`data_dir`] | keys and certificates, and their directory |
//! | [`backup`] | one file with all of it, and its restore |
//! | [`broker`], [`access`] | the embedded MQTT broker, and the rights of nodes on its topics |
//! | [`wgconf`], [`secret`] | configuration file and QR code of an external client; its private key |
//! | [`http`], [`api`] | the HTTPS API and its values |
//! | [`listen`], [`admission`] | sockets for both address families, and room for all callers |
//! | [`log`] | log of the program, with a limit |
//! | [`serve`] | start and stop of all parts |
//! | [`cli`] | the command line: a client of the HTTPS API |
#![forbid(unsafe_code)]

pub mod access;
pub mod admission;
pub mod api;
pub mod audit;
pub mod backup;
pub mod broker;
pub mod cli;
pub mod clock;
pub mod controller;
pub mod data_dir;
pub mod http;
pub mod listen;
pub mod live;
pub mod log;
pub mod obeyed;
pub mod pki;
pub mod records;
pub mod recovery;
pub mod registry;
pub mod secret;
pub mod serve;
pub mod sets;
pub mod store;
#[cfg(test)]
mod testing;
pub mod wgconf;
