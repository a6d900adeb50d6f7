//! Check of a name or an address to advertise. What passes is what a join takes: it is part of a URL in the join code, the
//! server name of its TLS session, and a name in the server certificate.

use rustls::pki_types::DnsName;
use std::net::IpAddr;

/// Normal form of a host: an address, or a name in small letters without a dot at its end. An error is the reason why routers
/// could not use it, and what to do.
pub(super) fn checked(text: &str) -> Result<String, &'static str> {
    if text.trim().is_empty() {
        return Err("it is empty; give a host name or an IP address");
    }
    if text.contains(char::is_whitespace) {
        return Err("there is a space in it; repeat --advertise for each host");
    }
    if text.contains('/') {
        return Err("give the host alone, as in gw.example.org, without https:// and path");
    }
    let within = text.strip_prefix('[').and_then(|text| text.strip_suffix(']'));
    let bare = within.unwrap_or(text);
    if bare.contains('%') {
        return Err("a zone after “%” is known on this machine only; give a name or an address without one");
    }
    match bare.parse::<IpAddr>() {
        Ok(addr) => checked_address(addr.to_canonical()),
        Err(_) if within.is_some() => Err("there is no IPv6 address between the brackets"),
        Err(_) if text.contains([':', '[', ']']) => {
            Err("give it without a port; routers use those of --https and --mqtt")
        }
        Err(_) if !text.is_ascii() => Err("write a name with such letters as DNS has it: xn--…"),
        Err(_) => checked_name(text),
    }
}

fn checked_address(addr: IpAddr) -> Result<String, &'static str> {
    let is_link_local = matches!(addr, IpAddr::V6(v6) if v6.is_unicast_link_local());
    let is_broadcast = matches!(addr, IpAddr::V4(v4) if v4.is_broadcast());
    if addr.is_unspecified() {
        Err("it stands for every address of a machine; give the one that routers reach")
    } else if addr.is_multicast() || is_broadcast {
        Err("it is no address of one machine")
    } else if is_link_local {
        Err("it has a meaning on one link only; give a name or another address")
    } else {
        Ok(addr.to_string())
    }
}

fn checked_name(text: &str) -> Result<String, &'static str> {
    // The name of a certificate has no dot at its end, and would not be that of the URL (RFC 6066, 3).
    let name = text.strip_suffix('.').unwrap_or(text).to_ascii_lowercase();
    let is_name = !name.ends_with('.') && DnsName::try_from(name.as_str()).is_ok();
    is_name.then_some(name).ok_or(
        "it is neither an address nor a name: names have parts of letters, digits, - and _ between dots, 63 characters each and 253 in all, the last not a number",
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{data_dir::DataDir, pki::Pki};
    use gatewrt_protocol::{JoinCode, PublicKey};
    use rustls::{
        ClientConfig, ClientConnection, RootCertStore, ServerConfig, ServerConnection,
        pki_types::{CertificateDer, PrivateKeyDer, ServerName, pem::PemObject},
    };
    use std::sync::Arc;

    const GOOD: [(&str, &str); 16] = [
        ("gw.example.org", "gw.example.org"),
        ("coordinator", "coordinator"),
        ("coordinator.", "coordinator"),
        ("GW.Example.Org.", "gw.example.org"),
        ("my_gw.example", "my_gw.example"),
        ("_x", "_x"),
        ("1a.example", "1a.example"),
        ("3com", "3com"),
        ("xn--bcher-kva.example", "xn--bcher-kva.example"),
        ("192.0.2.1", "192.0.2.1"),
        ("127.0.0.1", "127.0.0.1"),
        ("2001:DB8::0:1", "2001:db8::1"),
        ("[2001:db8::1]", "2001:db8::1"),
        ("::1", "::1"),
        ("::ffff:192.0.2.1", "192.0.2.1"),
        ("[::ffff:192.0.2.1]", "192.0.2.1"),
    ];

    const BAD: [&str; 41] = [
        "",
        " ",
        ".",
        "..",
        "a..b",
        ".a",
        "a..",
        "-a",
        "a-",
        "a.-b",
        "*",
        "*.example",
        "a b",
        " a",
        "a ",
        "a\tb",
        "gw:8443",
        "gw:0",
        "gw:",
        ":1",
        "192.0.2.1:8443",
        "[::1]:8443",
        "[::1",
        "::1]",
        "[gw]",
        "[192.0.2.1",
        "http://gw",
        "https://gw:8443",
        "gw/x",
        "fe80::1",
        "fe80::1%eth0",
        "gw%eth0",
        "0.0.0.0",
        "::",
        "224.0.0.1",
        "ff02::1",
        "255.255.255.255",
        "bücher.example",
        "1.2.3",
        "256.1.1.1",
        "0x7f.1",
    ];

    #[test]
    fn host_has_one_normal_form() {
        for (given, host) in GOOD {
            assert_eq!(checked(given).as_deref(), Ok(host), "{given}");
            assert_eq!(checked(host).as_deref(), Ok(host));
        }
    }

    #[test]
    fn what_no_join_can_use_is_refused() {
        for given in BAD {
            assert!(checked(given).is_err(), "“{given}” passed as {:?}", checked(given));
        }
        let (label, part) = ("a".repeat(64), "a".repeat(62));
        assert!(checked(&label).is_err());
        assert!(checked(&format!("{part}.{part}.{part}.{part}.b")).is_ok());
        assert!(checked(&format!("{part}.{part}.{part}.{part}.bcd")).is_err());
    }

    /// A join with each: the code is read, its URL taken apart as the router's HTTP client does, and TLS verifies the name.
    #[test]
    fn every_host_that_passes_can_be_joined() {
        let dir = tempfile::tempdir().unwrap();
        let longest = format!("{0}.{0}.{0}.{0}.b", "a".repeat(62));
        let hosts: Vec<&str> = GOOD.iter().map(|(_, host)| *host).chain([longest.as_str()]).collect();
        let names = hosts.iter().map(|&host| host.to_owned()).collect();
        let pki = Pki::open(&DataDir::open(&dir.path().join("data"), &[]).unwrap(), &names).unwrap();
        for host in hosts {
            let at = host.parse().map_or_else(
                |_| format!("{host}:65535"),
                |ip: IpAddr| std::net::SocketAddr::new(ip, 65535).to_string(),
            );
            let (network, secret) = ("a-long-one-x".parse().unwrap(), [0; 16]);
            let code = JoinCode {
                url: format!("https://{at}"),
                network,
                ca: pki.ca_hash(),
                record_key: PublicKey([1; 32]),
                secret,
            };
            let read: JoinCode = code.to_string().parse().unwrap_or_else(|error| panic!("{host}: {error}"));
            let url: axum::http::Uri = read.url.parse().unwrap();
            let named = url.host().unwrap().trim_start_matches('[').trim_end_matches(']');
            assert_eq!((named, url.port_u16()), (host, Some(65535)));
            shake(&pki, named).unwrap_or_else(|error| panic!("{host}: {error}"));
        }
    }

    /// TLS handshake of a router with the coordinator under a name.
    fn shake(pki: &Pki, name: &str) -> Result<(), rustls::Error> {
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let (cert, key) = pki.server_files();
        let chain = CertificateDer::pem_file_iter(cert).unwrap().collect::<Result<_, _>>().unwrap();
        let server =
            ServerConfig::builder_with_provider(provider.clone()).with_safe_default_protocol_versions()?;
        let server = server
            .with_no_client_auth()
            .with_single_cert(chain, PrivateKeyDer::from_pem_file(key).unwrap())?;
        let mut roots = RootCertStore::empty();
        roots.add(CertificateDer::from_pem_slice(pki.ca_pem().as_bytes()).unwrap())?;
        let client = ClientConfig::builder_with_provider(provider).with_safe_default_protocol_versions()?;
        let client = client.with_root_certificates(roots).with_no_client_auth();
        let name = ServerName::try_from(name.to_owned()).unwrap();
        let mut client = ClientConnection::new(Arc::new(client), name)?;
        let mut server = ServerConnection::new(Arc::new(server))?;
        while client.is_handshaking() || server.is_handshaking() {
            let mut sent = Vec::new();
            client.write_tls(&mut sent).unwrap();
            server.read_tls(&mut sent.as_slice()).unwrap();
            server.process_new_packets()?;
            let mut sent = Vec::new();
            server.write_tls(&mut sent).unwrap();
            client.read_tls(&mut sent.as_slice()).unwrap();
            client.process_new_packets()?;
        }
        Ok(())
    }
}
