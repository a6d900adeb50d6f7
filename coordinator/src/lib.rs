//! The GateWRT coordinator: keeps what an admin wants, signs it, publishes it over MQTT. Never in the data path.
//!
//! ```text
//! admin ── HTTPS ──▶ http ──┐                        ┌──▶ store (SQLite, one transaction a change)
//!                           ├──▶ desk ── registry ── records ──┤
//! routers ─ MQTT ─▶ broker ─┘    (one task)  (pure)   (pure)   └──▶ broker (retained, signed) ──▶ routers
//! ```
//!
//! | module | what it is |
//! | --- | --- |
//! | [`registry`] | networks, nodes, codes, egress, exits, clients, rules as one value; every rule of what may stand beside what |
//! | [`records`] | Registry → contents of records; a revision grows only when its content does |
//! | [`space`] | sets of addresses and services, which access rules are made of |
//! | [`audit`] | who changed what |
//! | [`live`] | who is connected, presence, last reports |
//! | [`desk`] | the one task that owns the three above: plan, store, publish, answer |
//! | [`store`] | SQL |
//! | [`pki`], [`data_dir`] | keys and certificates, and the directory they are in |
//! | [`broker`], [`access`] | the embedded MQTT broker and who may say and hear what on it |
//! | [`wgconf`], [`secret`] | the file of an external client and its QR picture; its private key |
//! | [`http`], [`api`] | the HTTPS API and the values it speaks |
//! | [`listen`] | sockets for both families |
//! | [`serve`] | puts them together |
//! | [`cli`] | the command line: an ordinary client of the HTTPS API |
#![forbid(unsafe_code)]

pub mod access;
pub mod api;
pub mod audit;
pub mod broker;
pub mod cli;
pub mod data_dir;
pub mod desk;
pub mod http;
pub mod listen;
pub mod live;
pub mod pki;
pub mod records;
pub mod registry;
pub mod secret;
pub mod serve;
pub mod space;
pub mod store;
#[cfg(test)]
mod testing;
pub mod wgconf;
