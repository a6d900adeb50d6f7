//! Hosts named by `host:port`.

/// Limit on the addresses of a host that are tried.
pub const MAX_ADDRESSES: usize = 4;

/// Splits `host:port` or `[v6]:port` into host, without brackets, and port; `None` when the text is neither.
pub fn split_host_port(text: &str) -> Option<(&str, u16)> {
    let (host, port) = text.rsplit_once(':')?;
    let bare = match host.strip_prefix('[') {
        Some(rest) => rest.strip_suffix(']')?,
        None if host.contains(':') => return None,
        None => host,
    };
    let port = port.parse().ok().filter(|port| *port != 0)?;
    (!bare.is_empty()).then_some((bare, port))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn text_splits_into_host_and_port() {
        for (text, parts) in [
            ("gw.example:8883", Some(("gw.example", 8883))),
            ("192.0.2.1:1", Some(("192.0.2.1", 1))),
            ("[2001:db8::1]:8883", Some(("2001:db8::1", 8883))),
            ("2001:db8::1", None),
            ("2001:db8::1:8883", None),
            ("gw.example", None),
            ("gw.example:0", None),
            ("gw.example:65536", None),
            (":1", None),
            ("[]:1", None),
            ("[::1:1", None),
            ("", None),
        ] {
            assert_eq!(split_host_port(text), parts, "{text}");
        }
    }
}
