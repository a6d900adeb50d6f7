//! Duration of a bulk transfer over TCP, as fast as it goes.

use std::io::{Read, Write};
use std::net::{IpAddr, SocketAddr, TcpListener, TcpStream};
use std::time::{Duration, Instant};

use anyhow::{Context, Result};

use super::host::Host;
use super::tcp::accept;

/// Time limit for one read or write: a connection that stands still longer is an error.
const PATIENCE: Duration = Duration::from_secs(30);
const PIECE: usize = 128 * 1024;

/// Sends `bytes` from the client to an address of the server, then as many back, over each of several connections at
/// once, and returns how long that took.
pub fn transfer(
    client: &Host,
    server: &Host,
    address: IpAddr,
    connections: usize,
    bytes: usize,
) -> Result<Duration> {
    let pairs = (0..connections).map(|_| connect(client, server, address)).collect::<Result<Vec<_>>>()?;
    let start = Instant::now();
    std::thread::scope(|scope| {
        let threads: Vec<_> =
            pairs.iter().map(|(near, far)| scope.spawn(|| there_and_back(near, far, bytes))).collect();
        threads.into_iter().try_for_each(|t| t.join().unwrap_or_else(|p| std::panic::resume_unwind(p)))
    })
    .with_context(|| format!("{} and {address}", client.name()))?;
    Ok(start.elapsed())
}

fn connect(client: &Host, server: &Host, address: IpAddr) -> Result<(TcpStream, TcpStream)> {
    let listener = server.in_netns(|| TcpListener::bind("[::]:0"))?.context("listen")?;
    let target = SocketAddr::new(address, listener.local_addr()?.port());
    let near = client.in_netns(|| TcpStream::connect_timeout(&target, PATIENCE))?;
    let near = near.with_context(|| format!("{} connects to {target}", client.name()))?;
    let (far, _) = accept(&listener)?;
    for socket in [&near, &far] {
        socket.set_read_timeout(Some(PATIENCE))?;
        socket.set_write_timeout(Some(PATIENCE))?;
    }
    Ok((near, far))
}

fn there_and_back(near: &TcpStream, far: &TcpStream, bytes: usize) -> Result<()> {
    for (from, to) in [(near, far), (far, near)] {
        std::thread::scope(|scope| {
            let sender = scope.spawn(|| send(from, bytes));
            receive(to, bytes)?;
            sender.join().unwrap_or_else(|p| std::panic::resume_unwind(p))
        })?;
    }
    Ok(())
}

fn send(mut to: &TcpStream, bytes: usize) -> Result<()> {
    let piece = vec![0x5a; PIECE];
    let mut left = bytes;
    while left > 0 {
        let length = left.min(PIECE);
        to.write_all(&piece[..length]).context("send")?;
        left -= length;
    }
    Ok(())
}

fn receive(mut from: &TcpStream, bytes: usize) -> Result<()> {
    let mut piece = vec![0; PIECE];
    let mut left = bytes;
    while left > 0 {
        let length = left.min(PIECE);
        from.read_exact(&mut piece[..length]).context("receive")?;
        left -= length;
    }
    Ok(())
}
