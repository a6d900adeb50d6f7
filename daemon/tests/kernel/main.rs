//! The kernel driver on the real kernel, in fresh network namespaces. Without root, `ip`, `nft` and `wireguard-go`
//! these tests fail.

mod bed;

mod conntrack;
mod exits;
mod firewall;
mod iptables;
mod network;
mod sysctl;
mod walk;
mod watch;
mod wireguard;
