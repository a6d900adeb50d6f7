//! Joining: the code that an admin hands out, the router's request and the coordinator's answer.

use crate::{
    Endpoint, InterfaceReport, NetworkId, NetworkName, NodeId, NodeName, PublicKey, WgPublicKey,
    record::record, text_serde,
};
use data_encoding::BASE64URL_NOPAD;
use ring::digest;
use serde::{Deserialize, Serialize};
use std::{fmt, str::FromStr};
use thiserror::Error;

/// Bytes of a join code's secret.
pub const SECRET_BYTES: usize = 16;
/// Longest join code, in characters.
pub const LONGEST_CODE: usize = 512;
const HEAD: &str = "gw1.";
const CHECK_BYTES: usize = 4;
const FIXED_BYTES: usize = 32 + 32 + SECRET_BYTES;

/// Join code: one string to paste that holds everything a router must trust. It names the coordinator's URL, the hash
/// of its CA, its record key and a secret, and the network, by which the router finds its owner's settings. Text form:
/// `gw1.` and base64url of CA hash, record key, secret, URL, `/`, network, checksum. `Debug` hides the secret.
#[derive(Clone, PartialEq, Eq)]
pub struct JoinCode {
    /// `https://host:port` of the coordinator.
    pub url: String,
    /// Network to join.
    pub network: NetworkName,
    /// SHA-256 of the coordinator's CA certificate (DER).
    pub ca: [u8; 32],
    /// Key that verifies the coordinator's records.
    pub record_key: PublicKey,
    /// Proof that the admin gave the code; the coordinator stores only its hash.
    pub secret: [u8; SECRET_BYTES],
}

impl fmt::Debug for JoinCode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "JoinCode({})", self.url)
    }
}

/// Reason why a text is no join code.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum CodeError {
    /// The text does not start with `gw1.`.
    #[error("not a join code: it starts with “gw1.” and is made with “gatewrt-coordinator code create”")]
    NotACode,
    /// Characters are missing, added or changed.
    #[error("the join code is damaged: copy it again, whole and on one line")]
    Damaged,
    /// The checksum is right, but the URL is not `https://host[:port]`.
    #[error("the join code names no https address of a coordinator and network: have a new one made")]
    Url,
}

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
        write!(f, "{HEAD}{}", BASE64URL_NOPAD.encode(&bytes))
    }
}

impl FromStr for JoinCode {
    type Err = CodeError;
    fn from_str(text: &str) -> Result<Self, CodeError> {
        let body = text.trim().strip_prefix(HEAD).ok_or(CodeError::NotACode)?;
        if body.len() > LONGEST_CODE {
            return Err(CodeError::Damaged);
        }
        let bytes = BASE64URL_NOPAD.decode(body.as_bytes()).map_err(|_| CodeError::Damaged)?;
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
    /// Hash of a join code's secret, as the coordinator stores it: SHA-256 in base64url.
    pub fn secret_hash(secret: &[u8]) -> String {
        BASE64URL_NOPAD.encode(digest::digest(&digest::SHA256, secret).as_ref())
    }

    /// Secret of the join code in base64url, as a [`JoinRequest`] carries it.
    pub fn secret_text(&self) -> String {
        BASE64URL_NOPAD.encode(&self.secret)
    }
}

/// Request of a router to `POST /v1/join`, as a JWS signed with the identity key in it. The signature proves possession
/// of the key, so no certificate request is needed.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct JoinRequest {
    /// Secret of the join code, in base64url.
    pub secret: String,
    /// WireGuard public key.
    pub key: WgPublicKey,
    /// Identity key of the node: signs this request and its reports, and is the key of its client certificate.
    pub identity: PublicKey,
    /// Preferred name; the coordinator adds a number when it is taken.
    pub name: NodeName,
    /// Model of the router.
    #[serde(default)]
    pub board: String,
    /// Version of the daemon.
    pub version: String,
    /// UDP port of WireGuard.
    pub port: u16,
    /// Endpoints of the node, so that its first member record is complete.
    #[serde(default)]
    pub endpoints: Vec<Endpoint>,
    /// Interfaces with addresses, as in a report.
    #[serde(default)]
    pub interfaces: Vec<InterfaceReport>,
}
record!(JoinRequest, Join);

impl fmt::Debug for JoinRequest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "JoinRequest({}, {})", self.name, self.key)
    }
}

/// Answer of the coordinator to a [`JoinRequest`], with all that a new node needs to take part. It holds no secret.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct JoinAnswer {
    /// Network.
    pub net: NetworkId,
    /// Id of the node.
    pub node: NodeId,
    /// Name of the network; the interface is `gw-<network>`.
    pub network: NetworkName,
    /// Name that the node got.
    pub name: NodeName,
    /// `host:port` of each MQTT broker, in order of preference.
    pub brokers: Vec<String>,
    /// Certificate of the CA, PEM; its hash is in the join code.
    pub ca: String,
    /// Client certificate of the node, PEM.
    pub certificate: String,
    /// Policy of the network, signed.
    pub policy: String,
    /// Assignment of the node, signed.
    pub assignment: String,
}

/// Error that the coordinator's HTTP API answers with (`application/problem+json`, RFC 9457).
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Problem {
    /// HTTP status.
    pub status: u16,
    /// Stable short name of the error: `code-used`, `overlap`, `not-found`, …
    #[serde(rename = "type")]
    pub kind: String,
    /// Error in one sentence.
    pub title: String,
    /// Advice to the person who asked.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub detail: String,
}

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
        fn join_code_survives_its_text(host in "[a-z0-9.-]{1,60}", port: u16, ca: [u8; 32], secret: [u8; 16]) {
            let code = JoinCode { ca, secret, ..code(&format!("https://{host}:{port}")) };
            prop_assert_eq!(code.to_string().parse(), Ok(code));
        }

        #[test]
        fn arbitrary_text_is_a_join_code_or_an_error(text in "(gw1\\.)?.*") {
            let _ = text.parse::<JoinCode>();
        }

        #[test]
        fn join_code_with_a_changed_character_is_damaged(place in 4usize..100, to in "[A-Za-z0-9_-]") {
            let text = code("https://gw.example:8443").to_string();
            let mut changed = text.clone();
            changed.replace_range(place..=place, &to);
            prop_assert!(changed == text || changed.parse::<JoinCode>() == Err(CodeError::Damaged));
        }
    }

    #[test]
    fn unusable_join_code_is_refused_with_its_reason() {
        assert_eq!("hello".parse::<JoinCode>(), Err(CodeError::NotACode));
        assert_eq!("gw1.".parse::<JoinCode>(), Err(CodeError::Damaged));
        for url in ["http://gw.example", "https://", "https://a/b", "https://a b"] {
            assert_eq!(code(url).to_string().parse::<JoinCode>(), Err(CodeError::Url), "{url}");
        }
    }

    #[test]
    fn debug_text_hides_the_secret() {
        assert_eq!(format!("{:?}", code("https://gw.example")), "JoinCode(https://gw.example)");
    }
}
