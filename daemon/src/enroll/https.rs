//! One POST over HTTPS (RFC 9112), over a connection that has the bypass mark and the one TLS configuration of this program,
//! with errors that say which address failed how. It is for the coordinator's own server: an answer has a length or ends
//! with the connection, and never leads elsewhere.

use crate::{dns, socket, tls::TlsFailure};
use rustls::{ClientConfig, ClientConnection, StreamOwned, pki_types::ServerName};
use std::{
    io::{self, ErrorKind, Read, Write},
    net::{SocketAddr, TcpStream},
    sync::Arc,
    time::{Duration, Instant},
};

/// For each address of the host.
const CONNECT: Duration = Duration::from_secs(5);
/// From the resolved name to the last byte of the answer.
const TOTAL: Duration = Duration::from_secs(20);
const HTTPS: u16 = 443;
const LONGEST_ANSWER: usize = 64 * 1024;
const LONGEST_HEAD: usize = 8 * 1024;
const MOST_HEADERS: usize = 64;

/// An answer, whatever its status.
#[derive(Debug)]
pub(super) struct Reply {
    pub(super) status: u16,
    pub(super) body: Vec<u8>,
}

/// Why there is none.
#[derive(Debug)]
pub(super) enum Trouble {
    /// No address of the host takes a connection.
    NoConnection(Vec<(SocketAddr, io::Error)>),
    /// The name has no address, or the connection broke; in words.
    Broken(String),
    /// Out of time.
    Slow,
    /// Not to be trusted.
    Tls(TlsFailure),
    /// It speaks, but not HTTP as expected; in words.
    Nonsense(String),
}

/// Posts `body` to `url`.
pub(super) fn post(
    url: &str,
    content_type: &str,
    body: &[u8],
    tls: Arc<ClientConfig>,
    mark: u32,
) -> Result<Reply, Trouble> {
    let (host, port, path) =
        target(url).ok_or_else(|| Trouble::Broken(format!("“{url}” is no https address")))?;
    let name = ServerName::try_from(host.to_owned())
        .map_err(|_| Trouble::Broken(format!("“{host}” is neither a name nor an address")))?;
    let addrs = dns::resolve(host, port, mark).map_err(|error| Trouble::Broken(error.to_string()))?;
    let deadline = Instant::now() + TOTAL;
    let socket = connect(&addrs, mark, deadline)?;
    let session = ClientConnection::new(tls, name).map_err(|error| Trouble::Tls(TlsFailure::from(&error)))?;
    let mut stream = StreamOwned::new(session, socket);
    let host = if host.contains(':') { format!("[{host}]") } else { host.to_owned() };
    let request = format!(
        "POST {path} HTTP/1.1\r\nHost: {host}:{port}\r\nUser-Agent: gatewrt/{}\r\nConnection: close\r\n\
         Content-Type: {content_type}\r\nContent-Length: {}\r\n\r\n",
        env!("CARGO_PKG_VERSION"),
        body.len()
    );
    wait_at_most(&stream, deadline)?;
    stream.write_all(&[request.as_bytes(), body].concat()).and_then(|()| stream.flush()).map_err(explain)?;
    read(&mut stream, deadline)
}

/// Host without brackets, port and path of `https://host[:port]/path`.
fn target(url: &str) -> Option<(&str, u16, &str)> {
    let rest = url.strip_prefix("https://")?;
    let (authority, path) = rest.split_at(rest.find('/')?);
    let bare = || authority.trim_start_matches('[').trim_end_matches(']');
    let (host, port) = socket::split_host_port(authority).unwrap_or_else(|| (bare(), HTTPS));
    Some((host, port, path))
}

fn connect(addrs: &[SocketAddr], mark: u32, deadline: Instant) -> Result<TcpStream, Trouble> {
    let mut tried = Vec::new();
    for addr in addrs.iter().take(socket::MAX_ADDRESSES) {
        let left = deadline.saturating_duration_since(Instant::now()).min(CONNECT);
        if left.is_zero() {
            break;
        }
        match socket::connect(*addr, mark, left) {
            Ok(stream) => return Ok(stream),
            Err(error) => tried.push((*addr, error)),
        }
    }
    Err(Trouble::NoConnection(tried))
}

type Stream = StreamOwned<ClientConnection, TcpStream>;

/// The whole answer. It ends where its head says, else where the connection does.
fn read(stream: &mut Stream, deadline: Instant) -> Result<Reply, Trouble> {
    let (mut answer, mut part) = (Vec::new(), [0; 2048]);
    loop {
        let reply = parse(&answer)?;
        if let Some((status, body, Some(length))) = &reply
            && answer.len() - body >= *length
        {
            return Ok(Reply { status: *status, body: answer[*body..*body + length].to_vec() });
        }
        wait_at_most(stream, deadline)?;
        match stream.read(&mut part) {
            Ok(0) => {
                let (status, body, _) = reply
                    .filter(|(.., length)| length.is_none())
                    .ok_or_else(|| Trouble::Broken("the answer breaks off".to_owned()))?;
                return Ok(Reply { status, body: answer.split_off(body) });
            }
            Ok(read) => answer.extend_from_slice(&part[..read]),
            Err(error) => return Err(explain(error)),
        }
    }
}

/// Status, where the body begins, and its length as far as it is told; `None` while the head is not whole.
fn parse(answer: &[u8]) -> Result<Option<(u16, usize, Option<usize>)>, Trouble> {
    let nonsense = |what: &str| Trouble::Nonsense(what.to_owned());
    let mut headers = [httparse::EMPTY_HEADER; MOST_HEADERS];
    let mut head = httparse::Response::new(&mut headers);
    let begins = match head.parse(answer) {
        Ok(httparse::Status::Complete(begins)) => begins,
        Ok(httparse::Status::Partial) if answer.len() <= LONGEST_HEAD => return Ok(None),
        Ok(httparse::Status::Partial) => return Err(nonsense("the head of its answer has no end")),
        Err(error) => return Err(Trouble::Nonsense(format!("its answer is no HTTP: {error}"))),
    };
    let mut length = None;
    for header in head.headers.iter() {
        if header.name.eq_ignore_ascii_case("content-length") {
            let text = std::str::from_utf8(header.value).ok();
            let told = text.and_then(|text| text.trim().parse().ok());
            length = Some(told.ok_or_else(|| nonsense("its answer has no sound length"))?);
        } else if header.name.eq_ignore_ascii_case("transfer-encoding") {
            return Err(nonsense("its answer comes in pieces"));
        }
    }
    if length.unwrap_or(answer.len() - begins) > LONGEST_ANSWER {
        return Err(Trouble::Nonsense(format!("its answer is larger than {} KB", LONGEST_ANSWER / 1024)));
    }
    Ok(head.code.map(|status| (status, begins, length)))
}

/// For the next read or write.
fn wait_at_most(stream: &Stream, deadline: Instant) -> Result<(), Trouble> {
    let left = deadline.saturating_duration_since(Instant::now());
    if left.is_zero() {
        return Err(Trouble::Slow);
    }
    let socket = &stream.sock;
    socket.set_read_timeout(Some(left)).and_then(|()| socket.set_write_timeout(Some(left))).map_err(explain)
}

fn explain(error: io::Error) -> Trouble {
    match (error.kind(), TlsFailure::of(&error)) {
        (_, Some(failure)) => Trouble::Tls(failure),
        (ErrorKind::WouldBlock | ErrorKind::TimedOut, _) => Trouble::Slow,
        _ => Trouble::Broken(error.to_string()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn an_address_has_its_parts() {
        for (url, parts) in [
            ("https://gw.example/v1/join", Some(("gw.example", 443, "/v1/join"))),
            ("https://gw.example:8443/v1/join", Some(("gw.example", 8443, "/v1/join"))),
            ("https://[2001:db8::1]:8443/x", Some(("2001:db8::1", 8443, "/x"))),
            ("https://[2001:db8::1]/x", Some(("2001:db8::1", 443, "/x"))),
            ("http://gw.example/x", None),
            ("https://gw.example", None),
        ] {
            assert_eq!(target(url), parts);
        }
    }

    #[test]
    fn an_answer_is_read_as_far_as_it_came() {
        let parsed = |text: &str| parse(text.as_bytes()).map_err(|trouble| format!("{trouble:?}"));
        assert_eq!(parsed("HTTP/1.1 200 OK\r\nContent-Le"), Ok(None));
        assert_eq!(parsed("HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n{"), Ok(Some((200, 38, Some(2)))));
        assert_eq!(parsed("HTTP/1.0 404 x\r\n\r\n<html>"), Ok(Some((404, 18, None))));
        for (text, words) in [
            ("SSH-2.0-OpenSSH_9.2\r\n", "no HTTP"),
            ("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n", "in pieces"),
            ("HTTP/1.1 200 OK\r\nContent-Length: -1\r\n\r\n", "no sound length"),
            ("HTTP/1.1 200 OK\r\nContent-Length: 99999999\r\n\r\n", "larger than 64 KB"),
        ] {
            assert!(parsed(text).is_err_and(|error| error.contains(words)), "{text}");
        }
    }

    proptest! {
        #[test]
        fn any_answer_ends(bytes in proptest::collection::vec(any::<u8>(), 0..300)) {
            let _ = parse(&bytes);
            let _ = parse(&[b"HTTP/1.1 200 OK\r\n", bytes.as_slice()].concat());
        }
    }
}
