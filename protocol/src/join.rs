//! Joining: the code an admin hands out, the request a router makes with it, the answer it gets.

use crate::{
    Endpoint, InterfaceReport, NetworkId, NetworkName, NodeId, NodeName, PublicKey, WgPublicKey,
    base::BASE64URL, json_fields, record::record, text_serde,
};
use ring::digest;
use serde::{Deserialize, Serialize};
use std::{fmt, str::FromStr};

/// Bytes of a join code's secret.
pub const SECRET_BYTES: usize = 16;
/// The longest join code, in characters.
pub const LONGEST_CODE: usize = 512;
const HEAD: &str = "gw1.";
const CHECK_BYTES: usize = 4;
const FIXED_BYTES: usize = 32 + 32 + SECRET_BYTES;

/// One pasteable string that holds all a router must trust: where the coordinator is, the hash of its CA, its
/// record key, and a secret; and which network it is for, so that the router finds the settings its owner
/// made for it. Text form: `gw1.` and base64url of CA hash, record key, secret, URL, `/`, network, check.
/// It has no `Debug` that shows the secret.
#[derive(Clone, PartialEq, Eq)]
pub struct JoinCode {
    /// `https://host:port` of the coordinator.
    pub url: String,
    /// The network that it lets into.
    pub network: NetworkName,
    /// SHA-256 of the coordinator's CA certificate (DER).
    pub ca: [u8; 32],
    /// Verifies the coordinator's records.
    pub record_key: PublicKey,
    /// Proves that the admin gave the code; the coordinator keeps only its hash.
    pub secret: [u8; SECRET_BYTES],
}

impl fmt::Debug for JoinCode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "JoinCode({})", self.url)
    }
}

/// Why a text is no join code.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum CodeError {
    /// Does not start with `gw1.`.
    NotACode,
    /// Starts like one, but characters are missing, added or changed.
    Damaged,
    /// Sound, but the URL in it is not `https://host[:port]`.
    Url,
}

impl fmt::Display for CodeError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::NotACode => {
                "not a join code: it starts with “gw1.” and is made with “gatewrt-coordinator code create”"
            }
            Self::Damaged => "the join code is damaged: copy it again, whole and on one line",
            Self::Url => {
                "the join code names no https address of a coordinator and network: have a new one made"
            }
        })
    }
}
impl std::error::Error for CodeError {}

impl fmt::Display for JoinCode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut bytes = Vec::with_capacity(FIXED_BYTES + self.url.len() + CHECK_BYTES);
        bytes.extend_from_slice(&self.ca);
        bytes.extend_from_slice(&self.record_key.0);
        bytes.extend_from_slice(&self.secret);
        bytes.extend_from_slice(self.url.as_bytes());
        bytes.push(b'/');
        bytes.extend_from_slice(self.network.as_str().as_bytes());
        let check = check(&bytes);
        bytes.extend_from_slice(&check);
        write!(f, "{HEAD}{}", BASE64URL.encode(&bytes))
    }
}

impl FromStr for JoinCode {
    type Err = CodeError;
    fn from_str(text: &str) -> Result<Self, CodeError> {
        let body = text.trim().strip_prefix(HEAD).ok_or(CodeError::NotACode)?;
        if body.len() > LONGEST_CODE {
            return Err(CodeError::Damaged);
        }
        let bytes = BASE64URL.decode(body.as_bytes()).ok_or(CodeError::Damaged)?;
        let (bytes, given) = bytes.split_last_chunk::<CHECK_BYTES>().ok_or(CodeError::Damaged)?;
        if *given != check(bytes) {
            return Err(CodeError::Damaged);
        }
        let (ca, rest) = bytes.split_first_chunk::<32>().ok_or(CodeError::Damaged)?;
        let (record_key, rest) = rest.split_first_chunk::<32>().ok_or(CodeError::Damaged)?;
        let (secret, url) = rest.split_first_chunk::<SECRET_BYTES>().ok_or(CodeError::Damaged)?;
        let (url, network) =
            std::str::from_utf8(url).ok().and_then(|text| text.rsplit_once('/')).ok_or(CodeError::Url)?;
        let network = network.parse().ok().filter(|_| is_url(url)).ok_or(CodeError::Url)?;
        Ok(Self {
            url: url.to_owned(),
            network,
            ca: *ca,
            record_key: PublicKey(*record_key),
            secret: *secret,
        })
    }
}
text_serde!(JoinCode);

fn check(bytes: &[u8]) -> [u8; CHECK_BYTES] {
    *digest::digest(&digest::SHA256, bytes).as_ref().first_chunk().expect("SHA-256 has 32 bytes")
}

fn is_url(url: &str) -> bool {
    let plain = |b: u8| b.is_ascii_alphanumeric() || b"-._:[]".contains(&b);
    url.strip_prefix("https://").is_some_and(|host| !host.is_empty() && host.bytes().all(plain))
}

impl JoinCode {
    /// What the coordinator keeps of a secret: its SHA-256 in base64url.
    pub fn secret_hash(secret: &[u8]) -> String {
        BASE64URL.encode(digest::digest(&digest::SHA256, secret).as_ref())
    }

    /// The secret as it stands in a [`JoinRequest`].
    pub fn secret_text(&self) -> String {
        BASE64URL.encode(&self.secret)
    }
}

/// What a router sends to `POST /v1/join`, signed as a JWS with the identity key named in it: that proves
/// possession, so that no certificate request is needed.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct JoinRequest {
    /// The join code's secret, base64url.
    pub secret: String,
    /// WireGuard public key.
    pub key: WgPublicKey,
    /// The node's own key: signs this request and its reports, and is the key of its client certificate.
    pub identity: PublicKey,
    /// The name wanted; the coordinator adds a number when it is taken.
    pub name: NodeName,
    /// What the router is.
    #[serde(default)]
    pub board: String,
    /// Of the daemon.
    pub version: String,
    /// The UDP port WireGuard will listen on.
    pub port: u16,
    /// Where the node may be reached, so that its first member record is already whole.
    #[serde(default)]
    pub endpoints: Vec<Endpoint>,
    /// Interfaces with addresses, as in a report.
    #[serde(default)]
    pub interfaces: Vec<InterfaceReport>,
}
record!(JoinRequest, Join);
json_fields!(JoinRequest: secret, key, identity, name, version, port; board, endpoints, interfaces);

impl fmt::Debug for JoinRequest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "JoinRequest({}, {})", self.name, self.key)
    }
}

/// What the coordinator answers. Nothing in it is secret.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct JoinAnswer {
    /// Network.
    pub net: NetworkId,
    /// The id the node has from now on.
    pub node: NodeId,
    /// The network's name: the interface will be `gw-<network>`.
    pub network: NetworkName,
    /// The name the node got.
    pub name: NodeName,
    /// `host:port` of each MQTT broker, in order of preference.
    pub brokers: Vec<String>,
    /// The CA's certificate, PEM; its hash is in the join code.
    pub ca: String,
    /// The node's client certificate, PEM.
    pub certificate: String,
    /// The network's policy, signed.
    pub policy: String,
    /// The node's assignment, signed.
    pub assignment: String,
}
json_fields!(JoinAnswer: net, node, network, name, brokers, ca, certificate, policy, assignment);

/// An error answer of the HTTP API (`application/problem+json`, RFC 9457).
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Problem {
    /// HTTP status.
    pub status: u16,
    /// A short name of the kind of error, stable: `code-used`, `overlap`, `not-found`, …
    #[serde(rename = "type")]
    pub kind: String,
    /// What was wrong, in one sentence.
    pub title: String,
    /// What to do about it.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub detail: String,
}
json_fields!(Problem: status, kind "type", title; detail);

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn code(url: &str) -> JoinCode {
        let network = "home".parse().expect("a name");
        JoinCode { url: url.into(), network, ca: [1; 32], record_key: PublicKey([2; 32]), secret: [3; 16] }
    }

    proptest! {
        #[test]
        fn text_and_back(host in "[a-z0-9.-]{1,60}", port: u16, ca: [u8; 32], secret: [u8; 16]) {
            let code = JoinCode { ca, secret, ..code(&format!("https://{host}:{port}")) };
            prop_assert_eq!(code.to_string().parse(), Ok(code));
        }

        #[test]
        fn any_text_is_a_code_or_an_error(text in "(gw1\\.)?.*") {
            let _ = text.parse::<JoinCode>();
        }

        #[test]
        fn one_changed_character_is_noticed(place in 4usize..100, to in "[A-Za-z0-9_-]") {
            let text = code("https://gw.example:8443").to_string();
            let mut changed = text.clone();
            changed.replace_range(place..=place, &to);
            prop_assert!(changed == text || changed.parse::<JoinCode>() == Err(CodeError::Damaged));
        }
    }

    #[test]
    fn errors_say_which() {
        assert_eq!("hello".parse::<JoinCode>(), Err(CodeError::NotACode));
        assert_eq!("gw1.".parse::<JoinCode>(), Err(CodeError::Damaged));
        for url in ["http://gw.example", "https://", "https://a/b", "https://a b"] {
            assert_eq!(code(url).to_string().parse::<JoinCode>(), Err(CodeError::Url), "{url}");
        }
    }

    #[test]
    fn the_secret_is_in_no_debug_text() {
        assert_eq!(format!("{:?}", code("https://gw.example")), "JoinCode(https://gw.example)");
    }
}
