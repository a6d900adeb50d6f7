//! Peers and keys of a router's tunnel, from `wg show`.

use crate::{lab::Host, mesh::INTERFACE};
use anyhow::{Result, bail};
use std::collections::BTreeMap;

/// Peers by public key.
pub type Peers = BTreeMap<String, Peer>;

/// Peer of a tunnel.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Peer {
    /// Address and port that packets are sent to; `(none)` while that is unknown.
    pub endpoint: String,
    /// Time of the last handshake, in seconds since 1970; 0 without one.
    pub handshake: u64,
    /// Bytes received.
    pub rx: u64,
    /// Bytes sent.
    pub tx: u64,
}

/// Peers of a router.
pub fn peers(router: &Host) -> Result<Peers> {
    let dump = router.run(&["wg", "show", INTERFACE, "dump"])?.stdout;
    dump.lines().skip(1).map(peer).collect()
}

/// Endpoints of a router's peers, by public key.
pub fn endpoints(router: &Host) -> Result<BTreeMap<String, String>> {
    Ok(peers(router)?.into_iter().map(|(key, peer)| (key, peer.endpoint)).collect())
}

/// Public key of a router.
pub fn key(router: &Host) -> Result<String> {
    Ok(router.run(&["wg", "show", INTERFACE, "public-key"])?.stdout.trim().to_owned())
}

/// Generates a pair of keys: private, public.
pub fn key_pair(host: &Host) -> Result<(String, String)> {
    let private = host.run(&["wg", "genkey"])?.stdout.trim().to_owned();
    let public = host.command(&["wg", "pubkey"]).stdin(private.as_str()).run()?.stdout.trim().to_owned();
    Ok((private, public))
}

fn peer(line: &str) -> Result<(String, Peer)> {
    let fields: Vec<&str> = line.split('\t').collect();
    let [key, _, endpoint, _, handshake, rx, tx, _] = fields[..] else { bail!("not a peer: {line}") };
    let peer = Peer {
        endpoint: endpoint.to_owned(),
        handshake: handshake.parse()?,
        rx: rx.parse()?,
        tx: tx.parse()?,
    };
    Ok((key.to_owned(), peer))
}
