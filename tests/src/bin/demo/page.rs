//! The way from this machine to the coordinator's page: the lab is on no network that a browser here could see.

use std::net::{Ipv4Addr, Shutdown, SocketAddr, TcpListener, TcpStream};

use anyhow::{Context, Result};
use gatewrt_tests::lab::Host;

/// Where the coordinator serves the page, and where it is looked for here if nobody else is there.
const PORT: u16 = 8443;

/// Carries connections to the coordinator, from an address of this machine which it returns, until the program ends.
pub fn open(coordinator: Host) -> Result<SocketAddr> {
    let at = |port| TcpListener::bind((Ipv4Addr::LOCALHOST, port));
    let listener = at(PORT).or_else(|_| at(0)).context("listen for a browser")?;
    let address = listener.local_addr()?;
    std::thread::spawn(move || {
        for browser in listener.incoming().flatten() {
            // A coordinator that is down refuses; so is the browser refused then.
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
