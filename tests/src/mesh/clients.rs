//! External clients of a [`Mesh`]: the admin's commands for them, and checks at the gateway and the phone.

use super::{INTERFACE, Mesh, NETWORK};
use crate::{
    lab::{Host, Lab, connects, eventually, ping},
    phone::{Phone, values},
};
use anyhow::{Context, Result, ensure};
use serde_json::Value;
use std::{
    net::{IpAddr, SocketAddr},
    time::Duration,
};

/// Time limit for a handshake of a phone. One that has lost its session starts a new handshake 15 s after the first
/// packet with no answer (`KEEPALIVE_TIMEOUT` + `REKEY_TIMEOUT`), and retries every 5 s.
pub const ONE_HANDSHAKE: Duration = Duration::from_secs(25);

impl Mesh {
    /// Builds [`Lab::phones`] with two sites that serve their LANs with NAT off, and with `office` as a gateway for
    /// clients.
    pub fn with_phones() -> Result<Self> {
        let mesh = Self::start(Lab::phones()?, &["office", "home"])?;
        mesh.serve_lans(&["office", "home"], false)?;
        mesh.wait_for_lans(&["office-pc", "home-pc"])?;
        mesh.admin(&["ingress", "set", NETWORK, "office"])?;
        Ok(mesh)
    }

    /// Adds a client and returns its file, the only copy of its private key.
    pub fn add_client(&self, name: &str, gateway: &str, options: &[&str]) -> Result<String> {
        let issued =
            self.admin_json(&[&["client", "add", NETWORK, name, "--gateway", gateway], options].concat())?;
        issued["config"].as_str().map(str::to_owned).with_context(|| format!("a config in {issued}"))
    }

    /// Adds a client with these options and brings it up on the host of its name; it reaches its gateway when this
    /// returns.
    pub fn phone(&self, name: &str, gateway: &str, options: &[&str]) -> Result<Phone> {
        let file = self.add_client(name, gateway, options)?;
        self.phone_with(name, gateway, &file)
    }

    /// Brings a file up on a host, and waits until it reaches the gateway over IPv4 and IPv6. Waits first until the
    /// gateway knows the phone: one that is quicker retries its handshake only after five seconds.
    pub fn phone_with(&self, host: &str, gateway: &str, file: &str) -> Result<Phone> {
        let private = values(file, "PrivateKey").concat();
        let key = self.host(host)?.command(&["wg", "pubkey"]).stdin(private).run()?.stdout;
        self.wait_for_peer(gateway, key.trim(), true, ONE_HANDSHAKE)?;
        let phone = Phone::up(&self.host(host)?, file)?;
        for address in self.overlay(gateway)? {
            let what = format!("{host} reaches its gateway {gateway} at {address}");
            eventually(ONE_HANDSHAKE, &what, || ping(phone.host(), address))?;
        }
        Ok(phone)
    }

    /// Client as the coordinator's `client show` reports it.
    pub fn client(&self, name: &str) -> Result<Value> {
        self.admin_json(&["client", "show", NETWORK, name])
    }

    /// True if WireGuard on a router has a peer with this key.
    pub fn has_peer(&self, router: &str, key: &str) -> Result<bool> {
        let peers = self.on(router, &["wg", "show", INTERFACE, "peers"])?.stdout;
        Ok(peers.lines().any(|peer| peer == key))
    }

    /// Waits until a router has a peer with this key, or has none.
    pub fn wait_for_peer(&self, router: &str, key: &str, is_there: bool, deadline: Duration) -> Result<()> {
        let what = format!("{router} has {} peer {key} on {INTERFACE}", if is_there { "a" } else { "no" });
        eventually(deadline, &what, || -> Result<()> {
            ensure!(self.has_peer(router, key)? == is_there);
            Ok(())
        })
    }

    /// Number of messages of a kind that the broker has delivered to a router.
    pub fn delivered(&self, router: &str, kind: &str) -> Result<u64> {
        let node = self.admin_json(&["node", "show", NETWORK, router])?;
        Ok(node["delivered"][kind]["messages"].as_u64().unwrap_or_default())
    }
}

/// Checks that a host's pings to all of these addresses are answered (`wanted`), or that none is.
pub fn all_answer(from: &Host, to: &[IpAddr], wanted: bool) -> Result<()> {
    all_are(to, wanted, |address| Ok(ping(from, *address).is_ok()))
}

/// Checks that connections to all of these addresses open (`wanted`), or that none does.
pub fn all_connect(from: &Host, to: &[IpAddr], port: u16, wanted: bool) -> Result<()> {
    all_are(to, wanted, |address| connects(from, SocketAddr::new(*address, port)))
}

fn all_are(to: &[IpAddr], wanted: bool, probe: impl Fn(&IpAddr) -> Result<bool> + Sync) -> Result<()> {
    let answers: Vec<Result<bool>> = std::thread::scope(|scope| {
        let threads: Vec<_> = to.iter().map(|address| scope.spawn(|| probe(address))).collect();
        threads.into_iter().map(|t| t.join().unwrap_or_else(|p| std::panic::resume_unwind(p))).collect()
    });
    for (address, answer) in to.iter().zip(answers) {
        ensure!(
            answer? == wanted,
            "{address} {}",
            if wanted { "can't be reached" } else { "can be reached" }
        );
    }
    Ok(())
}
