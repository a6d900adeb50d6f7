//! Sockets that listen for both address families, as `[::]` does on Linux unless `net.ipv6.bindv6only` is
//! set.

use std::{
    io,
    net::{Ipv4Addr, Ipv6Addr, SocketAddr},
};
use tokio::net::{TcpListener, TcpStream};

/// Binds a TCP listener to an address. `[::]` means every address, also on a machine without IPv6.
pub async fn bind(addr: SocketAddr) -> io::Result<TcpListener> {
    match TcpListener::bind(addr).await {
        Err(error) if addr.ip() == Ipv6Addr::UNSPECIFIED && lacks_ipv6(&error) => {
            TcpListener::bind((Ipv4Addr::UNSPECIFIED, addr.port())).await
        }
        bound => bound,
    }
}

/// Accepts the next connection of a listener. The peer of a connection over IPv4 has an IPv4 address.
pub async fn accept(listener: &TcpListener) -> io::Result<(TcpStream, SocketAddr)> {
    let (stream, peer) = listener.accept().await?;
    Ok((stream, SocketAddr::new(peer.ip().to_canonical(), peer.port())))
}

fn lacks_ipv6(error: &io::Error) -> bool {
    error.raw_os_error() == Some(nix::libc::EAFNOSUPPORT) || error.kind() == io::ErrorKind::AddrNotAvailable
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn socket_on_unspecified_address_accepts_both_families() {
        let listener = bind("[::]:0".parse().unwrap()).await.unwrap();
        let port = listener.local_addr().unwrap().port();
        for from in ["127.0.0.1", "::1"] {
            let client = TcpStream::connect((from, port)).await.unwrap();
            let (_, peer) = accept(&listener).await.unwrap();
            assert_eq!(peer, client.local_addr().unwrap());
        }
    }
}
