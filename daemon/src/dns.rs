//! Stub resolver (RFC 1035) for the daemon's own connections. The system's resolver would send its queries the way of
//! the router's other traffic, through an exit that may not work; these carry the bypass mark and go to the resolvers
//! of the uplink. It ends at addresses: the caller chooses which to try, and in which order.

use crate::{model, socket};
use socket2::{Domain, Protocol, SockAddr, Socket, Type};
use std::{
    fs, io,
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, UdpSocket},
    time::{Duration, Instant},
};

/// Time for one resolver; they are asked one after the other.
const TRY: Duration = Duration::from_secs(2);
/// Time for all resolvers together.
const PATIENCE: Duration = Duration::from_secs(4);
/// Maximum number of resolvers asked.
const RESOLVERS: usize = 3;
const PORT: u16 = 53;
/// File in which netifd lists the resolvers of the uplinks.
const UPLINK: &str = "/tmp/resolv.conf.d/resolv.conf.auto";
const SYSTEM: &str = "/etc/resolv.conf";
const HOSTS: &str = "/etc/hosts";
/// Length in bytes of the longest DNS answer over UDP without extensions (RFC 1035, 4.2.1); some send a little more.
const LONGEST: usize = 1232;
const A: u16 = 1;
const AAAA: u16 = 28;
const INTERNET: u16 = 1;
const HEADER: usize = 12;

/// Resolves a host, which may be an address itself: from the hosts file, else the uplinks' resolvers, else the
/// system's. The C library is not asked: its resolver would take more of a router's flash than this one. Blocks for
/// twice [`PATIENCE`] at most.
pub fn resolve(host: &str, port: u16, mark: u32) -> io::Result<Vec<SocketAddr>> {
    let found = look_up(host, mark);
    if found.is_empty() {
        return Err(io::Error::new(io::ErrorKind::NotFound, "no hosts file and no name server knows it"));
    }
    Ok(found.into_iter().take(model::MAX_ADDRESSES).map(|addr| SocketAddr::new(addr, port)).collect())
}

fn look_up(host: &str, mark: u32) -> Vec<IpAddr> {
    if let Ok(addr) = host.parse() {
        return vec![addr];
    }
    let mut found = known_by(&read(HOSTS), host);
    if found.is_empty() {
        found = ask_all(&uplink_resolvers(), host, mark);
    }
    if found.is_empty() {
        found = ask_all(&resolvers_of(&read(SYSTEM), true), host, mark);
    }
    found
}

/// Content of a file; empty when it can't be read.
fn read(file: &str) -> String {
    fs::read_to_string(file).unwrap_or_default()
}

/// Addresses of a host in a hosts file (hosts(5)).
fn known_by(hosts: &str, host: &str) -> Vec<IpAddr> {
    let host = host.trim_end_matches('.');
    let mut found = Vec::new();
    for line in hosts.lines() {
        let mut words = line.split('#').next().unwrap_or_default().split_whitespace();
        let addr: Option<IpAddr> = words.next().and_then(|addr| addr.parse().ok());
        if words.any(|name| name.eq_ignore_ascii_case(host)) {
            found.extend(addr);
        }
    }
    found
}

/// DNS resolvers of the router's uplinks, else those in its resolv.conf that are other machines. Those of the router
/// itself are asked last, since their own queries take the router's routes.
fn uplink_resolvers() -> Vec<SocketAddr> {
    let uplink = resolvers_of(&read(UPLINK), false);
    if uplink.is_empty() { resolvers_of(&read(SYSTEM), false) } else { uplink }
}

/// DNS resolvers in the text of a resolv.conf; those on this machine only if `own`. A link-local address names its link
/// after a “%” (resolv.conf(5)).
fn resolvers_of(text: &str, own: bool) -> Vec<SocketAddr> {
    let addresses = text.lines().filter_map(|line| {
        let mut words = line.split_whitespace();
        let name = words.next().filter(|word| *word == "nameserver").and(words.next())?;
        let scoped = name.split_once('%');
        let scope = scoped.and_then(|(_, link)| nix::net::if_::if_nametoindex(link).ok()).unwrap_or_default();
        match scoped.map_or(name, |(addr, _)| addr).parse().ok()? {
            IpAddr::V4(addr) => Some(SocketAddr::from((addr, PORT))),
            IpAddr::V6(addr) => Some(std::net::SocketAddrV6::new(addr, PORT, 0, scope).into()),
        }
    });
    addresses.filter(|addr| own || !addr.ip().is_loopback()).take(RESOLVERS).collect()
}

/// Addresses of a host from the first DNS resolver that knows any: both families, IPv4 first.
fn ask_all(resolvers: &[SocketAddr], host: &str, mark: u32) -> Vec<IpAddr> {
    let end = Instant::now() + PATIENCE;
    for resolver in resolvers {
        let by = end.min(Instant::now() + TRY);
        match ask(*resolver, host, mark, by) {
            Ok(found) if !found.is_empty() => return found,
            Ok(_) => {}
            Err(error) => log::debug!("resolver {resolver}: {error}"),
        }
        if by >= end {
            break;
        }
    }
    Vec::new()
}

/// Asks one DNS resolver for the addresses of a host, both families at once, from a port that the kernel chooses at
/// random; waits until both are answered or `by` is reached.
fn ask(resolver: SocketAddr, host: &str, mark: u32, by: Instant) -> io::Result<Vec<IpAddr>> {
    let [a, b, c, d] = crate::identity::random::<4>().map_err(io::Error::other)?;
    let queries = [(u16::from_be_bytes([a, b]), A), (u16::from_be_bytes([c, d]), AAAA)];
    let socket = connected(resolver, mark)?;
    for (id, kind) in queries {
        let query = query(host, id, kind).ok_or(io::ErrorKind::InvalidInput)?;
        socket.send(&query)?;
    }
    let mut answers: [Option<Vec<IpAddr>>; 2] = [None, None];
    let mut buffer = [0; LONGEST];
    while answers.iter().any(Option::is_none) {
        let left = by.saturating_duration_since(Instant::now());
        if left.is_zero() {
            break;
        }
        socket.set_read_timeout(Some(left))?;
        let length = match socket.recv(&mut buffer) {
            Ok(length) => length,
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => break,
            Err(error) => return Err(error),
        };
        for ((id, kind), slot) in queries.iter().zip(&mut answers) {
            if let Some(found) = answer(&buffer[..length], host, *id, *kind) {
                slot.get_or_insert(found);
            }
        }
    }
    Ok(answers.into_iter().flatten().flatten().collect())
}

fn connected(resolver: SocketAddr, mark: u32) -> io::Result<UdpSocket> {
    let socket = Socket::new(Domain::for_address(resolver), Type::DGRAM, Some(Protocol::UDP))?;
    socket::mark(&socket, mark)?;
    socket.connect(&SockAddr::from(resolver))?;
    Ok(socket.into())
}

/// DNS query for one kind of record of a host; `None` for an invalid name (RFC 1035, 2.3.4).
fn query(host: &str, id: u16, kind: u16) -> Option<Vec<u8>> {
    let mut message = Vec::with_capacity(HEADER + host.len() + 6);
    let recursion_desired = 0x0100_u16;
    for number in [id, recursion_desired, 1, 0, 0, 0] {
        message.extend(number.to_be_bytes());
    }
    for label in host.trim_end_matches('.').split('.') {
        message.push(u8::try_from(label.len()).ok().filter(|length| (1..64).contains(length))?);
        message.extend(label.as_bytes());
    }
    message.push(0);
    message.extend([kind.to_be_bytes(), INTERNET.to_be_bytes()].concat());
    (message.len() <= HEADER + 255 + 4).then_some(message)
}

/// Addresses in a DNS answer; `None` when it answers another query. Empty when the answer reports a failure or is cut
/// short. The names in its records are not compared: the resolver decides which alias leads where.
fn answer(message: &[u8], host: &str, id: u16, kind: u16) -> Option<Vec<IpAddr>> {
    let question = query(host, id, kind)?;
    let flags = u16_at(message, 2)?;
    let (is_response, truncated, failure) = (flags & 0x8000 != 0, flags & 0x0200 != 0, flags & 0x000f);
    let asked = message.get(HEADER..question.len())?;
    let is_ours = u16_at(message, 0)? == id
        && u16_at(message, 4)? == 1
        && asked.eq_ignore_ascii_case(&question[HEADER..])
        && is_response;
    if !is_ours {
        return None;
    }
    let is_sound = !truncated && failure == 0;
    Some(is_sound.then(|| addresses(message, question.len(), kind)).flatten().unwrap_or_default())
}

/// Addresses in the records of a DNS answer from offset `at` on.
fn addresses(message: &[u8], mut at: usize, kind: u16) -> Option<Vec<IpAddr>> {
    let mut found = Vec::new();
    for _ in 0..u16_at(message, 6)? {
        at = after_name(message, at)?;
        let (record, class, length) =
            (u16_at(message, at)?, u16_at(message, at + 2)?, u16_at(message, at + 8)?);
        let data = message.get(at + 10..at + 10 + usize::from(length))?;
        at += 10 + data.len();
        if (record, class) == (kind, INTERNET) {
            found.push(address(data)?);
        }
    }
    Some(found)
}

fn address(data: &[u8]) -> Option<IpAddr> {
    match data.len() {
        4 => <[u8; 4]>::try_from(data).ok().map(|bytes| Ipv4Addr::from(bytes).into()),
        16 => <[u8; 16]>::try_from(data).ok().map(|bytes| Ipv6Addr::from(bytes).into()),
        _ => None,
    }
}

/// Offset after the name at `at` in a DNS answer: a name ends at its empty label or at a pointer, which is not
/// followed.
fn after_name(message: &[u8], mut at: usize) -> Option<usize> {
    loop {
        match *message.get(at)? {
            0 => return Some(at + 1),
            length if length & 0xc0 == 0xc0 => return Some(at + 2),
            length if length & 0xc0 == 0 => at += 1 + usize::from(length),
            _ => return None,
        }
    }
}

fn u16_at(message: &[u8], at: usize) -> Option<u16> {
    message.get(at..at + 2)?.try_into().ok().map(u16::from_be_bytes)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use socket2::SockRef;
    use std::thread;

    const MARK: u32 = 0x0100_0000;

    /// An answer to `query` with these records: kind and data.
    fn answered(query: &[u8], flags: u16, records: &[(u16, &[u8])]) -> Vec<u8> {
        let mut message = query.to_vec();
        message[2..4].copy_from_slice(&flags.to_be_bytes());
        message[6..8].copy_from_slice(&(records.len() as u16).to_be_bytes());
        for (kind, data) in records {
            message.extend([0xc0, 12]);
            message.extend([*kind, INTERNET, 0, 60].map(u16::to_be_bytes).concat());
            message.extend((data.len() as u16).to_be_bytes());
            message.extend(*data);
        }
        message
    }

    #[test]
    fn answer_to_another_question_is_dropped() {
        let host = "gw.example";
        let query = query(host, 7, A).unwrap();
        let cname = [3, b'o', b't', b'h', 0xc0, 15];
        let good = answered(&query, 0x8180, &[(5, &cname), (A, &[192, 0, 2, 1]), (A, &[192, 0, 2, 2])]);
        let addrs: Vec<IpAddr> = vec![[192, 0, 2, 1].into(), [192, 0, 2, 2].into()];
        assert_eq!(answer(&good, host, 7, A), Some(addrs));
        assert_eq!(answer(&good, "GW.example", 7, A).map(|found| found.len()), Some(2));
        for (other, id, kind) in
            [(host, 8, A), (host, 7, AAAA), ("gx.example", 7, A), ("gw.example.org", 7, A)]
        {
            assert_eq!(answer(&good, other, id, kind), None);
        }
        let record: &[(u16, &[u8])] = &[(A, &[192, 0, 2, 1])];
        for (flags, what) in
            [(0x0100, "a query"), (0x8380, "truncated"), (0x8183, "no such name"), (0x8182, "failed")]
        {
            let taken = answer(&answered(&query, flags, record), host, 7, A);
            assert_eq!(taken, (flags != 0x0100).then(Vec::new), "{what}");
        }
        assert_eq!(answer(&answered(&query, 0x8180, &[]), host, 7, A), Some(Vec::new()));
        assert_eq!(answer(&answered(&query, 0x8180, &[(A, &[1, 2, 3])]), host, 7, A), Some(Vec::new()));
        for cut in 0..good.len() {
            let expected = (cut >= query.len()).then(Vec::new);
            assert_eq!(answer(&good[..cut], host, 7, A), expected, "cut to {cut} bytes");
        }
    }

    #[test]
    fn invalid_name_gives_no_query() {
        let long = "a".repeat(64);
        let many = "abcdefgh.".repeat(40);
        for host in ["", ".", "a..b", long.as_str(), many.as_str()] {
            assert_eq!(query(host, 1, A), None, "{host}");
        }
        assert!(query("gw.example.", 1, A).is_some());
    }

    #[test]
    fn resolv_conf_gives_the_uplinks_resolvers() {
        let text = "# Interface wan\nnameserver 192.0.2.53\nsearch lan\nnameserver 127.0.0.1\nnameserver ::1\n\
                    nameserver fe80::1%lo\nnameserver nonsense\nnameserver\nnameserver 2001:db8::53\nnameserver 9.9.9.9\n";
        let found = resolvers_of(text, false);
        let lo = nix::net::if_::if_nametoindex("lo").unwrap();
        assert_eq!(found.len(), RESOLVERS);
        assert_eq!(found[0], "192.0.2.53:53".parse().unwrap());
        assert!(matches!(found[1], SocketAddr::V6(addr) if addr.scope_id() == lo));
        assert_eq!(found[2], "[2001:db8::53]:53".parse().unwrap());
        let all = resolvers_of(text, true);
        assert_eq!(all[..2], ["192.0.2.53:53".parse().unwrap(), "127.0.0.1:53".parse().unwrap()]);
    }

    #[test]
    fn hosts_file_gives_both_families() {
        let text = "# 192.0.2.6 gw.example\n127.0.0.1 localhost\n192.0.2.1\tgw gw.example # the gateway\n\
                    2001:db8::1 GW.example\nnonsense gw.example\n192.0.2.7 # gw.example\n\n192.0.2.8\n";
        let found: Vec<IpAddr> = vec!["192.0.2.1".parse().unwrap(), "2001:db8::1".parse().unwrap()];
        assert_eq!(known_by(text, "gw.example"), found);
        assert_eq!(known_by(text, "Gw.Example."), found);
        assert_eq!(known_by(text, "gw"), found[..1]);
        assert_eq!(known_by(text, "example"), Vec::<IpAddr>::new());
        assert_eq!(known_by(text, ""), Vec::<IpAddr>::new());
    }

    #[test]
    fn query_carries_the_mark_in_both_families() {
        for addr in ["127.0.0.1:53", "[::1]:53"] {
            let socket = connected(addr.parse().unwrap(), MARK).unwrap();
            assert_eq!(SockRef::from(&socket).mark().unwrap(), MARK);
        }
    }

    /// A resolver that first sends forged answers, then the right one.
    #[test]
    fn lookup_with_forged_answers_takes_the_real_one() {
        let server = UdpSocket::bind("127.0.0.1:0").unwrap();
        let at = server.local_addr().unwrap();
        let serving = thread::spawn(move || {
            let mut buffer = [0; 512];
            for _ in 0..2 {
                let (length, from) = server.recv_from(&mut buffer).unwrap();
                let query = &buffer[..length];
                let mut forged = answered(query, 0x8180, &[(A, &[6, 6, 6, 6])]);
                forged[0] ^= 1;
                server.send_to(&forged, from).unwrap();
                server.send_to(b"nonsense", from).unwrap();
                let six = Ipv6Addr::LOCALHOST.octets();
                let of = if query[length - 3] == A as u8 {
                    (A, [192, 0, 2, 9].as_slice())
                } else {
                    (AAAA, six.as_slice())
                };
                server.send_to(&answered(query, 0x8180, &[of]), from).unwrap();
            }
        });
        let found = ask_all(&["127.0.0.1:1".parse().unwrap(), at], "gw.example", MARK);
        serving.join().unwrap();
        assert_eq!(found, ["192.0.2.9".parse::<IpAddr>().unwrap(), Ipv6Addr::LOCALHOST.into()]);
    }

    #[test]
    fn silent_resolver_is_given_up() {
        let silent = UdpSocket::bind("127.0.0.1:0").unwrap();
        let by = Instant::now() + Duration::from_millis(50);
        assert_eq!(ask(silent.local_addr().unwrap(), "gw.example", MARK, by).unwrap(), Vec::<IpAddr>::new());
        assert!(Instant::now() < by + Duration::from_millis(500));
    }

    #[test]
    fn literal_address_needs_no_resolver() {
        assert_eq!(resolve("2001:db8::1", 9, MARK).unwrap(), ["[2001:db8::1]:9".parse().unwrap()]);
        assert!(!resolve("localhost", 9, MARK).unwrap().is_empty());
    }

    proptest! {
        #[test]
        fn any_bytes_parse_or_are_refused(message in proptest::collection::vec(any::<u8>(), 0..300), host in ".{0,80}") {
            let _ = answer(&message, &host, 7, A);
        }

        /// Answer of any bytes after a valid question.
        #[test]
        fn any_records_parse_or_are_refused(count: u16, rest in proptest::collection::vec(any::<u8>(), 0..200)) {
            let mut message = answered(&query("gw.example", 7, AAAA).unwrap(), 0x8180, &[]);
            message[6..8].copy_from_slice(&count.to_be_bytes());
            message.extend(rest);
            let found = answer(&message, "gw.example", 7, AAAA);
            prop_assert!(found.is_none_or(|found| found.len() <= 200 / 12 + 1));
        }

        #[test]
        fn any_resolv_conf_parses(text in "(nameserver )?.{0,60}") {
            prop_assert!(resolvers_of(&text, true).len() <= RESOLVERS);
            let _ = known_by(&text, "lan");
        }
    }
}
