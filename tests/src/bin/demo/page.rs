//! Proxy from this machine to the coordinator's page: a browser here can't reach the lab's networks.

use std::net::{Ipv4Addr, Shutdown, SocketAddr, TcpListener, TcpStream};

use anyhow::{Context, Result};
use gatewrt_tests::lab::Host;

/// TCP port of the page, at the coordinator and, if it is free, on this machine.
const PORT: u16 = 8443;

/// Starts the proxy, which runs until the program ends, and returns the address on this machine.
pub fn open(coordinator: Host) -> Result<SocketAddr> {
    let at = |port| TcpListener::bind((Ipv4Addr::LOCALHOST, port));
    let listener = at(PORT).or_else(|_| at(0)).context("listen for a browser")?;
    let address = listener.local_addr()?;
    std::thread::spawn(move || {
        for browser in listener.incoming().flatten() {
            // If the coordinator is down and refuses, the browser's connection is closed.
            let _ = carry(&coordinator, browser);
        }
    });
    Ok(address)
}

fn carry(coordinator: &Host, browser: TcpStream) -> Result<()> {
    let inside = coordinator.in_netns(|| TcpStream::connect((Ipv4Addr::LOCALHOST, PORT)))??;
    let pairs = [(browser.try_clone()?, inside.try_clone()?), (inside, browser)];
    for (mut from, mut to) in pairs {
        std::thread::spawn(move || {
            let _ = std::io::copy(&mut from, &mut to);
            let _ = to.shutdown(Shutdown::Write);
        });
    }
    Ok(())
}
