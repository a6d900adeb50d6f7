//! The real kernel, in fresh network namespaces. Needs root, `ip`, `nft` and `wireguard-go`; without them these
//! tests fail.

mod bed;

mod conntrack;
mod exits;
mod firewall;
mod network;
mod sysctl;
mod walk;
mod watch;
mod wireguard;
