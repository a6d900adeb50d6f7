//! What `wg show` says of a router's tunnel.

use crate::{lab::Host, mesh::INTERFACE};
use anyhow::{Result, bail};
use std::collections::BTreeMap;

/// Peers by public key.
pub type Peers = BTreeMap<String, Peer>;

/// One peer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Peer {
    /// Where packets go; `(none)` while that is unknown.
    pub endpoint: String,
    /// Of the last handshake, in seconds since 1970; 0 without one.
    pub handshake: u64,
    /// Bytes received.
    pub rx: u64,
    /// Bytes sent.
    pub tx: u64,
}

/// The peers of a router.
pub fn peers(router: &Host) -> Result<Peers> {
    let dump = router.run(&["wg", "show", INTERFACE, "dump"])?.stdout;
    dump.lines().skip(1).map(peer).collect()
}

/// Where packets to each peer go.
pub fn endpoints(router: &Host) -> Result<BTreeMap<String, String>> {
    Ok(peers(router)?.into_iter().map(|(key, peer)| (key, peer.endpoint)).collect())
}

/// A router's public key.
pub fn key(router: &Host) -> Result<String> {
    Ok(router.run(&["wg", "show", INTERFACE, "public-key"])?.stdout.trim().to_owned())
}

/// A new pair of keys: private, public.
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
